import datetime
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from recall.data.dataset import Dataset
from recall.errors import BundleError
from recall.features.values import canonical
from recall.store.users.bundle_users import SqliteUsers, write_user_store


@pytest.fixture
def users(tiny_dataset: Dataset, tmp_path: Path) -> Iterator[SqliteUsers]:
    write_user_store(tmp_path / "users.sqlite", tiny_dataset)
    store = SqliteUsers(tmp_path / "users.sqlite")
    yield store
    store.close()


def items_of(dataset: Dataset, user: int, splits: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """Return the items of a user, latest first."""
    events = dataset.events.filter(pl.col("user") == user, pl.col("split").is_in(splits))
    return dataset.items["item_id"].gather(events["item"]).to_list()[::-1]


def test_every_user_round_trips(users: SqliteUsers, tiny_dataset: Dataset) -> None:
    assert len(users) == len(tiny_dataset.users)
    for row, values in enumerate(tiny_dataset.users.iter_rows(named=True)):
        record = users.get(values.pop("user_id"))
        assert record is not None
        assert record.features == {name: value for name, value in values.items() if value is not None}
        items = items_of(tiny_dataset, row)
        assert record.history == tuple(items[:50])
        assert record.seen == tuple(dict.fromkeys(items))


def test_an_unknown_user_is_none(users: SqliteUsers) -> None:
    for user_id in ("nobody", "", "u1\0", "' OR 1=1 --"):
        assert users.get(user_id) is None


def test_a_sample_has_distinct_users_and_is_deterministic(users: SqliteUsers) -> None:
    everyone = users.sample(1000, 1)
    assert len(set(everyone)) == len(everyone) == len(users)
    assert users.sample(4, 2) == users.sample(4, 2) != users.sample(4, 3)
    assert len(set(users.sample(4, 2))) == 4


def test_threads_read_concurrently(users: SqliteUsers) -> None:
    ids = users.sample(1000, 0) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(users.get, ids)) == [users.get(one) for one in ids]


def test_there_are_no_more_connections_than_concurrent_reads(users: SqliteUsers) -> None:
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(users.get, ["u1"] * 50))
    assert len(users._idle) <= 4


def test_reading_a_closed_store_is_an_error(users: SqliteUsers) -> None:
    users.close()
    with pytest.raises(BundleError, match="closed"):
        users.get("u1")


def test_values_keep_their_text_form(tiny_dataset: Dataset, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "user_id": ["é\0'", "b"],
            "float32": pl.Series([0.1, float("nan")], dtype=pl.Float32),
            "float64": [1e300, None],
            "whole": [12.0, -0.0],
            "big": [2**62, None],
            "flag": [True, False],
            "day": [datetime.date(2024, 2, 29), None],
            "moment": [datetime.datetime(2024, 2, 29, 12, 30, 0, 5), None],
            "decimal": [Decimal("1.50"), None],
            "tags": [["x", None], []],
            "enum": pl.Series(["p", None], dtype=pl.Enum(["p", "q"])),
        }
    )
    dataset = replace(tiny_dataset, users=table, events=tiny_dataset.events[:0])
    write_user_store(tmp_path / "users.sqlite", dataset)
    store = SqliteUsers(tmp_path / "users.sqlite")
    first, second = store.get("é\0'"), store.get("b")
    store.close()
    assert first is not None
    assert second is not None
    assert {name: canonical(value) for name, value in first.features.items() if name != "tags"} == {
        "float32": "0.1",
        "float64": "1e+300",
        "whole": "12",
        "big": str(2**62),
        "flag": "true",
        "day": "2024-02-29",
        "moment": "2024-02-29T12:30:00.000005",
        "decimal": "1.5",
        "enum": "p",
    }
    assert first.features["tags"] == ["x", None]
    assert set(second.features) == {"whole", "flag", "tags"}


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
