"""Serving new bundles while requests arrive, and refusing damaged ones."""

import asyncio
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from recall.bundle.versions import resolve
from recall.errors import BundleError
from recall.serving.recommender import Recommendations, Recommender, Request
from service.bundles import Snapshot
from service.config import Settings
from service.errors import Kind, ProblemError
from service.live import Live
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, receive, request, serving

BODY = orjson.dumps({"user_id": "3", "n": 20})
POST = request("POST", "/v1/recommend", BODY, content_type="application/json")


class Client(threading.Thread):
    """Sends requests over one connection until stopped; a connection closed by the server is a lost request."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.answers: list[Answer] = []
        self.error: Exception | None = None
        self._server = server
        self._stop_asking = threading.Event()

    def run(self) -> None:
        try:
            with self._server.connect() as connection:
                while not self._stop_asking.is_set():
                    connection.sendall(POST)
                    self.answers.append(receive(connection))
        except Exception as error:
            self.error = error

    def finish(self) -> list[Answer]:
        self._stop_asking.set()
        self.join(30)
        assert self.error is None
        return self.answers


def expected_items(folder: Path) -> list[dict]:
    answer = Recommender.load(folder).recommend(Request(user_id="3", n=20))
    return [{"item_id": item.item_id, "score": item.score} for item in answer.items]


def served_within(server: Server, version: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while server.ask("GET", "/v1/info").json["bundle"] != version:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.02)


def damage(folder: Path) -> None:
    """Flip one bit in the middle of the item vectors."""
    path = folder / "item_vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_new_versions_are_served_under_load_without_a_lost_or_mixed_answer(own_shop: Shop, tmp_path: Path) -> None:
    folders = [own_shop.publish(seed=0)]
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        clients = [Client(server) for _ in range(3)]
        for client in clients:
            client.start()
        for seed in range(1, 7):
            folders.append(own_shop.publish(seed))
            served_within(server, folders[-1].name)
            time.sleep(0.1)
        answers = [answer for client in clients for answer in client.finish()]
    expected = {folder.name: expected_items(folder) for folder in folders}
    assert len({orjson.dumps(items) for items in expected.values()}) == len(folders)
    assert {answer.status for answer in answers} == {200}
    assert {answer.json["bundle"] for answer in answers} == set(expected)
    assert all(answer.json["items"] == expected[answer.json["bundle"]] for answer in answers)


def test_a_replaced_bundle_is_closed(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        held = Path(f"/proc/{server.process.pid}/fd")
        first = own_shop.publish(seed=1)
        for seed in range(2, 6):
            served_within(server, own_shop.publish(seed).name)
            assert server.post(BODY).status == 200
        deadline = time.monotonic() + 20  # the last request that held it may have ended just now
        while any(first.name in link for link in links_of(held)):
            assert time.monotonic() < deadline, sorted(links_of(held))
            time.sleep(0.05)
        versions = {link.split("/")[-2] for link in links_of(held) if first.parent.name in link.split("/")}
    assert len(versions) <= 2


def links_of(folder: Path) -> list[str]:
    """Targets of the open file descriptors of a process."""
    links = []
    for one in folder.iterdir():
        with suppress(OSError):
            links.append(str(one.readlink()))
    return links


def test_a_damaged_version_is_refused_and_the_old_one_stays(own_shop: Shop, tmp_path: Path) -> None:
    good = own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        staged = own_shop.in_(tmp_path / "elsewhere").publish(seed=1)
        damage(staged)
        bad = own_shop.root / "versions" / ("000002" + staged.name[6:])
        shutil.copytree(staged, bad)
        (own_shop.root / "CURRENT").write_text(bad.name)
        deadline = time.monotonic() + 10
        while (ready := server.wait()).json["refused"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ready.json["bundle"] == good.name
        assert ready.json["refused"]["bundle"] == bad.name
        assert ready.json["refused"]["reason"]
        assert server.post(BODY).json["bundle"] == good.name
        better = own_shop.publish(seed=2)
        served_within(server, better.name)
        assert server.wait().json["refused"] is None


def test_going_back_to_an_older_version_works(own_shop: Shop, tmp_path: Path) -> None:
    first, second = own_shop.publish(seed=0), own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        served_within(server, second.name)
        (own_shop.root / "CURRENT").write_text(first.name)
        served_within(server, first.name)
        assert server.post(BODY).json["items"] == expected_items(first)


def test_with_a_damaged_bundle_at_the_start_the_process_waits_for_a_good_one(own_shop: Shop, tmp_path: Path) -> None:
    damage(own_shop.publish(seed=0))
    with serving(own_shop.root, tmp_path / "log") as server:
        ready = server.wait(status=503)
        deadline = time.monotonic() + 10
        while "item_vectors.safetensors" not in ready.json["detail"]:
            assert time.monotonic() < deadline, ready.json
            ready = server.wait(status=503)
        assert server.ask("GET", "/health/live").status == 200
        answer = server.post(BODY)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert "item_vectors.safetensors" in answer.json["detail"]
        own_shop.publish(seed=1)
        assert server.wait().json["refused"] is None
        assert server.post(BODY).status == 200


def test_a_refused_version_is_retried_with_growing_pauses(own_shop: Shop) -> None:
    folder = own_shop.publish(seed=0)
    whole = (folder / "item_vectors.safetensors").read_bytes()
    damage(folder)

    async def look() -> None:
        live = Live(Settings(bundle=own_shop.root, poll=0.05))
        loop, pauses = asyncio.get_running_loop(), []
        for _ in range(4):
            await live.look()
            assert live.refusal is not None
            pauses.append(live.refusal.pause)
            await asyncio.sleep(live.refusal.again - loop.time() + 0.01)
        assert pauses == [0.05, 0.1, 0.2, 0.4]
        (folder / "item_vectors.safetensors").write_bytes(whole)
        await live.look()
        assert live.refusal is None
        assert live.serving().folder == folder
        live.close()

    asyncio.run(look())


def test_a_broken_current_leaves_the_old_version_serving(own_shop: Shop, tmp_path: Path) -> None:
    good = own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        for text in (b"", b"\xff\xfe", b"../../etc", b"000009-00000000", b"x" * 10_000):
            (own_shop.root / "CURRENT").write_bytes(text)
            time.sleep(0.3)
            deadline = time.monotonic() + 10
            while not ((ready := server.wait()).json["refused"] or {}).get("reason"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert ready.json["bundle"] == good.name
            assert server.post(BODY).status == 200


def test_one_bundle_without_a_root_is_served(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    folder = resolve(own_shop.root)
    with serving(folder, tmp_path / "log") as server:
        server.wait()
        assert server.post(BODY).json["items"] == expected_items(folder)


def test_long_searches_run_on_threads_and_too_many_are_rejected(shop: Shop) -> None:
    async def ask() -> list[object]:
        live = Live(Settings(bundle=shop.root, waiting=3))
        loaded = await asyncio.to_thread(Snapshot.load, resolve(shop.root))
        live.snapshot = Snapshot(loaded.recommender, loaded.folder, search_seconds=1.0)
        answers = await asyncio.gather(*(live.recommend(Request(user_id="3", n=20)) for _ in range(10)), return_exceptions=True)
        live.close()
        return answers

    answers = asyncio.run(ask())
    answered = [answer for answer in answers if isinstance(answer, Recommendations)]
    running = len(answered) - 3  # besides those that wait: at most one for each core
    assert 1 <= running <= len(os.sched_getaffinity(0))
    assert len(set(answered)) == 1
    turned_away = [answer for answer in answers if isinstance(answer, ProblemError)]
    assert len(turned_away) == 7 - running
    assert {problem.kind for problem in turned_away} == {Kind.BUSY}


def test_a_bundle_is_closed_by_the_last_request_that_holds_it(shop: Shop) -> None:
    snapshot = Snapshot.load(resolve(shop.root))
    with snapshot:
        with snapshot:
            snapshot.retire()
        assert snapshot.recommender.recommend(Request(user_id="3")).user == "known"
    with pytest.raises(BundleError, match="closed"):
        snapshot.recommender.users.get("3")


def test_a_version_is_loaded_with_the_changes_that_were_made_meanwhile(own_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    own_shop.publish(seed=0)

    def change(_: Recommender) -> None:
        with Recommender.load(own_shop.root) as other:
            other.items.delete(["3"])

    monkeypatch.setattr("recall.publish.golden.check", change)
    snapshot = Snapshot.load(resolve(own_shop.root), own_shop.root)
    try:
        assert snapshot.recommender.items.current().sequence == 1
    finally:
        snapshot.retire()
