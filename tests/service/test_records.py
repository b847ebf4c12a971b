"""Log lines: one for each event, regardless of its contents, with the id of the request."""

import logging
import re
import sys
from pathlib import Path

import orjson
import pytest

from service.logs import REQUEST_ID, JsonFormatter, TextFormatter
from tests.service.publishing import Shop
from tests.service.serving import serving

ODD = ["line\nbreak", "\r\n2026-01-01 INFO all is well", "nul\x00", "\u2028", "\x1b[31mred", "\u202eright", "é😀", "\ud800"]


def record(message: str, *arguments: object, trace: bool = False, **fields: object) -> logging.LogRecord:
    info = None
    if trace:
        try:
            raise ValueError("odd\nvalue")
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("service", logging.WARNING, "", 0, message, arguments, info)
    if fields:
        made.fields = fields
    return made


@pytest.mark.parametrize("text", ODD)
def test_an_event_is_one_line_of_text(text: str) -> None:
    line = TextFormatter().format(record("item %s", text, name=text))
    assert len(line.splitlines()) == 1
    assert not re.search(r"[\x00-\x1f]", line)
    line.encode()


@pytest.mark.parametrize("text", ODD)
def test_an_event_is_one_json_object(text: str) -> None:
    line = JsonFormatter().format(record("item %s", text, name=text))
    assert "\n" not in line
    told = orjson.loads(line)
    assert told["level"] == "warning"
    assert told["logger"] == "service"
    expected = text if text != "\ud800" else "\\ud800"
    assert (told["message"], told["name"]) == (f"item {expected}", expected)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])


def test_a_traceback_is_logged_and_cannot_look_like_an_event() -> None:
    first, *others = TextFormatter().format(record("it failed", trace=True)).splitlines()
    assert first.endswith("WARNING it failed")
    assert others
    assert all(line.startswith("    | ") for line in others)
    assert "ValueError" in orjson.loads(JsonFormatter().format(record("it failed", trace=True)))["trace"]


def test_the_request_id_is_logged_during_a_request() -> None:
    assert "request_id" not in orjson.loads(JsonFormatter().format(record("event")))
    token = REQUEST_ID.set("r-1")
    try:
        assert orjson.loads(JsonFormatter().format(record("event")))["request_id"] == "r-1"
        assert TextFormatter().format(record("event", a=1)).endswith("WARNING event a=1 request_id=r-1")
    finally:
        REQUEST_ID.reset(token)


def test_requests_are_logged_as_json_with_ids_and_without_content(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", "--logs", "json", "--access", "1") as server:
        server.wait()
        server.post({"user_id": "secret-user"}, x_request_id="first")
        server.ask("GET", "/v1/users/secret%0Auser", x_request_id="second")
        server.ask("GET", "/secret\x07path", x_request_id="third")
    lines = [orjson.loads(line) for line in server.log.read_text().splitlines()]
    assert any(line["message"].startswith("serving bundle") for line in lines)
    told = {line.get("request_id"): line for line in lines if line["message"] == "request"}
    assert told["first"]["logger"] == "service.access"
    assert {name: told["first"][name] for name in ("method", "route", "status")} == {
        "method": "POST",
        "route": "/v1/recommend",
        "status": 200,
    }
    assert 0 < told["first"]["ms"] < 60_000
    assert told["second"]["route"] == "/v1/users/{user_id}"
    assert "secret" not in server.log.read_text()


def test_by_default_requests_are_not_logged(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log") as server:
        server.wait()
        server.post({"user_id": "3"}, x_request_id="first")
    assert "serving bundle" in server.log.read_text()
    assert "first" not in server.log.read_text()
