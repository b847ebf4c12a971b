"""Callers' own names for what they write, so that what is sent again is not taken twice."""

import sqlite3

from recall.errors import RequestError

CREATE = (
    "CREATE TABLE batches (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, last INTEGER NOT NULL)"
)
REMEMBERED = 100_000
"""Batches whose keys are remembered."""


def taken_before(connection: sqlite3.Connection, key: str, digest: bytes) -> int | None:
    """What was answered to a batch of this key, or None. Raises RequestError when the batch was another one."""
    known = connection.execute("SELECT digest, last FROM batches WHERE key = ?", (key,)).fetchone()
    if known is not None and known[0] != digest:
        raise other_changes()
    return None if known is None else int(known[1])


def remember(connection: sqlite3.Connection, key: str, digest: bytes, last: int, most: int) -> None:
    """Remember what is answered to a batch, and forget all but the latest `most`."""
    statement = "INSERT INTO batches (key, digest, last) VALUES (?, ?, ?)"
    number = connection.execute(statement, (key, digest, last)).lastrowid
    connection.execute("DELETE FROM batches WHERE number <= ?", ((number or 0) - most,))


def other_changes() -> RequestError:
    """The error of a key that is used again for something else."""
    return RequestError("the key belongs to other changes", where="/key", mend="Give every batch a key of its own")
