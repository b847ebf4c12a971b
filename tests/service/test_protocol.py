"""Clients that do odd things to their connection: others do not notice, and what was asked rightly is answered."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import orjson
import pytest

from tests.service.publishing import Shop
from tests.service.serving import Server, receive, request, serving

JSON = {"content-type": "application/json"}
READ = "read-key-of-some-length"
LIVE = request("GET", "/health/live")


@pytest.fixture(scope="module")
def locked(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes one key, and waits for a second only; few may wait for a search."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    options = ("--patience", "1", "--waiting", "8", "--standing", "4")
    with serving(shop.root, log, *options, environment={"RECALL_READ_KEY": READ}) as server:
        server.wait()
        yield server


def asked(body: object, path: str = "/v1/recommend", **headers: str) -> bytes:
    return request("POST", path, orjson.dumps(body), **{**JSON, **headers})


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/recommend:batch", "/v1/score"])
def test_requests_that_were_refused_before_they_had_come_take_nobodys_place(locked: Server, path: str) -> None:
    raw = asked({"n": 5}, path)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(locked.connect())
            connection.sendall(raw[:-8])
            time.sleep(0.005)
            connection.sendall(raw[-8:])
            assert receive(connection).status == 401
        statuses = {locked.ask("POST", "/v1/recommend", b"{}", x_api_key=READ, **JSON).status for _ in range(5)}
        assert statuses == {200}


def test_a_client_that_does_not_read_is_let_go_and_takes_nobodys_place(locked: Server) -> None:
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(("127.0.0.1", locked.port))
        greedy.setblocking(False)
        raw = asked({"requests": [{"n": 1000}] * 100}, "/v1/recommend:batch", x_api_key=READ) * 20
        deadline = time.monotonic() + 30
        reset = False
        while not reset:
            assert time.monotonic() < deadline
            try:
                raw = raw[greedy.send(raw) :] if raw else raw
                greedy.send(b"\r\n") if not raw else None
            except BlockingIOError:
                pass
            except OSError:
                reset = True
            answer = locked.ask("POST", "/v1/recommend", b"{}", x_api_key=READ, **JSON)
            assert answer.status == 200
            time.sleep(0.05)


def test_a_client_that_reads_slowly_but_steadily_gets_all_of_its_answer(locked: Server) -> None:
    body = orjson.dumps({"requests": [{"n": 1000, "exclude_seen": False, "explain": False}] * 256})
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.connect(("127.0.0.1", locked.port))
        slow.settimeout(10)
        slow.sendall(request("POST", "/v1/recommend:batch", body, x_api_key=READ, **JSON))
        data, began = bytearray(), time.monotonic()
        while b"\r\n\r\n" not in data:
            data += slow.recv(1 << 12)
        head, _, _ = bytes(data).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        whole = len(head) + 4 + length
        pause = 3.0 / (whole / (1 << 16))  # three times as long as the server waits for one that does not read
        while len(data) < whole:
            part = slow.recv(1 << 16)
            assert part, f"closed after {len(data)} of {whole} bytes"
            data += part
            time.sleep(pause * len(part) / (1 << 16))
        assert len(data) == whole
        assert time.monotonic() - began > 2


def test_trailers_are_bounded(locked: Server) -> None:
    head = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += b"x-api-key: " + READ.encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    assert locked.send(head + b"x-trailer: told\r\n\r\n").status == 200
    with locked.connect() as connection, suppress(OSError):
        connection.sendall(head)
        for number in range(100_000):
            connection.sendall(b"x-trailer-%d: %b\r\n" % (number, b"x" * 1000))
        raise AssertionError("a hundred megabytes of trailers were taken")
    assert locked.ask("GET", "/health/live").status == 200


def test_many_requests_in_one_read_are_not_taken_for_large_headers(locked: Server) -> None:
    with locked.connect() as connection:
        connection.sendall(LIVE * 700 + LIVE[:-5])
        assert {receive(connection).status for _ in range(700)} == {200}
        connection.sendall(LIVE[-5:])
        assert receive(connection).status == 200


@pytest.mark.parametrize("name", ["upgrade", "Upgrade", "UPGRADE"])
@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/score"])
def test_offers_of_another_protocol_are_passed_over(locked: Server, name: str, path: str) -> None:
    body = {"items": ["1"]} if path == "/v1/score" else {"n": 5}
    raw = asked(body, path, x_api_key=READ, connection="Upgrade, HTTP2-Settings", **{name: "h2c", "http2-settings": "AAM"})
    place = raw.index(b"\r\n\r\n") + 4
    with locked.connect() as connection:
        for part in (raw, raw[:place]):
            connection.sendall(part)
            if part != raw:
                time.sleep(0.05)
                connection.sendall(raw[place:])
            assert receive(connection).status == 200


def test_what_follows_an_offer_is_never_read_as_another_request(locked: Server) -> None:
    raw = request("POST", "/v1/recommend", LIVE, x_api_key=READ, **JSON, connection="upgrade", upgrade="x")
    place = raw.index(b"\r\n\r\n") + 4
    words = raw.index(b"connection: upgrade") + 15, raw.index(b"upgrade: x") + 3
    with locked.connect() as connection:
        for first, last in ((0, words[0]), words, (words[1], place)):
            connection.sendall(raw[first:last])
            time.sleep(0.05)
        answer = receive(connection)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        with suppress(OSError):
            connection.sendall(raw[place:])
            assert connection.recv(1) == b""


def test_clients_that_leave_many_requests_behind_leave_no_trace_in_the_log(locked: Server) -> None:
    before = len(locked.log.read_text())
    for _ in range(5):
        with locked.connect() as connection:
            connection.sendall(asked({"requests": [{"n": 1000}] * 20}, "/v1/recommend:batch", x_api_key=READ) * 20)
            time.sleep(0.02)
    time.sleep(1)
    assert locked.ask("GET", "/health/live").status == 200
    assert "Traceback" not in locked.log.read_text()[before:]


def test_what_is_turned_away_says_as_much_as_what_is_answered(locked: Server) -> None:
    answer = locked.send(b"nonsense\r\n\r\n")
    assert answer.status == 400
    assert {"date", "x-content-type-options", "content-security-policy", "cache-control"} <= answer.headers.keys()
