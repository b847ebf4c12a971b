"""The HTTP server: uvicorn, made to answer slow and malformed clients, and to stop without losing a request."""

import asyncio
import signal
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.context import State, request_id_among
from service.live import Live
from service.problems import MEDIA_TYPE, Kind, render
from service.security.roles import access

MOST_HEADER_BYTES = 64 * 1024
"""A request line and headers beyond this are refused; checked between reads from the socket, so somewhat more may pass."""


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on the time and the size of a request's headers, and problem documents for both.

    uvicorn itself waits for ever for headers that were begun, and keeps as many of them as are sent.
    """

    _late: TimerHandle | None = None
    _in_headers = False
    _header_bytes = 0
    _searching = False
    _shedding = False
    _begun = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # narrower, as uvicorn's is
        """Start the clock for the first request."""
        super().connection_made(transport)
        state = cast(State, self.app_state)
        self._admission, self._meters = state["live"].admission, state["live"].meters
        self._start_clock()
        if len(self.connections) > state["settings"].connections:
            self._refuse(Kind.BUSY, "Too many connections are open.", "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and let nobody wait for what this connection asked."""
        self._stop_clock()
        self._admission.end(self._begun)
        self._begun = 0
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and count what belongs to headers."""
        if self._late is None and not self._answering():
            # Blank lines, or the rest of a body that was refused: uvicorn has just stopped its own clock for them.
            self._start_clock()
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
                self._refuse(Kind.HEADERS, f"A request line and its headers may hold {MOST_HEADER_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """Start the clock for another request on this connection."""
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        self._start_clock()

    def on_headers_complete(self) -> None:
        """Stop the clock; the body has one of its own. Where too many wait, a search is not even begun to be read."""
        self._in_headers = False
        self._stop_clock()
        if self._admission.crowded() and self._sheds():
            self._shedding = True
            self._start_clock()
            return
        self.scope["state"]["gone"] = self.transport.is_closing
        super().on_headers_complete()
        self._searching = access(self.scope["method"], self.scope["path"]).searches

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body, unless nobody will read it."""
        if not self._shedding:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here; a search has begun with that, or is turned away."""
        if self._shedding:
            self._shedding = False
            self._stop_clock()
            self._shed()
            return
        if self._searching:
            self._searching = False
            self._begun += 1
            self._admission.begin()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Make room for another search."""
        if self._begun:
            self._begun -= 1
            self._admission.end()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(Kind.MALFORMED, msg)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, and drop what a client that stopped reading has left unread."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_clock(self) -> None:
        self._stop_clock()
        self._late = self.loop.call_later(self.timeout_keep_alive, self._too_late)

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        if self._answering():  # an earlier request on this connection comes first
            self._start_clock()
        elif self._in_headers:
            self._refuse(Kind.TOO_SLOW, f"The headers must arrive within {self.timeout_keep_alive:g} s.")
        else:
            self.transport.close()

    def _sheds(self) -> bool:
        """Whether the request whose headers have come can be turned away without asking the application."""
        if self._answering() or self.expect_100_continue:  # answers keep their order, and that client sends no body yet
            return False
        path, _, _ = self.url.partition(b"?")
        return access(self.parser.get_method().decode("ascii"), path.decode("ascii", "replace")).searches

    def _shed(self) -> None:
        """Turn a request away with as little work as it takes: others wait for the time that this needs."""
        if self.flow.write_paused:  # it sends, and does not read
            self.transport.abort()
            return
        request_id = request_id_among(self.headers)
        keep = self.parser.should_keep_alive() and not self.app_state["live"].draining
        body = render(Kind.BUSY, self._admission.full().detail, request_id=request_id)
        self._meters.turned_away(Kind.BUSY.status)
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"retry-after: 1\r\nx-request-id: {request_id}\r\n{'' if keep else 'connection: close' + chr(13) + chr(10)}\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        if keep:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        else:
            self.transport.close()

    def _refuse(self, kind: Kind, detail: str, header: str = "") -> None:
        body = render(kind, detail)
        self._meters.turned_away(kind.status)
        head = (
            f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\n{header}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()


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

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.handle_exit(signal.SIGTERM, None)
