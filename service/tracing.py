"""Traces by OpenTelemetry: a span for each request, and one for each stage of it. An extra, which is loaded only when it is on.

Where spans go, and which of them, is told by the variables that OpenTelemetry itself has for it, such as
OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recall.errors import ConfigError
from service.errors import Kind
from service.live import Live

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_PROPAGATED = frozenset({b"traceparent", b"tracestate"})


def open_tracing() -> "TracerProvider":
    """What makes spans and sends them, in batches and on a thread of its own, by OTLP over HTTP.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigError("traces need OpenTelemetry", mend="Install it with: pip install 'fm-recall[otel]'")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    given = Resource.create()
    named = given.attributes.get(SERVICE_NAME, "unknown_service")
    own = Resource({SERVICE_NAME: "fm-recall"}) if str(named).startswith("unknown_service") else Resource({})
    provider = TracerProvider(resource=given.merge(own), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """Middleware that makes a span of each request. A trace that its client began goes on (W3C Trace Context)."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._tracer = provider.get_tracer("fm-recall")
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the server's other messages pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.time_ns()
        try:
            await self._app(scope, receive, send_and_look)
        except BaseException:
            status = status or Kind.INTERNAL.status
            raise
        finally:
            self._record(scope, began, time.time_ns(), status or Kind.GONE.status)

    def _record(self, scope: Scope, began: int, ended: int, status: int) -> None:
        """Make the spans of a request that is over. Stages are laid end to end, for they follow one another."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        given = {name.decode("ascii"): value.decode("latin-1") for name, value in scope["headers"] if name in _PROPAGATED}
        state = scope["state"]
        live: Live = state["live"]
        route: str = getattr(scope.get("route"), "path", "")
        attributes: dict[str, str | int] = {
            "http.request.method": scope["method"],
            "http.response.status_code": status,
            "recall.request_id": state["request_id"],
        }
        if route:
            attributes["http.route"] = route
        if live.snapshot is not None:
            attributes["recall.bundle"] = live.snapshot.folder.name
        span = self._tracer.start_span(
            f"{scope['method']} {route}".rstrip(),
            self._propagator.extract(given),
            SpanKind.SERVER,
            attributes,
            start_time=began,
        )
        if span.is_recording():
            within, at = set_span_in_context(span), began
            for name, seconds in state["timings"].items():
                if name != "total":
                    stage = self._tracer.start_span(name, within, start_time=at)
                    at += int(seconds * 1e9)
                    stage.end(at)
            if status >= Kind.INTERNAL.status:
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
