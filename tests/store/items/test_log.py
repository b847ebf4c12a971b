"""Acknowledged changes survive crashes; corrupt logs are refused."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recall.errors import JournalBusyError, JournalError, JournalFullError, RequestError
from recall.store import group_commit
from recall.store.items.log import JOURNAL, SqliteChangeLog, SqliteTables
from recall.store.items.log_base import ItemBatch
from recall.store.items.log_position import Base, Change
from tests.store.items.entries import last, since
from tests.straced import acknowledged, every_error

ROOT = Path(__file__).parents[3]

WRITER = """
import itertools, sys
from pathlib import Path
from recall.store.items.log import SqliteChangeLog
from recall.store.items.log_position import Change

journal = SqliteChangeLog(Path(sys.argv[1]))
name = sys.argv[2]
for number in itertools.count():
    batch = [Change(f"{name} {number}", {"part": part}) for part in range(3)]
    sys.stdout.write(f"{number} {journal.append(batch, key=f'{name} {number}')}\\n")
    sys.stdout.flush()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / JOURNAL


def changes(*ids: str) -> list[Change]:
    return [Change(one, {"name": one}) for one in ids]


def test_old_idempotency_keys_expire(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_KEYS", 2)
    written = SqliteChangeLog(path)
    for key in "abc":
        written.append(changes(key), key=key)
    assert written.append(changes("b"), key="b") == 2
    assert written.append(changes("a"), key="a") == 4


def test_an_invalid_key_does_not_affect_concurrent_batches(path: Path) -> None:
    written = SqliteChangeLog(path)
    written.append(changes("a"), key="one")
    good, bad = (ItemBatch(rows=[("b", b"{}")], key=key, after=0, base=Base(), expected=None) for key in ("two", "one"))
    written._write([bad, good])
    assert isinstance(bad.error, RequestError)
    assert (good.error, good.last) == (None, 2)


def test_acknowledged_changes_survive_kill_9(path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for life in range(8):
        command = [sys.executable, "-c", WRITER, str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3 * life + 1)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        for line in (line for line in lines if line.endswith("\n")):  # an incomplete last line is not an acknowledgement
            number, end = map(int, line.split())
            acknowledged[f"{life} {number}"] = end
    held = SqliteChangeLog(path)
    entries = since(held, 0)
    assert len(acknowledged) >= sum(3 * life + 1 for life in range(8))
    assert [entry.sequence for entry in entries] == list(range(3, 3 * len(entries) + 1, 3))  # complete batches, each once
    assert all(entry.features == {"part": 2} for entry in entries)
    assert set(acknowledged) <= {entry.item_id for entry in entries}
    mark = held.mark.read()
    assert mark is not None
    assert acknowledged[max(acknowledged, key=acknowledged.__getitem__)] <= mark.sequence <= last(held)
    for name, end in list(acknowledged.items())[-5:]:  # a client without an answer may retry
        assert held.append([Change(name, {"part": part}) for part in range(3)], key=name) == end


def test_a_concurrent_writer_is_waited_for_up_to_a_limit(path: Path) -> None:
    SqliteChangeLog(path).append(changes("a"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = SqliteChangeLog(path, wait=0.05)
    with pytest.raises(JournalBusyError, match="another process is writing"):
        waiting.append(changes("b"))
    assert last(waiting) == 1  # readers are not blocked
    other.execute("ROLLBACK")
    assert waiting.append(changes("b")) == 2
    other.close()


def test_a_full_disk_is_reported_and_nothing_is_acknowledged(path: Path) -> None:
    written = SqliteChangeLog(path)
    written.append(changes("a"))
    connection = written._file.writer()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalFullError, match="no room for the journal"):
        written.append([Change("b", {"text": "x" * 100_000})])
    assert [entry.item_id for entry in since(written, 0)] == ["a"]
    assert written.append([Change("b", {"text": "x" * 100_000})]) == 2  # a new connection does not have this limit


def test_a_failed_commit_is_not_noted_by_the_next_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def failing(connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    written = SqliteChangeLog(path)
    written.append(changes("a"), key="a")
    with monkeypatch.context() as patched:
        patched.setattr(group_commit, "transaction", failing)
        with pytest.raises(JournalError, match="disk I/O error"):
            written.append(changes("b"))
    assert written.append(changes("a"), key="a") == 1  # writes nothing
    mark = written.mark.read()
    assert mark is not None
    assert mark.sequence == 1


STRACED = """
import sys
from pathlib import Path
from recall.errors import JournalError
from recall.store.items.log import SqliteChangeLog
from recall.store.items.log_position import Change

journal = SqliteChangeLog(Path(sys.argv[1]))
for number in range(6):
    try:
        print("yes", number, journal.append([Change(f"item {number}", {})]), flush=True)
    except JournalError as error:
        print("no", number, error.exit_code, flush=True)
"""


@every_error
def test_a_change_is_not_acknowledged_after_a_disk_error(path: Path, call: str, error: str, code: str) -> None:
    opened = SqliteChangeLog(path)
    opened.append(changes("first"))
    writes = acknowledged(STRACED, path, call, error, code)
    opened.close()  # not earlier: the other process would recreate the shared memory file
    held = {entry.item_id: entry.sequence for entry in since(SqliteChangeLog(path), 0)}
    for number, sequence in writes:
        assert held[f"item {number}"] == int(sequence)


def test_corruption_is_reported(path: Path) -> None:
    written = SqliteChangeLog(path)
    written.append(changes(*(f"item {number}" for number in range(2000))))
    written.close()
    whole = path.read_bytes()
    place = whole.index(b'"item 1234"')
    damaged = whole[:place] + b'"item 4321"' + whole[place + 11 :]
    cases = [
        (damaged, "change 1235 was damaged"),
        (whole[: len(whole) // 2], "the journal is damaged"),
        (b"", "not a journal of live changes"),
        (b"not a database at all" * 1000, "the journal is damaged"),
        (whole[:8192] + b"\0" * 4096 + whole[12288:], "damaged|missing"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(JournalError, match=message) as raised:
            since(SqliteChangeLog(path), 0)
        assert raised.value.where == str(path)
        assert raised.value.hint
    connection = sqlite3.connect(path)
    path.write_bytes(whole)
    connection.close()
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM entries WHERE sequence = 7")
    connection.close()
    with pytest.raises(JournalError, match="changes among those from 0 to 255 are missing"):
        since(SqliteChangeLog(path), 0)


def test_a_failed_read_transaction_is_reported_and_retried(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = SqliteChangeLog(path)
    journal.append(changes("a"))

    def failing(tables: SqliteTables) -> None:
        tables.connection.execute("ROLLBACK")  # as SQLite does after an error of the disk
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteTables, "state", failing)
        with pytest.raises(JournalError, match="disk I/O error"):
            journal.read(None, Base())
    assert [row.item_id for row in journal.read(None, Base()).rows] == ["a"]
    journal.close()


def test_other_databases_and_newer_logs_are_refused(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    for use in (lambda: since(SqliteChangeLog(path), 0), lambda: SqliteChangeLog(path).append(changes("a"))):
        with pytest.raises(JournalError, match="not a journal of live changes"):
            use()
    path.unlink()
    SqliteChangeLog(path).append(changes("a"))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(JournalError, match="Upgrade"):
        last(SqliteChangeLog(path))
    with pytest.raises(JournalError, match="cannot be written"):
        SqliteChangeLog(path.parent / "nowhere" / JOURNAL).append(changes("a"))
