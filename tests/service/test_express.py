"""The short way of POST /v1/recommend: whoever asks cannot tell it from the way through the application."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.request import Request
from service.express import Express
from service.live import Live
from service.parsing import parsed
from service.problems import ProblemError
from service.security.guard import Guard
from service.security.keys import NO_KEYS
from service.security.limits import RateLimits
from service.settings import Settings
from service.wire import RecommendRequest, parse_request
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, receive, request, serving
from tests.service.test_corpus import INVALID, NOT_JSON, TWICE

JSON = {"content-type": "application/json"}
ASKED = [
    {},
    {"user_id": "1", "n": 5},
    {"user_id": "nobody", "n": 3},
    {"features": {"age": 31}, "history": ["7", "12"], "exclude": ["3", "no such item"], "popularity": 0.5},
    {"user_id": "2", "n": 7, "filter": {"genre": "noir"}},
    {"user_id": "2", "n": 7, "explain": True},
    {"user_id": "2", "rules": [{"kind": "diversify", "relevance": 0.7}]},
    {"features": {"no such column": 1}},
    {"filter": {"no such column": 1}},
    {"n": 1000},
]
BODIES = [
    *map(orjson.dumps, ASKED),
    *NOT_JSON.values(),
    *TWICE,
    *(text.encode() for text, _ in INVALID),
]
READ = "read-key-of-some-length"
HEADERS: list[Mapping[str, str]] = [
    {},
    {"content-type": "text/plain"},
    {**JSON, "content-encoding": "gzip"},
    {"content-type": "application/json; charset=latin-1"},
    {"content-type": "Application/JSON; charset=UTF-8"},
    {**JSON, "x-request-timeout-ms": "0"},
    {**JSON, "x-request-timeout-ms": "many"},
    {**JSON, "x-request-timeout-ms": "60000"},
    {**JSON, "x-request-id": "mine.1"},
    {**JSON, "x-request-id": "not an id"},
    {**JSON, "connection": "close"},
    {**JSON, "x-api-key": "what-is-no-key"},
    {**JSON, "authorization": "Bearer " + READ},
]


def both(server: Server, body: bytes, headers: Mapping[str, str]) -> tuple[Answer, Answer]:
    """The answers of the short way, and of the way through the application, which bodies in pieces take."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(["POST /v1/recommend HTTP/1.1", "host: localhost", *lines, ""]).encode()
    pieces = [body[:3], body[3:]] if len(body) > 3 else [body] if body else []
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    short = server.send(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
    return short, server.send(head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


def assert_alike(short: Answer, long: Answer) -> None:
    assert short.status == long.status
    first, second = short.json, long.json
    assert first.pop("request_id") == short.headers["x-request-id"]
    assert second.pop("request_id") == long.headers["x-request-id"]
    assert first == second
    of_request = {"x-request-id", "server-timing", "date", "content-length"}
    assert {name: value for name, value in short.headers.items() if name not in of_request} == {
        name: value for name, value in long.headers.items() if name not in of_request
    }
    assert short.headers.keys() == long.headers.keys()
    if short.status == 200:
        assert stages(short) == stages(long) == ["parse", "recommend", "total"]


def stages(answer: Answer) -> list[str]:
    return [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bodies_are_answered_alike(server: Server, body: bytes) -> None:
    assert_alike(*both(server, body, JSON))


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_headers_are_answered_alike(server: Server, headers: Mapping[str, str]) -> None:
    assert_alike(*both(server, b'{"user_id": "1", "n": 5}', headers))


@pytest.fixture(scope="module")
def locked(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes one key, few requests, and small bodies; a body must come within a second."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    options = ("--max-body", "100", "--patience", "1", "--access", "1")
    with serving(shop.root, log, *options, environment={"RECALL_READ_KEY": READ}) as server:
        server.wait()
        yield server


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_keys_are_asked_for_alike(locked: Server, headers: Mapping[str, str]) -> None:
    assert_alike(*both(locked, b'{"user_id": "1", "n": 5}', headers))


def test_a_body_that_is_too_large_or_too_slow_is_told_so(locked: Server) -> None:
    key = {**JSON, "x-api-key": READ}
    short, long = both(locked, b" " * 200, key)
    assert (short.status, long.status) == (413, 413)
    slow = request("POST", "/v1/recommend", b'{"n": 5}', x_request_id="slow", **key)
    with locked.connect() as connection:
        connection.sendall(slow[:-1])
        answer = receive(connection)
        assert (answer.status, answer.headers["connection"], answer.json["request_id"]) == (408, "close", "slow")
        assert connection.recv(1) == b""
    assert locked.ask("POST", "/v1/recommend", b'{"n": 5}', **key).status == 200


def test_what_is_answered_is_counted_and_logged(locked: Server) -> None:
    def counted() -> dict[str, float]:
        lines = locked.ask("GET", "/metrics", x_api_key=READ).body.decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def of(numbers: dict[str, float], name: str, *labels: str) -> float:
        return sum(value for key, value in numbers.items() if key.startswith(name) and all(label in key for label in labels))

    route = 'route="/v1/recommend"'
    before = counted()
    for number in range(3):
        assert locked.post({"user_id": "1"}, x_api_key=READ, x_request_id=f"counted-{number}").status == 200
    assert locked.post({"n": 0}, x_api_key=READ).status == 422
    assert locked.post({"n": 1}).status == 401
    with locked.connect() as connection:  # it goes before it has said all
        connection.sendall(request("POST", "/v1/recommend", b'{"n": 5}', x_api_key=READ, **JSON)[:-1])
        time.sleep(0.1)
    time.sleep(0.2)
    after = counted()
    for status, count in (("200", 3), ("422", 1), ("401", 1), ("499", 1)):
        name = "recall_http_requests_total"
        assert of(after, name, route, f'"{status}"') - of(before, name, route, f'"{status}"') == count
    timed = "recall_http_request_duration_seconds_count"
    assert of(after, timed, route) - of(before, timed, route) == 6
    assert of(after, "recall_http_requests_in_flight") == 1  # whoever asks for it
    assert of(after, "recall_stage_duration_seconds_count", '"parse"') > of(
        before, "recall_stage_duration_seconds_count", '"parse"'
    )
    assert "request_id=counted-2" in locked.log.read_text()


def test_requests_behind_one_another_are_answered_in_order(server: Server) -> None:
    asked = [request("POST", "/v1/recommend", b'{"n": %d}' % n, x_request_id=f"n{n}", **JSON) for n in range(1, 30)]
    between = request("GET", "/v1/info", x_request_id="between")
    shaped = request("POST", "/v1/recommend", b'{"n": 3, "explain": true}', x_request_id="told", **JSON)
    with server.connect() as connection:
        connection.sendall(b"".join([*asked[:10], between, shaped, *asked[10:]]))
        ids = [receive(connection).headers["x-request-id"] for _ in range(len(asked) + 2)]
    names = [f"n{n}" for n in range(1, 30)]
    assert ids == [*names[:10], "between", "told", *names[10:]]


class Kept:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, bool]] = []

    def defaults(self) -> bytes:
        return b""

    def answer(self, _turn: object, document: bytes, keep: bool) -> None:
        self.written.append((document, keep))


class BrokenLive(Live):
    def answer(self, *_asked: object) -> None:
        raise ZeroDivisionError("nobody foresaw it")


def test_an_error_that_nobody_foresaw_is_a_problem_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> tuple[bytes, bool]:
        settings = Settings(bundle=tmp_path)
        live = BrokenLive(settings)
        guard, kept = Guard(NO_KEYS, RateLimits((), None, None)), Kept()
        state = {"live": live, "settings": settings}
        headers = [(b"content-length", b"2"), (b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": headers, "state": state}
        turn = Express(live, settings, guard).turn(kept, scope, lambda: False, True)
        assert turn is not None
        turn.take(b"{}")
        turn.whole()
        live.close()
        return kept.written[0]

    written, keep = asyncio.run(go())
    head, _, body = written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert keep
    assert orjson.loads(body)["type"] == "urn:fm-recall:problem:internal"
    assert b"nobody foresaw it" not in written
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


def outcome(act, body: object) -> object:
    try:
        return act(body)
    except ProblemError as problem:
        return [(fault.pointer, fault.message) for fault in problem.faults]


IDS = st.one_of(st.text(max_size=3), st.integers(), st.booleans(), st.none(), st.just("x" * 1024), st.just("x" * 1025))
NUMBERS = st.one_of(st.integers(-1, 2), st.integers(998, 1002), st.booleans(), st.floats(0, 3), st.none(), st.text(max_size=1))


@given(st.fixed_dictionaries({}, optional={"user_id": IDS, "n": NUMBERS, "m": NUMBERS}))
def test_what_is_checked_at_a_look_is_what_the_model_of_the_body_says(body: dict[str, object]) -> None:
    def slowly(one: object) -> Request:
        return parsed(RecommendRequest, one).request()

    assert outcome(parse_request, body) == outcome(slowly, body)
