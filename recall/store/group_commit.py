"""Group commit: concurrent writers share one transaction, and so one fsync."""

import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from typing_extensions import override

from recall.errors import RecallError, RequestError
from recall.store.high_water_mark import Lost, Mark
from recall.store.sqlite import DurableFile, FileKind, transaction

Found = TypeVar("Found")


class _Receipt(NamedTuple):
    sequence: int
    known: int


class Receipt(_Receipt):
    """Outcome of a batch of changes, which is stored.

    A tuple of `sequence` and `known`, with the others as attributes.

    Attributes:
        sequence: of its last change; answers of this sequence or a later one have seen it.
        known: how many of its items or users were known before.
        token: names the change among those of all logs of items; an answer that is asked for with it has seen the change.
        warnings: values of these items or users that the model does not know, in sentences.
        repeated: the batch had been stored before, under the same idempotency key; known of users only.
    """

    token: str
    warnings: tuple[str, ...]
    repeated: bool

    def __new__(
        cls, sequence: int, known: int, token: str = "", warnings: tuple[str, ...] = (), *, repeated: bool = False
    ) -> "Receipt":
        """Make a tuple of two members, with the others as attributes."""
        made = super().__new__(cls, sequence, known)
        made.token, made.warnings, made.repeated = token, warnings, repeated
        return made


@dataclass(eq=False, kw_only=True)
class PendingWrite:
    """Batch of one caller, written as a whole, and its outcome.

    Attributes:
        key: idempotency key, if it has one.
        digest: of what is to be written, which distinguishes batches of one key.
        last: sequence of its last change, once it is written.
        repeated: whether its key was known, and it was not written again.
    """

    key: str | None = None
    digest: bytes = b""
    last: int = 0
    repeated: bool = field(init=False, default=False)
    error: Exception | None = field(init=False, default=None)
    tried: bool = field(init=False, default=False)
    written: bool = field(init=False, default=False)


AnyBatch = TypeVar("AnyBatch", bound=PendingWrite)


class GroupCommit(ABC, Generic[AnyBatch]):
    """Batches of concurrent callers, which one of them writes together. Thread-safe.

    Attributes:
        mark: how far the log reached, as noted outside of it.
        where: what errors name.
    """

    def __init__(self, mark: Mark, where: str, error: type[RecallError]) -> None:
        """Start without a batch.

        Args:
            mark: of the log.
            where: what errors name.
            error: of a batch of which nothing is known.
        """
        self.mark, self.where = mark, where
        self._error = error
        self._queue: list[AnyBatch] = []  # append, copies and deletions of a slice are atomic
        self._lock = Lock()
        self._told: Callable[[float], None] | None = None
        self._reached: _Reached | None = None

    def on_commit(self, callback: Callable[[float], None]) -> None:
        """Register a callback invoked with the seconds of each commit, fsync included."""
        self._told = callback

    @abstractmethod
    def _store(self, batches: Sequence[AnyBatch]) -> None:
        """Commit batches together; set `last` of each, or its own `error`."""

    def _reach(self, identity: str, sequence: int, covered: Sequence[Lost] = (), lost: Lost | None = None) -> None:
        """Record within a transaction where the mark will be after it.

        Of several batches the first finds out what is missing: the numbers of later ones are beyond.
        """
        before = None if self._reached is None else self._reached.lost
        self._reached = _Reached(identity, sequence, covered, lost if before is None else before)

    def _advance_mark(self) -> None:
        """Update the high-water mark after a commit."""
        if self._reached is not None:
            self.mark.advance(*self._reached)

    def _commit(self, batch: AnyBatch) -> int:
        """Write a batch, and return the sequence of its last change.

        It is on disk when this returns. A batch whose key is known is not written again.

        Raises:
            RecallError: the batch's own error, or one of the log's kind. Then nothing was acknowledged: the batch may be
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
            raise self._error("the change was not written", where=self.where, why="the process was interrupted")
        return batch.last

    def _write(self, batches: Sequence[AnyBatch]) -> None:
        """Write batches together, and set the result of each."""
        began = time.perf_counter()
        try:
            self._store(batches)
            if self._told is not None:
                self._told(time.perf_counter() - began)
            for batch in batches:
                batch.written = True
        except Exception as error:
            for batch in batches:
                batch.error = batch.error or error
        finally:
            for batch in batches:
                batch.tried = True


class _Reached(NamedTuple):
    """Arguments of `Mark.advance`."""

    identity: str
    sequence: int
    covered: Sequence[Lost]
    lost: Lost | None


class DurableLog(GroupCommit[AnyBatch]):
    """A file with many writers and readers, and the mark beside it. Thread-safe.

    No file is needed before the first change.
    """

    def __init__(self, path: Path, kind: FileKind, mark: str, wait: float, read_wait: float) -> None:
        """Open nothing yet.

        Args:
            path: the file.
            kind: of the file; its tables include `CREATE`.
            mark: name of the file beside it that says how far it reached.
            wait: seconds that a writer waits for another process to finish.
            read_wait: the same of a reader.
        """
        super().__init__(Mark(path.with_name(mark)), str(path), kind.error)
        self.path = path
        self._file = DurableFile(path, kind, wait)
        self._reading, self._reader = Lock(), DurableFile(path, kind, read_wait)

    @override
    def _commit(self, batch: AnyBatch) -> int:
        last = super()._commit(batch)
        self._open_reader()
        return last

    def checkpoint(self) -> None:
        """Move what was written from the `-wal` file into the main file.

        Raises:
            RecallError: An error of the file's kind.
        """
        if self.path.exists():
            with self._outside() as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._open_reader()

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._lock:
            self._file.close()
        with self._reading:
            self._reader.close()

    @abstractmethod
    def _insert(self, connection: sqlite3.Connection, batch: AnyBatch) -> None:
        """Write one batch within a transaction, or raise RecallError and write nothing."""

    def forget(self, ids: Sequence[str]) -> int:
        """Remove the idempotency keys that name ids, and all bytes of deleted rows.

        Args:
            ids: of users.

        Returns:
            How many keys were removed.

        Raises:
            RecallError: An error of the file's kind.
        """
        if not self.path.exists():
            return 0
        with self._outside() as connection:
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            with transaction(connection):
                self._forget(connection, ids)
                named = [row for row in connection.execute("SELECT number, key FROM batches").fetchall() if names(row[1], ids)]
                connection.executemany("DELETE FROM batches WHERE number = ?", [(number,) for number, _ in named])
            connection.execute("VACUUM")  # rewrites pages with remains of rows that were changed before
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                said = f"another process reads the {self._file.kind.noun}"
                raise self._file.kind.busy(said, where=self.where, hint="Try again in a moment")
        self._open_reader()
        return len(named)

    def _forget(self, connection: sqlite3.Connection, ids: Sequence[str]) -> None:
        """Delete the rows of users within a transaction; a log of items has none."""

    def _open_reader(self) -> None:
        """Open the reader now, while there is room for the files beside the log."""
        with suppress(RecallError), self._reading, self._reader.reports("read"):
            self._reader.reader()

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction of the caller's own.

        Raises:
            RecallError: An error of the file's kind.
        """
        with self._lock, self._transaction() as connection:
            yield connection
        self._open_reader()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction; the caller holds the writer's lock."""
        self._reached = None  # what a transaction that failed has left
        with self._file.reports("written"):
            connection = self._file.writer()
            with transaction(connection):
                yield connection
            self._file.check_in_place()
        self._advance_mark()

    @contextmanager
    def _outside(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection outside of a transaction, for maintenance.

        Raises:
            RecallError: An error of the file's kind.
        """
        with self._lock, self._file.reports("written"):
            yield self._file.writer()

    def _read(self, ask: Callable[[sqlite3.Connection], Found], nothing: Found) -> Found:
        """Return what a reader finds, or `nothing` without a file.

        Args:
            ask: reads the file.
            nothing: the answer where there is no file.

        Raises:
            RecallError: An error of the file's kind.
        """
        with self._reading, self._reader.reports("read"):
            connection = self._reader.reader()
            return nothing if connection is None else ask(connection)

    @override
    def _store(self, batches: Sequence[AnyBatch]) -> None:
        try:
            with self._transaction() as connection:
                for batch in batches:
                    self._take(connection, batch)
        except Exception:
            self._file.close()  # nothing is built upon what a disk that failed has left in memory
            raise

    def _take(self, connection: sqlite3.Connection, batch: AnyBatch) -> None:
        """Write one batch unless its key is known; an error of its own spoils no other."""
        try:
            known = None if batch.key is None else stored_answer(connection, batch.key, batch.digest)
            if known is not None:
                batch.last, batch.repeated = known, True
                return
            self._insert(connection, batch)
            if batch.key is not None:
                store_answer(connection, batch.key, batch.digest, batch.last, MOST_KEYS)
        except RecallError as error:
            batch.error = error


# Callers' own names for what they write, so that what is sent again is not taken twice.

CREATE = (
    "CREATE TABLE batches (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, last INTEGER NOT NULL)"
)
MOST_KEYS = 100_000
"""Batches whose idempotency keys are stored."""


def stored_answer(connection: sqlite3.Connection, key: str, digest: bytes) -> int | None:
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


def store_answer(connection: sqlite3.Connection, key: str, digest: bytes, last: int, most: int) -> None:
    """Store the answer to a batch, and drop all but the latest.

    Args:
        connection: in a transaction.
        key: of the batch.
        digest: of the batch.
        last: sequence that was returned.
        most: number of batches that are kept.
    """
    statement = "INSERT INTO batches (key, digest, last) VALUES (?, ?, ?)"
    number = connection.execute(statement, (key, digest, last)).lastrowid
    connection.execute("DELETE FROM batches WHERE number <= ?", ((number or 0) - most,))


def names(key: str, ids: Sequence[str]) -> bool:
    """Return whether a key names an id, with no letter or digit next to it.

    Args:
        key: idempotency key.
        ids: of users.
    """
    return any(re.search(rf"(?<![^\W_]){re.escape(one)}(?![^\W_])", key) for one in ids)


def other_changes() -> RequestError:
    """Return the error for a key that is reused for other changes."""
    return RequestError("the key belongs to other changes", where="/key", hint="Give every batch a key of its own")
