"""The application."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from recall.errors import BundleError
from service.config import ANY, Settings
from service.context import RequestContext, State
from service.live import Live
from service.metrics import FOLDER
from service.openapi import add_docs, describe
from service.problems import handle_problems
from service.recommend import RecommendEndpoint
from service.routes import BODIES, add_routes
from service.routes.page import add_page
from service.security.binding import check_binding, is_loopback
from service.security.description import describe_access
from service.security.guard import Guard, GuardMiddleware
from service.security.hosts import Hosts
from service.security.keys import KeyRing
from service.security.known import KnownKeys
from service.security.limits import RateLimits
from service.security.renewing import Renewal
from service.tracing import Tracing, open_tracing
from service.workers import lame_duck, settle, wait_for_bundle

log = logging.getLogger("service")

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def create_app(
    settings: Settings | None = None, keys: KeyRing | None = None, traces: "TracerProvider | None" = None, *, fast: bool = True
) -> FastAPI:
    """Make the application; it opens nothing until it is started.

    Args:
        settings: None for those of the environment, which `uvicorn --factory service.app:create_app` takes.
        keys: those that open it; None for those of the settings and of the environment.
        traces: makes a span of each request; None for what the settings say.
        fast: answer recommendations before they are routed; see `service.recommend`.

    Raises:
        ConfigError: The keys cannot be read, or others than this machine could ask without one.
        BundleError: There is no such folder.
    """
    settings = settings or Settings()  # type: ignore[call-arg]  # of the environment
    known = prepare(settings) if keys is None else KnownKeys(None, keys.keys)
    if traces is None and settings.otel:
        traces = open_tracing()
    live = Live(settings)
    limits = RateLimits(known.ring.keys, settings.rate, settings.workers)
    hosts = _hosts(settings)
    guard = Guard(known.ring, limits, hosts, strict=bool(settings.hosts))
    renewal = Renewal(known, guard, live.meters)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        with lame_duck(live, settings.drain):
            live.tasks += map(asyncio.create_task, (live.watch(), live.follow(), renewal.follow(settings.poll), settle(live)))
            try:
                await wait_for_bundle(live)
                yield State(live=live, settings=settings)
            finally:
                live.draining = True
                await live.dismiss()
                for task in live.tasks:
                    task.cancel()
                await asyncio.gather(*live.tasks, return_exceptions=True)
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
    if settings.docs:
        add_docs(app)
    if settings.page:
        add_page(app, docs=settings.docs)
    document = describe(app, BODIES)
    named = hosts is not None and bool(settings.hosts or not known.ring)
    describe_access(document, known.asked_for, limits.limited or settings.keys is not None, named)
    app.openapi = lambda: document  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


def prepare(settings: Settings) -> KnownKeys:
    """Check what is checked before anything is opened, and return the keys.

    Raises:
        BundleError: There is no such folder. One that holds no bundle yet is waited for.
        ConfigError: The keys cannot be read, or others than this machine could ask without one.
    """
    if not settings.bundle.is_dir():
        raise BundleError(
            "there is no such folder", where=str(settings.bundle), mend="Give the folder that bundles are published to"
        )
    folder = os.environ.get(FOLDER)
    keys = KnownKeys.read(settings.keys, os.environ, Path(folder, "keys") if folder else None)
    check_binding("127.0.0.1" if settings.uds else settings.host, bool(keys.ring), settings.insecure)
    return keys


def _hosts(settings: Settings) -> Hosts | None:
    """The names that requests may be sent to; None for any.

    Where other machines reach the service and no names are set, addresses and names without a dot are accepted, which no web
    page's owner can let stand for this machine.
    """
    if ANY in settings.hosts:
        return None
    return Hosts(settings.hosts, network=not settings.hosts and not is_loopback(settings.host))
