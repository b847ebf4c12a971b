"""Users in Redis: the service answers during its failures, reports them, and recovers."""

import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from recall import Recommender, Request
from recall.bundle.files import USERS
from recall.bundle.reader import load_bundle
from recall.store.users.redis import RedisLiveUsers
from tests.service.publishing import Shop
from tests.service.routes.test_users import send, took, user
from tests.service.serving import Server, receive, request, serving
from tests.store.users.servers import Proxy, RedisServer, redis_server

JSON = {"content-type": "application/json"}
PATIENT = ("--users-seconds", "1")  # for tests not of the time limit, since the machine may be busy


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(redis.port)
    yield proxy
    proxy.close()


def degraded(server: Server, user_id: str = "3") -> list[str]:
    answer = server.post({"user_id": user_id})
    assert answer.status == 200, answer.body
    return [one["part"] for one in answer.json["degraded"]]


def recovered(server: Server, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while degraded(server):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.02)


def test_users_are_shared_through_redis(shop: Shop, redis: RedisServer, tmp_path: Path) -> None:
    options = ("--users", redis.url, *PATIENT)
    with serving(shop.root, tmp_path / "a", *options) as one, serving(shop.root, tmp_path / "b", *options) as other:
        for server in (one, other):
            server.wait()
        assert took(one, ("shared", "1"), ("shared", "2")).json["known"] == 0
        assert user(other, "shared")["history"] == ["2", "1"]
        assert send(other, "PUT", "/v1/users/shared", {"features": {"age": 30}}).status == 200
        assert user(one, "shared")["features"] == {"age": 30}
        found = one.post({"user_id": "shared", "n": 50}).json
        assert (found["user"], found["degraded"]) == ("known", [])
        assert found["items"] == other.post({"user_id": "shared", "n": 50}).json["items"]
        assert one.ask("DELETE", "/v1/users/shared").json["known"] == 1
        assert other.ask("GET", "/v1/users/shared").status == 404
    assert not (shop.root / "users.live.sqlite").exists()


def test_a_single_bundle_may_have_users_in_redis(own_shop: Shop, redis: RedisServer, tmp_path: Path) -> None:
    with serving(own_shop.publish(seed=0), tmp_path / "log", "--users", redis.url, *PATIENT) as server:
        server.wait()
        assert took(server, ("alone", "1")).status == 200
        assert user(server, "alone")["history"] == ["1"]


@pytest.mark.parametrize("fault", ["refuse", *(pytest.param(one, marks=pytest.mark.slow) for one in ("reset", "hang", "slow"))])
def test_without_redis_answers_continue(shop: Shop, proxy: Proxy, tmp_path: Path, fault: str) -> None:
    with serving(shop.root, tmp_path / "log", "--users", proxy.url, "--users-seconds", "0.25") as server:
        server.wait()
        recovered(server)
        plain = server.post({"user_id": "4", "n": 20}).json["items"]
        name = f"away {fault}"
        assert took(server, (name, "1"), ("3", "1")).status == 200
        assert user(server, name)["history"] == ["1"]
        proxy.mode = fault
        for _ in range(100):
            answer = server.post({"user_id": "4", "n": 20})
            assert answer.status == 200
            assert answer.json["items"] == plain
            assert answer.json["user"] == "known"
            assert [one["part"] for one in answer.json["degraded"]] == ["users"]
            assert str(proxy.port) not in answer.json["degraded"][0]["reason"]
        assert server.post({"user_id": name}).json["user"] == "unknown"
        assert server.post({}).json["degraded"] == []
        refused = took(server, (name, "2"), idempotency_key=f"key-{fault}")
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json["type"].endswith("store-down")
        assert server.ask("GET", f"/v1/users/{name.replace(' ', '%20')}").status == 503
        assert server.ask("GET", "/v1/users").status == 503
        shown = user(server, "4")
        assert [one["part"] for one in shown["degraded"]] == ["users"]
        assert server.ask("GET", "/health/ready").status == 200
        proxy.mode = "pass"
        recovered(server)
        assert took(server, (name, "2"), idempotency_key=f"key-{fault}").status == 200
        assert user(server, name)["history"] == ["2", "1"]


def test_requests_that_wait_for_redis_do_not_block_others(shop: Shop, proxy: Proxy, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", "--users", proxy.url, "--users-seconds", "20") as server:
        server.wait()
        recovered(server)
        proxy.mode = "hang"
        waiting = [server.connect() for _ in range(3)]
        for connection in waiting:
            connection.sendall(request("POST", "/v1/recommend", orjson.dumps({"user_id": "3"}), **JSON))
        for _ in range(10):
            assert server.ask("GET", "/health/ready").status == 200
            assert server.post({"n": 5}).status == 200
        assert select.select(waiting, [], [], 0)[0] == []
        proxy.mode = "pass"
        for connection in waiting:
            assert receive(connection).status == 200
            connection.close()


def test_a_service_may_start_before_its_redis(shop: Shop, proxy: Proxy, tmp_path: Path) -> None:
    proxy.mode = "refuse"
    with serving(shop.root, tmp_path / "log", "--users", proxy.url, *PATIENT) as server:
        server.wait()
        assert "the store of users does not answer" in server.log.read_text()
        assert degraded(server) == ["users"]
        proxy.mode = "pass"
        recovered(server)


def test_a_cache_is_reported_once_it_answers(shop: Shop, tmp_path: Path) -> None:
    """A service that starts before its Redis says that users may be dropped once it can; of items, at the start."""
    options = ("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with redis_server(tmp_path / "redis", *options) as cache:
        proxy = Proxy(cache.port)
        proxy.mode = "refuse"
        stores = ("--users", proxy.url, "--items", cache.url)

        def logged(text: str) -> None:
            deadline = time.monotonic() + 30
            while text not in server.log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)

        with serving(shop.root, tmp_path / "log", *stores, "--poll", "0.1", *PATIENT) as server:
            server.wait()
            logged("WARNING items: Redis is set up as a cache")
            assert "WARNING users: Redis" not in server.log.read_text()
            proxy.mode = "pass"
            logged("WARNING users: Redis is set up as a cache")
            assert server.log.read_text().count("WARNING items: ") == 1
            assert server.log.read_text().count("WARNING users: the store of users does not answer") == 1
        proxy.close()


def test_every_request_is_answered_while_redis_comes_and_goes(shop: Shop, proxy: Proxy, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", "--users", proxy.url, "--users-seconds", "0.25") as server:
        server.wait()
        stop = threading.Event()

        def flap() -> None:
            for number in range(1000):
                proxy.mode = ("refuse", "pass", "hang", "pass", "reset", "pass")[number % 6]
                if stop.wait(0.2):
                    break

        flapping = threading.Thread(target=flap)
        flapping.start()
        try:
            outcomes, deadline = [tuple(degraded(server)) for _ in range(400)], time.monotonic() + 60
            while len(set(outcomes)) < 2 and time.monotonic() < deadline:
                outcomes.append(tuple(degraded(server)))
        finally:
            stop.set()
            flapping.join()
        assert set(outcomes) == {(), ("users",)}
        proxy.mode = "pass"
        recovered(server)


def test_the_password_of_redis_is_not_shown(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_USERS", "redis://:s3cret@127.0.0.1:1/0")
    with serving(shop.root, tmp_path / "log", forked=False) as server:
        server.wait()
        answers = [server.post({"user_id": "3"}), took(server, ("3", "1")), server.ask("GET", "/v1/users/3")]
        assert [answer.status for answer in answers] == [200, 503, 200]
        assert not any(b"s3cret" in answer.body for answer in answers)
        assert b"s3cret" not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert "s3cret" not in server.log.read_text()


def test_an_invalid_store_ends_the_service_with_a_reason(shop: Shop, tmp_path: Path) -> None:

    command = [sys.executable, "-m", "service", str(shop.root), "--port", "0", "--users", "radis://here"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == 78
    assert "Begin it with one of redis://" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


def test_users_of_the_export_are_read_from_redis(own_shop: Shop, own_redis: RedisServer, tmp_path: Path) -> None:
    folder = own_shop.publish(seed=0)
    bundle = load_bundle(folder)
    expected = {}
    with Recommender.load(folder) as recommender:
        for user_id in ("3", "4", "stranger"):
            found = recommender.recommend(Request(user_id=user_id, n=20))
            expected[user_id] = (found.user, [one.item_id for one in found.items])
    file = tmp_path / USERS
    (folder / USERS).rename(file)
    proxy = Proxy(own_redis.port)
    options = ("--users", proxy.url, "--exported-users", "redis", "--poll", "0.05", *PATIENT)
    with serving(own_shop.root, tmp_path / "log", *options) as server:
        server.wait(status=503)
        deadline = time.monotonic() + 60
        while "recall users load" not in server.ask("GET", "/health/ready").body.decode():
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)
        with closing(RedisLiveUsers(own_redis.url, read_seconds=5, write_seconds=5)) as store:
            store.exports.load(file, bundle.manifest.files[USERS].sha256)
        server.wait()

        def answers() -> dict[str, tuple[str, list[str]]]:
            found = {one: server.post({"user_id": one, "n": 20}).json for one in expected}
            return {name: (one["user"], [item["item_id"] for item in one["items"]]) for name, one in found.items()}

        assert answers() == expected
        assert degraded(server) == []
        assert took(server, ("4", "1")).json["known"] == 1
        assert user(server, "4")["history"][0] == "1"
        listed = server.ask("GET", "/v1/users")
        assert listed.status == 422
        assert "users cannot be listed" in listed.body.decode()
        proxy.mode = "refuse"
        for user_id in ("17", "stranger"):
            found = server.post({"user_id": user_id}).json
            assert (found["user"], [one["part"] for one in found["degraded"]]) == ("unknown", ["users"])
        assert server.post({}).json["degraded"] == []
        assert server.ask("GET", "/health/ready").status == 200
        proxy.mode = "pass"
        recovered(server)
        assert server.post({"user_id": "17"}).json["user"] == "known"
    proxy.close()
