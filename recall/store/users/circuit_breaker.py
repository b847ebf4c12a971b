"""Leaving alone for a moment what does not answer, so that nobody waits for it in vain."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Literal


class Breaker:
    """Closed while calls succeed; open after some failures in a row; half-open when it lets one call through to see.

    Time is that of a clock that never jumps. May be used from several threads at once.
    """

    def __init__(self, failures: int = 3, pause: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """A closed one.

        Args:
            failures: so many in a row open it.
            pause: seconds from there to the next call that is let through, and from one such call to another.
            clock: gives seconds.
        """
        self._failures, self._pause, self._clock = failures, pause, clock
        self._lock = Lock()
        self._failed = 0
        self._due = 0.0
        self._broken = self._trying = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """What it does with calls."""
        return "closed" if not self._broken else "half-open" if self._trying else "open"

    def admits(self) -> bool:
        """Whether to make a call now; `succeeded` or `failed` is to tell what came of it."""
        if not self._broken:
            return True
        with self._lock:
            now = self._clock()
            if self._broken and now < self._due:
                return False
            self._trying, self._due = self._broken, now + self._pause
            return True

    def succeeded(self) -> None:
        """A call was answered."""
        if self._failed:
            with self._lock:
                self._failed, self._broken, self._trying = 0, False, False

    def failed(self) -> None:
        """A call was not answered, or too late."""
        with self._lock:
            self._failed += 1
            if self._failed >= self._failures:
                self._broken, self._trying, self._due = True, False, self._clock() + self._pause
