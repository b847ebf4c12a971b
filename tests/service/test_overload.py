"""Overload over real connections: some requests are answered, the others rejected, in order."""

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, receive, request, serving

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def narrow(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """At most two requests may wait."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(shop.root, log, "--waiting", "2", "--standing", "2", "--connections", "150") as server:
        server.wait()
        yield server


def asked(number: int, **headers: str) -> bytes:
    """A search on the event loop or on threads, which have separate queues; only that of the threads fills on any machine."""
    body = b'{"n": 1000}' if number % 2 else b'{"n": 1000, "rules": [{"kind": "diversify"}]}'
    return request("POST", "/v1/recommend", body, x_request_id=f"number-{number}", **JSON, **headers)


def all_at_once(server: Server, connections: list[socket.socket], raws: list[bytes]) -> list[Answer]:
    """Answers to requests that all arrive at the same time."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        for connection, raw in zip(connections, raws, strict=True):
            connection.sendall(raw)
    finally:
        server.process.send_signal(signal.SIGCONT)
    return [receive(connection) for connection in connections]


def test_rejected_requests_get_503_and_the_connection_stays_open(narrow: Server) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(narrow.connect()) for _ in range(100)]
        seen: Counter[int] = Counter()
        for turn in range(5):
            numbers = range(turn * 1000, turn * 1000 + len(connections))
            answers = all_at_once(narrow, connections, [asked(number) for number in numbers])
            for number, answer in zip(numbers, answers, strict=True):
                seen[answer.status] += 1
                assert answer.headers["x-request-id"] == answer.json["request_id"] == f"number-{number}"
                if answer.status == 503:
                    assert answer.json["type"] == "urn:fm-recall:problem:busy"
                    assert answer.headers["retry-after"] == "1"
                    assert answer.headers["content-type"] == "application/problem+json"
            assert narrow.ask("GET", "/health/live").status == 200
        assert set(seen) == {200, 503}
        assert seen[200] >= 5
    assert narrow.post({}).status == 200


def test_a_connection_is_closed_on_request_even_after_a_rejection(narrow: Server) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(narrow.connect()) for _ in range(60)]
        answers = all_at_once(narrow, connections, [asked(number, connection="close") for number in range(60)])
        assert {answer.status for answer in answers} <= {200, 503}
        for connection in connections:
            assert connection.recv(1) == b""


def test_pipelined_requests_are_answered_in_order_and_large_bodies_are_dropped(narrow: Server) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(narrow.connect()) for _ in range(30)]
        padded = request("POST", "/v1/recommend", b'{"n": 1}' + b" " * 200_000, x_request_id="padded", **JSON)
        live = request("GET", "/health/live", x_request_id="live")
        for connection in connections:
            connection.sendall(asked(1) + padded + live + asked(2))
        for connection in connections:
            answers = [receive(connection) for _ in range(4)]
            assert [answer.headers["x-request-id"] for answer in answers] == ["number-1", "padded", "live", "number-2"]
            assert answers[2].status == 200
            assert {answer.status for answer in answers} <= {200, 503}


def test_health_is_answered_under_overload(narrow: Server) -> None:
    stop = threading.Event()
    statuses: Counter[int] = Counter()

    def flood() -> None:
        with ExitStack() as stack:
            connections = [stack.enter_context(narrow.connect()) for _ in range(40)]
            while not stop.is_set():
                statuses.update(
                    answer.status
                    for answer in all_at_once(narrow, connections, [asked(number) for number in range(len(connections))])
                )

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        for _ in range(20):
            assert narrow.ask("GET", "/health/ready").status == 200
            assert narrow.ask("GET", "/v1/info").status == 200
    finally:
        stop.set()
        flooding.join()
    assert set(statuses) == {200, 503}
    assert narrow.post({}).status == 200  # the queue is empty once no requests arrive


def test_connections_beyond_the_limit_get_503(narrow: Server) -> None:
    with ExitStack() as stack:
        kept = [stack.enter_context(narrow.connect()) for _ in range(160)]
        for connection in kept:
            connection.sendall(request("GET", "/health/live"))
        statuses = {receive(connection).status for connection in kept}
        assert 503 in statuses  # connections beyond the limit, which are closed
    narrow.wait("/health/live")


def test_a_slow_body_does_not_block_other_requests(narrow: Server) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(narrow.connect()) for _ in range(50)]
        for connection in slow:
            connection.sendall(asked(1)[:-1])
        time.sleep(0.2)
        assert {narrow.post({}).status for _ in range(10)} == {200}
        for connection in slow:
            connection.sendall(asked(1)[-1:])
        assert {receive(connection).status for connection in slow} <= {200, 503}
