"""Known users in one SQLite file that is written once and never changes."""

import random
import sqlite3
from pathlib import Path
from threading import Lock, local
from urllib.parse import quote

import orjson

from recall.errors import BundleError
from recall.stores.users import UserRecord


class SqliteUsers:
    """The store of a bundle; each thread that asks gets a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Open a file that `write_user_store` wrote. Raises BundleError when it is none."""
        self._path = path
        self._lock = Lock()
        self._connections: list[sqlite3.Connection] = []
        self._thread = local()
        self._size = int(self._ask("SELECT count(*) FROM users", ())[0][0])

    def __len__(self) -> int:
        return self._size

    def get(self, user_id: str) -> UserRecord | None:
        """As `UserStore.get` promises."""
        rows = self._ask("SELECT features, history, seen FROM users WHERE user_id = ?", (user_id,))
        if not rows:
            return None
        features, history, seen = map(orjson.loads, rows[0])
        return UserRecord(features, tuple(history), tuple(seen))

    def sample(self, count: int, seed: int) -> list[str]:
        """As `UserStore.sample` promises."""
        numbers = random.Random(seed).sample(range(1, self._size + 1), min(count, self._size))  # noqa: S311
        return [self._ask("SELECT user_id FROM users WHERE number = ?", (number,))[0][0] for number in numbers]

    def close(self) -> None:
        """As `UserStore.close` promises."""
        with self._lock:
            for connection in self._connections:
                connection.close()

    def _ask(self, statement: str, values: tuple[str | int, ...]) -> list[tuple[str, ...]]:
        try:
            return self._connection().execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise BundleError("the users cannot be read", where=str(self._path), why=str(error)) from None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            # immutable: no locks and no journal are looked for; close() may come from another thread than the one that asks
            uri = f"file:{quote(str(self._path.absolute()))}?mode=ro&immutable=1"
            connection = self._thread.connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            with self._lock:
                self._connections.append(connection)
        return connection
