"""No acknowledged change is lost when Redis or the way to it fails, and what is lost in Redis is noticed."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from redis import Redis
from serving.processes import free_port

from recall.errors import (
    ConfigError,
    JournalDamagedError,
    JournalDownError,
    JournalError,
    JournalFullError,
    JournalReadOnlyError,
)
from recall.serving.recommender import Recommender
from recall.store.high_water_mark import HighWaterMark
from recall.store.items.log import JOURNAL, VARIABLE, SqliteChangeLog, open_log
from recall.store.items.log_position import MARK, Base, Change
from recall.store.items.log_redis import RedisChangeLog
from tests.store.items.entries import last, since
from tests.store.items.logs import PATIENT, InRedis, Storage
from tests.store.items.test_log_base import changes
from tests.store.items.test_log_position import degradation, fresh, ids
from tests.store.users.servers import Proxy, RedisServer, redis_server

ROOT = Path(__file__).parents[3]
WRITER = """
import itertools, sys
from pathlib import Path
from recall.store.high_water_mark import HighWaterMark
from recall.store.items.log_position import Change
from recall.store.items.log_redis import RedisChangeLog

log = RedisChangeLog(sys.argv[1], HighWaterMark(Path(sys.argv[2])), seconds=5.0)
for number in itertools.count():
    sequence = log.append([Change(f"{sys.argv[3]} {number}", {"n": number})], key=f"{sys.argv[3]} {number}")
    print(number, sequence, flush=True)
"""


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with redis_server(tmp_path / "redis") as started:
        yield started


@pytest.fixture
def proxy(bare: InRedis, server: RedisServer) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


only_redis = pytest.mark.parametrize("bare", ["redis"], indirect=True)
served_from_redis = pytest.mark.parametrize("storage", ["redis"], indirect=True)


def test_acknowledged_changes_survive_kill_9_of_the_server(own_server: RedisServer, tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for life in range(3):
        command = [sys.executable, "-c", WRITER, own_server.url, str(tmp_path / f"mark {life}"), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = [process.stdout.readline() for _ in range(20 * life + 5)]
            own_server.stop()
            assert "does not answer" in process.stderr.read()
            lines += process.stdout.readlines()
        for line in (line for line in lines if line.endswith("\n")):
            number, sequence = map(int, line.split())
            acknowledged[f"{life} {number}"] = sequence
        own_server.start_again()
    log = RedisChangeLog(own_server.url, HighWaterMark(tmp_path / MARK), seconds=PATIENT)
    held = {entry.item_id: entry.sequence for entry in since(log, 0)}
    assert {name: held.get(name) for name in acknowledged} == acknowledged
    assert last(log) == len(held)
    for name, sequence in list(acknowledged.items())[-3:]:
        assert log.append([Change(name, {"n": int(name.split()[1])})], key=name) == sequence
    log.close()


@only_redis
@pytest.mark.parametrize("fault", ["reset", "refuse", "hang"])
def test_a_broken_connection_loses_and_repeats_nothing(bare: InRedis, proxy: Proxy, fault: str) -> None:
    log = RedisChangeLog(proxy.url, HighWaterMark(bare.root / MARK), seconds=0.3)
    log.append(changes("a"), key="a")
    proxy.mode = fault
    for ask in (lambda: log.append(changes("b"), key="b"), lambda: log.read(None, Base()), log.version):
        with pytest.raises(JournalDownError, match="does not answer") as raised:
            ask()
        assert raised.value.where == proxy.url
    proxy.mode = "pass"
    assert log.append(changes("b"), key="b") == log.append(changes("b"), key="b") == 2
    assert [entry.item_id for entry in since(bare.open(), 0)] == ["a", "b"]
    log.close()


@served_from_redis
def test_a_replica_says_that_redis_does_not_answer_and_recovers(
    storage: InRedis, root: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = Proxy(server.port)
    monkeypatch.setenv(VARIABLE, between.url)
    live = Recommender.load(root, pause=None)
    live.items.upsert({"a": {}})
    assert not live.items.has_changes()  # from here on, a thread waits for changes
    between.mode = "reset"
    wait_for(live.items.has_changes)
    with pytest.raises(JournalDownError, match="does not answer"):
        live.items.refresh()
    assert "later changes of items are not known: the log of changes does not answer" in live.items.current().degraded[0].reason
    assert not live.items.behind()  # waiting would not help
    assert "a" in ids(live)
    other = storage.open()
    other.append([Change("b", {})])
    between.mode = "pass"
    wait_for(lambda: not live.items.current().degraded or bool(refreshed(live)))
    assert {"a", "b"} <= ids(live)
    for one in (live, other):
        one.close()
    between.close()


def refreshed(live: Recommender) -> bool:
    try:
        live.items.refresh()
    except JournalError:
        return False
    return True


@served_from_redis
def test_changes_of_other_machines_and_a_lost_log_are_noticed_without_asking(storage: InRedis, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    assert not live.items.has_changes()
    other = storage.open()
    other.append([Change("b", {})])
    wait_for(live.items.behind)
    live.items.refresh()
    assert {"a", "b"} <= ids(live)
    wait_for(lambda: not live.items.has_changes())
    storage.remove()
    wait_for(live.items.has_changes)
    live.items.refresh()
    assert live.items.unsaved == 2
    other.close()


@only_redis
def test_a_thread_sees_what_others_write_and_that_nothing_is_left(bare: InRedis) -> None:
    reader, writer = bare.open(), bare.open()
    seen = reader.peek()
    for number in range(3):  # peek would raise if the thread could not read
        writer.append(changes(f"{number}"))
        wait_for(lambda before=seen: reader.peek() != before)
        wait_for(lambda: reader.peek() == writer.version())
        seen = reader.version()
    bare.remove()
    wait_for(lambda: reader.peek() != seen)
    reader.close()
    writer.close()


@served_from_redis
@pytest.mark.parametrize("trim", [("XTRIM", "recall:log:changes", "MINID", "3"), ("XDEL", "recall:log:changes", "2-0")])
def test_trimmed_entries_are_noticed_and_written_back(
    storage: InRedis, root: Path, live: Recommender, trim: tuple[str, ...]
) -> None:
    live.items.upsert({"a": {}, "b": {}, "c": {}})
    served = ids(live)
    storage.client.execute_command(*trim)
    with pytest.raises(JournalDamagedError, match="changes are missing from the journal"):
        live.items.refresh()
    assert "are missing from the journal" in live.items.current().degraded[0].reason
    with pytest.raises(JournalDamagedError):
        Recommender.load(root)  # one that starts does not pretend that nothing is missing
    assert ids(live) == served
    assert live.items.repair() == 3
    assert not live.items.current().degraded
    assert fresh(root) == served
    assert any(b"log.damaged-" in key for key in storage.client.scan_iter())


@served_from_redis
def test_a_log_that_is_something_else_is_refused(storage: InRedis, root: Path) -> None:
    storage.client.hset("recall:log", "state", "not a log")
    for use in (lambda: storage.open().append(changes("a")), lambda: Recommender.load(root)):
        with pytest.raises(JournalDamagedError, match="not a log of changes"):
            use()
    storage.client.flushdb()
    storage.client.set("recall:log", "text")
    with pytest.raises(JournalError, match="WRONGTYPE"):
        storage.open().append(changes("a"))


@served_from_redis
def test_a_replica_that_was_away_while_changes_were_compacted_catches_up(
    storage: InRedis, root: Path, live: Recommender
) -> None:
    away = Recommender.load(root, pause=None)
    live.items.upsert({f"n{number}": {} for number in range(30)})
    live.items.delete(["i1"])
    away.items.refresh()
    live.items.upsert({f"n{number}": {} for number in range(20, 50)})
    assert away.items.refresh().sequence == 61
    assert ids(away) == ids(live)
    away.close()


def test_a_full_or_read_only_redis_is_reported(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--maxmemory", "3mb") as small:
        log = RedisChangeLog(small.url, HighWaterMark(tmp_path / MARK), seconds=PATIENT)
        log.append(changes("a"))
        with pytest.raises(JournalFullError, match="no room for changes in Redis"):
            [log.append([Change(f"{number}", {"text": "x" * 200_000})]) for number in count()]
        assert "a" in {entry.item_id for entry in since(log, 0)}
        Redis.from_url(small.url).execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(JournalReadOnlyError, match="is a replica"):
            log.append(changes("b"))
        log.close()


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ((), ""),
        (("--appendfsync", "everysec"), "appendfsync is everysec, so changes of the last second may be lost"),
        (("--appendonly", "no"), "keeps changes in memory until it next saves them"),
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "drops keys when memory is full"),
    ],
)
def test_weak_settings_of_redis_are_reported(tmp_path: Path, options: tuple[str, ...], warning: str) -> None:
    with redis_server(tmp_path / "redis", *options) as server:
        log = RedisChangeLog(server.url, HighWaterMark(tmp_path / MARK), seconds=PATIENT)
        found = log.durability_warning()
        log.close()
    assert warning in found
    assert bool(found) == bool(warning)


def test_a_cluster_is_refused_in_words(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        log = RedisChangeLog(server.url, HighWaterMark(tmp_path / MARK), seconds=PATIENT)
        with pytest.raises(JournalError, match="this Redis is in cluster mode, which is not supported"):
            log.append(changes("a"))
        log.close()


def test_the_setting_names_a_file_or_a_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_log(tmp_path), SqliteChangeLog)
    monkeypatch.setenv(VARIABLE, "redis://user:secret@localhost:1/0")
    log = open_log(tmp_path)
    assert isinstance(log, RedisChangeLog)
    assert log.where == "redis://localhost:1/0"
    assert isinstance(open_log(tmp_path, "sqlite"), SqliteChangeLog)
    for wrong in ("", "postgres://x", "redis://localhost:port/0"):
        with pytest.raises(ConfigError, match="invalid address of a Redis"):
            open_log(tmp_path, wrong)


@only_redis
def test_changes_do_not_go_to_a_file_when_they_are_kept_in_redis(bare: Storage, tmp_path: Path) -> None:
    bare.open().append(changes("a"))
    with pytest.raises(JournalReadOnlyError, match="kept in a Redis") as raised:
        SqliteChangeLog(tmp_path / JOURNAL).append(changes("b"))
    assert VARIABLE in (raised.value.why or "")
    assert not (tmp_path / JOURNAL).exists()


@served_from_redis
def test_a_redis_in_place_of_a_file_is_noticed(storage: InRedis, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sqlite")
    with Recommender.load(root) as before:
        before.items.upsert({"a": {}})
    monkeypatch.setenv(VARIABLE, storage.url)
    with Recommender.load(root) as after:  # without compaction: the changes of the file are missing, which is reported
        assert "acknowledged changes up to 1" in degradation(after)


@only_redis
def test_the_changes_of_two_catalogues_are_not_mixed(bare: InRedis, tmp_path: Path) -> None:
    shop, books = (
        RedisChangeLog(bare.url, HighWaterMark(tmp_path / f"{name}.mark"), seconds=PATIENT, catalog=lambda name=name: name)
        for name in ("shop", "books")
    )
    shop.append(changes("a"))
    for call in (lambda: books.append(changes("b")), books.state, lambda: books.read(None, Base())):
        with pytest.raises(JournalError, match="another catalogue") as raised:
            call()
        assert "they belong to 'shop', and the live version here to 'books'" in str(raised.value)
    shop.append(changes("c"))
    assert last(shop) == 2
    bare.client.hdel("recall:log", "catalog")  # it was renamed
    books.append(changes("d"))
    with pytest.raises(JournalError, match="another catalogue"):
        shop.append(changes("e"))
    for log in (shop, books):
        log.close()
