"""Writing the users of a data set into the file that `SqliteUsers` reads."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from recall.data.dataset import Dataset
from recall.errors import PublishError
from recall.features.values import as_requested, canonical

HISTORY = 50
"""Histories keep at least this many items, so that a longer history field can be tried on the same store."""
_BATCH = 10_000
_CREATE = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE users (
        number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, features TEXT NOT NULL, history TEXT NOT NULL, seen TEXT NOT NULL
    );
"""


def write_user_store(path: Path, dataset: Dataset, splits: Sequence[int] | None = None) -> None:
    """Write the users of a data set to a new file. The file is not fsynced.

    Args:
        path: must not exist.
        dataset: gives the users, their columns and their interactions.
        splits: parts of the split whose interactions are known when serving; all of them when left out.

    Raises:
        PublishError: the file system refused.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(_CREATE)
            rows = _rows(dataset, splits)
            while batch := list(islice(rows, _BATCH)):
                connection.executemany("INSERT INTO users (user_id, features, history, seen) VALUES (?, ?, ?, ?)", batch)
            connection.execute("CREATE UNIQUE INDEX users_by_id ON users (user_id)")
            connection.commit()
    except sqlite3.Error as error:
        raise PublishError("the users could not be written", where=str(path), why=str(error)) from None


def _rows(dataset: Dataset, splits: Sequence[int] | None) -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """(id, features, history, seen) of every user, the last three as JSON."""
    column = dataset.schema.user_id
    users = as_requested(dataset.users)
    field = dataset.schema.history
    longest = max(HISTORY, max(last for _, last in field.lags) if field is not None else 0)
    item_ids = dataset.items[dataset.schema.item_id].to_list()
    latest_first, starts = _interactions(dataset, splits)
    for row, features in enumerate(users.iter_rows(named=True)):
        user_id = features.pop(column)
        items = [item_ids[item] for item in latest_first[starts[row] : starts[row + 1]]]
        known = {name: value for name, value in features.items() if value is not None}
        yield user_id, _json(known), _json(items[:longest]), _json(list(dict.fromkeys(items)))


def _interactions(dataset: Dataset, splits: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Item rows of all users, each user's latest first, and where each user starts."""
    events = dataset.events.select("user", "item", "split")
    if splits is not None:
        events = events.filter(pl.col("split").is_in(list(splits)))
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    counts = np.bincount(user, minlength=len(dataset.users))
    ends = np.cumsum(counts)
    backwards = np.repeat(2 * ends - counts - 1, counts) - np.arange(len(user))
    return item[backwards].tolist(), [0, *ends.tolist()]


def _json(value: object) -> bytes:
    return orjson.dumps(value, default=canonical, option=orjson.OPT_PASSTHROUGH_DATETIME)
