"""Concurrent writers share a transaction, and each gets the result of its own batch."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import pytest

from recall.errors import RequestError, StoreError
from recall.store import group_commit
from recall.store.group_commit import CREATE_KEYS, DurableLog, PendingWrite, SqliteKeys, write_once
from tests.store.test_sqlite import KIND, notes


@dataclass(eq=False)
class Note(PendingWrite):
    text: str


class Notes(DurableLog[Note]):
    def _insert(self, connection: sqlite3.Connection, note: Note) -> None:
        if note.text == "wrong":
            raise RequestError("wrong")
        if note.text == "broken":
            raise sqlite3.OperationalError("broken")
        connection.execute("INSERT INTO notes VALUES (?)", (note.text,))


@pytest.fixture
def commits(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "file", KIND, "mark", 5.0, 5.0)


def test_each_batch_is_written_once(commits: Notes) -> None:
    start = Barrier(6)

    def write(thread: int) -> None:
        start.wait()
        for number in range(30):
            commits._commit(Note(f"{thread} {number}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    commits.close()
    held = notes(commits.path)[1:]
    assert sorted(held) == sorted(f"{thread} {number}" for thread in range(6) for number in range(30))
    for thread in range(6):
        own = [int(text.split()[1]) for text in held if text.startswith(f"{thread} ")]
        assert own == list(range(30))


def test_an_error_in_one_batch_does_not_affect_others(commits: Notes) -> None:
    together = [Note("a"), Note("wrong"), Note("b")]
    commits._write(together)
    assert [type(one.error) for one in together] == [type(None), RequestError, type(None)]
    assert notes(commits.path) == ["first", "a", "b"]
    with pytest.raises(RequestError, match="wrong"):
        commits._commit(Note("wrong"))
    commits.close()


def test_a_failed_group_commit_acknowledges_no_batch(commits: Notes) -> None:
    together = [Note("a"), Note("broken")]
    commits._write(together)
    assert all(isinstance(one.error, StoreError) for one in together)
    commits._commit(Note("later"))
    commits.close()
    assert notes(commits.path) == ["first", "later"]


def test_an_exclusive_transaction_is_atomic(commits: Notes) -> None:
    with commits._transaction() as connection:
        connection.execute("INSERT INTO notes VALUES ('alone')")
    with pytest.raises(StoreError, match="cannot be written"), commits._transaction() as connection:  # noqa: PT012 - both are one transaction
        connection.execute("INSERT INTO notes VALUES ('lost')")
        connection.execute("INSERT INTO nowhere VALUES (1)")
    commits.close()
    assert notes(commits.path) == ["first", "alone"]


def test_idempotency_keys_are_stored_and_the_oldest_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_KEYS", 2)
    connection = sqlite3.connect(":memory:")
    connection.execute(CREATE_KEYS)
    keys = SqliteKeys(connection)
    for last, key in enumerate("abc", start=1):
        assert keys.find_key(key) is None
        keys.store_key(key, key.encode(), last)
    assert keys.find_key("a") is None
    assert keys.find_key("c") == (b"c", 3)
    repeated, conflicting = (Note("text", key="c", digest=digest) for digest in (b"c", b"other"))
    for batch in (repeated, conflicting):
        write_once(batch, keys, lambda _: pytest.fail("the key is stored"))
    assert (repeated.last, repeated.repeated, repeated.error) == (3, True, None)
    assert isinstance(conflicting.error, RequestError)
    connection.close()
