"""Requests a second of each key, counted by each worker for itself: a worker grants its share of the rate."""

import math
import time
from collections.abc import Sequence
from fractions import Fraction

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.security.keys import Key

_LONGEST_WINDOW = 4
"""Seconds in which a broken rate is counted: a shorter window rounds more, a longer one allows longer bursts."""


class RateLimits:
    """A limit for each key, and one for all who send none.

    Attributes:
        limited: whether anyone's requests are limited.
    """

    def __init__(self, keys: Sequence[Key], rate: float | None, workers: int = 1) -> None:
        """Grant everything that the rates allow.

        Args:
            keys: those that are known; `know` changes them.
            rate: requests a second of a key without a rate of its own, and of all without a key; None does not limit.
            workers: processes among which each rate is shared.
        """
        self._rate, self._workers = rate, workers
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self.know(keys)

    def know(self, keys: Sequence[Key]) -> None:
        """Count the requests of these keys from now on, and of no others."""
        rates = {key.digest: self._rate if key.rate is None else key.rate for key in keys} | {b"": self._rate}
        self._items = {digest: self._item(rate) for digest, rate in rates.items() if rate is not None}
        self.limited = bool(self._items)

    def take(self, key: Key | None, count: int = 1) -> float:
        """Count requests of a key.

        Args:
            key: None for who asks without one.
            count: requests; more than the limit count as many as that.

        Returns:
            0.0 when they may be sent; else none was counted, and so many seconds must pass before it is worth asking again.
        """
        digest = b"" if key is None else key.digest
        item = self._items.get(digest)
        if item is None or self._limiter.hit(item, digest.hex(), cost=min(count, item.amount)):
            return 0.0
        return max(0.001, self._limiter.get_window_stats(item, digest.hex()).reset_time - time.time())

    def _item(self, rate: float) -> RateLimitItem:
        share = rate / self._workers
        if share < 1:
            return RateLimitItemPerSecond(1, math.ceil(1 / share))
        whole = Fraction(share).limit_denominator(_LONGEST_WINDOW)
        return RateLimitItemPerSecond(whole.numerator, whole.denominator)


def whole_seconds(wait: float) -> str:
    """Return what Retry-After says for a wait in seconds."""
    return str(max(1, math.ceil(wait)))
