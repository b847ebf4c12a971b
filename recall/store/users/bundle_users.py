"""Known users in one SQLite file that is written once and never changes."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import orjson

from recall.errors import BundleError
from recall.store.users.record import UserRecord

_BATCH = 10_000


class SqliteUsers:
    """The users of a bundle, with a pool of connections.

    There are as many connections as there were concurrent readers.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that `write_user_store` wrote. Raises BundleError when it is none."""
        self._path = path
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic
        self._closed = False
        self._size = int(self._ask("SELECT count(*) FROM users", ())[0][0])

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
