"""The log keeps the last change of each item, detects missing entries, and reads earlier formats."""

import sqlite3
import zlib
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import JournalDamagedError, JournalError
from recall.store.items.log import ALL, JOURNAL, KIND, SqliteChangeLog, SqliteTables
from recall.store.items.log_base import append_rows
from recall.store.items.log_position import Base, Change
from tests.store.items.entries import Entry, last, since

FORMAT_1 = """
PRAGMA application_id = 0x464D524A; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;
CREATE TABLE changes (sequence INTEGER PRIMARY KEY, item_id TEXT NOT NULL, features BLOB, checksum INTEGER NOT NULL);
CREATE TABLE batches (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, last INTEGER NOT NULL);
CREATE TABLE state (pruned INTEGER NOT NULL);
"""


def format_1(path: Path, changes: list[tuple[int, str, bytes | None]], pruned: int = 0) -> None:
    """Write a log in format 1."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(FORMAT_1)
    connection.execute("INSERT INTO state VALUES (?)", (pruned,))
    for sequence, item_id, features in changes:
        parts = (str(sequence).encode(), item_id.encode(), b"deleted" if features is None else b"given", features or b"")
        connection.execute(
            "INSERT INTO changes VALUES (?, ?, ?, ?)", (sequence, item_id, features, zlib.crc32(b"\0".join(parts)))
        )
    connection.close()


def memory() -> SqliteTables:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in ALL:
        connection.execute(statement)
    return SqliteTables(connection, old=False, where="log")


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.binary(max_size=3)), min_size=1, max_size=9)))
def test_the_log_keeps_the_last_changes_and_correct_checksums(batches: list[list[tuple[str, bytes | None]]]) -> None:
    tables = memory()
    expected: dict[str, tuple[int, bytes | None]] = {}
    heads = []
    for at, batch in enumerate(batches):
        state = tables.state()
        for place, (item_id, features) in enumerate(batch, start=state.last + 1):
            expected[item_id] = (place, features)
        append_rows(tables, state, [(*one, at) for one in batch], b"digest")
        heads.append(tables.state())
    held = {row.item_id: (row.sequence, row.features) for row in tables.rows_after(0, whole=True)}
    assert held == expected
    for state in heads:
        later = {row.item_id for row in tables.rows_after(state.last, whole=False)}
        assert later == {one for one, (sequence, _) in expected.items() if sequence > state.last}
        assert tables.has_head(state.last, state.head)
        assert not tables.has_head(state.last, b"other")
    state = tables.state()
    assert state.number == len(expected)
    assert tables.drop(state.last) == len(expected)
    assert tables.connection.execute("SELECT count(*) FROM blocks").fetchone() == (0,)


@pytest.mark.parametrize("lost", [1, 300, 256, 999])
def test_a_missing_entry_is_detected_by_later_reads(lost: int) -> None:
    tables = memory()
    append_rows(tables, tables.state(), [(f"item {at}", b"{}", at) for at in range(1000)], b"digest")
    tables.connection.execute("DELETE FROM entries WHERE sequence = ?", (lost,))
    with pytest.raises(JournalDamagedError, match="are missing from the journal"):
        tables.rows_after(0, whole=False)
    with pytest.raises(JournalDamagedError, match="are missing from the journal"):
        tables.rows_after(lost, whole=False)  # of the same block, which the reader has seen
    tables.connection.execute("DELETE FROM blocks WHERE block = ?", (lost >> 8,))
    tables.connection.execute("DELETE FROM entries WHERE sequence >> 8 = ?", (lost >> 8,))
    with pytest.raises(JournalDamagedError, match="are missing from the journal"):
        tables.rows_after(0, whole=True)  # with its whole block: a new reader verifies all checksums


def test_frequent_changes_of_few_items_keep_the_log_short(tmp_path: Path) -> None:
    log = SqliteChangeLog(tmp_path / JOURNAL)
    for start in range(0, 20_000, 500):
        log.append([Change(f"i{at % 40}", {"price": at, "text": "x" * 100}) for at in range(start, start + 500)])
    log.close()
    assert last(log) == 20_000
    assert [entry.sequence for entry in since(log, 0)] == list(range(19_961, 20_001))
    assert [entry.sequence for entry in since(log, 19_990)] == list(range(19_991, 20_001))
    log.close()
    assert (tmp_path / JOURNAL).stat().st_size < 100_000


def test_the_file_shrinks_when_entries_are_removed(tmp_path: Path) -> None:
    log = SqliteChangeLog(tmp_path / JOURNAL)
    log.append([Change(f"i{at}", {"text": "x" * 1000}) for at in range(2000)])
    log.checkpoint()
    large = log.path.stat().st_size
    assert log.prune(1990) == 1990
    log.checkpoint()
    assert log.path.stat().st_size < large / 20
    assert [entry.item_id for entry in since(log, 1990)] == [f"i{at}" for at in range(1990, 2000)]


def test_a_format_1_log_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    format_1(path, [(at, f"i{at % 7}", orjson.dumps({"at": at}) if at % 5 else None) for at in range(11, 501)], pruned=10)
    log = SqliteChangeLog(path)
    expected = [Entry(at, f"i{at % 7}", {"at": at} if at % 5 else None) for at in range(494, 501)]
    assert since(log, 10) == expected
    state = log.state()
    assert state is not None
    assert (state.last, state.pruned, state.number, len(state.identity)) == (500, 10, 7, 32)
    assert [row.sequence for row in log.read(None, Base(None, 498)).rows] == [
        499,
        500,
    ]  # versions of that format do not name a log
    assert SqliteChangeLog(path).state() == state
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)  # incremental: the file shrinks
    connection.close()
    assert log.append([Change("i3", None)]) == 501
    with pytest.raises(JournalError, match="changes 1 to 10 are no longer"):
        since(log, 0)
    with sqlite3.connect(path) as old, pytest.raises(sqlite3.OperationalError, match="view"):
        old.execute("INSERT INTO changes VALUES (502, 'i1', NULL, 0)")  # writers of format 1 fail
    old.close()


def test_a_corrupt_format_1_log_is_not_modified(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    format_1(path, [(1, "a", b"{}"), (3, "b", b"{}")])
    with pytest.raises(JournalError, match="change 2 is missing"):
        since(SqliteChangeLog(path), 0)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM changes").fetchone() == (2,)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    assert KIND.version == 2
