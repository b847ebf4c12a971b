"""Writers that come at once share a transaction, and each hears of its own batch."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import pytest

from recall.errors import RequestError, StoreError
from recall.store.group_commit import CREATE, Batch, Commits, remember, taken_before
from recall.store.sqlite import DurableFile
from tests.store.test_sqlite import KIND, notes


@dataclass(eq=False)
class Note(Batch):
    text: str


def insert(connection: sqlite3.Connection, note: Note) -> None:
    if note.text == "wrong":
        note.error = RequestError("wrong")
    elif note.text == "broken":
        raise sqlite3.OperationalError("broken")
    else:
        connection.execute("INSERT INTO notes VALUES (?)", (note.text,))


@pytest.fixture
def commits(tmp_path: Path) -> Commits[Note]:
    return Commits(DurableFile(tmp_path / "file", KIND, 5.0), insert)


def test_each_batch_is_written_once(commits: Commits[Note]) -> None:
    start = Barrier(6)

    def write(thread: int) -> None:
        start.wait()
        for number in range(30):
            commits.write(Note(f"{thread} {number}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    commits.close()
    held = notes(commits.file.path)[1:]
    assert sorted(held) == sorted(f"{thread} {number}" for thread in range(6) for number in range(30))
    for thread in range(6):
        own = [int(text.split()[1]) for text in held if text.startswith(f"{thread} ")]
        assert own == list(range(30))


def test_a_batch_with_an_error_of_its_own_spoils_no_other(commits: Commits[Note]) -> None:
    together = [Note("a"), Note("wrong"), Note("b")]
    commits._write(together)
    assert [type(one.error) for one in together] == [type(None), RequestError, type(None)]
    assert notes(commits.file.path) == ["first", "a", "b"]
    with pytest.raises(RequestError, match="wrong"):
        commits.write(Note("wrong"))
    commits.close()


def test_what_fails_together_is_acknowledged_to_nobody(commits: Commits[Note]) -> None:
    together = [Note("a"), Note("broken")]
    commits._write(together)
    assert all(isinstance(one.error, StoreError) for one in together)
    commits.write(Note("later"))
    commits.close()
    assert notes(commits.file.path) == ["first", "later"]


def test_a_transaction_of_ones_own_is_all_or_nothing(commits: Commits[Note]) -> None:
    with commits.alone() as connection:
        connection.execute("INSERT INTO notes VALUES ('alone')")
    with pytest.raises(StoreError, match="cannot be written"), commits.alone() as connection:  # noqa: PT012 - both are one transaction
        connection.execute("INSERT INTO notes VALUES ('lost')")
        connection.execute("INSERT INTO nowhere VALUES (1)")
    commits.close()
    assert notes(commits.file.path) == ["first", "alone"]


def test_keys_are_remembered_and_the_oldest_forgotten() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(CREATE)
    for last, key in enumerate("abc", start=1):
        assert taken_before(connection, key, key.encode()) is None
        remember(connection, key, key.encode(), last, most=2)
    assert taken_before(connection, "a", b"a") is None
    assert taken_before(connection, "c", b"c") == 3
    with pytest.raises(RequestError, match="other changes"):
        taken_before(connection, "b", b"other")
    connection.close()
