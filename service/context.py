"""What every answer carries besides its body: the request's id and the time it took."""

import asyncio
import random
import re
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import NotRequired, TypedDict, cast

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.concurrency import ANYBODY, Caller
from service.config import Settings
from service.live import Live
from service.metrics import OTHER
from service.problems import Kind
from service.records import REQUEST_ID, log_request
from service.security.headers import secure

_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class State(TypedDict):
    """What the lifespan gives to every request."""

    live: Live
    settings: Settings
    caller: NotRequired[Caller]


def live_of(request: Request) -> Live:
    """The live bundle of the application that answers this request."""
    return cast(State, request.scope["state"])["live"]


def settings_of(request: Request) -> Settings:
    """The settings of the application that answers this request."""
    return cast(State, request.scope["state"])["settings"]


def caller_of(request: Request) -> Caller:
    """Who waits for the answer to this request, and how long."""
    return cast(State, request.scope["state"]).get("caller", ANYBODY)._replace(gone=request.is_disconnected)


async def disconnected(receive: Receive) -> bool:
    """Return whether the client of a request whose body was read has disconnected."""
    message = asyncio.ensure_future(cast("Coroutine[None, None, Message]", receive()))
    await asyncio.sleep(0)
    if message.done():
        return bool(message.result()["type"] == "http.disconnect")
    message.cancel()
    return False


def request_id_of(request: Request) -> str:
    """The id of this request: the client's own, or one made here."""
    return cast(str, request.scope["state"]["request_id"])


def note_time(request: Request, name: str, seconds: float) -> None:
    """Add a part to the Server-Timing header; `name` is a bare word."""
    cast(dict[str, float], request.scope["state"]["timings"])[name] = seconds


def request_id_among(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id that a request's headers give, or one made here."""
    for name, value in headers:
        if name == b"x-request-id" and _SAFE_ID.fullmatch(value):
            return value.decode("ascii")
    return f"{random.getrandbits(128):032x}"


def timing_of(timings: Mapping[str, float]) -> bytes:
    """The value of a Server-Timing header, from seconds by stage."""
    return ", ".join([f"{name};dur={value * 1000:.3f}" for name, value in timings.items()]).encode()


class RequestContext:
    """Middleware that gives each request an id and each answer its headers."""

    def __init__(self, app: ASGIApp, access: float = 0.0) -> None:
        """`access` is the share of requests that are logged."""
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the server's other messages pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        _keep_encoded(scope)
        request_id = request_id_among(scope["headers"])
        timings: dict[str, float] = {}
        state = scope.setdefault("state", {})
        state["request_id"], state["timings"] = request_id, timings
        meters, status = state["live"].meters, 0
        REQUEST_ID.set(request_id)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                timings["total"] = time.perf_counter() - start
                headers = message["headers"]
                headers += ((b"x-request-id", request_id.encode()), (b"server-timing", timing_of(timings)))
                secure(headers, scope["path"])
                if state["live"].draining:
                    MutableHeaders(scope=message)["Connection"] = "close"  # a client that comes back finds another server
            await send(message)

        meters.in_flight.inc()
        try:
            await self._app(scope, receive, send_with_headers)
        except BaseException:
            status = status or Kind.INTERNAL.status  # as which it will be answered
            raise
        finally:
            meters.in_flight.dec()
            spent = time.perf_counter() - start
            route = _route_of(scope)
            meters.finished(route, status or Kind.GONE.status, spent, timings)
            if self._access and random.random() < self._access:  # noqa: S311 - a sample
                log_request(scope["method"], route, status or Kind.GONE.status, spent)


def _route_of(scope: Scope) -> str:
    """Return the path of the route that answered, as it was declared; "other" for none."""
    found: str | None = scope["state"].get("route") or getattr(scope.get("route"), "path", None)
    return found or OTHER


def _keep_encoded(scope: Scope) -> None:
    """Let routes see the path with its percent-encoding: what servers decode it to may be the path of something else."""
    raw: bytes = scope["raw_path"]
    if b"%" in raw:
        scope["path"] = raw.partition(b"?")[0].decode("latin-1")
