"""Threads that share out the parts of a sum."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


class Workers:
    """Maps a function over parts, several at a time, and gives the results in the order of the parts.

    How the work is cut never depends on the number of threads, so neither do the bits of what is added up from it.
    """

    def __init__(self, threads: int) -> None:
        self._ahead = 4 * threads  # results that may wait: enough to keep every thread busy, few enough to bound memory
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="solver") if threads > 1 else None

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
        """function(part) for every part, in their order."""
        if self._pool is None:
            yield from map(function, parts)
            return
        waiting: deque[Future[Result]] = deque()
        for part in parts:
            if len(waiting) == self._ahead:
                yield waiting.popleft().result()
            waiting.append(self._pool.submit(function, part))
        while waiting:
            yield waiting.popleft().result()

    def run(self, function: Callable[[Part], None], parts: Sequence[Part]) -> None:
        """function(part) for every part."""
        for _ in self.map(function, parts):
            pass
