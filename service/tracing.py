"""Tracing by OpenTelemetry, an extra: FastAPI's spans, with stages added.

OpenTelemetry's own variables say where spans go, such as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from recall.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def open_tracing() -> "TracerProvider":
    """Return a provider of tracers, which sends spans by OTLP over HTTP on a thread.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigError("traces need OpenTelemetry", hint="Install it with: pip install 'fm-recall[otel]'")
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
