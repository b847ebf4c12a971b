"""POST /v1/recommend as a plain ASGI callable in front of the application.

A search takes about as long as a framework needs to route a request, so this route is answered before it is routed. The
application declares the same route with its models (`service.routers.recommendations`), and answers it the same way.
"""

import asyncio
import time
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth import Guard
from service.body import LARGE, parse_json, read_body
from service.config import Settings
from service.errors import MEDIA_TYPE, problem_of, unforeseen
from service.keys import Role
from service.live import Live
from service.middleware import disconnected
from service.schemas import parse_request, render_answer

PATH = "/v1/recommend"


class RecommendEndpoint:
    """Answers one path, and hands every other request on."""

    def __init__(self, app: ASGIApp, live: Live, guard: Guard, settings: Settings) -> None:
        """Stand in front of an application with these parts."""
        self._app, self._live, self._guard, self._settings = app, live, guard, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not self._is_mine(scope):
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = scope["state"]
        state["route"] = PATH
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, media, body = 200, b"application/json", await self._answer(scope, receive, state)
        except ClientDisconnect:
            return
        except Exception as error:
            problem = problem_of(error) or unforeseen(error, state["request_id"], trace=True)
            status, media, body = problem.kind.status, MEDIA_TYPE.encode(), problem.document(state["request_id"])
            headers = [(name.lower().encode(), value.encode()) for name, value in (problem.headers or {}).items()]
        headers += ((b"content-type", media), (b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, state: dict[str, Any]) -> bytes:
        """Return the body of an answer. Raises what problem documents are made of."""
        timings: dict[str, float] = state["timings"]
        self._guard.admit(scope, Role.READ, searches=True)
        self._live.queue.check_room(short=True)
        body = await read_body(scope["headers"], receive, self._settings.max_body, self._settings.patience)
        start = time.perf_counter()
        large = len(body) > LARGE
        request = await asyncio.to_thread(_parsed, body) if large else _parsed(body)
        parsed = time.perf_counter()
        timings["parse"] = parsed - start
        caller = state["caller"]._replace(gone=lambda: disconnected(receive))
        answer = await self._live.recommend(request, caller, large=large)
        document = render_answer(answer, state["request_id"])
        timings["recommend"] = time.perf_counter() - parsed
        return document

    @staticmethod
    def _is_mine(scope: Scope) -> bool:
        path: str = scope["path"]
        return path == PATH or (path.endswith(PATH) and path == scope.get("root_path", "") + PATH)


def _parsed(body: bytes) -> Any:
    return parse_request(parse_json(body))
