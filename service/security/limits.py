"""How often each key may ask: a bucket of tokens a key, shared by all workers.

A bucket is one number, the moment at which it will be full again, on a clock that all processes of a machine share (the
generic cell rate algorithm). It fills by itself, so nothing has to run. Workers keep these numbers in a file that they all
map. No lock is taken: two workers that take the last token in the same microsecond may both get it, and nothing else goes
wrong.
"""

import math
import mmap
import os
import time
from collections.abc import Sequence

from service.security.keys import Key

BURST = 1.0
"""Seconds' worth of requests that a key which was idle may send at once."""
_BYTES = 8


class RateLimits:
    """A bucket for each key, and one for all who ask without a key."""

    def __init__(self, keys: Sequence[Key], rate: float | None, shared: int | None = None) -> None:
        """All buckets are full.

        Args:
            keys: with numbers from 0.
            rate: requests a second of a key that has no rate of its own, and of all without a key; None does not limit.
            shared: descriptor of a file from `shared_file`, whose numbers are shared with other processes.
        """
        rates = [*((rate if key.rate is None else key.rate) for key in keys), rate]
        self.limited = any(one is not None for one in rates)
        self._costs = [0.0 if one is None else 1.0 / one for one in rates]
        size = _BYTES * len(rates)
        self._full_again = memoryview(mmap.mmap(-1 if shared is None else shared, size)).cast("d")

    def take(self, key: Key | None, count: int = 1) -> float:
        """Take tokens from a key's bucket.

        Args:
            key: None for who asks without one.
            count: tokens; more than the bucket ever holds empty a full one.

        Returns:
            0.0 when they were taken; else nothing was, and so many seconds must pass before it is worth asking again.
        """
        place = -1 if key is None else key.number
        cost = self._costs[place]
        if not cost:
            return 0.0
        now = time.monotonic()
        full_again = max(self._full_again[place], now)
        depth = max(BURST, cost)
        wait = full_again - now + min(count * cost, depth) - depth
        if wait > 0:
            return wait
        self._full_again[place] = full_again + count * cost
        return 0.0


def shared_file(keys: Sequence[Key]) -> int:
    """Descriptor of a file in memory of full buckets for `keys`, to be handed to other processes."""
    descriptor = os.memfd_create("recall-rates")
    os.ftruncate(descriptor, _BYTES * (len(keys) + 1))
    return descriptor


def whole_seconds(wait: float) -> str:
    """What Retry-After says for a wait in seconds."""
    return str(max(1, math.ceil(wait)))
