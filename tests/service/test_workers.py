"""Several processes on one port: they share requests, changes and rates, and dead ones are replaced."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from recall.bundle.manifest import MANIFEST
from tests.service.publishing import Shop
from tests.service.serving import Reach, Server, both_ready, children, receive, request, serving
from tests.service.test_live import served_within

POST = request("POST", "/v1/recommend", b'{"user_id": "3", "n": 1000}', content_type="application/json")


@pytest.fixture
def pair(own_shop: Shop, tmp_path: Path) -> Iterator[Server]:
    own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--patience", "60") as server:
        both_ready(server)
        yield server


def test_both_answer_and_both_see_each_change(pair: Server, own_shop: Shop, reaching: Reach) -> None:
    connections = [reaching(pair, worker) for worker in children(pair)]
    assert len(connections) == 2
    for number, connection in enumerate(connections):
        body = orjson.dumps({"items": [{"item_id": f"fresh {number}", "features": {"genre": "noir"}}]})
        connection.sendall(request("POST", "/v1/items:upsert", body, content_type="application/json"))
        sequence = receive(connection).json["sequence"]
        acknowledged = time.monotonic()
        for other in connections:
            while True:
                other.sendall(POST)
                answer = receive(other).json
                if answer["sequence"] >= sequence:
                    break
                assert time.monotonic() < acknowledged + 30
            assert f"fresh {number}" in {item["item_id"] for item in answer["items"]}
    newer = own_shop.publish(seed=2)
    served_within(pair, newer.name)
    deadline = time.monotonic() + 20
    for connection in connections:
        while True:
            connection.sendall(POST)
            answer = receive(connection).json
            if answer["bundle"] == newer.name:
                break
            assert time.monotonic() < deadline
        assert {"fresh 0", "fresh 1"} <= {item["item_id"] for item in answer["items"]}


def test_a_killed_worker_fails_only_the_requests_it_was_answering(pair: Server, reaching: Reach) -> None:
    victim, survivor = children(pair)
    idle = reaching(pair, victim)
    steady = reaching(pair, survivor)
    failures: list[Exception] = []
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                statuses.append(pair.send(POST).status)
            except OSError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    while not (others := set(children(pair)) - {victim, survivor}):
        assert time.monotonic() < killed + 30, pair.log.read_text()
        time.sleep(0.02)
    (replaced,) = others
    while pair.log.read_text().count("serving bundle") < 3:
        assert time.monotonic() < killed + 30
        time.sleep(0.05)
    fresh = reaching(pair, replaced)
    fresh.sendall(POST)
    assert receive(fresh).status == 200
    stop.set()
    asking.join()
    assert len(failures) <= 1  # the request in flight
    assert set(statuses) == {200}
    steady.sendall(POST)
    assert receive(steady).status == 200
    assert idle.recv(1) == b""


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_restarted(own_shop: Shop, tmp_path: Path, reaching: Reach) -> None:
    own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--silence", "3") as server:
        victim, survivor = both_ready(server)
        steady = reaching(server, survivor)
        os.kill(victim, signal.SIGSTOP)
        stopped = time.monotonic()
        while not (others := set(children(server)) - {victim, survivor}):
            assert time.monotonic() < stopped + 30, server.log.read_text()
            time.sleep(0.05)
        (replaced,) = others
        while server.log.read_text().count("serving bundle") < 3:
            assert time.monotonic() < stopped + 60, server.log.read_text()
            time.sleep(0.05)
        for connection in (steady, reaching(server, replaced)):
            connection.sendall(POST)
            assert receive(connection).status == 200
        assert "recall_worker_starts_total 3.0" in server.ask("GET", "/metrics").body.decode()
        assert not Path(f"/proc/{victim}").exists()
        assert survivor in children(server)


@pytest.mark.slow
def test_health_is_answered_while_workers_load(own_shop: Shop, tmp_path: Path) -> None:
    manifest = own_shop.publish(seed=1) / MANIFEST
    whole = manifest.with_name("whole")
    manifest.rename(whole)
    os.mkfifo(manifest)
    os.link(manifest, tmp_path / "blocks")  # a reader waits here
    with serving(own_shop.root, tmp_path / "log", "--workers", "2") as server:
        for answer in (server.ask("GET", "/health/ready"), server.post({})):
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
        whole.rename(manifest)
        with (tmp_path / "blocks").open("wb"):  # the reader finds nothing, and tries again
            pass
        both_ready(server)
        assert {server.post({}).status for _ in range(20)} == {200}


def test_sigterm_drains_and_stops_all_workers(own_shop: Shop, tmp_path: Path, reaching: Reach) -> None:
    own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--drain", "1") as server:
        workers = both_ready(server)
        connections = [reaching(server, worker) for worker in workers]
        for connection in connections:
            connection.sendall(POST[:-4])
        server.process.send_signal(signal.SIGTERM)
        server.wait(status=503)
        time.sleep(0.3)
        assert {server.ask("GET", "/health/ready").status for _ in range(20)} == {503}
        time.sleep(1.2)
        for connection in connections:
            connection.sendall(POST[-4:])
            assert receive(connection).status == 200
        assert server.process.wait(10) == 0
        assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_sigint_ends_all_at_once(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--drain", "60") as server:
        for process in (*both_ready(server), server.process.pid):  # as a terminal does
            os.kill(process, signal.SIGINT)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_workers_end_with_their_supervisor(pair: Server) -> None:
    workers = children(pair)
    pair.process.kill()
    pair.process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_in_use_is_an_error(workers: Server, shop: Shop) -> None:
    for number in ("1", "2"):
        command = [sys.executable, "-m", "service", str(shop.root), "--workers", number, "--port", str(workers.port)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60)
        assert ended.returncode != 0
        assert "in use" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_two_addresses_of_this_machine_share_one_port(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--host", "localhost") as server:
        server.wait()
        assert server.post({}).status == 200


@pytest.mark.slow
def test_each_worker_allows_its_share_of_a_rate(own_shop: Shop, tmp_path: Path, reaching: Reach) -> None:
    own_shop.publish(seed=1)
    key = "a key that is counted"
    (tmp_path / "keys").write_text(f"read sha256:{sha256(key.encode()).hexdigest()} rate=0.5\n")
    with serving(own_shop.root, tmp_path / "log", "--workers", "2", "--keys", str(tmp_path / "keys")) as server:
        connection = reaching(server, both_ready(server)[0])
        statuses = []
        for _ in range(2):
            connection.sendall(request("GET", "/v1/info", x_api_key=key))
            statuses.append(receive(connection).status)
        assert statuses == [200, 429]


@pytest.mark.slow
def test_the_port_may_be_chosen_by_the_system(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=1)
    command = [sys.executable, "-m", "service", str(own_shop.root), "--workers", "2", "--port", "0"]
    with (tmp_path / "chosen").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"running on http://\S+:(\d+)", (tmp_path / "chosen").read_text())):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        Server(int(found[1]), process, tmp_path / "chosen").wait()
    finally:
        process.terminate()
        process.wait(20)
