"""A service follows its log of changes, and reports a log that lacks some."""

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
import pytest

from recall.bundle.manifest import Manifest
from recall.bundle.versions import live_name, open_depot, resolve
from recall.errors import TokenError
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.store.items.catalog import Catalog
from recall.store.items.log import JOURNAL, VARIABLE, open_log
from recall.store.users.changes import InteractionEvent
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from service.background import Follower
from service.bundles import Snapshot
from service.concurrency import Caller
from service.errors import ProblemError
from service.metrics import Metrics
from tests.bundle.s3 import s3_bucket
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, serving
from tests.store.users.servers import Proxy, redis_server


def upsert(server: Server, *ids: str) -> Answer:
    items = [{"item_id": one, "features": {}} for one in ids]
    answer = server.ask("POST", "/v1/items:upsert", orjson.dumps({"items": items}), **{"content-type": "application/json"})
    assert answer.status == 200, answer.json
    return answer


def remove(root: Path) -> None:
    for file in root.glob("journal.sqlite*"):
        file.unlink()


def degraded(server: Server) -> list[str]:
    return [one["reason"] for one in server.ask("GET", "/health/ready").json["degraded"]]


def wait_for(true: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recommend(server: Server, **headers: str) -> Answer:
    return server.ask("POST", "/v1/recommend", b'{"n": 3}', **{"content-type": "application/json", **headers})


def test_a_removed_log_is_reported_and_written_back(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--write-back", "1") as server:
        server.wait()
        upsert(server, "a", "b")
        remove(own_shop.root)
        wait_for(lambda: degraded(server))
        assert degraded(server)[0].startswith("the journal is gone: 2 acknowledged changes are served")
        assert recommend(server).json["degraded"][0]["part"] == "items"
        wait_for(lambda: not degraded(server))
        text = server.ask("GET", "/metrics").body.decode()
        assert "recall_journal_written_back_total 2.0" in text
    started = Recommender.load(own_shop.root)
    assert not started.items.current().degraded
    assert (started.items.current().rows(["a", "b"]) >= 0).all()
    started.close()


def test_a_token_of_the_first_change_is_waited_for(own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_shop.publish(seed=0)
    shutil.copytree(own_shop.root, tmp_path / "other")
    with redis_server(tmp_path / "redis") as redis, ExitStack() as stack:
        monkeypatch.setenv(VARIABLE, redis.url)
        one, two = (stack.enter_context(closing(Recommender.load(root))) for root in (own_shop.root, tmp_path / "other"))
        token = one.items.token(one.items.upsert({"a": {}}).sequence)
        with pytest.raises(TokenError, match="another log"):
            two.items.has_seen(token)  # it has not read the log, which had no identity before
        follower = Follower(Metrics(), 5.0)
        monkeypatch.setattr(Catalog, "behind", lambda _: False)  # and has not received the change
        snapshot, caller = Snapshot(two, resolve(tmp_path / "other"), 0.0), Caller(token=token)
        redis.stop()
        with pytest.raises(ProblemError, match="not served here yet"):  # the unreadable log may contain it
            asyncio.run(follower.catch_up(snapshot, caller))
        redis.start_again()
        asyncio.run(follower.catch_up(snapshot, caller))
        assert two.items.has_seen(token)
        other = Caller(token=f"{'0' * len(token.partition('.')[0])}.1")
        with pytest.raises(ProblemError, match="another log"):
            asyncio.run(follower.catch_up(snapshot, other))
        follower.close()


def test_two_machines_share_changes_through_redis(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    shutil.copytree(own_shop.root, tmp_path / "other")
    with redis_server(tmp_path / "redis") as redis, ExitStack() as stack:
        roots = (own_shop.root, tmp_path / "other")
        one, two = (
            stack.enter_context(serving(root, tmp_path / f"{root.name}.log", "--items", redis.url, "--poll", "0.1"))
            for root in roots
        )
        one.wait()
        two.wait()
        token = upsert(one, "a").json["token"]
        assert two.ask("GET", "/v1/items/a", **{"X-Recall-Token": token}).status == 200
        redis.stop()
        for server in (one, two):
            wait_for(lambda asked=server: degraded(asked))
            answer = recommend(server).json
            assert "the log of changes does not answer" in answer["degraded"][0]["reason"]
            assert len(answer["items"]) == 3
        refused = one.ask("DELETE", "/v1/items/a", **{"idempotency-key": "k"})
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        redis.start_again()
        token = one.ask("DELETE", "/v1/items/a", **{"idempotency-key": "k"}).json["token"]
        assert two.ask("GET", "/v1/items/a", **{"X-Recall-Token": token}).status == 404
        for server in (one, two):
            wait_for(lambda asked=server: not degraded(asked))
    assert not list(tmp_path.glob("**/journal.sqlite"))


def test_a_service_with_an_empty_folder_serves_what_the_depot_says(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_bucket() as bucket:
        own_shop.publish(seed=0)  # which may be a copy of a version published by an earlier test
        monkeypatch.setenv("RECALL_DEPOT", f"{bucket}/service")
        older = own_shop.publish(seed=3).name
        own_shop.publish(seed=1)
        (tmp_path / "empty").mkdir()
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        depot = ("--depot", os.environ["RECALL_DEPOT"], "--poll", "0.1")
        with serving(tmp_path / "empty", tmp_path / "log", *depot, environment=environment) as server:
            server.wait(seconds=40)
            first = recommend(server).json["bundle"]
            assert first == live_name(own_shop.root)
            own_shop.publish(seed=2)
            wait_for(lambda: recommend(server).json["bundle"] == live_name(own_shop.root))
            assert not recommend(server).json["degraded"]
            for version in (first, older):  # the second was never live since this machine follows the depot
                activated = server.ask("POST", f"/v1/models/{version}:activate")
                assert activated.status == 200, activated.json
                assert open_depot().read().live == version
                assert recommend(server).json["bundle"] == version
            missing = server.ask("POST", "/v1/models/000099-00000000:activate")
            assert (missing.status, missing.json["type"]) == (404, "urn:fm-recall:problem:no-such-version")
            assert "there is no version 000099-00000000" in missing.json["errors"][0]["message"]
            open_depot().store.put("versions/000090-00000000.json", b"{}")  # type: ignore[attr-defined]
            damaged = server.ask("POST", "/v1/models/000090-00000000:activate")
            assert (damaged.status, damaged.json["type"]) == (409, "urn:fm-recall:problem:bundle-refused")


@pytest.mark.slow
def test_a_machine_that_was_away_while_the_log_was_trimmed_takes_the_newer_version(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_bucket() as bucket, redis_server(tmp_path / "redis") as redis, ExitStack() as stack:
        own_shop.publish(seed=0)
        between = Proxy(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]))
        stack.callback(between.close)
        for name, value in {"RECALL_DEPOT": f"{bucket}/away", VARIABLE: redis.url}.items():
            monkeypatch.setenv(name, value)
        own_shop.publish(seed=1)
        (tmp_path / "empty").mkdir()
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RECALL_"))}
        environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{between.port}"
        away = stack.enter_context(serving(tmp_path / "empty", tmp_path / "log", environment=environment))
        away.wait(seconds=40)
        live = stack.enter_context(closing(Recommender.load(own_shop.root)))
        live.items.upsert({"before": {}})
        wait_for(lambda: recommend(away).json["sequence"] == 1)

        away.process.send_signal(signal.SIGSTOP)
        live.items.upsert({"meanwhile": {}})
        assert compact(own_shop.root) is not None
        with closing(open_log(own_shop.root)) as log:
            assert log.prune(2) == 2
        live.items.upsert({"after": {}})
        between.mode = "reset"  # the depot cannot be reached at first
        away.process.send_signal(signal.SIGCONT)
        reasons = {"a newer version may be live", "later changes of items are not known"}
        wait_for(lambda: {one.partition(":")[0] for one in degraded(away)} == reasons)
        assert "changes 1 to 2 are no longer in the journal" in "".join(degraded(away))
        answer = recommend(away).json
        assert (len(answer["items"]), answer["sequence"], {one["part"] for one in answer["degraded"]}) == (
            3,
            1,
            {"bundle", "items"},
        )

        between.mode = "pass"
        wait_for(lambda: not recommend(away).json["degraded"])
        answer = recommend(away).json
        assert (answer["bundle"], answer["sequence"]) == (live_name(own_shop.root), 3)
        for item in ("before", "meanwhile", "after"):
            assert away.ask("GET", f"/v1/items/{item}").status == 200


@pytest.mark.slow
def test_a_damaged_version_in_the_depot_is_refused_and_the_one_before_is_served(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_bucket() as bucket:
        own_shop.publish(seed=0)
        other = own_shop.in_(tmp_path / "other")
        digest = Manifest.read(other.publish(seed=2)).files["item_vectors.safetensors"].sha256
        monkeypatch.setenv("RECALL_DEPOT", f"{bucket}/damaged")
        own_shop.publish(seed=1)
        first = live_name(own_shop.root)
        (tmp_path / "empty").mkdir()
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RECALL_"))}
        with serving(tmp_path / "empty", tmp_path / "log", environment=environment) as server:
            server.wait(seconds=40)
            store = open_depot().store  # type: ignore[attr-defined]
            store.put(f"files/{digest}", b"these are other bytes")  # which the next publisher takes for its own
            own_shop.publish(seed=2)
            wait_for(lambda: degraded(server))
            (reason,) = degraded(server)
            assert reason.startswith("a newer version may be live: ")
            assert "a file of the depot was changed after it was stored" in reason
            answer = recommend(server).json
            assert (answer["bundle"], len(answer["items"]), answer["degraded"][0]["part"]) == (first, 3, "bundle")
            store.delete(f"files/{digest}")
            own_shop.publish(seed=2)  # sends what the store lacks
            wait_for(lambda: recommend(server).json["bundle"] == live_name(own_shop.root))
            wait_for(lambda: not degraded(server))


@pytest.mark.slow
def test_an_older_copy_under_two_workers_loses_nothing(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    root = own_shop.root
    with serving(root, tmp_path / "log", "--workers", "2") as server:
        server.wait()
        upsert(server, "a")
        source, copy = sqlite3.connect(root / "journal.sqlite"), sqlite3.connect(tmp_path / "copy")
        source.backup(copy)
        copy.close()
        source.close()
        upsert(server, "b")
        for _ in range(20):  # each worker has read it
            assert recommend(server).json["sequence"] == 2
        remove(root)
        shutil.copy(tmp_path / "copy", root / "journal.sqlite")
        last = upsert(server, "c").json["sequence"]
        for _ in range(20):
            assert recommend(server).json["sequence"] >= last
            for item in "abc":
                assert server.ask("GET", f"/v1/items/{item}").status == 200
    started = Recommender.load(root)
    assert (started.items.current().rows(["a", "b", "c"]) >= 0).all()
    started.close()


def test_answers_of_every_worker_include_acknowledged_changes(workers: Server) -> None:
    for number in range(50):
        sequence = upsert(workers, f"new {number}").json["sequence"]
        assert recommend(workers).json["sequence"] >= sequence
        assert workers.ask("DELETE", f"/v1/items/new%20{number}").status == 200
        assert workers.ask("GET", f"/v1/items/new%20{number}").status == 404


def test_an_answer_waits_for_the_token_until_the_deadline(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        token = upsert(server, "a").json["token"]
        assert recommend(server, **{"X-Recall-Token": token}).status == 200
        assert server.ask("GET", "/v1/items/a", **{"X-Recall-Token": token}).status == 200
        identity = token.partition(".")[0]
        late = recommend(server, **{"X-Recall-Token": f"{identity}.9", "X-Request-Timeout-Ms": "50"})
        assert (late.status, late.json["type"]) == (503, "urn:fm-recall:problem:not-seen-yet")
        assert late.headers["retry-after"] == "1"
        other = recommend(server, **{"X-Recall-Token": f"{'0' * 32}.1"})
        assert (other.status, other.json["type"]) == (412, "urn:fm-recall:problem:other-log")
        wrong = recommend(server, **{"X-Recall-Token": "x"})
        assert (wrong.status, wrong.json["type"]) == (422, "urn:fm-recall:problem:invalid-request")


def test_a_damaged_log_is_moved_away_and_acknowledged_changes_are_written_again(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--poll", "0.1", "--write-back", "0.2") as server:
        server.wait()
        upsert(server, "a")
        (own_shop.root / JOURNAL).write_bytes(b"")
        wait_for(lambda: list(own_shop.root.glob(f"{JOURNAL}.damaged-*")))
        wait_for(lambda: not degraded(server))
        upsert(server, "b")
    started = Recommender.load(own_shop.root)
    assert not started.items.current().degraded
    assert (started.items.current().rows(["a", "b"]) >= 0).all()
    started.close()


def test_lost_users_are_reported(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--poll", "0.1") as server:
        server.wait()
        put = server.ask("PUT", "/v1/users/3", b'{"history": ["7"]}', **{"content-type": "application/json"})
        assert put.status == 200
        for file in own_shop.root.glob("users.live.sqlite*"):
            file.unlink()
        # while its files go one by one, it may look cut short
        wait_for(lambda: "".join(degraded(server)).startswith("the file of users is gone, and acknowledged changes up to 1"))
        (own_shop.root / "users.live.mark").unlink()
        assert server.ask("PUT", "/v1/users/3", b"{}", **{"content-type": "application/json"}).status == 200
        wait_for(lambda: not degraded(server))


def test_a_damaged_mark_is_reported_without_any_change(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--poll", "0.1") as server:
        server.wait()
        upsert(server, "a")
        (own_shop.root / "journal.mark").write_text("?")
        wait_for(lambda: degraded(server))
        assert degraded(server)[0].startswith("journal.mark was damaged")
        assert recommend(server).json["degraded"][0]["part"] == "items"
        (own_shop.root / "journal.mark").unlink()
        wait_for(lambda: not degraded(server))
        assert server.ask("GET", "/v1/items/a").status == 200


def test_a_copy_without_the_wal_file_of_users_is_reported(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    users = SqliteLiveUsers(own_shop.root / USERS_LIVE)
    users.write([InteractionEvent("3", "7", 1.0, "d")])
    copied = shutil.copytree(own_shop.root, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    users.close()
    with serving(copied, tmp_path / "log", "--poll", "0.1") as server:
        server.wait()
        wait_for(lambda: degraded(server))
        (reason,) = degraded(server)
        assert "of users" in reason
        (told,) = recommend(server).json["degraded"]
        assert (told["part"], told["reason"]) == ("users", reason)
        assert server.ask("GET", "/v1/users/3").json["degraded"] == [told]


def test_unsaved_changes_are_written_back_when_the_service_ends(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--write-back", "600") as server:
        server.wait()
        upsert(server, "a")
        remove(own_shop.root)
    started = Recommender.load(own_shop.root)
    assert not started.items.current().degraded
    assert (started.items.current().rows(["a"]) >= 0).all()
    started.close()
