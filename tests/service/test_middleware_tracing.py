"""Spans of requests, in memory and exported."""

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from service.app import create_app
from service.config import Settings
from tests.service.publishing import Shop
from tests.service.serving import serving

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(shop: Shop, spans: InMemorySpanExporter) -> Iterator[TestClient]:
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(1.0)))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with TestClient(
        create_app(Settings(bundle=shop.root), traces=provider), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        deadline = time.monotonic() + 30
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline
        spans.clear()
        yield client


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = (span for span in spans.get_finished_spans() if span.name == name)
    return span


def test_a_request_and_its_stages_are_spans_of_the_clients_trace(client: TestClient, spans: InMemorySpanExporter) -> None:
    answer = client.post("/v1/recommend", json={"user_id": "3"}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.status_code == 200
    span = named(spans, "POST /v1/recommend")
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
        "recall.request_id": answer.headers["x-request-id"],
        "recall.bundle": answer.json()["bundle"],
    }
    assert expected.items() <= dict(span.attributes or {}).items()
    stages = [one for one in spans.get_finished_spans() if one is not span]
    told = [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert [one.name for one in stages] == [name for name in told if name != "total"]
    assert len(stages) >= 2
    at = stages[0].start_time
    for stage in stages:
        assert stage.parent is not None
        assert stage.parent.span_id == span.context.span_id
        assert stage.start_time == at
        at = stage.end_time


def test_an_unsampled_trace_is_not_recorded(client: TestClient, spans: InMemorySpanExporter) -> None:
    client.post("/v1/recommend", json={}, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert spans.get_finished_spans() == ()


def test_an_invalid_trace_header_starts_a_new_trace(client: TestClient, spans: InMemorySpanExporter) -> None:
    for given in ("", "x", f"00-{TRACE}", f"00-{'0' * 32}-{PARENT}-01", "00-" + "g" * 32 + f"-{PARENT}-01", "é"):
        client.get("/health/live", headers={"traceparent": given.encode()})
    found = spans.get_finished_spans()
    assert [span.name for span in found] == ["GET /health/live"] * 6
    assert all(span.parent is None for span in found)
    assert len({span.context.trace_id for span in found}) == 6


def test_span_names_contain_no_ids_and_refusals_are_not_errors(client: TestClient, spans: InMemorySpanExporter) -> None:
    client.get("/v1/models/nothing")
    client.get("/nothing/at/all")
    span = named(spans, "GET /v1/models/{version}")
    assert (span.attributes or {})["http.response.status_code"] == 404
    assert span.status.status_code is StatusCode.UNSET
    assert "http.route" not in (named(spans, "GET").attributes or {})


def test_a_failure_is_an_error(client: TestClient, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("service.routers.system.Liveness", broken)
    assert client.get("/health/live").status_code == 500
    span = named(spans, "GET /health/live")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ZeroDivisionError"


class Collector(BaseHTTPRequestHandler):
    received: list[ExportTraceServiceRequest] = []  # noqa: RUF012 - one server a test

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_are_sent_before_the_process_ends(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        with serving(shop.root, tmp_path / "log", "--otel") as server:
            server.wait()
            answer = server.post({"user_id": "3"})
            assert answer.status == 200
        collector.shutdown()
    sent = [resource for request in Collector.received for resource in request.resource_spans]
    names = {span.name for resource in sent for scope in resource.scope_spans for span in scope.spans}
    assert {"POST /v1/recommend", "parse"} <= names
    (service,) = {
        one.value.string_value for resource in sent for one in resource.resource.attributes if one.key == "service.name"
    }
    assert service == "fm-recall"
