"""The application works in the same way under all supported servers."""

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.service.publishing import Shop
from tests.service.serving import Server, free_port, receive, request

JSON = {"content-type": "application/json"}
POST = request("POST", "/v1/recommend", b'{"user_id": "3", "n": 5}', x_request_id="same", **JSON)
HOME = Path(__file__).parents[2]
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "--factory", "service.app:create_app", "--workers", "2", "--port"],
    "granian": ["-m", "granian", "--interface", "asgi", "--factory", "service.app:create_app", "--workers", "2", "--port"],
}


@contextmanager
def run(command: Sequence[str], port: int, root: Path, log: Path) -> Iterator[Server]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOME), "RECALL_BUNDLE": str(root)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=HOME)
    try:
        server = Server(port, process, log)
        deadline = time.monotonic() + 60
        ready = 0
        while ready < 20:  # each worker loads separately
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            with suppress(OSError):
                ready = ready + 1 if server.ask("GET", "/health/ready").status == 200 else 0
        yield server
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", SERVERS)
def test_answers_are_the_same_under_every_server(server: Server, shop: Shop, tmp_path: Path, name: str) -> None:
    expected = server.send(POST)
    port = free_port()
    with run([sys.executable, *SERVERS[name], str(port)], port, shop.root, tmp_path / "log") as other:
        for _ in range(5):
            answer = other.send(POST)
            assert (answer.status, answer.body) == (200, expected.body)
        for raw in (
            POST.replace(b"/v1/recommend", b"/v1/recommend?x=1"),
            POST.replace(b"HTTP/1.1", b"HTTP/1.0"),
            POST.partition(b"content-length")[0]
            + b"content-type: application/json\r\nx-request-id: same\r\ntransfer-encoding: chunked\r\n\r\n"
            + b'5\r\n{"use\r\n13\r\nr_id": "3", "n": 5}\r\n0\r\n\r\n',
        ):
            answer = other.send(raw)
            assert (answer.status, answer.body) == (200, expected.body), raw
        assert other.ask("POST", "/v1/recommend", b"{", **JSON).status == 400
        assert other.ask("GET", "/v1/items/a%2Fb").status == 200
        assert other.ask("OPTIONS", "/v1/recommend").status == 204


def test_a_unix_socket_is_served(shop: Shop, tmp_path: Path) -> None:
    place = tmp_path / "socket"
    command = [sys.executable, "-m", "service", str(shop.root), "--uds", str(place), "--drain", "0"]
    process = subprocess.Popen(command, cwd=HOME, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket(socket.AF_UNIX) as connection, suppress(FileNotFoundError, ConnectionRefusedError):
                connection.connect(str(place))
                connection.sendall(request("GET", "/health/live"))
                assert receive(connection).status == 200
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.terminate()
        process.wait(20)


def test_https_is_served(shop: Shop, tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(command, check=True, capture_output=True)
    options = ["--ssl-certfile", str(tmp_path / "cert"), "--ssl-keyfile", str(tmp_path / "key"), "--drain", "0"]
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "service", str(shop.root), "--port", str(port), *options], cwd=HOME)
    context = ssl.create_default_context(cafile=str(tmp_path / "cert"))
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(ConnectionRefusedError):
                plain = socket.create_connection(("127.0.0.1", port))
                with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
                    connection.sendall(request("GET", "/health/live"))
                    assert connection.recv(12) == b"HTTP/1.1 200"
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.terminate()
        process.wait(20)
