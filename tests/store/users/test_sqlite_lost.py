"""A replaced, removed or partly copied users file is reported; a complete one never is."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from recall.store.users.changes import InteractionEvent, UserDelete
from recall.store.users.sqlite import USERS_LIVE, USERS_MARK, SqliteLiveUsers, _Batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root" / USERS_LIVE


@pytest.fixture
def users(path: Path) -> SqliteLiveUsers:
    opened = SqliteLiveUsers(path)
    assert opened.error() == ""
    for item in "abc":
        opened.write([InteractionEvent("u", item, 1.0, "d")])
    assert opened.error() == ""
    return opened


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{USERS_LIVE}*"):
        file.unlink()


def test_a_removed_file_is_reported_until_accepted(path: Path, users: SqliteLiveUsers) -> None:
    remove(path)
    for one in (users, SqliteLiveUsers(path)):
        assert one.error().startswith("the file of users is gone, and acknowledged changes up to 3 with it")
    assert users.write([UserDelete("v")]).sequence == 4  # sequences are not reused
    for one in (users, SqliteLiveUsers(path)):
        assert one.error().startswith("acknowledged changes of users up to 3 are missing from their file")
    (path.parent / USERS_MARK).unlink()
    for one in (users, SqliteLiveUsers(path)):
        assert one.error() == ""


def test_a_restored_older_copy_is_reported(path: Path, users: SqliteLiveUsers) -> None:
    source, target = sqlite3.connect(path), sqlite3.connect(path.with_name("copy"))
    source.backup(target)
    target.close()
    source.close()
    users.write([UserDelete("u")])
    remove(path)
    shutil.copy(path.with_name("copy"), path)
    for one in (users, SqliteLiveUsers(path)):
        assert one.error().startswith("the file of users was replaced or cut short: 4 changes were acknowledged")
    together = [_Batch(changes=(UserDelete(one),)) for one in "vw"]
    users._write(together)
    assert [one.last for one in together] == [5, 6]
    assert "up to 4 are missing" in SqliteLiveUsers(path).error()


def test_a_copy_without_wal_is_reported_unless_checkpointed(path: Path, users: SqliteLiveUsers, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*-wal", "*-shm")
    shutil.copytree(path.parent, tmp_path / "partly", ignore=ignored)
    assert "replaced or cut short" in SqliteLiveUsers(tmp_path / "partly" / USERS_LIVE).error()
    users.checkpoint()
    shutil.copytree(path.parent, tmp_path / "whole", ignore=ignored)
    whole = SqliteLiveUsers(tmp_path / "whole" / USERS_LIVE)
    assert whole.error() == ""
    assert whole.get(["u"])["u"].interactions == ("c", "b", "a")


def test_an_unreadable_mark_is_reported_until_removed(path: Path, users: SqliteLiveUsers) -> None:
    (path.parent / USERS_MARK).write_bytes(b"\0" * 512)
    for one in (users, SqliteLiveUsers(path)):
        assert one.error().startswith(f"{USERS_MARK} was damaged (it is empty)")
    assert users.write([InteractionEvent("u", "d", 1.0, "d")]).sequence == 4
    for one in (users, SqliteLiveUsers(path)):
        assert f"then remove {USERS_MARK}" in one.error()
    (path.parent / USERS_MARK).unlink()
    for one in (users, SqliteLiveUsers(path)):
        assert one.error() == ""
        assert one.get(["u"])["u"].interactions == ("d", "c", "b", "a")


def test_a_format_1_file_gets_an_identity(path: Path) -> None:
    opened = SqliteLiveUsers(path)
    opened.write([InteractionEvent("u", "a", 1.0, "d")])
    opened.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE state DROP COLUMN identity")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    (path.parent / USERS_MARK).unlink()
    again = SqliteLiveUsers(path)
    assert len(again.identity()) == 32
    assert again.identity() == SqliteLiveUsers(path).identity()
    assert again.write([InteractionEvent("u", "b", 2.0, "d")]).sequence == 2
    assert again.get(["u"])["u"].interactions == ("b", "a")
    assert again.error() == ""


def test_a_write_between_reading_mark_and_file_is_not_a_loss(
    path: Path, users: SqliteLiveUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, read = SqliteLiveUsers(path), SqliteLiveUsers._state

    def state(self: SqliteLiveUsers, connection: sqlite3.Connection) -> tuple[int, str]:
        monkeypatch.undo()
        found = read(self, connection)
        other.write([UserDelete("v")])  # after this process has read the file
        return found

    monkeypatch.setattr(SqliteLiveUsers, "_state", state)
    assert users.error() == ""
    assert users.sequence() == 4


def test_an_older_copy_of_equal_size_over_the_open_file_is_reported(path: Path, users: SqliteLiveUsers) -> None:
    users.checkpoint()
    before = path.read_bytes()
    users.write([InteractionEvent("u", "d", 2.0, "d")])
    users.checkpoint()
    assert path.stat().st_size == len(before)
    assert users.error() == ""
    with path.open("r+b") as file:  # the file keeps its identity
        file.write(before)
    assert users.error().startswith("the file of users was replaced or cut short: 4 changes were acknowledged")
