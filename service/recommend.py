"""POST /v1/recommend as a plain ASGI callable in front of the application.

A framework takes about as long to route a request as a search does, so these requests are answered before routing. The
application also declares the route, with its models (`service.routers.recommendations`), and gives the same answers.
"""

import asyncio
import time
from functools import partial

import orjson
from starlette.types import Receive, Scope, Send

from recall.serving.request import Request
from service.auth import Guard
from service.body import LARGE, parse_json, parse_request, read_body, render_answer
from service.errors import MEDIA_TYPE, Kind, problem_of, unforeseen
from service.keys import Role
from service.lists import answer_with_tokens
from service.live import Live
from service.logs import REQUEST_ID
from service.middleware import SECURE, finish, has_disconnected, request_id_among, timing_of
from service.schemas import RecommendRequest

PATH = "/v1/recommend"
_REJECTED = ((b"content-type", MEDIA_TYPE.encode()), (b"retry-after", b"1"), *SECURE)

Headers = list[tuple[bytes, bytes]]


class RecommendEndpoint:
    """Answers requests for recommendations."""

    def __init__(self, live: Live, guard: Guard) -> None:
        """Take the parts of an application."""
        self._live, self._guard = live, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not (self._live.draining or self._live.queue.has_room(short=True)):
            await self._reject(scope["headers"], send)
            return
        start, status, request_id = time.perf_counter(), Kind.GONE.status, request_id_among(scope["headers"])
        timings: dict[str, float] = {}
        REQUEST_ID.set(request_id)
        self._live.meters.in_flight.inc()
        try:
            further: Headers = []
            answered, media = 200, b"application/json"
            try:
                body = await self._answer(scope, receive, timings, request_id)
            except Exception as error:
                answered, media, further, body = _problem_parts(error, request_id)
            timings["total"] = time.perf_counter() - start
            if self._live.draining:
                further = [one for one in further if one[0] != b"connection"] + [(b"connection", b"close")]
            headers = [(b"content-type", media), (b"content-length", b"%d" % len(body)), *further, *SECURE]
            headers += ((b"x-request-id", request_id.encode()), (b"server-timing", timing_of(timings)))
            await send({"type": "http.response.start", "status": answered, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            status = answered
        finally:
            finish(self._live, "POST", PATH, status, time.perf_counter() - start, timings)

    async def _reject(self, given: Headers, send: Send) -> None:
        """Answer 503 without reading more of a request than the id in its headers.

        Under overload there are many rejections for each answer, so they must be cheap: no admission, no exception, no stages.
        """
        start, request_id = time.perf_counter(), request_id_among(given)
        body = orjson.dumps(self._live.queue.full().document(request_id))
        headers = [*_REJECTED, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode())]
        headers.append((b"server-timing", timing_of({"total": time.perf_counter() - start})))
        await send({"type": "http.response.start", "status": Kind.BUSY.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._live.meters.finished(PATH, Kind.BUSY.status, time.perf_counter() - start, {})

    async def _answer(self, scope: Scope, receive: Receive, timings: dict[str, float], request_id: str) -> bytes:
        """Return the body of an answer; any error becomes a problem document."""
        self._guard.admit(scope, Role.READ, searches=True)
        settings = self._live.settings
        body = await read_body(scope["headers"], receive, settings.max_body, settings.patience)
        start = time.perf_counter()
        large = len(body) > LARGE
        request = await asyncio.to_thread(_parsed, body) if large else _parsed(body)
        parsed = time.perf_counter()
        timings["parse"] = parsed - start
        caller = scope["state"]["caller"]._replace(gone=partial(has_disconnected, receive))
        if not isinstance(request, Request):
            document = await answer_with_tokens(self._live, request, caller, request_id, large=large)
            timings["recommend"] = time.perf_counter() - parsed
            return document
        answer = await self._live.recommend(request, caller, large=large)
        # writing an explained answer takes up to a tenth of a second
        write = partial(render_answer, answer, request_id)
        document = await asyncio.to_thread(write) if answer.contributions else write()
        timings["recommend"] = time.perf_counter() - parsed
        return document


def _problem_parts(error: Exception, request_id: str) -> tuple[int, bytes, Headers, bytes]:
    """Return status, media type, headers and body of the problem of an error.

    A separate function, because a local variable that outlives its `except` block makes a reference cycle of the error, its
    traceback and the frame; collecting 29 objects for each problem took a tenth of the CPU time.
    """
    problem = problem_of(error) or unforeseen(error, request_id, trace=True)
    headers = [(name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()]
    return problem.kind.status, MEDIA_TYPE.encode(), headers, orjson.dumps(problem.document(request_id))


def _parsed(body: bytes) -> Request | RecommendRequest:
    return parse_request(parse_json(body))
