"""The HTTP server: uvicorn, made to answer slow and malformed clients, and to stop without losing a request."""

import asyncio
import os
import signal
import socket
from asyncio import Transport
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.admission import BUSY
from service.clock import Clock
from service.context import State, request_id_among
from service.live import Live
from service.problems import MEDIA_TYPE, Kind, render
from service.security.roles import access

_LOOKS = 16
"""Connections that are taken between two looks at those that there are."""
MOST_HEADER_BYTES = 64 * 1024
"""A request line and headers beyond this are refused; checked between reads from the socket, so somewhat more may pass."""


_ID = "the-id"
_BUSY_BODY = render(Kind.BUSY, BUSY, request_id=_ID).replace(b"%", b"%%")
_ID_LESS = len(_BUSY_BODY) - len(_ID)
_TURNED_AWAY = (
    f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: %d\r\n"
    "retry-after: 1\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\nx-request-id: %s\r\n%s\r\n"
) + _BUSY_BODY.decode().replace(_ID, "%s")


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on the time and the size of a request's headers, and problem documents for both.

    uvicorn itself waits for ever for headers that were begun, and keeps as many of them as are sent.
    """

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
        self._clock = Clock(self.loop, self.timeout_keep_alive, self._too_late)
        self._clock.start()
        if len(self.connections) > state["settings"].connections:
            self._refuse(Kind.BUSY, "Too many connections are open.", "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Put the clock away, and let nobody wait for what this connection asked."""
        self._clock.close()
        self._admission.end(self._begun)
        self._begun = 0
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and count what belongs to headers."""
        if not self._clock.running and not self._answering():
            # Blank lines, or the rest of a body that was refused: uvicorn has just stopped its own clock for them.
            self._clock.start()
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
        self._clock.start()

    def on_headers_complete(self) -> None:
        """Stop the clock; the body has one of its own. Where too many wait, a search is not even begun to be read."""
        self._in_headers = False
        self._clock.stop()
        if self._admission.crowded() and self._sheds():
            self._shedding = True
            self._clock.start()
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
            self._clock.stop()
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

    def _too_late(self) -> None:
        if self._answering():  # an earlier request on this connection comes first
            self._clock.start()
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
        self._admission.full()
        keep = self.parser.should_keep_alive() and not self.app_state["live"].draining
        self._meters.turned_away(Kind.BUSY.status)
        self.transport.write(_turned_away(request_id_among(self.headers), keep))
        if keep:
            self._clock.start()
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


def _turned_away(request_id: str, keep: bool) -> bytes:
    """The whole answer to a request that is not even read."""
    close = "" if keep else "connection: close\r\n"
    return (_TURNED_AWAY % (_ID_LESS + len(request_id), request_id, close, request_id)).encode("ascii")


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
        if self.started:
            await self._listen_more()

    async def _listen_more(self) -> None:
        """Have the loop look at each listening socket several times a turn: it takes one connection at each look.

        A turn may have a few searches in it, so that else, when many connect at a moment of much work, the last of them
        would wait for seconds before anybody hears of them, and be told nothing: health checks among them.
        """
        loop, config = asyncio.get_running_loop(), self.config

        def protocol() -> asyncio.Protocol:
            return GuardedHttp(config, self.server_state, self.lifespan.state)

        for server in tuple(self.servers):
            for one in server.sockets:
                for _ in range(_LOOKS - 1):
                    again = socket.socket(fileno=os.dup(one.fileno()))
                    self.servers.append(await loop.create_server(protocol, sock=again, backlog=config.backlog))

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.handle_exit(signal.SIGTERM, None)
