"""Acknowledged changes survive crashes and disk errors; corrupt files are refused."""

import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from recall.errors import RequestError, StoreBusyError, StoreError, StoreFullError
from recall.store.group_commit import DurableLog
from recall.store.users.changes import InteractionEvent, UserUpsert
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.straced import acknowledged, every_error

ROOT = Path(__file__).parents[3]

WRITER = """
import itertools, sys
from pathlib import Path
from recall.store.users.changes import InteractionEvent
from recall.store.users.sqlite import SqliteLiveUsers

store = SqliteLiveUsers(Path(sys.argv[1]))
life = sys.argv[2]
for number in itertools.count():
    batch = [InteractionEvent(f"{user}", f"{life} {number}", None, "d") for user in range(3)]
    sys.stdout.write(f"{number} {store.write(batch, key=f'{life} {number}').sequence}\\n")
    sys.stdout.flush()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / USERS_LIVE


def took(*items: str, user: str = "u") -> list[InteractionEvent]:
    return [InteractionEvent(user, item, None, "d") for item in items]


def items_of(store: SqliteLiveUsers, user_id: str = "u") -> list[str]:
    return list(store.get([user_id])[user_id].interactions)


def test_there_is_no_file_before_the_first_change(path: Path) -> None:
    store = SqliteLiveUsers(path)
    assert store.get(["u"]) == {}
    assert (store.ids(), store.sequence()) == ([], 0)
    assert list(path.parent.iterdir()) == []


def test_the_file_is_in_wal_mode_and_fsynced(path: Path) -> None:
    store = SqliteLiveUsers(path)
    store.write(took("i"))
    connection = store._file.writer()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store.durability_warning() == ""
    store.close()


def test_acknowledged_changes_survive_kill_9(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for life in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(life)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            time.sleep(0.011 * (life + 1))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        for line in (line for line in lines if line.endswith("\n")):  # an incomplete last line is not an acknowledgement
            number, last = map(int, line.split())
            acknowledged[f"{life} {number}"] = last
    store = SqliteLiveUsers(path)
    held = [items_of(store, str(user)) for user in range(3)]
    assert len(acknowledged) > 20
    assert held[0] == held[1] == held[2]  # complete batches
    assert len(set(held[0])) == len(held[0])  # each once
    assert set(acknowledged) <= set(held[0])
    assert store.sequence() == 3 * len(held[0])
    for name, last in list(acknowledged.items())[-5:]:  # a client without an answer may retry
        assert store.write([InteractionEvent(str(user), name, None, "d") for user in range(3)], key=name).sequence == last
    assert len(items_of(store, "0")) == len(held[0])
    store.close()


def test_a_concurrent_writer_is_waited_for_up_to_a_limit(path: Path) -> None:
    SqliteLiveUsers(path).write(took("i1"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = SqliteLiveUsers(path, wait=0.05)
    with pytest.raises(StoreBusyError, match="another process is writing"):
        waiting.write(took("i2"))
    assert items_of(waiting) == ["i1"]  # readers are not blocked
    other.execute("ROLLBACK")
    assert waiting.write(took("i2")).sequence == 2
    other.close()


def test_a_full_disk_is_reported_and_nothing_is_acknowledged(path: Path) -> None:
    store = SqliteLiveUsers(path)
    store.write(took("i1"))
    connection = store._file.writer()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = [UserUpsert("u", {"text": "x" * 100_000}, None, None)]
    with pytest.raises(StoreFullError, match="no room"):
        store.write(large)
    assert items_of(store) == ["i1"]
    assert store.write(large).sequence == 2  # a new connection does not have this limit
    store.close()


STRACED = """
import sys
from pathlib import Path
from recall.errors import StoreError
from recall.store.users.changes import InteractionEvent
from recall.store.users.sqlite import SqliteLiveUsers

store = SqliteLiveUsers(Path(sys.argv[1]))
for number in range(6):
    try:
        print("yes", number, store.write([InteractionEvent("u", f"i{number}", None, "d")]).sequence, flush=True)
    except StoreError as error:
        print("no", number, error.exit_code, flush=True)
"""


@every_error
def test_a_change_is_not_acknowledged_after_a_disk_error(path: Path, call: str, error: str, code: str) -> None:
    opened = SqliteLiveUsers(path)
    opened.write(took("first"))
    writes = acknowledged(STRACED, path, call, error, code)
    opened.close()  # not earlier: the other process would recreate the shared memory file
    held = items_of(SqliteLiveUsers(path))
    assert {f"i{number}" for number, _ in writes} <= set(held)


def test_concurrent_changes_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, start, commits = SqliteLiveUsers(path), Barrier(8), []
    inner = DurableLog._write
    monkeypatch.setattr(DurableLog, "_write", lambda self, batches: commits.append(len(batches)) or inner(self, batches))

    def write(thread: int) -> None:
        start.wait()
        for number in range(25):
            store.write(took(f"{thread} {number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sum(commits) == 200
    assert len(commits) < 200
    assert len(items_of(store)) == 200
    store.close()


def test_an_invalid_batch_does_not_affect_concurrent_ones(path: Path) -> None:
    from recall.store.users.sqlite import _Batch

    store = SqliteLiveUsers(path)
    store.write(took("i1"), "one")
    good, bad = _Batch(changes=tuple(took("i2")), key="two"), _Batch(changes=tuple(took("i3")), key="one")
    store._write([bad, good])
    assert isinstance(bad.error, RequestError)
    assert (good.error, good.last) == (None, 2)
    assert items_of(store) == ["i2", "i1"]
    store.close()


def test_corruption_is_reported(path: Path) -> None:
    store = SqliteLiveUsers(path)
    store.write([InteractionEvent(f"user {number}", f"item {number}", None, "d") for number in range(1000)])
    store.close()
    whole = path.read_bytes()
    place = whole.index(b'"item 789"')
    cases = [
        (whole[:place] + b'"item 987"' + whole[place + 10 :], "user 'user 789' was damaged"),
        (whole[: len(whole) // 2], "file of users is damaged"),
        (b"", "not a file of users"),
        (b"not a database at all" * 1000, "file of users is damaged"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        damaged = SqliteLiveUsers(path)
        with pytest.raises(StoreError, match=message) as raised:
            damaged.get([f"user {number}" for number in range(1000)])
        assert raised.value.where == str(path)
        assert raised.value.hint
        damaged.close()
    path.write_bytes(cases[0][0])
    damaged = SqliteLiveUsers(path)
    assert damaged.get(["user 1"])  # the others are unchanged
    with pytest.raises(StoreError, match="was damaged"):
        damaged.write(took("i", user="user 789"))
    assert damaged.write(took("i", user="user 1")).sequence == 1001
    damaged.close()


def test_a_removed_file_is_created_again(path: Path) -> None:
    store = SqliteLiveUsers(path)
    store.write(took("i1"))
    path.rename(path.with_name("away"))
    assert store.get(["u"]) == {}
    assert store.write(took("i2")).sequence == 2  # sequences are not reused
    assert items_of(store) == items_of(SqliteLiveUsers(path)) == ["i2"]


def test_other_and_newer_databases_are_refused(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    for use in (lambda: SqliteLiveUsers(path).get(["u"]), lambda: SqliteLiveUsers(path).write(took("i"))):
        with pytest.raises(StoreError, match="not a file of users"):
            use()
    path.unlink()
    SqliteLiveUsers(path).write(took("i"))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(StoreError, match="Upgrade"):
        SqliteLiveUsers(path).sequence()
    with pytest.raises(StoreError, match="cannot be written"):
        SqliteLiveUsers(path.parent / "nowhere" / USERS_LIVE).write(took("i"))


FULL = """
import resource, signal, sys
from pathlib import Path
from recall.errors import StoreError
from recall.store.users.changes import InteractionEvent
from recall.store.users.sqlite import SqliteLiveUsers

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
store = SqliteLiveUsers(path)
store.write([InteractionEvent("u", "1", None, "d")])
store.checkpoint()
room = path.with_name(path.name + "-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for _ in range(2):
    try:
        store.write([InteractionEvent("u", "2" * 100_000, None, "d")])
    except StoreError:
        print(*store.get(["u"])["u"].interactions)
"""


def test_a_disk_that_fills_up_after_a_checkpoint_leaves_users_readable(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.split() == ["1", "1"]
