"""POST /v1/recommend as a plain ASGI callable in front of the application.

A framework takes about as long to route a request as a search does, so these requests are answered before routing. The
application also declares the route, with its models (`service.routers.recommendations`), and gives the same answers.
"""

import asyncio
import time

import orjson
from starlette.types import Receive, Scope, Send

from recall.serving.request import Request
from service.auth import Guard
from service.body import LARGE, parse_json, parse_request, read_body
from service.errors import MEDIA_TYPE, Kind, problem_response
from service.keys import Role
from service.lists import answer_request
from service.live import Live
from service.middleware import SECURE, begin, finish, measured
from service.schemas import RecommendRequest

PATH = "/v1/recommend"
_JSON = (b"content-type", b"application/json")
_REJECTED = ((b"content-type", MEDIA_TYPE.encode()), (b"retry-after", b"1"), *SECURE)


class RecommendEndpoint:
    """Answers requests for recommendations."""

    def __init__(self, live: Live, guard: Guard) -> None:
        """Take the parts of an application."""
        self._live, self._guard = live, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        start = time.perf_counter()
        request_id, timings = begin(scope)
        if not (self._live.draining or self._live.queue.has_room(short=True)):
            await self._reject(request_id, start, send)
            return
        status = Kind.GONE.status
        self._live.in_flight += 1
        try:
            try:
                answered, body = 200, await self._answer(scope, receive, timings, request_id)
                headers = [_JSON, (b"content-length", b"%d" % len(body))]
            except Exception as error:
                answered, headers, body = _problem(error, request_id)
            total = time.perf_counter() - start
            if self._live.draining:
                headers = [one for one in headers if one[0] != b"connection"] + [(b"connection", b"close")]
            headers += (*SECURE, *measured(request_id, timings, total))
            await send({"type": "http.response.start", "status": answered, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            status = answered
        finally:
            finish(self._live, "POST", PATH, status, time.perf_counter() - start, timings)

    async def _reject(self, request_id: str, start: float, send: Send) -> None:
        """Answer 503 without reading more of a request than its headers.

        Under overload there are many rejections for each answer, so they must be cheap: no admission, no exception, no stages.
        """
        body = orjson.dumps(self._live.queue.full().document(request_id))
        headers = [*_REJECTED, (b"content-length", b"%d" % len(body))]
        headers += measured(request_id, {}, time.perf_counter() - start)
        await send({"type": "http.response.start", "status": Kind.BUSY.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._live.meters.finished(PATH, Kind.BUSY.status, time.perf_counter() - start, {})

    async def _answer(self, scope: Scope, receive: Receive, timings: dict[str, float], request_id: str) -> bytes:
        """Return the body of an answer; any error becomes a problem document."""
        self._guard.admit(scope, receive, Role.READ, searches=True)
        settings = self._live.settings
        body = await read_body(scope["state"]["headers"], receive, settings.max_body, settings.patience)
        start = time.perf_counter()
        large = len(body) > LARGE
        request = await asyncio.to_thread(_parsed, body) if large else _parsed(body)
        parsed = time.perf_counter()
        timings["parse"] = parsed - start
        document = await answer_request(self._live, request, scope["state"]["caller"], request_id, large=large)
        timings["recommend"] = time.perf_counter() - parsed
        return document


def _problem(error: Exception, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return the status, the headers and the body of the problem of an error.

    A separate function, because a local variable that outlives its `except` block makes a reference cycle of the error, its
    traceback and the frame; collecting 29 objects for each problem took a tenth of the CPU time.
    """
    response = problem_response(error, request_id)
    return response.status_code, response.raw_headers, bytes(response.body)


def _parsed(body: bytes) -> Request | RecommendRequest:
    return parse_request(parse_json(body))
