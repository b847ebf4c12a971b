"""The application."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic.alias_generators import to_camel
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from recall.errors import BundleError
from service.auth import Guard, check_binding
from service.config import Settings
from service.dependencies import KEY
from service.errors import handle_problems
from service.keys import KeyRing
from service.live import Live
from service.metrics import FOLDER
from service.middleware import RequestContext, open_tracing
from service.pages import add_pages
from service.recommend import RecommendEndpoint
from service.routers import ROUTERS
from service.routers.system import health
from service.workers import lame_duck, tune_interpreter, wait_for_bundle

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


log = logging.getLogger("service")


class Application(FastAPI):
    """FastAPI within the context of each request.

    Attributes:
        answer: answers requests over HTTP.
    """

    answer: ASGIApp

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message of the server."""
        answer = self.answer if scope["type"] == "http" else super().__call__
        await answer(scope, receive, send)

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
    guard = Guard(known, settings, lambda slug: live.meters.refused[slug].inc())

    def reload_keys() -> None:
        known.reload()
        live.meters.set(keys=len(known), keys_degraded=bool(known.error))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with lame_duck(live, settings.drain):
            if known.file is not None and threading.current_thread() is threading.main_thread():
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload_keys)
            loops = (
                _repeat("watching the folder of versions", live.watch, settings.poll),
                _repeat("compacting the catalogue", live.compact, settings.poll),
                _repeat("reloading the keys", partial(asyncio.to_thread, reload_keys), settings.poll),
                _repeat("following live changes", live.follow, settings.follow),
            )
            live.tasks += map(asyncio.create_task, (*loops, tune_interpreter(live)))
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
        generate_unique_id_function=lambda route: to_camel(route.name),
        telemetry={
            "tracing": traces is not None,
            "tracer_provider": traces,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )
    app.state.routers, app.state.keys, app.state.live, app.state.guard = ROUTERS, known, live, guard
    for router in ROUTERS:
        app.include_router(router, dependencies=KEY if known.asked_for and router is not health else None)
    add_pages(app, page=settings.page, docs=settings.docs, images=settings.images)
    handle_problems(app)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"])
    answer: ASGIApp = partial(FastAPI.__call__, app)
    if fast and traces is None and not settings.cors_origins:  # both need the middleware of FastAPI
        answer = RecommendEndpoint(answer, live, guard)
    app.answer = RequestContext(answer, live, traces)
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


async def _repeat(name: str, act: Callable[[], Awaitable[None]], pause: float) -> None:
    """Run a background loop; an unforeseen error is logged and does not end it.

    Args:
        name: of the loop, for the log.
        act: one iteration.
        pause: seconds after each time.
    """
    while True:
        try:
            await act()
        except Exception:
            log.exception("%s failed; it is tried again in %g s", name, pause)
        await asyncio.sleep(pause)
