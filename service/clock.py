"""A clock for each connection, cheap to start and stop: both happen with every request."""

import asyncio
import math
from collections.abc import Callable


class Clock:
    """Calls once when a time has passed, unless it is stopped or started anew before.

    The loop's own timer is left to run out and then looks at what is wanted by now, so that a request costs no timer.
    """

    __slots__ = ("_act", "_at", "_loop", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[], None]) -> None:
        """The clock stands still."""
        self._loop = loop
        self._seconds = seconds
        self._act = act
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """Whether it has been started, and neither stopped since nor has its time passed."""
        return self._at < math.inf

    def start(self) -> None:
        """Begin anew."""
        self._at = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._at, self._look)

    def stop(self) -> None:
        """Stand still."""
        self._at = math.inf

    def close(self) -> None:
        """Stand still for ever, and hold nothing."""
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._at < math.inf:
            self._timer = self._loop.call_at(self._at, self._look)
        elif self._at < math.inf:
            self._at = math.inf
            self._act()
