"""A database file is created atomically and once, independently of a previous file."""

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from recall.errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError
from recall.store.sqlite import DurableFile, FileKind, transaction

KIND = FileKind(
    noun="notebook",
    content="notes",
    application_id=0x12345678,
    version=3,
    create=("CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('first')"),
    hint="Write it again",
    error=StoreError,
    busy=StoreBusyError,
    full=StoreFullError,
    read_only=StoreReadOnlyError,
)


def notes(path: Path) -> list[str]:
    file = DurableFile(path, KIND, 5.0)
    connection = file.reader()
    assert connection is not None
    found = [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid").fetchall()]
    file.close()
    return found


def write(path: Path, *texts: str) -> DurableFile:
    file = DurableFile(path, KIND, 60.0)
    connection = file.writer()
    with transaction(connection):
        connection.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])
    return file


def note(path: Path, text: str) -> None:
    write(path, text).close()


def test_there_is_no_file_before_the_first_write(tmp_path: Path) -> None:
    file = DurableFile(tmp_path / "file", KIND, 5.0)
    assert file.reader() is None
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "file", "second").close()
    assert notes(tmp_path / "file") == ["first", "second"]
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_concurrent_processes_create_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(note, [path] * 12, [f"note {number}" for number in range(12)]))
    held = notes(path)
    assert held[0] == "first"
    assert sorted(held[1:]) == sorted(f"note {number}" for number in range(12))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_new_file_does_not_use_the_wal_of_a_moved_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old = write(path, "old")  # it stays open, so that its WAL file remains
    assert path.with_name("file-wal").exists()
    path.rename(tmp_path / "away")
    write(path, "new").close()
    assert notes(path) == ["first", "new"]
    assert old.reader() is not None  # which is the new file by now
    old.close()
    assert notes(path) == ["first", "new"]


def test_transactions_are_atomic(tmp_path: Path) -> None:
    file = write(tmp_path / "file", "a")
    connection = file.writer()
    with pytest.raises(ZeroDivisionError), transaction(connection):  # noqa: PT012 - both are one transaction
        connection.execute("INSERT INTO notes VALUES ('b')")
        raise ZeroDivisionError
    file.close()
    assert notes(tmp_path / "file") == ["first", "a"]


def test_errors_name_the_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    file = DurableFile(path, KIND, 5.0)
    with pytest.raises(StoreError, match="the file is not a notebook of notes") as raised:
        file.reader()
    assert (raised.value.where, raised.value.hint) == (str(path), "Write it again")
    path.write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match="the notebook is damaged"), file.translate_errors("read"):
        file.reader()
    with pytest.raises(StoreError, match="the notebook cannot be moved"), file.translate_errors("moved"):
        raise PermissionError
    with pytest.raises(KeyError), file.translate_errors("read"):
        raise KeyError
