import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recall.data.dataset import Dataset
from recall.errors import BundleError
from recall.store.users.bundle_users import SqliteUsers, write_user_store


@pytest.fixture
def users(tiny_dataset: Dataset, tmp_path: Path) -> Iterator[SqliteUsers]:
    write_user_store(tmp_path / "users.sqlite", tiny_dataset)
    store = SqliteUsers(tmp_path / "users.sqlite")
    yield store
    store.close()


def test_there_are_no_more_connections_than_concurrent_reads(users: SqliteUsers) -> None:
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(users.get, ["u1"] * 50))
    assert len(users._idle) <= 4


def test_reading_a_closed_store_is_an_error(users: SqliteUsers) -> None:
    users.close()
    with pytest.raises(BundleError, match="closed"):
        users.get("u1")


def test_the_file_is_never_written(users: SqliteUsers, tmp_path: Path) -> None:
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["users.sqlite"]
    with pytest.raises(BundleError, match="readonly"):
        users._query("DELETE FROM users", ())


def test_an_invalid_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the users cannot be read"):
        SqliteUsers(tmp_path / "missing")
    (tmp_path / "text").write_text("no database " * 1000)
    with pytest.raises(BundleError, match="the users cannot be read"):
        SqliteUsers(tmp_path / "text")
    sqlite3.connect(tmp_path / "empty").close()
    with pytest.raises(BundleError, match="no such table"):
        SqliteUsers(tmp_path / "empty")


def test_records_are_iterated_in_write_order(users: SqliteUsers, tiny_dataset: Dataset) -> None:
    records = list(users.records())
    assert [user_id for user_id, _ in records] == tiny_dataset.users["user_id"].to_list()
    assert all(record == users.get(user_id) for user_id, record in records)
