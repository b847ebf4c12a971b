"""A server with keys: what each key allows, and wrong keys."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.config import Settings
from service.keys import KeyRing
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, receive, request, serving

READ, ADMIN = "reads-and-reads-and-reads", "changes-and-changes-and"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def keyed(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A read key from a file, an admin key from the environment."""
    folder = tmp_path_factory.mktemp("keyed")
    own = shop.in_(folder / "bundles")
    own.publish(seed=1)
    (folder / "keys").write_text(f"read sha256:{sha256(READ.encode()).hexdigest()} shop front\n")
    options = ("--keys", str(folder / "keys"))
    with serving(own.root, folder / "log", *options, environment={"RECALL_ADMIN_KEY": ADMIN}) as server:
        server.wait()
        yield server


def asks(server: Server, raw: bytes) -> Answer:
    """Request a recommendation with further raw header lines."""
    head = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
    return server.send(head + raw + b"\r\n{}")


@pytest.mark.parametrize("key", [READ, ADMIN])
@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "authorization:bearer   {} ", "X-API-Key: {}"])
def test_a_known_key_allows_reading(keyed: Server, key: str, header: str) -> None:
    assert asks(keyed, header.format(key).encode() + b"\r\n").status == 200


def test_only_an_admin_key_changes_something(keyed: Server) -> None:
    body = orjson.dumps({"items": [{"item_id": "fresh", "features": {"genre": "noir"}}]})
    refused = keyed.ask("POST", "/v1/items:upsert", body, x_api_key=READ, **JSON)
    assert refused.status == 403
    assert refused.json["type"] == "urn:fm-recall:problem:forbidden"
    assert "insufficient_scope" in refused.headers["www-authenticate"]
    assert keyed.ask("DELETE", "/v1/items/1", x_api_key=READ).status == 403
    assert keyed.ask("POST", "/v1/items:upsert", body, x_api_key=ADMIN, **JSON).status == 200
    assert keyed.ask("DELETE", "/v1/items/fresh", x_api_key=ADMIN).json["known"] == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"X-API-Key: \r\n",
        b"X-API-Key: " + READ[:-1].encode() + b"\r\n",
        b"X-API-Key: " + READ.encode() + b"x\r\n",
        b"X-API-Key: " + READ.upper().encode() + b"\r\n",
        b"X-API-Key: " + sha256(READ.encode()).hexdigest().encode() + b"\r\n",
        b"X-API-Key: " + b"\xff\xfe\xe9\r\n",
        b"X-API-Key: " + "schlüssel".encode() + b"\r\n",
        b"X-API-Key: " + b"k" * 50_000 + b"\r\n",
        b"Authorization: " + READ.encode() + b"\r\n",
        b"Authorization: Basic " + READ.encode() + b"\r\n",
        b"Authorization: Bearer\r\n",
        b"Authorization: Bearer \xff\r\n",
        b"X-API-Key: " + READ.encode() + b"\r\nX-API-Key: " + READ.encode() + b"\r\n",
        b"X-API-Key: " + READ.encode() + b"\r\nAuthorization: Bearer " + ADMIN.encode() + b"\r\n",
        b"Cookie: key=" + READ.encode() + b"\r\n",
    ],
    ids=range(16),
)
def test_without_a_known_key_nothing_is_revealed(keyed: Server, raw: bytes) -> None:
    answer = asks(keyed, raw)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    for key in (READ, ADMIN):
        assert key.encode() not in answer.body
        assert key not in str(answer.headers)


def test_a_key_of_a_hundred_kilobytes_is_not_known(keyed: Server) -> None:
    assert keyed.ask("GET", "/v1/info", x_api_key="k" * 100_000).status in (400, 401, 431)


def test_health_answers_without_a_key_and_nothing_else_does(keyed: Server) -> None:
    for path in ("/v1/info", "/metrics", "/v1/models", "/v2"):
        assert keyed.ask("GET", path).status == 401, path
        assert keyed.ask("GET", path, x_api_key=READ).status == 200, path
    for path in ("/health/live", "/health/ready"):
        assert keyed.ask("GET", path, x_api_key="wrong").status == 200
        assert keyed.ask("GET", f"{path}?key={READ}").status == 200
    for path in ("/v1/nowhere", "/health", "/health/live/", "//health/live", "/health%2Flive"):
        assert keyed.ask("GET", path).status == 404


def test_a_connection_works_after_a_refused_request(keyed: Server) -> None:
    good = request("POST", "/v1/recommend", b"{}", x_api_key=READ, **JSON)
    with keyed.connect() as connection:
        connection.sendall(request("POST", "/v1/recommend", b"x" * 500_000) + good)
        assert receive(connection).status == 401
        assert receive(connection).status == 200


def test_no_key_is_ever_logged(keyed: Server) -> None:
    for key in (READ, ADMIN, "a-wrong-key-that-was-sent"):
        asks(keyed, b"X-API-Key: " + key.encode() + b"\r\n")
        keyed.send(b"GET /v1/info?key=" + key.encode() + b" HTTP/9\r\nx-api-key: " + key.encode() + b"\r\n\r\n")
    log = keyed.log.read_text()
    assert not [key for key in (READ, ADMIN, "a-wrong-key") if key in log]


def test_the_key_is_checked_before_the_body(tmp_path: Path) -> None:
    app = create_app(Settings(bundle=tmp_path), KeyRing.read(None, {"RECALL_READ_KEY": READ}))
    with TestClient(app) as client:
        assert client.post("/v1/recommend", content=b"no json").status_code == 401
        assert client.post("/v1/recommend", content=b"no json", headers={"x-api-key": READ}).status_code == 415


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "1e3", "600001", "9" * 50, "abc", "\u0661", ""])
def test_a_timeout_is_a_number_of_milliseconds(server: Server, value: str) -> None:
    answer = asks(server, b"X-Request-Timeout-Ms: " + value.encode() + b"\r\n")
    assert answer.status == 422
    assert "X-Request-Timeout-Ms" in answer.json["detail"]
    assert asks(server, b"X-Request-Timeout-Ms: 60000\r\nX-Request-Timeout-Ms: 60000\r\n").status == 422
    assert server.ask("GET", "/v1/info", **{"x-request-timeout-ms": value}).status == 200  # this path does not search


def test_a_timeout_that_passed_before_the_search_gets_504(server: Server) -> None:
    assert asks(server, b"X-Request-Timeout-Ms: 60000\r\n").status == 200
    with server.connect() as connection:
        head = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
        connection.sendall(head + b"x-request-timeout-ms: 1\r\n\r\n{")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        connection.sendall(b"}")
        answer = receive(connection)
    assert answer.status == 504
    assert answer.json["type"] == "urn:fm-recall:problem:deadline-passed"


def test_stored_users_need_an_admin_key(keyed: Server) -> None:
    for path in ("/v1/users", "/v1/users/3", "/v1/users/recommendations"):
        assert keyed.ask("GET", path).status == 401
        assert keyed.ask("GET", path, x_api_key=READ).status == 403
        assert keyed.ask("GET", path, x_api_key=ADMIN).status == (404 if path.endswith("s") and path != "/v1/users" else 200)
    assert keyed.ask("GET", "/v1/users/3/recommendations", x_api_key=READ).status == 200
    assert keyed.post({"user_id": "3"}, x_api_key=READ).status == 200
