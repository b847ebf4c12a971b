"""Raw bytes over a real socket: every invalid request gets a problem document that names the fault, never a 500."""

import gzip
import time

import orjson
import pytest

from tests.faults.bodies import NOT_HTTP
from tests.service.serving import Server, receive, request

JSON = "application/json"


def body(text: str) -> bytes:
    return text.encode()


NOT_JSON = {
    "empty": b"",
    "blank": b"  \n",
    "truncated": b'{"n": 1',
    "nan": b'{"n": NaN}',
    "nan feature": b'{"features": {"age": NaN}}',
    "infinity": b'{"n": -Infinity}',
    "too large a number": b'{"features": {"age": 1e999}}',
    "5000 digits": b'{"n": ' + b"7" * 5000 + b"}",
    "lone surrogate": b'{"user_id": "\\ud800"}',
    "lone low surrogate": b'{"exclude": ["\\udc00x"]}',
    "bad utf-8": b'{"user_id": "\xff\xfe"}',
    "overlong utf-8": b'{"user_id": "\xc0\xaf"}',
    "utf-16": '{"n": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"n": 1}',
    "100k brackets": b"[" * 100_000,
    "100k nested": b'{"features": {"age": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "1000 nested objects": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "raw control character": b'{"user_id": "a\x00b"}',
    "two documents": b'{"n": 1}{"n": 2}',
    "comment": b'{"n": 1 /* ten */}',
    "form": b"n=10&user_id=1",
    "xml": b"<n>10</n>",
}

TWICE = {
    b'{"n": 1, "n": 2}': "/n",
    b'{"context": {"hour": 1, "hour": 2}}': "/context/hour",
    b'{"' + b"k" * 100_000 + b'": 1, "' + b"k" * 100_000 + b'": 2}': "/" + "k" * 256,
    b'{"exclude": [], "n": 1, "exclude": ["1"]}': "/exclude",
}

INVALID = [
    ("[]", [""]),
    ("null", [""]),
    ('"text"', [""]),
    ("12", [""]),
    ('{"n": "10"}', ["/n"]),
    ('{"n": true}', ["/n"]),
    ('{"n": null}', ["/n"]),
    ('{"n": 10.5}', ["/n"]),
    ('{"n": 10.0}', ["/n"]),
    ('{"n": 0}', ["/n"]),
    ('{"n": -1}', ["/n"]),
    ('{"n": 1001}', ["/n"]),
    ('{"n": 1e9}', ["/n"]),
    ('{"n": 1000000000000000000000000}', ["/n"]),
    ('{"n": [10]}', ["/n"]),
    ('{"n": {}}', ["/n"]),
    ('{"user_id": ""}', ["/user_id"]),
    ('{"user_id": true}', ["/user_id"]),
    ('{"user_id": 1.5}', ["/user_id"]),
    ('{"user_id": 123456789012345678901234567890}', ["/user_id"]),
    ('{"user_id": ["1"]}', ["/user_id"]),
    ('{"user_id": "' + "x" * 10_000 + '"}', ["/user_id"]),
    ('{"exclude_seen": "yes"}', ["/exclude_seen"]),
    ('{"exclude_seen": 1}', ["/exclude_seen"]),
    ('{"exclude": "1"}', ["/exclude"]),
    ('{"exclude": {"0": "1"}}', ["/exclude"]),
    ('{"exclude": ["1", null]}', ["/exclude/1"]),
    ('{"exclude": ["1", "", ["2"]]}', ["/exclude/1", "/exclude/2"]),
    ('{"exclude": [' + ",".join('"1"' for _ in range(10_001)) + "]}", ["/exclude"]),
    ('{"history": [' + ",".join("1" for _ in range(1001)) + "]}", ["/history"]),
    ('{"history": "1"}', ["/history"]),
    ('{"history": [1.5]}', ["/history/0"]),
    ('{"features": []}', ["/features"]),
    ('{"features": null}', ["/features"]),
    ('{"features": "age"}', ["/features"]),
    ('{"features": {"age": {}}}', ["/features/age"]),
    ('{"features": {"age": [[1]]}}', ["/features/age"]),
    ('{"features": {"age": [{"a": 1}]}}', ["/features/age"]),
    ('{"context": {"hour": {"at": 1}}}', ["/context/hour"]),
    ('{"features": {"' + "k" * 100_000 + '": 1}}', ["/features"]),
    ('{"features": {"": 1}}', ["/features"]),
    ('{"popularity": "1"}', ["/popularity"]),
    ('{"popularity": true}', ["/popularity"]),
    ('{"popularity": null}', ["/popularity"]),
    ('{"popularity": [1]}', ["/popularity"]),
    ('{"popularity": -0.001}', ["/popularity"]),
    ('{"popularity": 10.001}', ["/popularity"]),
    ('{"popularity": 1e308}', ["/popularity"]),
    ('{"popularity": 1000000000000000000000000000000}', ["/popularity"]),
    ('{"rules": {}}', ["/rules"]),
    ('{"rules": null}', ["/rules"]),
    ('{"rules": ["dedupe"]}', ["/rules/0"]),
    ('{"rules": [{"kind": "qouta"}, {"column": "genre"}]}', ["/rules/0/kind", "/rules/1"]),
    ('{"rules": [{"kind": "quota", "column": "genre", "most": "2"}]}', ["/rules/0/most"]),
    ('{"rules": [{"kind": "quota", "colunm": "genre", "most": 2}]}', ["/rules/0/column", "/rules/0/colunm"]),
    ('{"rules": [{"kind": "diversify", "relevance": true}]}', ["/rules/0/relevance"]),
    ('{"rules": [{"kind": "diversify", "relevance": 1.01, "pool": 2001}]}', ["/rules/0/relevance", "/rules/0/pool"]),
    ('{"rules": [{"kind": "pin", "items": {"a/b": 0, "": 1}}]}', ["/rules/0/items/a~1b", "/rules/0/items"]),
    ('{"rules": [{"kind": "pin", "items": {"1": 11}}]}', ["/rules/0/items"]),
    ('{"rules": [{"kind": "pin", "items": {"1": 2, "2": 2}}]}', ["/rules/0/items"]),
    ('{"rules": [{"kind": "dedupe", "column": "gerne"}]}', ["/rules/0/column"]),
    ('{"rules": [' + ",".join('{"kind": "diversify"}' for _ in range(11)) + "]}", ["/rules"]),
    ('{"channels": []}', ["/channels"]),
    ('{"channels": {}}', ["/channels/lists"]),
    ('{"channels": {"lists": [], "merg": "weights"}}', ["/channels/lists", "/channels/merg"]),
    ('{"channels": {"lists": [{"kind": "newest"}]}}', ["/channels/lists/0/kind"]),
    ('{"channels": {"lists": [{"kind": "model", "weight": -1}]}}', ["/channels/lists/0/weight"]),
    ('{"channels": {"lists": [{"kind": "list", "items": ["1", 1.5]}]}}', ["/channels/lists/0/items/1"]),
    ('{"channels": {"lists": [{"kind": "list", "items": [1, "1"]}]}}', ["/channels/lists/0/items"]),
    ('{"channels": {"lists": [{"kind": "list", "items": ["1"], "scores": []}]}}', ["/channels/lists/0/scores"]),
    ('{"channels": {"lists": [{"kind": "model"}, {"kind": "model"}]}}', ["/channels/lists/1"]),
    ('{"channels": {"lists": [{"kind": "latest", "column": "genre"}]}}', ["/channels/lists/0/column"]),
    ('{"boosts": []}', ["/boosts"]),
    ('{"boosts": {"yaer": 1}}', ["/boosts/yaer"]),
    ('{"boosts": {"year": "1"}}', ["/boosts/year"]),
    ('{"boosts": {"year": true}}', ["/boosts/year"]),
    ('{"boosts": {"year": 1e7}}', ["/boosts/year"]),
    ('{"topk": 5}', ["/topk"]),
    ('{"' + "k" * 100_000 + '": 1}', ["/" + "k" * 256]),
    ('{"userid": "1", "N": 5}', ["/userid", "/N"]),
    ('{"a/b~c": 5}', ["/a~1b~0c"]),
    ('{"__class__": 1, "constructor": 2}', ["/__class__", "/constructor"]),
    ('{"n": "10", "exclude": [true], "x": 1}', ["/n", "/exclude/0", "/x"]),
]


def assert_problem(answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json
    assert document["status"] == status
    assert document["type"].startswith("urn:fm-recall:problem:")
    assert document["title"]
    assert document["detail"]
    assert len(answer.body) < 20_000


@pytest.mark.parametrize("name", NOT_JSON)
def test_invalid_json_is_refused(server: Server, name: str) -> None:
    answer = server.post(NOT_JSON[name])
    assert_problem(answer, 400)
    assert answer.pointers == [""]
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("raw", TWICE, ids=range(len(TWICE)))
def test_a_repeated_key_is_refused(server: Server, raw: bytes) -> None:
    answer = server.post(raw)
    assert_problem(answer, 400)
    assert answer.pointers == [TWICE[raw]]


@pytest.mark.parametrize(("text", "pointers"), INVALID, ids=lambda value: str(value)[:40])
def test_wrong_values_are_named(server: Server, text: str, pointers: list[str]) -> None:
    answer = server.post(text.encode())
    assert_problem(answer, 422)
    assert sorted(answer.pointers) == sorted(pointers)
    assert all(entry["message"] for entry in answer.json["errors"])


def test_an_unknown_key_is_answered_with_the_nearest_one(server: Server) -> None:
    assert "Did you mean 'exclude_seen'?" in server.post({"excludeseen": True}).json["errors"][0]["message"]


def test_a_long_list_of_faults_is_truncated(server: Server) -> None:
    answer = server.post({f"key{i}": 1 for i in range(20_000)})
    assert_problem(answer, 422)
    assert len(answer.pointers) == 20
    assert "20000" in answer.json["detail"]


def test_values_are_never_sent_back(server: Server) -> None:
    secret = "hunter2hunter2"
    for value in (
        {"user_id": [secret]},
        {"n": secret},
        {"exclude": [[secret]]},
        {"features": {"age": {"x": secret}}},
        {"features": {"age": secret}},
        {"exclude_seen": secret},
        {secret[:4]: secret},
    ):
        answer = server.post(value)
        assert answer.status == 422
        assert secret.encode() not in answer.body
    assert secret not in server.log.read_text()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", "\xe9"]
)
def test_other_content_types_are_refused(server: Server, content_type: str) -> None:
    raw = request("POST", "/v1/recommend", b"{}").replace(
        b"\r\n\r\n", b"\r\ncontent-type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    )
    answer = server.send(raw)
    assert_problem(answer, 415)
    assert answer.pointers == [""]


def test_a_missing_content_type_is_refused(server: Server) -> None:
    assert_problem(server.ask("POST", "/v1/recommend", b"{}"), 415)


@pytest.mark.parametrize(
    "content_type", ["application/json;charset=utf-8", 'Application/JSON; charset="UTF-8"', "application/json"]
)
def test_json_in_utf_8_is_accepted(server: Server, content_type: str) -> None:
    assert server.post({}, content_type=content_type).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
def test_compressed_bodies_are_refused(server: Server, encoding: str) -> None:
    assert_problem(server.post(gzip.compress(b"{}" * 1000), content_encoding=encoding), 415)


def test_a_huge_body_is_refused_before_it_is_read(server: Server) -> None:
    with server.connect() as connection:
        head = request("POST", "/v1/recommend", content_type=JSON).replace(b"content-length: 0", b"content-length: 1000000000")
        connection.sendall(head)
        start = time.monotonic()
        answer = receive(connection)
        assert time.monotonic() - start < 1
    assert_problem(answer, 413)
    assert answer.pointers == [""]


def test_a_huge_chunked_body_is_refused_at_the_limit(server: Server) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = (
        f"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    )
    with server.connect() as connection:
        connection.sendall(head + chunk * 17)  # 1 MiB and one chunk
        assert_problem(receive(connection), 413)


def test_a_body_at_the_limit_is_read(server: Server) -> None:
    padding = b" " * ((1 << 20) - 2)
    assert server.post(b"{" + padding + b"}").status == 200
    assert_problem(server.post(b"{ " + padding + b"}"), 413)


def test_a_body_in_many_pieces_is_read(server: Server) -> None:
    raw = request("POST", "/v1/recommend", b'{"n": 3}', content_type=JSON)
    with server.connect() as connection:
        for start in range(0, len(raw), 7):
            connection.sendall(raw[start : start + 7])
        assert len(receive(connection).json["items"]) == 3


@pytest.mark.parametrize("length", ["-1", "abc", "99999999999999999999999999", "1, 2"])
def test_wrong_lengths_are_refused(server: Server, length: str) -> None:
    raw = request("POST", "/v1/recommend", b"{}", content_type=JSON).replace(
        b"content-length: 2", b"content-length: " + length.encode()
    )
    assert server.send(raw).status in (400, 413)


@pytest.mark.parametrize("raw", NOT_HTTP, ids=range(len(NOT_HTTP)))
def test_invalid_http_is_refused(server: Server, raw: bytes) -> None:
    assert server.send(raw).status == 400


PATHS = [
    ("GET", "/nope", 404),
    ("GET", "/v1/recommend/", 404),
    ("GET", "/%00", 404),
    ("GET", "/v1/..%2f..%2fetc%2fpasswd", 404),
    ("GET", "/docs/assets/../../../settings.py", 404),
    ("GET", "/docs/assets/%2e%2e/core.py", 404),
    ("GET", "/%ff", 404),
    ("GET", "/<script>alert(1)</script>", 404),
    ("GET", "/v1/recommend", 405),
    ("DELETE", "/v1/recommend", 405),
    ("POST", "/health/live", 405),
    ("TRACE", "/v1/info", 405),
    ("POST", "/docs/assets/swagger-ui.css", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
def test_paths_and_methods(server: Server, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path)
    assert_problem(answer, status)
    assert b"script" not in answer.body
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/info", "/v1/items/a%2Fb"])
def test_options_names_the_methods(server: Server, path: str) -> None:
    answer = server.ask("OPTIONS", path)
    assert answer.status == 204
    assert answer.headers["allow"].endswith("OPTIONS") or "OPTIONS, POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    ["/health/live", "/health/ready", "/v1/info", "/metrics", "/v1/users/3/recommendations", "/docs", "/", "/openapi.json"],
)
def test_head_is_answered_as_get_without_a_body(server: Server, path: str) -> None:
    with server.connect() as connection:
        connection.sendall(request("HEAD", path, connection="close"))
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""


def test_the_request_id_of_the_client_is_returned(server: Server) -> None:
    assert server.post({}, x_request_id="job-7.a_B").json["request_id"] == "job-7.a_B"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "é", "<script>", '"; drop table'])
def test_an_unsafe_request_id_is_replaced(server: Server, given: str) -> None:
    raw = request("POST", "/v1/recommend", b"{}", content_type=JSON).replace(
        b"\r\n\r\n", b"\r\nx-request-id: " + given.encode("latin-1") + b"\r\n\r\n"
    )
    answer = server.send(raw)
    assert answer.status == 200
    assert len(answer.json["request_id"]) == 32
    assert answer.headers["x-request-id"] == answer.json["request_id"]


def test_one_connection_carries_many_requests_and_their_faults(server: Server) -> None:
    good, bad = (
        request("POST", "/v1/recommend", b'{"n": 2}', content_type=JSON),
        request("POST", "/v1/recommend", b"{", content_type=JSON),
    )
    with server.connect() as connection:
        for raw, status in [(good, 200), (bad, 400), (good, 200), (bad, 400), (good, 200)]:
            connection.sendall(raw)
            assert receive(connection).status == status


def test_clients_that_disconnect_early_do_no_harm(server: Server) -> None:
    raw = request("POST", "/v1/recommend", b'{"n": 2}', content_type=JSON)
    for length in range(1, len(raw), 5):
        with server.connect() as connection:
            connection.sendall(raw[:length])
    assert server.post({}).status == 200
    assert "Traceback" not in server.log.read_text()


def test_every_answer_is_timed(server: Server) -> None:
    parts = dict(part.split(";dur=") for part in server.post({"n": 1000}).headers["server-timing"].split(", "))
    assert list(parts) == ["parse", "recommend", "total"]
    assert 0 <= float(parts["parse"]) + float(parts["recommend"]) <= float(parts["total"]) + 0.01
    assert orjson.loads(server.ask("GET", "/health/live").body) == {"status": "live"}
