"""Faults between service and Redis: bounded waiting, no false acknowledgement, automatic recovery."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from redis import Redis

from recall._breaker import Breaker
from recall.errors import ConfigError, StoreBusyError, StoreDownError, StoreError, StoreFullError
from recall.store.high_water_mark import HighWaterMark
from recall.store.users import redis as redis_module
from recall.store.users.changes import DELETED, InteractionEvent, UserDelete, UserPut, UserUpsert
from recall.store.users.record import MAX_HISTORY, MAX_SEEN, LiveUser
from recall.store.users.redis import USERS_REDIS_MARK, RedisLiveUsers
from recall.store.users.sqlite import SqliteLiveUsers, open_live_users
from tests.store.users.servers import Proxy, RedisServer, redis_server

PAUSE = 0.1


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(redis.port)
    yield proxy
    proxy.close()


Through = Callable[..., RedisLiveUsers]


@pytest.fixture
def through(proxy: Proxy, tmp_path: Path) -> Iterator[Through]:
    """Open the store behind the proxy."""
    opened: list[RedisLiveUsers] = []

    def open_one(seconds: float = 0.2, failures: int = 3) -> RedisLiveUsers:
        prefix = f"{tmp_path.name}:"
        opened.append(
            RedisLiveUsers(
                proxy.url,
                read_seconds=seconds,
                write_seconds=2 * seconds,
                prefix=prefix,
                breaker=lambda: Breaker(failures, PAUSE),
            )
        )
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def took(*items: str) -> list[InteractionEvent]:
    return [InteractionEvent("u", item, None, "d") for item in items]


def items_of(store: RedisLiveUsers) -> list[str]:
    return list(user_of(store).interactions)


def user_of(store: RedisLiveUsers) -> LiveUser:
    user = store.get(["u"])["u"]
    assert isinstance(user, LiveUser)
    return user


def healed(store: RedisLiveUsers, seconds: float = 10) -> list[str]:
    """Read a user once Redis is available again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return items_of(store)
        except StoreDownError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


FAULTS = ["refuse", "reset", "hang", "slow", "trickle"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_opens_the_breaker_and_recovers(proxy: Proxy, through: Through, fault: str) -> None:
    store = through(0.15)
    store.write(took("i1"))
    assert items_of(store) == ["i1"]
    proxy.mode = fault
    for _ in range(3):
        with pytest.raises(StoreDownError, match="does not answer"):
            store.get(["u"])
    assert store.breakers[""].state == "open"
    reached = proxy.accepted
    for _ in range(20):
        with pytest.raises(StoreDownError, match="calls are paused"):
            store.get(["u"])
        with pytest.raises(StoreDownError, match="calls are paused"):
            store.write(took("never"))
        store.breakers[""]._due = time.monotonic() + 1  # even on a slow machine
    assert proxy.accepted == reached
    proxy.mode = "pass"
    store.breakers[""]._due = 0.0
    assert healed(store) == ["i1"]
    assert store.breakers[""].state == "closed"
    assert store.write(took("i2")).sequence == 2


def test_a_late_reply_counts_as_a_failure(redis: RedisServer, tmp_path: Path) -> None:
    passing = 0.0  # seconds from one reading of the clock to the next
    clock = accumulate(iter(lambda: passing, None))
    breaker = Breaker(failures=3, clock=lambda: next(clock))
    prefix = f"{tmp_path.name}:"
    store = RedisLiveUsers(redis.url, read_seconds=30, write_seconds=30, prefix=prefix, breaker=lambda: breaker)
    store.write(took("i1"))
    assert items_of(store) == ["i1"]
    passing = 31.0
    for _ in range(3):
        assert breaker.state == "closed"
        assert items_of(store) == ["i1"]
    assert breaker.state == "open"
    store.close()


def test_requests_wait_at_most_the_time_budget(proxy: Proxy, through: Through) -> None:
    store = through(0.15, failures=1000)
    store.write(took("i1"))
    for fault in ("hang", "slow"):
        proxy.mode = fault
        start = time.monotonic()
        for _ in range(5):
            with pytest.raises(StoreDownError):
                store.get(["u"])
        assert time.monotonic() - start < 5  # a budget of 0.75 s on a busy machine; a slow answer takes 2 s each


def test_a_flapping_store_is_used_while_available(proxy: Proxy, through: Through) -> None:
    store = through(0.5)
    store.write(took("i1"))
    stop = threading.Event()

    def flap() -> None:
        for number in range(1000):
            proxy.mode = ("reset", "pass", "refuse", "pass")[number % 4]
            if stop.wait(0.15):
                break
        proxy.mode = "pass"

    flapping = threading.Thread(target=flap)
    flapping.start()
    answered = failed = 0
    deadline = time.monotonic() + 60
    try:
        while (answered < 20 or failed < 20) and time.monotonic() < deadline:
            try:
                assert items_of(store) == ["i1"]
                answered += 1
            except StoreDownError:
                failed += 1
            time.sleep(0.005)
    finally:
        stop.set()
        flapping.join()
    assert answered >= 20
    assert failed >= 20
    assert healed(store) == ["i1"]


def test_idle_connections_that_were_closed_are_reopened(redis: RedisServer, proxy: Proxy, through: Through) -> None:
    store = through()
    store.write(took("i1"))
    proxy.mode = "reset"
    proxy.mode = "pass"
    assert items_of(store) == ["i1"]
    assert store.breakers[""].state == "closed"


@pytest.mark.parametrize("fault", ["hang", "slow", "reset"])
def test_a_write_without_a_reply_can_be_retried(proxy: Proxy, through: Through, fault: str) -> None:
    store, other = through(0.1, failures=1000), through(5.0)
    store.write(took("i1"))
    proxy.mode = fault
    with pytest.raises(StoreDownError):
        store.write(took("i2"), key="again")
    proxy.mode = "pass"
    last = other.write(took("i2"), key="again").sequence
    assert other.write(took("i2"), key="again").sequence == last
    assert items_of(other) == ["i2", "i1"]


def test_an_acknowledged_write_survives_a_kill_of_redis(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        store = RedisLiveUsers(server.url, read_seconds=5, write_seconds=5, breaker=lambda: Breaker(pause=0.01))
        acknowledged: list[str] = []
        for life in range(3):
            stop = threading.Timer(0.1, server.stop)
            stop.start()
            for number in range(100_000):
                try:
                    store.write(took(f"{life} {number}"), key=f"{life} {number}")
                except StoreError:
                    break
                acknowledged.append(f"{life} {number}")
            stop.join()
            server.start_again()
        healed(store)
        user = user_of(store)
        store.close()
    held = [*user.interactions, *user.seen]
    assert set(acknowledged) <= set(held)
    assert len(set(held)) == len(held) <= len(acknowledged) + 3  # the last write before each kill may be lost or kept


def test_a_full_redis_is_reported_and_still_read(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
        store = RedisLiveUsers(server.url, read_seconds=5, write_seconds=5)
        store.write(took("i1"))
        large = UserUpsert("v", {str(number): "x" * 100_000 for number in range(20)}, None, None)
        with pytest.raises(StoreFullError, match="no room"):  # noqa: PT012 - any of them may be the first to find no room
            for _ in range(10):
                store.write([large])
        assert items_of(store) == ["i1"]
        assert store.breakers[""].state == "closed"
        store.close()


def test_a_read_only_redis_is_reported(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "yes") as server:
        store = RedisLiveUsers(server.url, read_seconds=5, write_seconds=5)
        with pytest.raises(StoreError, match="cannot be written") as raised:
            store.write(took("i1"))
        assert not isinstance(raised.value, StoreDownError)
        assert store.get(["u"]) == {}
        store.close()


@pytest.mark.parametrize(("appendonly", "said"), [("yes", False), ("no", True)])
def test_a_redis_without_durability_is_reported(tmp_path: Path, appendonly: str, said: bool) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", appendonly) as server:
        store = RedisLiveUsers(server.url, read_seconds=5)
        assert ("appendonly yes" in store.durability_warning()) is said
        store.close()


@pytest.mark.parametrize(
    ("policy", "limit", "said"),
    [
        ("allkeys-lru", "100mb", "drops keys"),
        ("volatile-ttl", "100mb", "drops keys"),
        ("noeviction", "100mb", ""),
        ("allkeys-lru", "0", ""),  # without a memory limit nothing is evicted
    ],
)
def test_a_redis_that_is_a_cache_is_reported(tmp_path: Path, policy: str, limit: str, said: str) -> None:
    options = ("--appendonly", "yes", "--maxmemory", limit, "--maxmemory-policy", policy)
    with redis_server(tmp_path / "redis", *options) as server:
        store = RedisLiveUsers(server.url, read_seconds=5)
        caution = store.durability_warning()
        store.close()
    assert said in caution
    assert bool(caution) == bool(said)
    assert (policy in caution) == bool(said)


def test_a_wrong_password_is_reported_and_never_shown(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--requirepass", "right") as server:
        for url in (server.url, server.url.replace("//", "//:wr0ng@")):
            store = RedisLiveUsers(url, read_seconds=5)
            with pytest.raises(StoreError) as raised:
                store.get(["u"])
            assert "wr0ng" not in str(raised.value) + repr(store)
            store.close()
        store = RedisLiveUsers(server.url.replace("//", "//:right@"), read_seconds=5, write_seconds=5)
        assert store.write(took("i1")).sequence == 1
        store.close()


def test_constant_concurrent_writes_end_in_a_timeout(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:") for _ in range(2))
    inner = redis_module.apply_changes

    def slower(*given):
        other.write(took("theirs"))
        return inner(*given)

    monkeypatch.setattr(redis_module, "apply_changes", slower)
    with pytest.raises(StoreBusyError, match="other processes are changing"):
        store.write([UserUpsert("u", {"age": 30}, None, None)])
    assert (set(items_of(store)), user_of(store).features) == ({"theirs"}, {})
    store.write(took("mine"))  # does not read first, and so has no conflict
    monkeypatch.undo()
    store.write([UserUpsert("u", {"age": 30}, None, None)])
    assert (items_of(store)[0], user_of(store).features) == ("mine", {"age": 30})
    store.close()
    other.close()


def test_an_unreadable_record_is_reported(redis: RedisServer, tmp_path: Path) -> None:
    store = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:")
    client = Redis(port=redis.port)
    client.hset(store._user_key("u"), "user", b"{")
    with pytest.raises(StoreError, match="cannot be read"):
        store.get(["u"])
    with pytest.raises(StoreError, match="cannot be read"):
        store.write([UserUpsert("u", {"age": 30}, None, None)])
    client.close()
    assert store.breakers[""].state == "closed"
    store.close()


def test_the_pool_has_no_more_connections_than_concurrent_calls(redis: RedisServer, tmp_path: Path) -> None:
    store = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.get(["u"]), range(200)))
    client = store._reader._client
    assert isinstance(client, Redis)
    assert 1 <= len(client.connection_pool._available_connections) <= 4
    store.close()


@pytest.mark.parametrize("setting", ["", "sqlit", "http://here", "redis:/here", "redis://here:port", "localhost:6379"])
def test_an_invalid_setting_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        open_live_users(setting, tmp_path)
    assert raised.value.where == "users"


def test_settings_select_the_store(tmp_path: Path) -> None:
    assert open_live_users("sqlite", None) is None
    assert isinstance(open_live_users("sqlite", tmp_path), SqliteLiveUsers)
    for root in (None, tmp_path):
        assert isinstance(open_live_users("redis://localhost:1/0", root), RedisLiveUsers)
    assert list(tmp_path.iterdir()) == []


def test_a_redis_emptied_while_stopped_is_reported_until_accepted(redis: RedisServer, tmp_path: Path) -> None:
    prefix, mark = f"{tmp_path.name}:", HighWaterMark(tmp_path / USERS_REDIS_MARK)

    def opened() -> RedisLiveUsers:
        return RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=prefix, mark=mark)

    client = Redis(port=redis.port)

    def emptied() -> None:
        client.delete(*client.keys(f"{prefix}*"))

    store = opened()
    assert store.error() == ""
    assert mark.read() is None
    store.write(took("i1", "i2"))
    assert (found := mark.read()) is not None
    assert found.sequence == 2
    store.close()
    other = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=prefix)  # another machine
    other.write(took("i3"))
    assert opened().error() == ""
    emptied()
    started = opened()
    assert started.error().startswith("Redis was emptied, set back, or replaced by a different one: 3 changes of users were")
    assert started.error().endswith("to go on without them, remove users.redis.mark")
    started.write(took("i4"))
    for one in (started, opened()):
        assert "3 changes of users were acknowledged, and it holds 1" in one.error()
    mark.path.unlink(missing_ok=True)
    for one in (started, opened()):
        assert one.error() == ""
    client.delete(*client.keys(f"{prefix}sequence:*"))  # like a Redis restored from an older file
    client.close()
    assert "1 changes of users were acknowledged, and it holds 0" in opened().error()
    mark.path.write_bytes(b"?")
    assert opened().error().startswith("users.redis.mark was damaged")


def test_a_loss_right_after_the_first_write_is_reported(redis: RedisServer, tmp_path: Path) -> None:
    mark = HighWaterMark(tmp_path / USERS_REDIS_MARK)
    stores = [
        RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:", mark=mark) for _ in range(2)
    ]
    stores[0].write(took("i1", "i2"))  # before any look
    client = Redis(port=redis.port)
    client.delete(*client.keys(f"{tmp_path.name}:*"))
    client.close()
    for store in stores:
        assert "2 changes of users were acknowledged, and it holds 0" in store.error()
        store.close()


def test_an_emptied_or_restored_redis_is_reported(redis: RedisServer, tmp_path: Path) -> None:
    store, other = (RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:") for _ in range(2))
    assert store.error() == ""
    store.write(took("i1", "i2"))
    assert (store.error(), other.error()) == ("", "")
    other.write(took("i3"))
    assert store.error() == ""
    client = Redis(port=redis.port)
    client.delete(*client.keys(f"{tmp_path.name}:*"))
    client.close()
    for one in (store, other):
        assert "3 changes of users were acknowledged, and it holds 0" in one.error() or one is other
    assert "emptied, set back" in other.error()
    store.write(took("i4"))
    assert "emptied, set back" in store.error()
    fresh = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:")
    assert fresh.error() == ""  # no record outside Redis
    for one in (store, other, fresh):
        one.close()


def test_an_interaction_does_not_rewrite_the_history(redis: RedisServer, tmp_path: Path) -> None:
    store = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:")

    def written() -> int:
        return sum(one.stat().st_size for one in redis.folder.glob("appendonlydir/*.aof"))

    items = tuple(f"item-{number:05}" for number in range(MAX_HISTORY + MAX_SEEN))
    store.write([UserPut("u", {}, items, ())])
    whole, before = len(user_of(store).to_json()), written()
    for number in range(300):
        store.write(took(f"later-{number}"), key=f"key {number}")
    assert whole > 140_000
    assert written() - before < whole + 300 * 600  # the history is rewritten once
    assert user_of(store).interactions[0] == "later-299"
    store.close()


def test_users_of_an_earlier_version_are_read_and_migrated(redis: RedisServer, tmp_path: Path) -> None:
    prefix, client = f"{tmp_path.name}:", Redis(port=redis.port)
    store = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=prefix)
    earlier = {
        "u": UserPut("u", {"age": 30}, ("h1",), ("s1",)).apply(None, 0.0),
        "v": InteractionEvent("v", "i1", 5.0, "d").apply(None, 0.0),
        "gone": DELETED,
    }
    for user_id, user in earlier.items():
        client.set(f"{prefix}user:{user_id}", user.to_json())
    client.zadd(f"{prefix}users", {"u": 0, "v": 0})
    client.set(f"{prefix}sequence", 7)
    assert store.get(["u", "v", "gone", "nobody"]) == earlier
    assert (store.ids(), store.sequence()) == (["u", "v"], 7)
    written = store.write(
        [*took("i2"), UserDelete("v"), InteractionEvent("gone", "i3", None, "d"), UserUpsert("w", {}, None, None)]
    )
    assert written.known == {"u": True, "v": True, "gone": False, "w": None}
    assert user_of(store) == replace(
        earlier["u"], interactions=("i2",), interaction_times=user_of(store).interaction_times, interaction_data=("d",)
    )
    assert store.get(["v"]) == {"v": DELETED}
    assert store.ids() == ["gone", "u", "w"]
    assert store.sequence() >= 11
    assert store.forget(["u", "gone"]) == 0
    assert store.ids() == ["w"]
    client.close()
    store.close()


def test_users_of_two_catalogues_are_not_mixed(redis: RedisServer, tmp_path: Path) -> None:
    name = ""

    def opened() -> RedisLiveUsers:
        prefix = f"{tmp_path.name}:"
        return RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=prefix, catalog=lambda: name)

    early = opened()  # before there is a version
    early.write(took("i1"))
    name = "shop"
    early.write(took("i2"))
    name = "books"
    calls: list[Callable[[RedisLiveUsers], object]] = [
        lambda store: store.write(took("i3")),
        RedisLiveUsers.error,
        lambda store: store.get(["u"]),
        RedisLiveUsers.ids,
        lambda store: store.forget(["u"]),
    ]
    others = [opened() for _ in calls]
    for other, call in zip(others, calls, strict=True):
        for refused in (call, *calls):  # each as the first call, and after it
            with pytest.raises(StoreError, match="another catalogue") as raised:
                refused(other)
            assert "they belong to 'shop', and the live version here to 'books'" in str(raised.value)
    assert items_of(early) == ["i2", "i1"]
    client = Redis(port=redis.port)
    client.delete(f"{tmp_path.name}:catalog")  # it was renamed
    assert others[0].error() == ""
    assert items_of(others[0]) == ["i2", "i1"]
    client.delete(*client.keys(f"{tmp_path.name}:*"))
    others[1].write(took("theirs"))
    for call in (RedisLiveUsers.error, *calls):  # what was noted of a Redis that was emptied is forgotten
        with pytest.raises(StoreError, match="they belong to 'books'"):
            call(early)
    client.close()
    for one in (early, *others):
        one.close()


def test_a_user_who_is_changed_while_deleted_is_listed(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:") for _ in range(2))
    store.write(took("i1"))
    call = store._writer.call

    def then_changed(*given, **options):
        answers = call(*given, **options)
        if any(command[0] == "EVAL" for command in given[2]):
            assert other.ids() == []
            other.write(took("i2"))
        return answers

    monkeypatch.setattr(store._writer, "call", then_changed)
    store.write([UserDelete("u")])
    monkeypatch.undo()
    assert store.ids() == ["u"]
    assert items_of(store) == ["i2"]
    store.write([UserDelete("u")])
    assert store.ids() == []
    assert store.forget(["u"]) == 0
    client = Redis(port=redis.port)
    assert client.keys(f"{tmp_path.name}:users:*") == []
    client.close()
    for one in (store, other):
        one.close()


@pytest.mark.parametrize("marked", [True, False])
def test_a_change_during_a_look_is_no_loss(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    mark = HighWaterMark(tmp_path / USERS_REDIS_MARK) if marked else None
    store = RedisLiveUsers(redis.url, read_seconds=5, write_seconds=5, prefix=f"{tmp_path.name}:", mark=mark)
    store.write(took("i1"))
    assert store.error() == ""
    state = store._state

    def then_written() -> tuple[str, dict[bytes, int]]:
        found = state()
        store.write(took("i2"))
        return found

    monkeypatch.setattr(store, "_state", then_written)
    for _ in range(2):
        assert store.error() == ""
    store.close()
