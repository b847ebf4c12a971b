"""The application, and the process that serves it."""

import asyncio
import logging
import logging.config
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.context import RequestContext, State
from service.joining import join
from service.listening import listeners
from service.live import Live
from service.metrics.pulse import beat
from service.openapi import add_docs, describe
from service.problems import handle_problems
from service.recommend import RecommendEndpoint
from service.records import logging_of
from service.routes import BODIES, add_routes
from service.routes.page import add_page
from service.security.binding import is_loopback
from service.security.description import describe_access
from service.security.guard import Guard, GuardMiddleware
from service.security.hosts import Hosts
from service.security.keys import NO_KEYS, KeyRing
from service.security.known import KnownKeys
from service.security.limits import RateLimits
from service.security.renewing import Renewal
from service.server import Server
from service.settings import ANY, Settings
from service.starting import Place, prepare
from service.tracing import Tracing, open_tracing

log = logging.getLogger("service")

_POLLS = 16
"""Connections accepted in one iteration of the event loop, which takes one from each socket that listens: when many connect
while searches run, the last of them would otherwise wait for as many iterations before its request is even read."""

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def create_app(
    settings: Settings, keys: KeyRing = NO_KEYS, traces: "TracerProvider | None" = None, *, fast: bool = True
) -> FastAPI:
    """The application; it opens nothing until it is started.

    Args:
        settings: what it is told.
        keys: those that open it; with none it is open.
        traces: makes a span of each request.
        fast: answer recommendations before they are routed; see `service.recommend`.
    """
    return _application(settings, Live(settings), KnownKeys(None, keys.keys), traces, fast=fast)


def serve(settings: Settings) -> None:
    """Serve with one process until SIGTERM or SIGINT; `service.workers` does it with several.

    The port is open, and /health/live answers, while the first bundle still loads.

    Raises:
        BundleError, ConfigError: as `service.starting.prepare`, and when the address cannot be bound.
    """
    keys = prepare(settings)
    logging.config.dictConfig(logging_of(settings.logs))
    sockets = listeners(settings.host, settings.port, shared=False)
    log.info("listening on %s", ", ".join("{}:{}".format(*one.getsockname()[:2]) for one in sockets))
    with suppress(KeyboardInterrupt):  # uvicorn hands the signal on once it has stopped in good order
        server_of(settings, keys).run([*sockets, *(one.dup() for one in sockets for _ in range(_POLLS - 1))])


def server_of(settings: Settings, keys: KnownKeys, place: Place | None = None) -> Server:
    """The server of one process; nothing is opened yet.

    Args:
        settings: what it is told.
        keys: those that open it.
        place: among several that answer on one port; None where there is only this one.
    """
    live = Live(settings, place)
    config = uvicorn.Config(
        _application(settings, live, keys, open_tracing() if settings.otel else None, place),
        host=settings.host,
        port=settings.port,
        ws="none",
        lifespan="on",
        log_config=logging_of(settings.logs),
        access_log=False,  # costs a tenth of an answer, and would hold nothing that a proxy's log does not
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=settings.patience,
        timeout_graceful_shutdown=settings.grace,
    )
    return Server(config, live, settings.drain, place.lifeline if place else None)


def _application(
    settings: Settings,
    live: Live,
    keys: KnownKeys,
    traces: "TracerProvider | None",
    place: Place | None = None,
    *,
    fast: bool = True,
) -> FastAPI:
    limits = RateLimits(keys.ring.keys, settings.rate, place.rates if place else None)
    hosts = _hosts(settings)
    guard = Guard(keys.ring, limits, hosts, strict=bool(settings.hosts))
    renewal = Renewal(keys, guard, live.meters)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        tasks = [asyncio.create_task(one) for one in (live.watch(), live.follow())]
        tasks += [asyncio.create_task(one) for one in (renewal.follow(settings.poll), beat(live.meters))]
        try:
            if place:
                tasks += await join(live, place)
            yield State(live=live, settings=settings)
        finally:
            await live.dismiss()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            live.close()
            if traces is not None:
                await asyncio.to_thread(traces.shutdown)  # sends what is left

    app = FastAPI(
        title="FM recall",
        version="1",
        description="The top items of a whole catalogue for a user, by factorization machine.",
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(GuardMiddleware, guard=guard)
    if fast and traces is None:  # a span of a request is made on its way through the application
        app.add_middleware(RecommendEndpoint, live=live, guard=guard, settings=settings)
    app.add_middleware(RequestContext, access=settings.access)
    if traces is not None:
        app.add_middleware(Tracing, provider=traces)
    handle_problems(app)
    add_routes(app)
    app.state.renewal, app.state.guard = renewal, guard
    live.refused = guard.refused
    live.meters.name_routes(dict.fromkeys(route.path for route in app.routes if isinstance(route, APIRoute)))
    if settings.docs:
        add_docs(app)
    if settings.page:
        add_page(app, docs=settings.docs)
    document = describe(app, BODIES)
    named = hosts is not None and bool(settings.hosts or not keys.ring)
    describe_access(document, keys.asked_for, limits.limited or settings.keys is not None, named)
    app.openapi = lambda: document  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


def _hosts(settings: Settings) -> Hosts | None:
    """The names that requests may be sent to; None for any.

    Where other machines reach the service and no names are set, addresses and names without a dot are accepted, which no web
    page's owner can let stand for this machine.
    """
    if ANY in settings.hosts:
        return None
    return Hosts(settings.hosts, network=not settings.hosts and not is_loopback(settings.host))
