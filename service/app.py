"""The application."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from recall.errors import BundleError
from service.auth import Guard, Hosts, RateLimits, check_binding, is_loopback
from service.config import ANY, Settings
from service.dependencies import KEY
from service.errors import handle_problems
from service.keys import KeyRing
from service.live import Live
from service.metrics import FOLDER
from service.middleware import RequestContext, open_tracing
from service.pages import add_pages
from service.recommend import PATH, RecommendEndpoint
from service.routers import ROUTERS
from service.routers.system import health
from service.workers import lame_duck, settle, wait_for_bundle

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


log = logging.getLogger("service")


class Application(FastAPI):
    """FastAPI with one path answered in front of it.

    Attributes:
        recommend: answers that path; None if the declared route does.
    """

    recommend: RecommendEndpoint | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message of the server."""
        if self.recommend is not None and scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            if path == PATH or (path.endswith(PATH) and path[: -len(PATH)] in (self.root_path, scope.get("root_path"))):
                await self.recommend(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    @override
    def openapi(self) -> dict[str, Any]:
        """Return the API document, where rules and channels require their `kind`."""
        document = super().openapi()
        for schema in document["components"]["schemas"].values():
            if "const" in schema.get("properties", {}).get("kind", {}):
                schema["required"] = sorted({*schema.get("required", []), "kind"})
        return document


def create_app(
    settings: Settings | None = None, keys: KeyRing | None = None, traces: "TracerProvider | None" = None, *, fast: bool = True
) -> FastAPI:
    """Make the application; it opens nothing until it is started.

    Args:
        settings: None for those of the environment, which `uvicorn --factory service.app:create_app` takes.
        keys: that are accepted; None for those of the settings and of the environment.
        traces: makes a span of each request; None for the setting `otel`.
        fast: answer recommendations before they are routed; see `service.recommend`.

    Raises:
        ConfigError: The keys cannot be read, or other machines could send requests without one.
        BundleError: There is no such folder.
    """
    settings = settings or Settings()  # type: ignore[call-arg]  # of the environment
    known = prepare(settings) if keys is None else keys
    if traces is None and settings.otel:
        traces = open_tracing()
    live = Live(settings)
    guard = Guard(
        known,
        RateLimits(settings.rate, settings.workers),
        _hosts(settings),
        lambda slug: live.meters.refused[slug].inc(),
        strict=bool(settings.hosts),
        origins=settings.cors_origins,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with lame_duck(live, settings.drain):
            keys_too = partial(
                known.follow, settings.poll, lambda: live.meters.set(keys=len(known), keys_degraded=bool(known.error))
            )
            loops = [_kept_running(one, settings.poll) for one in (live.watch, live.follow, keys_too)]
            live.tasks += map(asyncio.create_task, (*loops, settle(live)))
            try:
                await wait_for_bundle(live)
                yield
            finally:
                live.draining = True
                await live.dismiss()
                for task in live.tasks:
                    task.cancel()
                await asyncio.gather(*live.tasks, return_exceptions=True)
                live.close()
                if traces is not None:
                    await asyncio.to_thread(traces.shutdown)  # sends the remaining spans

    telemetry: TelemetryConfig = {"tracing": traces is not None, "metrics": False, "logs": False, "operation_spans": False}
    if traces is not None:
        telemetry["tracer_provider"] = traces
    app = Application(
        title="FM recall",
        version="1",
        description="The top items of a whole catalogue for a user, by factorization machine.",
        lifespan=lifespan,
        root_path=settings.root_path,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        telemetry=telemetry,
    )
    app.state.routers, app.state.keys, app.state.live, app.state.guard = ROUTERS, known, live, guard
    for router in ROUTERS:
        app.include_router(router, dependencies=KEY if known.asked_for and router is not health else None)
    add_pages(app, page=settings.page, docs=settings.docs, images=settings.images)
    handle_problems(app)
    if fast and traces is None and not settings.cors_origins:  # both need the middleware of the application
        app.recommend = RecommendEndpoint(live, guard)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(RequestContext, live=live, traces=traces)
    return app


def prepare(settings: Settings) -> KeyRing:
    """Check the settings before anything is opened, and return the keys.

    Raises:
        BundleError: There is no such folder. It may be empty: bundles may be published later.
        ConfigError: The keys cannot be read, or other machines could send requests without one.
    """
    if not settings.bundle.is_dir():
        raise BundleError(
            "there is no such folder", where=str(settings.bundle), hint="Give the folder that bundles are published to"
        )
    folder = os.environ.get(FOLDER)
    keys = KeyRing.read(settings.keys, os.environ, Path(folder, "keys") if folder else None)
    check_binding("127.0.0.1" if settings.uds else settings.host, bool(keys), settings.insecure)
    return keys


async def _kept_running(loop: Callable[[], Awaitable[None]], pause: float) -> None:
    """Run a loop without an end; log an unforeseen error and start again.

    Args:
        loop: makes the loop.
        pause: seconds before it starts again.
    """
    while True:
        try:
            await loop()
        except Exception:
            log.exception("following the folder failed; it starts again")
        await asyncio.sleep(pause)


def _hosts(settings: Settings) -> Hosts | None:
    """Return the host names that requests may be sent to; None for any.

    Where other machines reach the service and no names are set, addresses and names without a dot are accepted: no owner of a
    web page can point these at this machine.
    """
    if ANY in settings.hosts:
        return None
    return Hosts(settings.hosts, network=not settings.hosts and not is_loopback(settings.host))


def _operation_id(route: APIRoute) -> str:
    """Name an operation after its function, in camel case."""
    first, *others = route.name.split("_")
    return first + "".join(one.capitalize() for one in others)
