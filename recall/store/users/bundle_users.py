"""Users of a bundle: an immutable SQLite file of features and interactions."""

import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import orjson
import polars as pl

from recall.data.column_names import title_of
from recall.errors import BundleError, PublishError, StoreError, raising
from recall.features.values import canonical, to_request_values
from recall.store.users.record import UserRecord

if TYPE_CHECKING:
    from recall.data.dataset import Dataset

_BATCH = 10_000


class SqliteUsers:
    """The users of a bundle, with a pool of connections: one per concurrent reader.

    Attributes:
        title: column with the users' titles, such as a name; None without titles.
    """

    remote = False

    def __init__(self, path: Path) -> None:
        """Open a file written by `write_user_store`; raises BundleError for any other."""
        self._path = path
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic
        self._closed = False
        self._size = int(self._query("SELECT count(*) FROM users", ())[0][0])
        has_titles = self._query("SELECT 1 FROM sqlite_master WHERE name = 'titles'", ())
        self.title = self._query("SELECT name FROM title_column", ())[0][0] if has_titles else None

    def __len__(self) -> int:
        """Return the number of users."""
        return self._size

    def get(self, user_id: str) -> UserRecord | None:
        """Return the record of a user, or None if the user is unknown."""
        rows = self._query("SELECT features, history, seen FROM users WHERE user_id = ?", (user_id,))
        if not rows:
            return None
        features, history, seen = rows[0]
        items = tuple(orjson.loads(history))
        # the same for most users, whose history is complete and without repetitions
        return UserRecord(orjson.loads(features), items, items if seen == history else tuple(orjson.loads(seen)))

    def get_many(self, user_ids: Sequence[str]) -> dict[str, UserRecord | StoreError]:
        """Return the records of known users by id."""
        return {user_id: record for user_id in user_ids if (record := self.get(user_id)) is not None}

    def sample(self, count: int, seed: int) -> list[str]:
        """Return ids of distinct users, drawn at random.

        Args:
            count: maximum number of ids.
            seed: seed of the random generator.
        """
        numbers = random.Random(seed).sample(range(1, self._size + 1), min(count, self._size))  # noqa: S311
        return [self._query("SELECT user_id FROM users WHERE number = ?", (number,))[0][0] for number in numbers]

    def ids(self, after: str | None, count: int) -> list[str]:
        """Return the first ids in order of their UTF-8.

        Args:
            after: exclusive lower bound; None for none.
            count: maximum number of ids.
        """
        statement = "SELECT user_id FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?"
        return [row[0] for row in self._query(statement, (after or "", count))]  # no id is empty

    def find_by_title(self, text: str, count: int) -> list[str]:
        """Return ids of users: titles that begin with a prefix, then words in titles.

        Args:
            text: the prefix, from `fold_text`.
            count: maximum number of ids.
        """
        if self.title is None:
            return []
        prefix = text[:_MAX_CHARACTERS]
        statement = (
            "SELECT user_id FROM titles JOIN users USING (number) "
            "WHERE text >= ? AND text < ? AND whole = ? ORDER BY text LIMIT ?"
        )
        found = [self._query(statement, (prefix, prefix + chr(0x10FFFF), whole, count)) for whole in (1, 0)]
        return list(dict.fromkeys(row[0] for rows in found for row in rows))[:count]

    def records(self) -> Iterator[tuple[str, UserRecord]]:
        """Yield id and record of all users, in the order of the file."""
        for first in range(0, self._size, _BATCH):
            statement = "SELECT user_id, features, history, seen FROM users WHERE number > ? ORDER BY number LIMIT ?"
            for user_id, *parts in self._query(statement, (first, _BATCH)):
                features, history, seen = map(orjson.loads, parts)
                yield user_id, UserRecord(features, tuple(history), tuple(seen))

    def batches(self, start: int) -> Iterator[list[tuple[str, bytes]]]:
        """Yield ids and records of all users, in the order of the file.

        A record is a JSON array of features, history, and seen items if they differ from the history.

        Args:
            start: number of users to skip.
        """
        statement = (
            "SELECT user_id, CAST('[' || CAST(features AS TEXT) || ',' || CAST(history AS TEXT)"
            " || iif(seen = history, '', ',' || CAST(seen AS TEXT)) || ']' AS BLOB)"
            " FROM users WHERE number > ? ORDER BY number LIMIT ?"
        )
        for first in range(start, self._size, _BATCH):
            yield [(user_id, bytes(record)) for user_id, record in self._query(statement, (first, _BATCH))]

    def close(self) -> None:
        """Close the pool; a connection in use is closed when it is returned."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _query(self, statement: str, values: tuple[str | int, ...]) -> list[tuple[Any, ...]]:
        if self._closed:
            raise BundleError("the users were closed", where=str(self._path), hint="Load the bundle again")
        try:
            connection = self._acquire()
            try:
                return connection.execute(statement, values).fetchall()
            finally:
                self._release(connection)
        except sqlite3.DatabaseError as error:
            raise BundleError("the users cannot be read", where=str(self._path), why=str(error)) from None

    def _acquire(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            # immutable: SQLite takes no locks; threads use a connection one after the other: check_same_thread=False
            uri = f"file:{quote(str(self._path.absolute()))}?mode=ro&immutable=1"
            return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _release(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed:
            self.close()


MIN_HISTORY = 50
"""Minimum length to which histories are cut, so that a longer history field can be tried with the same file."""
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
_MAX_WORDS, _MAX_CHARACTERS = 8, 64  # indexed words of a title, and characters from the start of each. Chosen, not tuned.


def write_user_store(path: Path, dataset: "Dataset") -> None:
    """Write the users of a data set to a new file, without an fsync.

    Args:
        path: path of the file, which must not exist.
        dataset: the users with their columns and interactions.

    Raises:
        PublishError: The file cannot be written.
    """
    with _new_database(path) as connection:
        _insert_users(connection, _user_rows(dataset))
        key, users = dataset.schema.user_id, dataset.users
        column = title_of(one.name for one in users if one.dtype == pl.String and one.name != key)
        if column is not None:
            _insert_titles(connection, column, users.select(key, column).iter_rows())


def copy_user_store(source: Path, to: Path, without: Sequence[str]) -> int:
    """Copy the users of a bundle except some; return the number of users copied.

    Args:
        source: a file written by `write_user_store`.
        to: path of the copy, which must not exist.
        without: ids of the users to leave out.

    Raises:
        PublishError: The file cannot be written.
    """
    with _new_database(to) as connection, closing(SqliteUsers(source)) as users:
        excluded = set(without)
        rows = (
            (user_id, _json(user.features), _json(user.history), _json(user.seen))
            for user_id, user in users.records()
            if user_id not in excluded
        )
        _insert_users(connection, rows)
        if users.title is not None:
            titles = ((user_id, user.features.get(users.title)) for user_id, user in users.records() if user_id not in excluded)
            _insert_titles(connection, users.title, titles)
        return int(connection.execute("SELECT count(*) FROM users").fetchone()[0])


@contextmanager
def _new_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Create a database; commit at the end of the block. Raises PublishError."""
    failure = raising(PublishError, "the users could not be written", where=str(path), of=sqlite3.Error)
    with failure, closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


def _insert_users(connection: sqlite3.Connection, rows: Iterator[tuple[str, bytes, bytes, bytes]]) -> None:
    connection.executescript(_CREATE)
    connection.executemany(_INSERT, rows)  # one by one: a text from orjson takes 4 kB and more, even if it is short
    connection.execute(_INDEX)


def fold_text(text: str) -> str:
    """Return a text casefolded and with single spaces, for case-insensitive search."""
    return " ".join(text.casefold().split())


def _insert_titles(connection: sqlite3.Connection, column: str, titles: Iterable[tuple[str, object]]) -> None:
    """Index the suffixes of titles that begin at a word, folded by `fold_text`."""
    connection.executescript(_CREATE_TITLES)
    connection.execute("INSERT INTO title_column VALUES (?)", (column,))
    rows = (
        (" ".join(words[at:])[:_MAX_CHARACTERS], user_id, int(at == 0))
        for user_id, title in titles
        if isinstance(title, str)
        for words in (fold_text(title).split(),)
        for at in range(min(len(words), _MAX_WORDS))
    )
    connection.executemany(_INSERT_TITLE, rows)


def _user_rows(dataset: "Dataset") -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """Yield id, features, history and seen items of all users, the last three as JSON."""
    column = dataset.schema.user_id
    users = to_request_values(dataset.users)
    field = dataset.schema.history
    longest = max(MIN_HISTORY, max(last for _, last in field.lags) if field is not None else 0)
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
