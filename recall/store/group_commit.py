"""Group commit: concurrent writers share one transaction, and so one fsync."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

from recall.errors import RequestError
from recall.store.sqlite import DurableFile, transaction


@dataclass(eq=False)
class Batch:
    """What one caller wants written as a whole, and what came of it."""

    error: Exception | None = field(init=False, default=None)
    tried: bool = field(init=False, default=False)
    written: bool = field(init=False, default=False)


AnyBatch = TypeVar("AnyBatch", bound=Batch)


class Commits(Generic[AnyBatch]):
    """The writer of one file; may be used from several threads at once."""

    def __init__(
        self,
        file: DurableFile,
        insert: Callable[[sqlite3.Connection, AnyBatch], None],
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; no file is opened yet.

        Args:
            file: used by this object only.
            insert: writes one batch within a transaction, or leaves an `error` in it and writes nothing.
            committed: called after each commit, before it is acknowledged.
        """
        self.file = file
        self._insert = insert
        self._committed = committed
        self._queue: list[AnyBatch] = []  # append, copies and deletions of a slice are atomic
        self._lock = Lock()
        self.on_commit: Callable[[float], None] = _noop
        """Called with the seconds of each committed transaction, fsync included, on the thread that wrote it."""

    def write(self, batch: AnyBatch) -> None:
        """Write a batch; it is on disk when this returns.

        Raises:
            RecallError: the batch's own error, or one of the file's kind. Then nothing was acknowledged: the batch may be
                there after all, or not.
        """
        self._queue.append(batch)
        with self._lock:
            if not batch.tried:  # otherwise the previous holder of the lock has written it
                waiting = self._queue[:]
                del self._queue[: len(waiting)]
                self._write(waiting)
        if batch.error is not None:
            raise batch.error
        if not batch.written:
            raise self.file.kind.error(
                "the change was not written", where=str(self.file.path), why="the process was interrupted"
            )

    @contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction of the caller's own.

        Raises:
            RecallError: An error of the file's kind.
        """
        with self._lock, self.file.reports("written"):
            connection = self.file.writer()
            with transaction(connection):
                yield connection
            self.file.check_in_place()
            self._committed()

    @contextmanager
    def outside(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection outside of a transaction, for maintenance.

        Raises:
            RecallError: An error of the file's kind.
        """
        with self._lock, self.file.reports("written"):
            yield self.file.writer()

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        with self._lock:
            self.file.close()

    def _write(self, batches: Sequence[AnyBatch]) -> None:
        """Write batches in one transaction, and set the result of each."""
        try:
            with self.file.reports("written"):
                connection = self.file.writer()
                began = time.perf_counter()
                with transaction(connection):
                    for batch in batches:
                        self._insert(connection, batch)
                self.file.check_in_place()
                self._committed()
                self.on_commit(time.perf_counter() - began)
            for batch in batches:
                batch.written = True
        except Exception as error:
            for batch in batches:
                batch.error = batch.error or error
            self.file.close()  # nothing is built upon what a disk that failed has left in memory
        finally:
            for batch in batches:
                batch.tried = True


def _noop(_seconds: float) -> None:
    """Do nothing; the default callback of a commit."""


# Callers' own names for what they write, so that what is sent again is not taken twice.

CREATE = (
    "CREATE TABLE batches (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, last INTEGER NOT NULL)"
)
REMEMBERED = 100_000
"""Batches whose keys are remembered."""


def taken_before(connection: sqlite3.Connection, key: str, digest: bytes) -> int | None:
    """Return the answer to an earlier batch of this key, or None.

    Args:
        connection: in a transaction.
        key: of the batch.
        digest: of the batch.

    Raises:
        RequestError: The key belongs to a different batch.
    """
    known = connection.execute("SELECT digest, last FROM batches WHERE key = ?", (key,)).fetchone()
    if known is not None and known[0] != digest:
        raise other_changes()
    return None if known is None else int(known[1])


def remember(connection: sqlite3.Connection, key: str, digest: bytes, last: int, most: int) -> None:
    """Remember the answer to a batch, and forget all but the latest.

    Args:
        connection: in a transaction.
        key: of the batch.
        digest: of the batch.
        last: sequence that was returned.
        most: number of batches that are remembered.
    """
    statement = "INSERT INTO batches (key, digest, last) VALUES (?, ?, ?)"
    number = connection.execute(statement, (key, digest, last)).lastrowid
    connection.execute("DELETE FROM batches WHERE number <= ?", ((number or 0) - most,))


def other_changes() -> RequestError:
    """Return the error for a key that is reused for other changes."""
    return RequestError("the key belongs to other changes", where="/key", hint="Give every batch a key of its own")
