"""Taking up keys that were changed while the service runs."""

import asyncio
import signal
import threading
from contextlib import suppress

from fastapi import Request

from recall.answer import Degraded
from service.metrics import Metrics
from service.security.guard import Guard
from service.security.known import TROUBLE, KnownKeys


class Renewal:
    """Keeps a guard to the keys that are known now. Runs on the event loop's thread, but for reading the file."""

    def __init__(self, keys: KnownKeys, guard: Guard, meters: Metrics) -> None:
        self._keys, self._guard, self._meters = keys, guard, meters
        self._woken = asyncio.Event()

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """What is said while the file of keys cannot be read."""
        return (Degraded("keys", TROUBLE),) if self._keys.troubled else ()

    async def follow(self, seconds: float) -> None:
        """Look at the file for ever: whenever so many seconds have passed, and at each SIGHUP."""
        if self._keys.file is not None and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._woken.set)
        while True:
            await self._look()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)
            self._woken.clear()

    async def _look(self) -> None:
        if self._keys.file is not None and await asyncio.to_thread(self._keys.look):
            self._guard.know(self._keys.ring)
        self._meters.keys.set(len(self._keys.ring))
        self._meters.keys_degraded.set(self._keys.troubled)


def degraded_keys(request: Request) -> tuple[Degraded, ...]:
    """What the application that answers this request says of its file of keys."""
    renewal: Renewal = request.app.state.renewal
    return renewal.degraded
