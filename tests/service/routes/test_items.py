"""Changes of items over HTTP are on disk and in the next answer of every process, and survive new versions."""

import os
import signal
import threading
import time
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest

from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items import tiers
from tests.service.publishing import ODD_IDS, Shop
from tests.service.serving import Answer, Server, serving
from tests.service.test_live import served_within

ALL = {"user_id": "3", "n": 1000, "exclude_seen": False}
JSON = {"content-type": "application/json"}


@pytest.fixture
def changing(own_shop: Shop, tmp_path: Path):
    own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        yield server


def upsert(server: Server, items: object, **headers: str) -> Answer:
    return server.ask("POST", "/v1/items:upsert", orjson.dumps({"items": items}), **JSON, **headers)


def delete(server: Server, item_id: str, **headers: str) -> Answer:
    return server.ask("DELETE", "/v1/items/" + quote(item_id, safe=""), **headers)


def served(server: Server) -> tuple[dict[str, float], int]:
    answer = server.post(ALL).json
    return {item["item_id"]: item["score"] for item in answer["items"]}, answer["sequence"]


def test_a_change_is_in_the_next_answer(changing: Server, own_shop: Shop) -> None:
    before, sequence = served(changing)
    assert sequence == 0
    answer = upsert(
        changing, [{"item_id": "fresh", "features": {"genre": "noir"}}, {"item_id": 1, "features": {"genre": "drama"}}]
    )
    assert answer.status == 200
    token = answer.json["token"]
    more = {"warnings": [], "request_id": answer.headers["x-request-id"]}
    assert answer.json == {"sequence": 2, "known": 1, "token": token, **more}
    assert token.endswith(".2")
    after, sequence = served(changing)
    assert sequence == 2
    assert set(after) == {*before, "fresh"}
    assert delete(changing, "fresh").json["sequence"] == 3
    assert delete(changing, "fresh").json["known"] == 0
    assert "fresh" not in served(changing)[0]
    recommender = Recommender.load(own_shop.root)
    expected = recommender.recommend(Request("3", n=1000, exclude_seen=False))
    recommender.close()
    assert served(changing) == ({item.item_id: item.score for item in expected.items}, 4)


def test_odd_ids_are_returned_unchanged(changing: Server) -> None:
    for item_id in (*ODD_IDS, "ends with\n", "%0A", "a?b#c", "x" * 1024):
        assert delete(changing, item_id).status == 200, item_id
        assert item_id not in served(changing)[0]
        assert upsert(changing, [{"item_id": item_id}]).status == 200
        others, _ = served(changing)
        assert item_id in others
        assert delete(changing, item_id).json["known"] == 1
        assert set(served(changing)[0]) == set(others) - {item_id}


def test_a_change_sent_again_with_its_key_is_applied_once(changing: Server) -> None:
    fresh = [{"item_id": "fresh"}]
    assert upsert(changing, fresh, idempotency_key="one").json["sequence"] == 1
    assert delete(changing, "fresh", idempotency_key="two").json["sequence"] == 2
    assert upsert(changing, fresh, idempotency_key="one").json["sequence"] == 1
    assert "fresh" not in served(changing)[0]
    assert upsert(changing, [{"item_id": "other"}], idempotency_key="one").pointers == ["/key"]
    assert upsert(changing, fresh, idempotency_key="").status == 422
    assert upsert(changing, fresh, idempotency_key="x" * 256).status == 422


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/items"]),
        ({"items": []}, ["/items"]),
        ({"items": [{"item_id": "a"}, {"features": {}}]}, ["/items/1/item_id"]),
        ({"items": [{"item_id": ""}]}, ["/items/0/item_id"]),
        ({"items": [{"item_id": "a"}, {"item_id": "b"}, {"item_id": "a"}]}, ["/items/2/item_id"]),
        ({"items": [{"item_id": "a", "feature": {}}]}, ["/items/0/feature"]),
        ({"items": [{"item_id": "a"}, {"item_id": "b", "features": {"gener": "noir"}}]}, ["/items/1/features/gener"]),
        ({"items": [{"item_id": "a", "features": {"genre": ["noir"]}}]}, ["/items/0/features/genre"]),
        ({"items": [{"item_id": "a", "features": {"genre": {"x": 1}}}]}, ["/items/0/features/genre"]),
        ({"item": []}, ["/items", "/item"]),
        ({"items": [3]}, ["/items/0"]),
    ],
)
def test_faults_are_named_and_nothing_changes(server: Server, shop: Shop, body: object, pointers: list[str]) -> None:
    answer = server.ask("POST", "/v1/items:upsert", orjson.dumps(body), **JSON)
    assert answer.status == 422
    assert answer.pointers == pointers
    assert not (shop.root / "journal.sqlite").exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/v1/items/", 422),
        ("DELETE", "/v1/items/%FF", 422),
        ("DELETE", "/v1/items/" + "x" * 1025, 422),
        ("POST", "/v1/items/a", 405),
        ("DELETE", "/v1/items", 405),
    ],
)
def test_paths_without_a_valid_item(server: Server, shop: Shop, method: str, path: str, status: int) -> None:
    assert server.ask(method, path).status == status
    assert not (shop.root / "journal.sqlite").exists()


def test_405_names_the_allowed_methods(server: Server) -> None:
    for path, methods in (
        ("/v1/items/a", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/items/a/similar", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("/v1/recommend", "OPTIONS, POST"),
    ):
        answer = server.ask("PATCH", path)
        assert answer.status == 405
        assert answer.headers["allow"] == methods


def test_a_single_bundle_cannot_be_changed(own_shop: Shop, tmp_path: Path) -> None:
    with serving(own_shop.publish(seed=0), tmp_path / "log") as server:
        server.wait()
        assert upsert(server, [{"item_id": "a"}]).status == 409
        assert delete(server, "1").status == 409


def test_changes_survive_new_versions_and_reach_every_process(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "a") as one, serving(own_shop.root, tmp_path / "b") as other:
        for server in (one, other):
            server.wait()
        upsert(one, [{"item_id": "fresh", "features": {"genre": "noir"}}])
        delete(other, "1")
        deadline = time.monotonic() + 60
        while served(one) != served(other):
            assert time.monotonic() < deadline
        stop, failed = threading.Event(), []

        def watch() -> None:
            while not stop.is_set():
                items, _ = served(one)
                if "fresh" not in items or "1" in items:
                    failed.append(items)

        asking = threading.Thread(target=watch)
        asking.start()
        try:
            served_within(one, own_shop.publish(seed=1).name)
            report = compact(own_shop.root)
            assert report is not None
            served_within(one, report.folder.name)
        finally:
            stop.set()
            asking.join()
        assert not failed
        served_within(other, report.folder.name)
        assert served(one) == served(other)


def test_acknowledged_changes_survive_kill_9(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    acknowledged = set()
    for life in range(2):
        with serving(own_shop.root, tmp_path / f"log {life}") as server:
            server.wait()
            items, _ = served(server)
            assert acknowledged <= set(items)
            enough, pid = threading.Event(), server.process.pid
            killer = threading.Thread(target=lambda enough=enough, pid=pid: enough.wait() and os.kill(pid, signal.SIGKILL))
            killer.start()
            number = 0
            while True:
                name = f"{life} {number}"
                try:
                    if upsert(server, [{"item_id": name}]).status == 200:
                        acknowledged.add(name)
                        if number == 7:
                            enough.set()  # it is killed while the next changes arrive
                except OSError:
                    break
                number += 1
            killer.join()
            server.process.wait()
    recommender = Recommender.load(own_shop.root)
    held = [item.item_id for item in recommender.recommend(Request("3", n=1000, exclude_seen=False)).items]
    recommender.close()
    assert acknowledged <= set(held)
    assert len(held) == len(set(held))
    assert len(acknowledged) > 10


def test_a_catalogue_with_many_changes_is_published_again(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        many = [{"item_id": f"new {number}", "features": {"genre": "noir"}} for number in range(tiers.MIN_CHANGES + 1)]
        for first in range(0, len(many), 1000):
            assert upsert(server, many[first : first + 1000]).status == 200
        before = served(server)
        deadline = time.monotonic() + 60
        while server.ask("GET", "/v1/info").json["sequence"] == 1:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.1)
        assert served(server) == before
