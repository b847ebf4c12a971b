"""POST /v1/recommend in front of the application gives the same answers as the declared route."""

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from recall.serving.request import Request
from service.app import create_app
from service.body import parse_request
from service.config import Settings
from service.errors import ProblemError, parsed
from service.keys import KeyRing
from service.live import Live
from service.schemas import RecommendRequest
from tests.service.publishing import Shop
from tests.service.replay.corpus import Call, recommendations
from tests.service.serving import Server, receive, request, serving

JSON = {"content-type": "application/json"}
READ = "read-key-of-some-length"
KEYS = [
    {},
    {"x-api-key": READ},
    {"authorization": "Bearer " + READ},
    {"authorization": "Basic " + READ},
    {"x-api-key": READ, "authorization": "Bearer " + READ},
    {"x-api-key": "what-is-no-key"},
]


def client(shop: Shop, keys: KeyRing, fast: bool) -> TestClient:
    settings = Settings(bundle=shop.root, shadow=0)
    return TestClient(create_app(settings, keys, fast=fast), base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module", params=["open", "keyed"])
def pair(shop: Shop, request: pytest.FixtureRequest) -> Iterator[tuple[TestClient, TestClient]]:
    """The endpoint in front of the application, and the application alone."""
    keys = KeyRing.read(None, {"RECALL_READ_KEY": READ} if request.param == "keyed" else {})
    with client(shop, keys, True) as fast, client(shop, keys, False) as slow:
        for one in (fast, slow):
            deadline = time.monotonic() + 60
            while one.get("/health/ready").status_code != 200:
                assert time.monotonic() < deadline
        yield fast, slow


def both(pair: tuple[TestClient, TestClient], call: Call, **further: str) -> tuple[Response, Response]:
    headers = {"x-request-id": "same", **dict(call.headers), **further}
    first, second = (one.post(call.target, content=call.body, headers=headers) for one in pair)
    return first, second


def assert_alike(fast: Response, slow: Response) -> None:
    assert (fast.status_code, fast.content) == (slow.status_code, slow.content)
    assert fast.headers.keys() == slow.headers.keys()
    of_request = {"server-timing"}
    assert {k: v for k, v in fast.headers.items() if k not in of_request} == {
        k: v for k, v in slow.headers.items() if k not in of_request
    }
    if fast.status_code == 200:
        assert stages(fast) == stages(slow) == ["parse", "recommend", "total"]


def stages(answer: Response) -> list[str]:
    return [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")]


def test_every_body_gets_the_same_answer(pair: tuple[TestClient, TestClient]) -> None:
    for call in recommendations():
        assert_alike(*both(pair, call, **{"x-api-key": READ}))


@pytest.mark.parametrize("headers", KEYS, ids=range(len(KEYS)))
def test_keys_are_required_in_the_same_way(pair: tuple[TestClient, TestClient], headers: dict[str, str]) -> None:
    for call in list(recommendations())[::25]:
        assert_alike(*both(pair, call, **headers))


@given(raw=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_get_the_same_answer(pair: tuple[TestClient, TestClient], raw: bytes) -> None:
    assert_alike(*both(pair, Call("POST", "/v1/recommend", raw, tuple(JSON.items()))))


@pytest.mark.parametrize("target", ["/v1/recommend?x=1", "/v1/recommend?"])
def test_query_strings_and_chunks_change_nothing(pair: tuple[TestClient, TestClient], target: str) -> None:
    whole = Call("POST", "/v1/recommend", b'{"user_id":"3","n":4}', (*JSON.items(), ("x-api-key", READ)))
    (expected, _), (fast, slow) = both(pair, whole), both(pair, whole._replace(target=target))
    chunked = pair[0].post(
        target, content=iter([whole.body[:5], whole.body[5:]]), headers={"x-request-id": "same", **dict(whole.headers)}
    )
    for answer in (fast, slow, chunked):
        assert (answer.status_code, answer.content) == (200, expected.content)


def test_an_unexpected_error_is_a_problem_too(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setattr(Live, "recommend", broken)
    with client(shop, KeyRing(()), True) as asking:
        answer = asking.post("/v1/recommend", json={})
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:fm-recall:problem:internal"
    assert "nobody foresaw it" not in answer.text
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


@pytest.fixture(scope="module")
def locked(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one key, a low rate, small bodies and a timeout of a second."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    options = ("--max-body", "100", "--patience", "1", "--access", "1")
    with serving(shop.root, log, *options, environment={"RECALL_READ_KEY": READ}) as server:
        server.wait()
        yield server


def test_a_body_that_is_too_large_or_too_slow_is_refused(locked: Server) -> None:
    key = {**JSON, "x-api-key": READ}
    assert locked.ask("POST", "/v1/recommend", b" " * 200, **key).status == 413
    slow = request("POST", "/v1/recommend", b'{"n": 5}', x_request_id="slow", **key)
    with locked.connect() as connection:
        connection.sendall(slow[:-1])
        answer = receive(connection)
        assert (answer.status, answer.headers["connection"], answer.json["request_id"]) == (408, "close", "slow")
        assert connection.recv(1) == b""
    assert locked.ask("POST", "/v1/recommend", b'{"n": 5}', **key).status == 200


def test_answers_are_counted_and_logged(locked: Server) -> None:
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
    with locked.connect() as connection:  # it disconnects before the request is complete
        connection.sendall(request("POST", "/v1/recommend", b'{"n": 5}', x_api_key=READ, **JSON)[:-1])
        time.sleep(0.1)
    time.sleep(0.2)
    after = counted()
    for status, count in (("200", 3), ("422", 1), ("401", 1), ("499", 1)):
        name = "recall_http_requests_total"
        assert of(after, name, route, f'"{status}"') - of(before, name, route, f'"{status}"') == count
    timed = "recall_http_request_duration_seconds_count"
    assert of(after, timed, route) - of(before, timed, route) == 6
    assert of(after, "recall_http_requests_in_flight") == 1  # the scrape itself
    assert of(after, "recall_stage_duration_seconds_count", '"parse"') > of(
        before, "recall_stage_duration_seconds_count", '"parse"'
    )
    assert "request_id=counted-2" in locked.log.read_text()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    asked = [request("POST", "/v1/recommend", b'{"n": %d}' % n, x_request_id=f"n{n}", **JSON) for n in range(1, 30)]
    between = request("GET", "/v1/info", x_request_id="between")
    shaped = request("POST", "/v1/recommend", b'{"n": 3, "explain": true}', x_request_id="told", **JSON)
    with server.connect() as connection:
        connection.sendall(b"".join([*asked[:10], between, shaped, *asked[10:]]))
        ids = [receive(connection).headers["x-request-id"] for _ in range(len(asked) + 2)]
    names = [f"n{n}" for n in range(1, 30)]
    assert ids == [*names[:10], "between", "told", *names[10:]]


def outcome(act, body: object) -> object:
    try:
        return act(body)
    except ProblemError as problem:
        return [(fault.pointer, fault.message) for fault in problem.faults]


IDS = st.one_of(st.text(max_size=3), st.integers(), st.booleans(), st.none(), st.just("x" * 1024), st.just("x" * 1025))
NUMBERS = st.one_of(st.integers(-1, 2), st.integers(998, 1002), st.booleans(), st.floats(0, 3), st.none(), st.text(max_size=1))


@given(st.fixed_dictionaries({}, optional={"user_id": IDS, "n": NUMBERS, "m": NUMBERS}))
def test_the_fast_check_agrees_with_the_model_of_the_body(body: dict[str, object]) -> None:
    def slowly(one: object) -> Request:
        return parsed(RecommendRequest, one).request()

    assert outcome(parse_request, body) == outcome(slowly, body)


def test_rejections_leave_nothing_for_the_garbage_collector(shop: Shop) -> None:
    """Under overload most requests are rejected; errors that keep their own tracebacks cost as much as the answers."""

    async def go() -> tuple[int, int]:
        app = create_app(Settings(bundle=shop.root, shadow=0, waiting=1, standing=1), KeyRing(()))
        raw = Call("POST", "/v1/recommend", b'{"n": 1000}', (("content-type", "application/json"),))
        async with app.router.lifespan_context(app):
            while await answered(app, Call("GET", "/health/ready")) != 200:
                await asyncio.sleep(0.02)
            await asyncio.gather(*(answered(app, raw) for _ in range(200)))  # creates all that is created only once
            gc.collect()
            gc.disable()
            try:
                statuses = await asyncio.gather(*(answered(app, raw) for _ in range(200)))
                return statuses.count(503), gc.collect()
            finally:
                gc.enable()

    rejected, garbage = asyncio.run(go())
    assert rejected > 50
    assert garbage < rejected


async def answered(app: ASGIApp, call: Call) -> int:
    """Status of an answer of the application, called without a server."""
    status: list[int] = []
    headers = [(name.encode(), value.encode()) for name, value in (("host", "localhost"), *call.headers)]
    scope = {"type": "http", "method": call.method, "path": call.target, "raw_path": call.target.encode(), "root_path": ""}

    async def receive() -> Message:
        return {"type": "http.request", "body": call.body, "more_body": False}

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        status.append(message.get("status", 0))

    await app({**scope, "query_string": b"", "headers": headers, "http_version": "1.1"}, receive, send)
    return status[0]
