"""Users of bundles: the same from their file, from a Redis and from a cluster."""

import datetime
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from recall.data.dataset import Dataset
from recall.features.values import canonical
from recall.store.users.bundle_users import SqliteUsers, write_user_store
from recall.store.users.record import StoredUsers, UserRecord
from tests.store.users.conftest import in_redis

Stored = Callable[[Dataset], StoredUsers]


@pytest.fixture(params=["file", "redis", "cluster"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stored]:
    """Return a function that stores the users of a data set."""
    with ExitStack() as stack:

        def store(dataset: Dataset) -> StoredUsers:
            file = tmp_path / "users.sqlite"
            write_user_store(file, dataset)
            if request.param == "file":
                return stack.enter_context(closing(SqliteUsers(file)))
            live = stack.enter_context(closing(in_redis(request.getfixturevalue(request.param).url, tmp_path)))
            digest = sha256(file.read_bytes()).hexdigest()
            live.exports.load(file, digest)
            return live.exports.open(digest, len(dataset.users))

        yield store


@pytest.fixture
def users(stored: Stored, tiny_dataset: Dataset) -> StoredUsers:
    return stored(tiny_dataset)


def one(users: StoredUsers, user_id: str) -> UserRecord:
    record = users.get_many([user_id])[user_id]
    assert isinstance(record, UserRecord)
    return record


def items_of(dataset: Dataset, user: int, splits: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """Return the items of a user, latest first."""
    events = dataset.events.filter(pl.col("user") == user, pl.col("split").is_in(splits))
    return dataset.items["item_id"].gather(events["item"]).to_list()[::-1]


def test_every_user_round_trips(users: StoredUsers, tiny_dataset: Dataset) -> None:
    assert len(users) == len(tiny_dataset.users)
    for row, values in enumerate(tiny_dataset.users.iter_rows(named=True)):
        record = one(users, values.pop("user_id"))
        assert record.features == {name: value for name, value in values.items() if value is not None}
        items = items_of(tiny_dataset, row)
        assert record.history == tuple(items[:50])
        assert record.seen == tuple(dict.fromkeys(items))


def test_unknown_users_are_left_out(users: StoredUsers) -> None:
    assert [*users.get_many(["nobody", "u1", "", "u1\0", "' OR 1=1 --"])] == ["u1"]
    assert users.get_many([]) == {}


def test_a_sample_has_distinct_users_and_is_deterministic(users: StoredUsers) -> None:
    everyone = users.sample(1000, 1)
    assert len(set(everyone)) == len(everyone) == len(users)
    assert users.sample(4, 2) == users.sample(4, 2) != users.sample(4, 3)
    assert len(set(users.sample(4, 2))) == 4


def test_threads_read_concurrently(users: StoredUsers) -> None:
    ids = users.sample(1000, 0) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda user_id: one(users, user_id), ids)) == [one(users, user_id) for user_id in ids]


def test_values_keep_their_text_form(tiny_dataset: Dataset, stored: Stored) -> None:
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
    users = stored(dataset)
    first, second = one(users, "é\0'"), one(users, "b")
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
