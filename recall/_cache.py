"""The one cache: thread-safe LRU."""

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from threading import RLock
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """LRU cache bounded by number of entries and by bytes. Thread-safe."""

    __slots__ = ("_kept", "_lock", "_most", "_most_bytes", "_size_of")

    def __init__(
        self, most: int, most_bytes: float = inf, size_of: Callable[[Key, Value], int] = lambda _key, _value: 0
    ) -> None:
        """Create an empty cache.

        Args:
            most: maximum number of entries, at least 1.
            most_bytes: maximum bytes of all entries together; the newest entry is kept regardless of its size.
            size_of: bytes of one entry. Entries may grow: all are weighed at each `put`.
        """
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._most, self._most_bytes, self._size_of = most, most_bytes, size_of
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Key, value: Value) -> None:
        """Insert a value, or replace the one stored under the key.

        Args:
            key: hashable.
            value: anything but None.
        """
        with self._lock:
            self._kept[key] = value
            self._trim(key)

    def setdefault(self, key: Key, value: Value) -> Value:
        """Insert a value unless the key has one, and return the stored value.

        Args:
            key: hashable.
            value: anything but None.
        """
        with self._lock:
            found = self._kept.setdefault(key, value)
            self._trim(key)
            return found

    def discard(self, key: Key) -> None:
        """Remove a key, unless another thread holds the lock.

        It never waits, so a finalizer may call it on any thread.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._kept.pop(key, None)
            finally:
                self._lock.release()

    def _trim(self, last: Key) -> None:
        self._kept.move_to_end(last)
        weight = sum(self._size_of(*entry) for entry in self._kept.items()) if self._most_bytes < inf else 0
        while len(self._kept) > 1 and (len(self._kept) > self._most or weight > self._most_bytes):
            weight -= self._size_of(*self._kept.popitem(last=False))
