"""Behaviour of the server: timeouts for slow clients, and a shutdown without lost requests."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.publishing import Shop
from tests.service.serving import Server, receive, request, serving

POST = request("POST", "/v1/recommend", b'{"n": 5}', content_type="application/json")


@pytest.fixture(scope="module")
def impatient(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a timeout of one second."""
    with serving(shop.root, tmp_path_factory.mktemp("log") / "server.log", "--patience", "1") as server:
        server.wait()
        yield server


def closes_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/score"])
def test_a_body_that_does_not_arrive_gets_408(impatient: Server, path: str) -> None:
    with impatient.connect() as connection:
        connection.sendall(request("POST", path, b'{"n": 5}', content_type="application/json")[:-1])
        start = time.monotonic()
        assert impatient.ask("GET", "/health/live").status == 200  # other requests are not blocked
        assert time.monotonic() - start < 0.5
        answer = receive(connection)
        assert answer.status == 408
        assert answer.headers["content-type"] == "application/problem+json"
        assert closes_within(connection, 1)


def test_an_idle_connection_is_closed(impatient: Server) -> None:
    with impatient.connect() as connection:
        connection.sendall(POST)
        assert receive(connection).status == 200
        assert closes_within(connection, 3)


def test_the_rest_of_a_refused_body_is_not_parsed_as_headers(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(request("POST", "/nope", b"x" * 1_000_000) + POST)
        assert receive(connection).status == 404
        assert receive(connection).status == 200


def test_sigterm_turns_ready_off_first_and_loses_no_request(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", "--drain", "1.5") as server:
        server.wait()
        statuses: list[int] = []
        stop = threading.Event()

        def ask_until_told() -> None:
            while not stop.is_set():
                statuses.append(server.send(POST).status)

        asking = threading.Thread(target=ask_until_told)
        asking.start()
        with server.connect() as unfinished:
            unfinished.sendall(POST[:-4])
            server.process.send_signal(signal.SIGTERM)
            draining = server.wait(status=503, seconds=1)
            assert draining.json["type"] == "urn:fm-recall:problem:draining"
            asked = len(statuses)
            time.sleep(0.5)
            stop.set()
            asking.join()
            assert len(statuses) > asked  # still served while it drains
            assert set(statuses) == {200}
            assert server.ask("GET", "/health/live").headers["connection"] == "close"
            time.sleep(1.5)  # no longer listening, but waiting for the request in progress
            with pytest.raises(ConnectionRefusedError):
                server.connect()
            unfinished.sendall(POST[-4:])
            assert receive(unfinished).status == 200
        assert server.process.wait(5) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log.read_text()


def test_sigint_ends_at_once(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", "--drain", "60") as server:
        server.wait()
        server.process.send_signal(signal.SIGINT)
        server.process.wait(5)
        assert "Traceback" not in server.log.read_text()
