"""The users of a bundle: one SQLite file that is written once and never changes."""

import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import orjson
import polars as pl

from recall.data.column_names import title_of
from recall.errors import BundleError, PublishError, raising
from recall.features.values import as_requested, canonical
from recall.store.users.record import UserRecord

if TYPE_CHECKING:
    from recall.data.dataset import Dataset

_BATCH = 10_000


class SqliteUsers:
    """The users of a bundle, with a pool of connections.

    There are as many connections as there were concurrent readers.
    """

    def __init__(self, path: Path) -> None:
        """Open a file of `write_user_store`; raises BundleError for any other."""
        self._path = path
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic
        self._closed = False
        self._size = int(self._ask("SELECT count(*) FROM users", ())[0][0])
        titled = self._ask("SELECT 1 FROM sqlite_master WHERE name = 'titles'", ())
        self.title = self._ask("SELECT name FROM title_column", ())[0][0] if titled else None
        """The column that holds titles; None if there is none."""

    def __len__(self) -> int:
        """Return the number of known users."""
        return self._size

    def get(self, user_id: str) -> UserRecord | None:
        """Return the record of a user, or None."""
        rows = self._ask("SELECT features, history, seen FROM users WHERE user_id = ?", (user_id,))
        if not rows:
            return None
        features, history, seen = rows[0]
        items = tuple(orjson.loads(history))
        # of most users they are the same: nothing was taken twice, and nothing is too long ago for the history
        return UserRecord(orjson.loads(features), items, items if seen == history else tuple(orjson.loads(seen)))

    def sample(self, count: int, seed: int) -> list[str]:
        """Return ids of distinct users, drawn at random.

        Args:
            count: maximum number.
            seed: of the draw.
        """
        numbers = random.Random(seed).sample(range(1, self._size + 1), min(count, self._size))  # noqa: S311
        return [self._ask("SELECT user_id FROM users WHERE number = ?", (number,))[0][0] for number in numbers]

    def ids(self, after: str | None, count: int) -> list[str]:
        """Return the first ids in order of their UTF-8.

        Args:
            after: only ids after this one; None for all.
            count: maximum number.
        """
        statement = "SELECT user_id FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?"
        return [row[0] for row in self._ask(statement, (after or "", count))]  # no id is empty

    def titled(self, text: str, count: int) -> list[str]:
        """Return ids of users whose title begins with a text, then by words in it.

        Args:
            text: as of `folded`.
            count: maximum number.
        """
        if self.title is None:
            return []
        low = text[:_LONGEST]
        statement = (
            "SELECT user_id FROM titles JOIN users USING (number) "
            "WHERE text >= ? AND text < ? AND whole = ? ORDER BY text LIMIT ?"
        )
        found = [self._ask(statement, (low, low + chr(0x10FFFF), whole, count)) for whole in (1, 0)]
        return list(dict.fromkeys(row[0] for rows in found for row in rows))[:count]

    def records(self) -> Iterator[tuple[str, UserRecord]]:
        """Every user's id and record, in the order that they were written in."""
        for first in range(0, self._size, _BATCH):
            statement = "SELECT user_id, features, history, seen FROM users WHERE number > ? ORDER BY number LIMIT ?"
            for user_id, *parts in self._ask(statement, (first, _BATCH)):
                features, history, seen = map(orjson.loads, parts)
                yield user_id, UserRecord(features, tuple(history), tuple(seen))

    def close(self) -> None:
        """Close the pool; a connection in use is closed when it is returned."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _ask(self, statement: str, values: tuple[str | int, ...]) -> list[tuple[str, ...]]:
        if self._closed:
            raise BundleError("the users were closed", where=str(self._path), hint="Load the bundle again")
        try:
            connection = self._borrow()
            try:
                return connection.execute(statement, values).fetchall()
            finally:
                self._give_back(connection)
        except sqlite3.DatabaseError as error:
            raise BundleError("the users cannot be read", where=str(self._path), why=str(error)) from None

    def _borrow(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            # immutable: neither locks nor a journal are looked for; one thread at a time has the connection, but not always one
            uri = f"file:{quote(str(self._path.absolute()))}?mode=ro&immutable=1"
            return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed:
            self.close()


HISTORY = 50
"""Histories keep at least this many items, so that a longer history field can be tried on the same store."""
_CREATE = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE users (
        number INTEGER PRIMARY KEY, user_id TEXT NOT NULL, features TEXT NOT NULL, history TEXT NOT NULL, seen TEXT NOT NULL
    );
"""
_INSERT = "INSERT INTO users (user_id, features, history, seen) VALUES (?, ?, ?, ?)"
_INDEX = "CREATE UNIQUE INDEX users_by_id ON users (user_id)"
_CREATE_TITLES = """
    CREATE TABLE title_column (name TEXT NOT NULL);
    CREATE TABLE titles (
        text TEXT NOT NULL, number INTEGER NOT NULL, whole INTEGER NOT NULL, PRIMARY KEY (text, number)
    ) WITHOUT ROWID;
"""
_INSERT_TITLE = "INSERT OR IGNORE INTO titles VALUES (?, (SELECT number FROM users WHERE user_id = ?), ?)"
_WORDS, _LONGEST = 8, 64  # words of a title that a search finds, and characters from each on. Chosen, not tuned.


def write_user_store(path: Path, dataset: "Dataset") -> None:
    """Write the users of a data set to a new file. The file is not fsynced.

    Args:
        path: must not exist.
        dataset: gives the users, their columns and their interactions.

    Raises:
        PublishError: the file system refused.
    """
    with _writing(path) as connection:
        _insert(connection, _rows(dataset))
        key, users = dataset.schema.user_id, dataset.users
        column = title_of(one.name for one in users if one.dtype == pl.String and one.name != key)
        if column is not None:
            _insert_titles(connection, column, users.select(key, column).iter_rows())


def copy_user_store(source: Path, to: Path, without: Sequence[str]) -> int:
    """Copy the users of a bundle, except some; return their number.

    Args:
        source: a file that `write_user_store` wrote.
        to: must not exist.
        without: ids of users.

    Raises:
        PublishError: the file system refused.
    """
    with _writing(to) as connection, closing(SqliteUsers(source)) as users:
        gone = set(without)
        rows = (
            (one, _json(user.features), _json(user.history), _json(user.seen))
            for one, user in users.records()
            if one not in gone
        )
        _insert(connection, rows)
        if users.title is not None:
            titles = ((one, user.features.get(users.title)) for one, user in users.records() if one not in gone)
            _insert_titles(connection, users.title, titles)
        return int(connection.execute("SELECT count(*) FROM users").fetchone()[0])


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a new file, and commit what the block writes. Raises PublishError."""
    failure = raising(PublishError, "the users could not be written", where=str(path), of=sqlite3.Error)
    with failure, closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


def _insert(connection: sqlite3.Connection, rows: Iterator[tuple[str, bytes, bytes, bytes]]) -> None:
    connection.executescript(_CREATE)
    while batch := list(islice(rows, _BATCH)):
        connection.executemany(_INSERT, batch)
    connection.execute(_INDEX)


def folded(text: str) -> str:
    """Return a text without the differences that a search ignores."""
    return " ".join(text.casefold().split())


def _insert_titles(connection: sqlite3.Connection, column: str, titles: Iterable[tuple[str, object]]) -> None:
    """Write each title from each of its words on, as `folded`."""
    connection.executescript(_CREATE_TITLES)
    connection.execute("INSERT INTO title_column VALUES (?)", (column,))
    rows = (
        (" ".join(words[at:])[:_LONGEST], user_id, int(at == 0))
        for user_id, title in titles
        if isinstance(title, str)
        for words in (folded(title).split(),)
        for at in range(min(len(words), _WORDS))
    )
    while batch := list(islice(rows, _BATCH)):
        connection.executemany(_INSERT_TITLE, batch)


def _rows(dataset: "Dataset") -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """(id, features, history, seen) of every user, the last three as JSON."""
    column = dataset.schema.user_id
    users = as_requested(dataset.users)
    field = dataset.schema.history
    longest = max(HISTORY, max(last for _, last in field.lags) if field is not None else 0)
    item_ids = dataset.items[dataset.schema.item_id].to_list()
    item = dataset.events["item"].to_numpy()  # sorted by user and time
    ends = np.cumsum(np.bincount(dataset.events["user"].to_numpy(), minlength=len(users))).tolist()
    for start, end, features in zip([0, *ends], ends, users.iter_rows(named=True), strict=False):
        user_id = features.pop(column)
        items = [item_ids[row] for row in item[start:end][::-1].tolist()]
        known = {name: value for name, value in features.items() if value is not None}
        yield user_id, _json(known), _json(items[:longest]), _json(list(dict.fromkeys(items)))


def _json(value: object) -> bytes:
    return orjson.dumps(value, default=canonical, option=orjson.OPT_PASSTHROUGH_DATETIME)
