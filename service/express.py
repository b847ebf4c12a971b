"""POST /v1/recommend, answered where its bytes arrive: what a framework does for a request costs more than the answer itself.

It says the same as the way through the application (`service.routes.recommend`), but what is wrong with the headers only when
the body has come. The application documents the path, and takes what this lets pass: bodies that are too large or whose length
is not told beforehand, requests behind another one on their connection, other versions of HTTP, and clients that do not read.
"""

import random
import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from recall.answer import Recommendations
from service.admission import ANYBODY
from service.body import check_content, parse_json
from service.context import request_id_among, timing_of
from service.live import Live
from service.problems import MEDIA_TYPE, Kind, problem_of, unforeseen
from service.records import REQUEST_ID, log_request
from service.security.guard import Guard
from service.security.headers import secured
from service.settings import Settings
from service.wire import parse_request, render_answer

PATH = "/v1/recommend"
TARGET = PATH.encode()
"""The request target that is answered."""

_ANSWER = b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%bx-request-id: %b\r\nserver-timing: %b\r\n%b%b\r\n%b"
_JSON = b"application/json"
_LENGTH, _TYPE, _ENCODING, _CHUNKED = b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"
_LOOKED_AT = frozenset({_LENGTH, _TYPE, _ENCODING, _CHUNKED})


class Connection(Protocol):
    """What an answer is written to."""

    def defaults(self) -> bytes:
        """Header lines that every answer has."""

    def answer(self, turn: "Turn", document: bytes, keep: bool) -> None:
        """Write a whole answer, and close or go on."""


class Express:
    """Answers requests to one path."""

    def __init__(self, live: Live, settings: Settings, guard: Guard) -> None:
        """Of an application with these parts, which turns look at."""
        self.live = live
        self.settings = settings
        self.guard = guard
        self.secure = b"".join([b"%b: %b\r\n" % header for header in secured(PATH)])

    def turn(self, connection: Connection, scope: Scope, gone: Callable[[], bool], keep: bool) -> "Turn | None":
        """The turn of a request whose headers have come, or None when it is to go through the application.

        Args:
            connection: that it came on.
            scope: as an ASGI server makes it, with a method, a path, headers and a state.
            gone: whether nobody waits for the answer any more.
            keep: whether the connection is to stay open.
        """
        length, content, encoding = -1, b"", None
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:
                if name == _LENGTH and value.isdigit() and length < 0:
                    length = int(value[:20])
                elif name == _TYPE and not content:
                    content = value
                elif name == _ENCODING and encoding is None:
                    encoding = value
                else:
                    return None
        if not 0 <= length <= self.settings.max_body:
            return None
        return Turn(self, connection, scope, gone, keep, content, encoding or b"identity")


class _Unheard:
    """Stands where uvicorn wakes the task of a request, for one that has none."""

    def set(self) -> None:
        """Nobody hears it."""


class Turn:
    """One request, from its headers to its answer; it stands where uvicorn keeps what it knows of a request.

    Attributes:
        keep_alive: whether the connection is to stay open; uvicorn takes it back when it stops.
        response_complete: whether the request is over.
        disconnected: set by uvicorn when the connection is lost.
    """

    message_event = _Unheard()

    __slots__ = (
        *("_connection", "_content", "_express", "_gone", "_parsed", "_parts", "_problem", "_request_id", "_scope", "_start"),
        *("_timings", "disconnected", "keep_alive", "response_complete"),
    )

    def __init__(
        self,
        express: Express,
        connection: Connection,
        scope: Scope,
        gone: Callable[[], bool],
        keep: bool,
        content: bytes,
        encoding: bytes,
    ) -> None:
        """Let the request in, or remember why not; arguments as of `Express.turn`, and two of the request's headers."""
        self._start = self._parsed = time.perf_counter()
        self._express = express
        self._connection = connection
        self._scope = scope
        self._gone = gone
        self._parts: list[bytes] = []
        self._problem: Exception | None = None
        self._timings: dict[str, float] = {}
        self._request_id = request_id_among(scope["headers"])
        self.keep_alive = keep
        self.response_complete = self.disconnected = False
        express.live.meters.in_flight.add(1.0)
        try:
            express.guard.admit(scope)
            if content != _JSON or encoding != b"identity":
                check_content(content.decode("latin-1"), encoding.decode("latin-1"))
        except Exception as error:  # told when the rest of the request has come
            self._problem = error

    def take(self, part: bytes) -> None:
        """Take in a part of the body."""
        if self._problem is None:
            self._parts.append(part)

    def whole(self) -> None:
        """All of the request has come: answer it, now or in its turn."""
        if self._problem is not None:
            self.fail(self._problem)
            return
        begun = time.perf_counter()
        try:
            asked = parse_request(parse_json(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)))
            self._parsed = time.perf_counter()
            self._timings["parse"] = self._parsed - begun
            self._express.live.answer(asked, self._scope["state"].get("caller", ANYBODY), self._told)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Answer with the problem that an error makes, unless the request was answered."""
        token = REQUEST_ID.set(self._request_id)  # for what is logged
        try:
            problem = problem_of(error) or unforeseen(error, self._request_id, trace=True)
        finally:
            REQUEST_ID.reset(token)
        if self.response_complete:
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()]
        if (b"connection", b"close") in headers:
            headers.remove((b"connection", b"close"))
            self.keep_alive = False
        headers = [one for one in headers if one[0] != b"x-request-id"]
        self._finish(problem.kind.status, MEDIA_TYPE.encode(), problem.document(self._request_id), headers)

    def lost(self) -> None:
        """The connection was lost before the request had come whole."""
        self._over(Kind.GONE.status)

    def _told(self, answer: Recommendations | None, error: Exception | None) -> None:
        try:
            if answer is None:
                raise error or AssertionError("neither an answer nor an error")
            body = render_answer(answer, self._request_id)
        except Exception as wrong:
            self.fail(wrong)
            return
        self._timings["recommend"] = time.perf_counter() - self._parsed
        self._finish(200, _JSON, body, [])

    def _finish(self, status: int, media: bytes, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        if self._gone():
            self._over(Kind.GONE.status)
            self._connection.answer(self, b"", False)
            return
        keep = self.keep_alive and not self._express.live.draining
        self._timings["total"] = time.perf_counter() - self._start
        document = _ANSWER % (
            STATUS_LINE[status],
            self._connection.defaults(),
            media,
            len(body),
            b"".join([b"%b: %b\r\n" % header for header in headers]),
            self._request_id.encode(),
            timing_of(self._timings),
            self._express.secure,
            b"" if keep else b"connection: close\r\n",
            body,
        )
        self._over(status)
        self._connection.answer(self, document, keep)

    def _over(self, status: int) -> None:
        self.response_complete = True
        live, spent = self._express.live, time.perf_counter() - self._start
        live.meters.in_flight.add(-1.0)
        live.meters.finished(self._scope, status, spent, self._timings)
        share = self._express.settings.access
        if share and random.random() < share:  # noqa: S311 - a sample
            token = REQUEST_ID.set(self._request_id)
            log_request("POST", PATH, status, spent)
            REQUEST_ID.reset(token)
