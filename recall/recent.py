"""The few things that were asked for last: they will be asked for again."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values by key, of which those that were put in first leave when there are too many. Threads may share it."""

    __slots__ = ("_most", "_values", "get")

    def __init__(self, most: int) -> None:
        """`most` is how many are kept, at least 1."""
        self._values: dict[Key, Value] = {}
        self._most = most
        self.get = self._values.get
        """The value of a key, or None."""

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, in place of the one that its key had."""
        values = self._values
        values.pop(key, None)  # so that it is the last to leave
        values[key] = value
        while len(values) > self._most:
            try:
                values.pop(next(iter(values)), None)
            except (RuntimeError, StopIteration):  # another thread has put one in, and makes room itself
                return
