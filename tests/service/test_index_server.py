"""An index in Postgres behind the service: 503 or local answers while it is down, and a loop that it does not block."""

import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recall.publish.derived import reindex
from tests.service.publishing import Shop
from tests.service.serving import Server, serving

if TYPE_CHECKING:
    from serving.postgres_server import Postgres

ASKED = {"user_id": "3", "n": 5}


@pytest.fixture
def indexed(shop: Shop, postgres: "Postgres", tmp_path: Path) -> Path:
    """A root whose live version has its index in Postgres."""
    root = Path(shutil.copytree(shop.root, tmp_path / "root"))
    reindex(root, root, {"kind": "pgvector_exact"})
    return root


def recovered(server: Server, items: object) -> None:
    deadline = time.monotonic() + 20
    while (answer := server.post(ASKED)).status != 200 or answer.json["degraded"]:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    assert answer.json["items"] == items


def test_the_service_answers_503_without_the_server_and_recovers(indexed: Path, postgres: "Postgres", tmp_path: Path) -> None:
    settings = {"RECALL_PGVECTOR_URL": postgres.url}
    with serving(indexed, tmp_path / "log", environment=settings) as server:
        server.wait()
        items = server.post(ASKED).json["items"]
        postgres.kill()
        try:
            for _ in range(5):
                refused = server.post(ASKED)
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
                assert refused.json["type"].endswith("index-down")
                assert str(postgres.port) not in refused.body.decode()
            assert server.ask("GET", "/health/live").status == 200
            logged = server.log.read_text()
            assert "index: Postgres table" in logged
            assert "it did not answer lately" not in logged
        finally:
            postgres.start()
        recovered(server, items)


def test_with_a_local_copy_answers_are_degraded(indexed: Path, postgres: "Postgres", tmp_path: Path) -> None:
    settings = {"RECALL_PGVECTOR_URL": postgres.url, "RECALL_INDEX_FALLBACK": "local"}
    with serving(indexed, tmp_path / "log", environment=settings) as server:
        server.wait()
        items = server.post(ASKED).json["items"]
        postgres.kill()
        try:
            for _ in range(5):
                answer = server.post(ASKED)
                assert (answer.status, answer.json["items"]) == (200, items)
                assert [one["part"] for one in answer.json["degraded"]] == ["index"]
            assert "index" in [one["part"] for one in server.ask("GET", "/health/ready").json["degraded"]]
        finally:
            postgres.start()
        recovered(server, items)


def test_a_server_that_stalls_blocks_nothing_else(indexed: Path, postgres: "Postgres", tmp_path: Path) -> None:
    settings = {"RECALL_PGVECTOR_URL": postgres.url, "RECALL_INDEX_SECONDS": "30"}
    with serving(indexed, tmp_path / "log", environment=settings) as server:
        server.wait()
        items = server.post(ASKED).json["items"]
        postgres.pause()
        try:
            waiting = [threading.Thread(target=server.post, args=(ASKED,)) for _ in range(3)]
            for one in waiting:
                one.start()
            for _ in range(20):
                assert server.ask("GET", "/health/ready").status == 200
            assert all(one.is_alive() for one in waiting)
        finally:
            postgres.resume()
        for one in waiting:
            one.join()
        recovered(server, items)
