"""HTTP/1.1 on one connection: uvicorn's, made to answer slow, malformed and too many requests, and the hottest path itself."""

import re
from asyncio import Transport
from http import HTTPStatus
from typing import cast

from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.admission import BUSY
from service.body import too_slow
from service.clock import Clock
from service.context import State, request_id_among
from service.express import PATH, TARGET, Turn
from service.problems import MEDIA_TYPE, Kind, render
from service.security.headers import secured
from service.security.roles import access

_MOST_TURNS = 8
"""Requests of one read that are answered at once; those behind them wait until others had a look."""
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
MOST_HEADER_BYTES = 64 * 1024
"""A request line and headers beyond this are refused; checked between reads from the socket, so somewhat more may pass."""


_ID = "the-id"
_BUSY_BODY = render(Kind.BUSY, BUSY, request_id=_ID).replace(b"%", b"%%")
_ID_LESS = len(_BUSY_BODY) - len(_ID)
_SECURE = "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in secured(PATH))
_TURNED_AWAY = (
    f"HTTP/1.1 503 Service Unavailable\r\n%scontent-type: {MEDIA_TYPE}\r\ncontent-length: %d\r\n"
    f"retry-after: 1\r\n{_SECURE}x-request-id: %s\r\n%s\r\n"
) + _BUSY_BODY.decode().replace(_ID, "%s")


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on the time and the size of what comes, and on the time that an answer stays unread.

    uvicorn itself waits for ever for headers that were begun and for clients that do not read, and keeps as many headers
    and trailers as are sent.
    """

    _in_headers = False
    _in_body = False
    _fresh = False  # whether the headers that come began with what is being parsed
    _header_bytes = 0  # of a head that is not whole; of trailers, in a body
    _unread = 0
    _turns = 0
    _shedding = False
    _turn: Turn | None = None  # of a request whose body is still to come
    _running: RequestResponseCycle | None = None
    _defaults: tuple[object, bytes] = None, b""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # narrower, as uvicorn's is
        """Start the clock for the first request."""
        super().connection_made(transport)
        state = cast(State, self.app_state)
        self._admission, self._meters = state["live"].admission, state["live"].meters
        self._express = state.get("express")
        self._clock = Clock(self.loop, self.timeout_keep_alive, self._too_late)
        self._clock.start()
        if len(self.connections) > state["settings"].connections:
            self._refuse(Kind.BUSY, "Too many connections are open.", "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Put the clock away, and let nobody wait for what this connection asked."""
        self._clock.close()
        if self._turn is not None:
            self._turn.lost()
            self._turn = None
        if self._running is not None:  # uvicorn tells the last request alone
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and count what belongs to headers and trailers."""
        if not self._clock.running and not self._answering():
            # Blank lines, or the rest of a body that was refused: uvicorn has just stopped its own clock for them.
            self._clock.start()
        if (b"pgrade" in data or b"PGRADE" in data) and not self._in_body:
            data = _not_upgraded(data)
        self._turns = 0
        if self._in_body:
            self._header_bytes += len(data)  # until some of it proves to be body
        super().data_received(data)
        if self._in_headers:
            if self._fresh:
                self._header_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
                self._header_bytes += len(data) - 1 - data.rfind(b"\n")  # of a line that is not whole
                self._fresh = False
            else:
                self._header_bytes += len(data)
        if self._header_bytes > MOST_HEADER_BYTES and (self._in_headers or self._in_body) and not self.transport.is_closing():
            self._refuse(
                Kind.HEADERS, f"A request line and its headers may hold {MOST_HEADER_BYTES} bytes, and so may trailers."
            )

    def on_message_begin(self) -> None:
        """Start the clock for another request on this connection."""
        super().on_message_begin()
        self._in_headers = self._fresh = True
        self._header_bytes = 0
        self._clock.start()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header; trailers say nothing that is asked for here."""
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock; the body has one of its own. Where too many wait, a search is not even begun to be read."""
        self._in_headers = False
        self._header_bytes = 0
        self._clock.stop()
        if self.parser.should_upgrade():  # it would drop the body, and read what follows as another request
            self._refuse(Kind.MALFORMED, "Send the request without Upgrade: only HTTP/1.1 is spoken here.")
            return
        self._in_body = True
        hot = self.url == TARGET
        if self._admission.crowded(short=hot) and self._sheds():
            self._shedding = True
            self._clock.start()
            return
        self.scope["state"]["gone"] = self.transport.is_closing
        if not (hot and self._begins_turn()):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body, unless nobody will read it."""
        self._header_bytes = 0
        if self._turn is not None:
            self._turn.take(body)
        elif not self._shedding and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here: its turn comes, or it is turned away."""
        self._in_body = False
        if self._shedding:
            self._shedding = False
            self._clock.stop()
            self._shed()
        elif self._turn is not None:
            turn, self._turn = self._turn, None
            self._clock.stop()
            turn.whole()
        elif not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Start the clock for what the client does not read."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._clock.start()

    def resume_writing(self) -> None:
        """The client reads: whatever else it is waited for, the time for that begins."""
        super().resume_writing()
        if self._clock.running:
            self._clock.start()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def defaults(self) -> bytes:
        """As `Connection.defaults` promises."""
        headers = self.server_state.default_headers
        if self._defaults[0] is not headers:  # uvicorn makes new ones every second, for the date in them
            self._defaults = headers, b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._defaults[1]

    def answer(self, turn: Turn, document: bytes, keep: bool) -> None:
        """As `Connection.answer` promises."""
        if self._turn is turn:  # it was given up before it had come
            self._turn = None
        if self.transport.is_closing():
            return
        self.transport.write(document)
        if not keep:
            self.transport.close()
        elif self.pipeline:
            super().on_response_complete()  # begins the next
        else:
            self.server_state.total_requests += 1
            self._clock.start()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(Kind.MALFORMED, msg)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one whose answer is still being read has the time that reading takes."""
        self._unread = self.transport.get_write_buffer_size()
        if self._unread:
            self._clock.start()
        else:
            super().timeout_keep_alive_handler()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _begins_turn(self) -> bool:
        """Answer a request here, unless it is one that has to wait, or is too odd for it."""
        parser = self.parser
        if (
            self._express is None
            or self._turns >= _MOST_TURNS
            or self._answering()
            or self.expect_100_continue
            or self.flow.write_paused  # it sends, and does not read
            or self.transport.is_closing()
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
        ):
            return False
        scope = cast(Scope, self.scope)
        scope["method"], scope["path"] = "POST", PATH
        turn = self._express.turn(self, scope, self.transport.is_closing, parser.should_keep_alive())
        if turn is None:
            return False
        self._turns += 1
        self._turn = turn
        self.cycle = cast(RequestResponseCycle, turn)  # by which uvicorn sees that a request is being answered
        self._clock.start()
        return True

    def _too_late(self) -> None:
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if self._turn is not None:
            self._turn.fail(too_slow(self.timeout_keep_alive))
        elif self._unread:
            if self._unread < before:
                self._clock.start()
            else:
                self.transport.abort()
        elif self._answering():  # an earlier request on this connection comes first
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
        self._admission.turn_away()
        keep = self.parser.should_keep_alive() and not self.app_state["live"].draining
        self._meters.turned_away(Kind.BUSY.status, self.url.partition(b"?")[0].decode("ascii", "replace"))
        self.transport.write(_turned_away(self.defaults(), request_id_among(self.headers), keep))
        if keep:
            self._clock.start()
        else:
            self.transport.close()

    def _refuse(self, kind: Kind, detail: str, header: str = "") -> None:
        if self.pipeline or (self._answering() and not self._in_body):  # it would pass for an earlier request's answer
            self.transport.close()
            return
        body = render(kind, detail)
        self._meters.turned_away(kind.status)
        head = (
            f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\n{header}{_SECURE}connection: close\r\n"
        )
        self.transport.write(head.encode("ascii") + self.defaults() + b"\r\n" + body)
        self.transport.close()


def _turned_away(defaults: bytes, request_id: str, keep: bool) -> bytes:
    """The whole answer to a request that is not even read."""
    close = "" if keep else "connection: close\r\n"
    length = _ID_LESS + len(request_id)
    return (_TURNED_AWAY % (defaults.decode("latin-1"), length, request_id, close, request_id)).encode("latin-1")


def _not_upgraded(data: bytes) -> bytes:
    """A head without the offer of another protocol, which nobody has to take up; the parser would end the request there."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-offered:", head) + blank + rest
