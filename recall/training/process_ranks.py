"""Ranks as processes, which torchrun or `recall train --ranks` starts, and what becomes of the others when one fails.

A rank that fails says why, and the store that torch.distributed connects the ranks with keeps that it did: the others then end
without a word. Of a rank that was killed, or hangs, nothing is kept, so that the others name it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous
from typing_extensions import override

from recall.errors import TrainingError, TrainingInterruptedError
from recall.training.ranks import ALONE, RankEndedError, RankLostError, Ranks

WAITING = 120.0
"""Seconds that a rank waits for another in a sum; gloo's own limit is half an hour."""
_ALONE = timedelta(hours=24)  # that rank 0 may take for validation, a checkpoint, or publishing
_OTHERS = 3.0  # seconds in which the others say that they lost a rank, too


class ProcessRanks(Ranks):
    """One of several processes that are connected by gloo.

    Attributes:
        bytes: summed so far.
    """

    def __init__(self, store: distributed.Store, rank: int, count: int, waiting: float) -> None:
        """Connect to the others.

        Args:
            store: that the processes share.
            rank: number of this one.
            count: how many there are.
            waiting: seconds in which each sum must be complete.
        """
        self._store, self.rank, self.count, self.bytes = store, rank, count, 0
        self._waiting = waiting
        limit = timedelta(seconds=waiting)
        distributed.init_process_group("gloo", timeout=limit, world_size=count, rank=rank, store=store)
        self._patient = distributed.new_group(timeout=_ALONE)

    @override
    def lines(self, sweeps: int) -> tuple[str, ...]:
        return (f"{self.count} ranks, {self.bytes / 1e6 / max(sweeps, 1):,.1f} MB summed a sweep",)

    @override
    def add_up(self, *sums: npt.NDArray[Any]) -> None:
        for array in sums:
            if array.size:
                whole = np.ascontiguousarray(array)
                self._call(lambda whole=whole: distributed.all_reduce(torch.from_numpy(whole)))
                if whole is not array:
                    array[...] = whole.reshape(array.shape)
                self.bytes += whole.nbytes

    @override
    def told(self, text: str) -> str:
        sent = torch.tensor(list(text.encode()), dtype=torch.uint8)
        size = torch.tensor([len(sent)])
        self._call(lambda: distributed.broadcast(size, 0, group=self._patient))
        if self.rank:
            sent = torch.empty(int(size), dtype=torch.uint8)
        if len(sent):
            self._call(lambda: distributed.broadcast(sent, 0, group=self._patient))
        return bytes(sent.tolist()).decode()

    def say(self, error: BaseException) -> bool:
        """Return whether this rank is the one to report an error, and keep for the others that it is reported.

        Args:
            error: that ends this rank.
        """
        if isinstance(error, RankEndedError):
            return False
        stopped = isinstance(error, TrainingInterruptedError | KeyboardInterrupt)
        with suppress(RuntimeError):  # the process with the store may be gone
            first = self._store.add(f"said/{crc32(str(error).encode())}", 1) == 1
            self._store.set(f"failed/{self.rank}", "stopped" if stopped and self.rank else "said")
            return first and not (stopped and self.rank)
        return True

    def _call(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except RuntimeError as error:
            raise self._lost("imed out" in str(error)) from None

    def _lost(self, late: bool) -> TrainingError:
        """Return the error of losing other ranks.

        Args:
            late: whether they did not answer in time; otherwise their connection was closed.
        """
        others = [rank for rank in range(self.count) if rank != self.rank]
        found: dict[int, str] = {}
        until = time.monotonic() + _OTHERS
        with suppress(RuntimeError):
            self._store.set(f"failed/{self.rank}", "lost")
            while len(found) < len(others) and time.monotonic() < until:
                for rank in others:
                    if rank not in found and self._store.check([f"failed/{rank}"]):
                        found[rank] = self._store.get(f"failed/{rank}").decode()
                if "said" in found.values():
                    return RankEndedError("another rank reported an error")
                time.sleep(0.05)
        stopped = [rank for rank, how in found.items() if how == "stopped"]
        gone = stopped or [rank for rank in others if rank not in found] or others
        named = f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
        if stopped:
            return RankLostError(f"{named} was stopped by a signal")
        return RankLostError(f"{named} did not answer within {self._waiting:g} s" if late else f"{named} ended without a word")


@contextmanager
def connected(waiting: float = WAITING) -> Iterator[Ranks]:
    """Connect to the other ranks, if this process was started as one of several.

    Args:
        waiting: seconds in which each sum must be complete.

    Raises:
        TrainingError: Another rank did not start.
        SystemExit: Another rank reports the error.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    limit = timedelta(seconds=waiting)
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=limit)))
        store.set_timeout(limit)
        ranks = ProcessRanks(store, rank, count, waiting)
    except (RuntimeError, ValueError) as error:
        hint = "Start all ranks by torchrun, on machines that reach each other"
        raise TrainingError("the ranks could not be connected", why=str(error).splitlines()[0], hint=hint) from None
    try:
        yield ranks
        distributed.destroy_process_group()
    except BaseException as error:
        if ranks.say(error):
            raise
        raise SystemExit(getattr(error, "exit_code", 1)) from None
