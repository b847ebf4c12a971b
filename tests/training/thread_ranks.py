"""Ranks on threads, with real sums."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from recall.training.ranks import Ranks


class Meeting:
    """The all-reduce: ranks add their sums and wait for each other."""

    def __init__(self, count: int) -> None:
        self.brought: list[tuple[np.ndarray, ...]] = [()] * count
        self.data = b""
        self.barrier = threading.Barrier(count, timeout=60)
        self.sums = 0


class ThreadRanks(Ranks):
    """One of several ranks, each on its own thread."""

    def __init__(self, meeting: Meeting, rank: int, count: int) -> None:
        self._meeting, self.rank, self.count = meeting, rank, count

    def add_up(self, *sums: np.ndarray) -> None:
        self._meeting.brought[self.rank] = tuple(array.copy() for array in sums)
        self._meeting.barrier.wait()
        brought = list(self._meeting.brought)
        for number, array in enumerate(sums):
            array[...] = sum(parts[number] for parts in brought)
        self._meeting.sums += self.rank == 0
        self._meeting.barrier.wait()

    def copied(self, data: bytes) -> bytes:
        if self.rank == 0:
            self._meeting.data = data
        self._meeting.barrier.wait()
        found = self._meeting.data
        self._meeting.barrier.wait()
        return found


def on_threads(count: int, run: Callable[[Ranks], object]) -> list:
    """Run a function as each of several ranks; return the result of each."""
    meeting = Meeting(count)

    def of_rank(rank: int) -> object:
        try:
            return run(ThreadRanks(meeting, rank, count))
        except BaseException:
            meeting.barrier.abort()  # the others would wait for it
            raise

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(of_rank, rank) for rank in range(count)]
    failed = [error for one in running if (error := one.exception()) is not None]
    for error in failed:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert meeting.sums > 0
    return [one.result() for one in running]
