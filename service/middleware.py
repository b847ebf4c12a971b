"""Request id, timing, security headers and trace of every answer."""

import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recall.errors import ConfigError
from service.errors import Kind
from service.live import Live
from service.logs import REQUEST_ID, log_request
from service.metrics import OTHER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SECURE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""Security headers for browsers; pages have their own policy."""
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SINGLE = frozenset({b"host", b"origin", b"sec-fetch-site", b"x-request-timeout-ms", b"x-recall-token"})


def headers_of(listed: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers of a request by name, the first one of a repeated name.

    A repeated header that admission depends on is b"?", which it never allows.

    Args:
        listed: names in lower case, and values.
    """
    found = dict(listed)
    if len(found) < len(listed):
        found = dict(reversed(listed))
        counts = Counter(name for name, _ in listed)
        found |= {name: b"?" for name in _SINGLE if counts[name] > 1}
    return found


class RequestContext:
    """Gives each request an id and timings, and each answer its headers."""

    def __init__(self, app: ASGIApp, live: Live, traces: "TracerProvider | None" = None) -> None:
        """Wrap an application.

        Args:
            app: the application.
            live: of the application.
            traces: makes spans; None without tracing.
        """
        self._app, self._live, self._traces = app, live, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        start = time.perf_counter()
        self._set_path(scope)
        head = scope["method"] == "HEAD"
        if head:  # answered like GET, without the body; the server's own scope is not changed
            scope = {**scope, "method": "GET"}
        headers_by_name = headers_of(scope["headers"])
        timings: dict[str, float] = {}  # `dict[str, float]()` takes ten times as long
        given = headers_by_name.get(b"x-request-id")
        kept = given is not None and _SAFE_ID.fullmatch(given)
        request_id = kept[0].decode("ascii") if kept else f"{random.getrandbits(128):032x}"
        REQUEST_ID.set(request_id)
        state = scope.setdefault("state", {})
        state["headers"], state["request_id"], state["timings"] = headers_by_name, request_id, timings
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                total = time.perf_counter() - start
                headers = message["headers"]
                own = dict(headers) if scope["method"] == "GET" else {}  # pages have their own policy
                headers += [one for one in SECURE if one[0] not in own] if own else SECURE
                stages = "".join([f"{name};dur={value * 1000:.3f}, " for name, value in timings.items()])
                headers.append((b"x-request-id", request_id.encode()))
                headers.append((b"server-timing", f"{stages}total;dur={total * 1000:.3f}".encode()))
                if self._traces is not None:  # the span ends with the answer
                    bundle = "" if self._live.snapshot is None else self._live.snapshot.folder.name
                    attributes = {"recall.request_id": request_id, "recall.bundle": bundle}
                    record_stages(self._traces, attributes, timings, time.time_ns() - int(total * 1e9))
                if self._live.draining:
                    MutableHeaders(scope=message)["Connection"] = "close"  # the client's next connection reaches another server
            elif head:
                message = {**message, "body": b""}
            await send(message)

        self._live.in_flight += 1
        try:
            await self._app(scope, receive, send_with_headers)
        except BaseException:
            status = status or Kind.INTERNAL.status  # the status that it will get
            raise
        finally:
            self._live.in_flight -= 1
            status, seconds = status or Kind.GONE.status, time.perf_counter() - start
            route = getattr(scope.get("route"), "path_format", None) or OTHER  # as declared
            self._live.meters.finished(route, status, seconds, timings)
            share = self._live.settings.access
            if share and random.random() < share:  # noqa: S311 - a sample
                log_request(scope["method"], route, status, seconds)

    def _set_path(self, scope: Scope) -> None:
        """Set the percent-encoded path, below a root path that a proxy may strip.

        Decoded, a path could be that of a different resource.
        """
        raw: bytes = scope["raw_path"]
        if b"%" in raw:
            scope["path"] = raw.partition(b"?")[0].decode("latin-1")
        root = scope["root_path"] = self._live.settings.root_path or scope.get("root_path", "")
        if root and not (scope["path"] + "/").startswith(root + "/"):
            scope["path"] = root + scope["path"]


# Tracing by OpenTelemetry, an extra: FastAPI's spans, with stages added. Its own variables say where spans go, such as
# OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.


def open_tracing() -> "TracerProvider":
    """Return a provider of tracers, which sends spans by OTLP over HTTP on a thread.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigError("traces need OpenTelemetry", hint="Install it with: pip install 'fm-recall[otel]'")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: "fm-recall"}).merge(OTELResourceDetector().detect())  # the variables win
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def record_stages(provider: "TracerProvider", attributes: Mapping[str, str], timings: Mapping[str, float], began: int) -> None:
    """Add attributes to the span of a request, and a span for each of its stages.

    Args:
        provider: makes spans.
        attributes: of the request's span.
        timings: seconds by stage. Stages follow one another, and so are laid end to end.
        began: nanoseconds since 1970.
    """
    from opentelemetry.trace import get_current_span, set_span_in_context

    span = get_current_span()
    span.set_attributes(attributes)
    tracer, within = provider.get_tracer("fm-recall"), set_span_in_context(span)
    for name, seconds in timings.items():
        if span.is_recording():
            stage = tracer.start_span(name, within, start_time=began)
            began += int(seconds * 1e9)
            stage.end(began)
