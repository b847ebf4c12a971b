"""How often each key may ask: a bucket of tokens a key, shared by all workers.

A bucket is one number, the moment at which it will be full again, on a clock that all processes of a machine share (the
generic cell rate algorithm). It fills by itself, so nothing has to run. Workers keep these numbers in a file that they all
map. No lock is taken: two workers that take the last token in the same microsecond may both get it, and nothing else goes
wrong.

Keys may change while they are counted. So each bucket stands beside a tag, the first bytes of its key's hash: a key that
stays goes on with the bucket that it had, in every worker the same, whatever keys come and go beside it.
"""

import fcntl
import math
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.security.keys import MOST_KEYS, Key

BURST = 1.0
"""Seconds' worth of requests that a key which was idle may send at once."""
_BYTES = 8
_PLACES = MOST_KEYS + 1  # the first is for all without a key
_SIZE = 2 * _BYTES * _PLACES


class RateLimits:
    """A bucket for each key, and one for all who ask without a key."""

    def __init__(self, keys: Sequence[Key], rate: float | None, shared: int | None = None) -> None:
        """All buckets are full, but for those that others have used.

        Args:
            keys: those that are known; `know` changes them.
            rate: requests a second of a key that has no rate of its own, and of all without a key; None does not limit.
            shared: descriptor of a file from `shared_file`, whose numbers are shared with other processes.
        """
        self._rate = rate
        self._shared = shared
        whole = memoryview(mmap.mmap(-1 if shared is None else shared, _SIZE))
        self._tags, self._full_again = whole[: _SIZE // 2].cast("Q"), whole[_SIZE // 2 :].cast("d")
        self._none = 0.0 if rate is None else 1.0 / rate
        self.know(keys)

    def know(self, keys: Sequence[Key]) -> None:
        """Count the requests of these keys from now on, and of no others."""
        rates = {key.digest: self._rate if key.rate is None else key.rate for key in keys}
        places = self._placed(list(rates))
        self._buckets = {
            digest: (place, 1.0 / rate) for (digest, rate), place in zip(rates.items(), places, strict=True) if rate is not None
        }
        self.limited = bool(self._buckets) or self._rate is not None

    def take(self, key: Key | None, count: int = 1) -> float:
        """Take tokens from a key's bucket.

        Args:
            key: None for who asks without one.
            count: tokens; more than the bucket ever holds empty a full one.

        Returns:
            0.0 when they were taken; else nothing was, and so many seconds must pass before it is worth asking again.
        """
        return self._take(key, count, 0)

    def take_further(self, key: Key | None, count: int) -> float:
        """Take more tokens from a key's bucket for a request that has just been let in for one.

        Args:
            key: as for `take`.
            count: further tokens. All together are judged as if they had been taken at once.

        Returns:
            0.0 when they were taken; else only the one was, and so many seconds must pass before it is worth asking again.
        """
        return self._take(key, count, 1)

    def _take(self, key: Key | None, count: int, before: int) -> float:
        """As `take`, of a request for which so many tokens were taken a moment before."""
        place, cost = (0, self._none) if key is None else self._buckets.get(key.digest, (0, 0.0))
        if not cost:
            return 0.0
        now = time.monotonic()
        full_again = max(self._full_again[place], now)
        depth = max(BURST, cost)
        wait = full_again - now + min((before + count) * cost, depth) - depth
        if wait > before * cost:
            return wait
        self._full_again[place] = full_again + count * cost
        return 0.0

    def _placed(self, digests: Sequence[bytes]) -> list[int]:
        """Where the buckets of some keys are: where they were, or where no key that is known has its own."""
        with self._alone():
            tags = self._tags.tolist()
            held = {tag: place for place, tag in enumerate(tags) if tag and place}
            wanted = [_tag(digest) for digest in digests]
            kept = set(wanted)
            free = (place for place in range(1, _PLACES) if tags[place] not in kept)
            places = []
            for tag in wanted:
                if tag not in held:
                    held[tag] = place = next(free)
                    self._tags[place], self._full_again[place] = tag, 0.0
                places.append(held[tag])
            return places

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process changes whose the buckets are."""
        if self._shared is None:
            yield
            return
        fcntl.lockf(self._shared, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._shared, fcntl.LOCK_UN)


def shared_file() -> int:
    """Descriptor of a file in memory of full buckets, to be handed to other processes."""
    descriptor = os.memfd_create("recall-rates")
    os.ftruncate(descriptor, _SIZE)
    return descriptor


def whole_seconds(wait: float) -> str:
    """What Retry-After says for a wait in seconds."""
    return str(max(1, math.ceil(wait)))


def _tag(digest: bytes) -> int:
    return int.from_bytes(digest[:_BYTES], "big") or 1
