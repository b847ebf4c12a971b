"""Circuit breaker for calls to a server."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Literal


class Breaker:
    """Circuit breaker: closed, open after failures, half-open to try one call.

    With it, requests do not wait for a server that does not answer. Thread-safe.

    Attributes:
        clock: monotonic clock, in seconds.
    """

    def __init__(self, failures: int = 3, pause: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a closed breaker.

        Args:
            failures: number of consecutive failures that open it.
            pause: seconds until the next call is admitted, and between calls while it is open.
            clock: returns seconds.
        """
        self._failures, self._pause, self.clock = failures, pause, clock
        self._lock = Lock()
        self._failed = 0
        self._due = 0.0
        self._broken = self._trying = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """State of the breaker."""
        return "closed" if not self._broken else "half-open" if self._trying else "open"

    def admits(self) -> bool:
        """Return whether to make a call now; `succeeded` or `failed` reports its outcome."""
        if not self._broken:
            return True
        with self._lock:
            now = self.clock()
            if self._broken and now < self._due:
                return False
            self._trying, self._due = self._broken, now + self._pause
            return True

    def succeeded(self) -> None:
        """Record a call that was answered."""
        if self._failed:
            with self._lock:
                self._failed, self._broken, self._trying = 0, False, False

    def failed(self) -> None:
        """Record a call that was not answered in time."""
        with self._lock:
            self._failed += 1
            if self._failed >= self._failures:
                self._broken, self._trying, self._due = True, False, self.clock() + self._pause
