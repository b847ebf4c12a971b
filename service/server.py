"""The HTTP server: uvicorn, made to take many connections at a time, and to stop without losing a request."""

import asyncio
import gc
import signal
from types import FrameType
from typing import Any

import uvicorn

from service.live import Live

_YOUNG = 20_000
"""Objects that come to be, and stay, between two looks of the collector: what a request makes is gone with it."""


class Server(uvicorn.Server):
    """Stops in two steps on SIGTERM: first it says that it is not ready and answers on, then it stops listening.

    Whoever sends requests here needs that time to notice: a load balancer asks /health/ready now and then, and a
    request that is on its way must find the socket open. SIGINT, and a second SIGTERM, skip the first step.
    """

    def __init__(self, config: uvicorn.Config, live: Live, drain: float, lifeline: int | None = None) -> None:
        """Nothing is opened yet; when `lifeline` can be read from, this process is to stop as SIGTERM would have it."""
        super().__init__(config)
        self._lifeline = lifeline
        self._live = live
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settling: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; called by the system between any two instructions of the main thread."""
        first = sig == signal.SIGTERM and not self._live.draining
        self._live.draining = True
        if first and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain, super().handle_exit, sig, None)
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: Any = None) -> None:
        """Remember the loop, which signals are handed to."""
        self._loop = asyncio.get_running_loop()
        if self._lifeline is not None:
            self._loop.add_reader(self._lifeline, self._orphaned, self._lifeline)
        await super().startup(sockets)
        if self.started:
            self._settling = self._loop.create_task(self._settle())

    async def _settle(self) -> None:
        """Spare the collector what stays for ever: a look at all that was imported and loaded stops every answer for 0.1 s."""
        await self._live.settled()
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.handle_exit(signal.SIGTERM, None)
