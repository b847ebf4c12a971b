"""Real servers whose file of keys changes: every worker accepts new keys and refuses revoked ones."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from tests.service.publishing import Shop
from tests.service.serving import Server, both_ready, children, receive, request, serving

FIRST, SECOND = "the first of the keys", "the second of the keys"


def line(key: str, *rest: str, role: str = "read") -> str:
    return " ".join([role, "sha256:" + sha256(key.encode()).hexdigest(), *rest]) + "\n"


@contextmanager
def keyed(shop: Shop, tmp_path: Path, *options: str) -> Iterator[tuple[Server, Path]]:
    file = tmp_path / "keys"
    file.write_text(line(FIRST))
    with serving(shop.root, tmp_path / "log", "--keys", str(file), *options) as server:
        server.wait()
        yield server, file


def asked(server: Server, key: str) -> int:
    try:
        return server.ask("GET", "/v1/info", x_api_key=key).status
    except ConnectionError:  # a worker that is replaced closes idle connections
        return 0


def within(seconds: float, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_new_key_is_accepted_and_a_revoked_one_is_not(shop: Shop, tmp_path: Path) -> None:
    with keyed(shop, tmp_path) as (server, file):
        assert (asked(server, FIRST), asked(server, SECOND)) == (200, 401)
        file.write_text(line(SECOND))
        within(20, lambda: asked(server, SECOND) == 200)
        assert asked(server, FIRST) == 401
        metrics = server.ask("GET", "/metrics", x_api_key=SECOND).body.decode()
        assert "recall_keys 1.0" in metrics
        assert SECOND not in server.log.read_text()


def test_a_broken_file_keeps_the_keys_and_is_reported(shop: Shop, tmp_path: Path) -> None:
    with keyed(shop, tmp_path) as (server, file):
        file.write_text(line(SECOND) + "nonsense\n")
        within(20, lambda: "nonsense" not in server.log.read_text() and "previous keys stay valid" in server.log.read_text())
        assert (asked(server, FIRST), asked(server, SECOND)) == (200, 401)
        for answer in (server.ask("GET", "/v1/info", x_api_key=FIRST), server.ask("GET", "/health/ready")):
            assert answer.status == 200
            assert [part["part"] for part in answer.json["degraded"]] == ["keys"]
            assert str(tmp_path) not in answer.body.decode()
        assert "recall_keys_degraded 1.0" in server.ask("GET", "/metrics", x_api_key=FIRST).body.decode()
        file.write_text(line(SECOND))
        within(20, lambda: asked(server, SECOND) == 200)
        assert server.ask("GET", "/health/ready").json["degraded"] == []
        assert "recall_keys_degraded 0.0" in server.ask("GET", "/metrics", x_api_key=SECOND).body.decode()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sighup_reloads_the_file(shop: Shop, tmp_path: Path, workers: int) -> None:
    with keyed(shop, tmp_path, "--poll", "600", "--workers", str(workers)) as (server, file):
        if workers > 1:
            both_ready(server)
        file.write_text(line(SECOND))
        time.sleep(1.5)
        assert asked(server, SECOND) == 401
        server.process.send_signal(signal.SIGHUP)
        within(20, lambda: [asked(server, SECOND) for _ in range(10)] == [200] * 10)
        assert server.process.poll() is None


@pytest.mark.slow
def test_a_revoked_key_is_refused_by_all_workers_even_one_started_with_a_broken_file(
    own_shop: Shop, tmp_path: Path, reaching: Callable[[Server, int], socket.socket]
) -> None:
    own_shop.publish(seed=1)

    def asks(connection: socket.socket, key: str) -> int:
        connection.sendall(request("GET", "/v1/info", x_api_key=key))
        return receive(connection).status

    with keyed(own_shop, tmp_path, "--workers", "2") as (server, file):
        workers = both_ready(server)
        connections = [reaching(server, worker) for worker in workers]
        file.write_text(line(SECOND))
        for connection in connections:
            within(20, lambda connection=connection: asks(connection, SECOND) == 200)
            assert asks(connection, FIRST) == 401
        time.sleep(1.5)  # the file is checked once a second
        file.write_text("nonsense\n")
        os.kill(workers[0], signal.SIGKILL)
        within(30, lambda: server.log.read_text().count("serving bundle") == 3)
        (replaced,) = set(children(server)) - set(workers)
        fresh = reaching(server, replaced)
        assert (asks(fresh, FIRST), asks(fresh, SECOND)) == (401, 200)


def test_a_key_keeps_its_count_when_other_keys_change(shop: Shop, tmp_path: Path) -> None:
    with keyed(shop, tmp_path) as (server, file):
        file.write_text(line(FIRST, "rate=0.01"))
        within(20, lambda: asked(server, FIRST) == 429)
        others = [f"a key that is number {number}" for number in range(50)]
        file.write_text("".join(map(line, others)) + line(FIRST, "rate=0.01"))
        within(20, lambda: asked(server, others[0]) == 200)
        assert asked(server, FIRST) == 429
        file.write_text(line(FIRST) + line(others[0]))
        within(20, lambda: asked(server, FIRST) == 200)
