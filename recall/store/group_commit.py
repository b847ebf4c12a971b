"""Group commit: concurrent writers share one transaction, and so one fsync."""

import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, Protocol, TypeVar

from typing_extensions import override

from recall.errors import RecallError, RequestError
from recall.store.high_water_mark import HighWaterMark, Loss
from recall.store.sqlite import DurableFile, FileKind, transaction

Result = TypeVar("Result")


class _Receipt(NamedTuple):
    sequence: int
    known: int


class Receipt(_Receipt):
    """Acknowledgement of a stored batch of changes.

    A tuple of `sequence` and `known`; the others are plain attributes.

    Attributes:
        sequence: sequence of the last change. Answers that report this sequence or a later one reflect the batch.
        known: number of its items or users that existed before.
        token: identifies the last change across logs; a request that sends it is answered with the change applied. Items only.
        warnings: sentences about values of these items or users that the model does not know.
        repeated: whether a batch with the same idempotency key had been stored before. Users only.
    """

    token: str
    warnings: tuple[str, ...]
    repeated: bool

    def __new__(
        cls, sequence: int, known: int, token: str = "", warnings: tuple[str, ...] = (), *, repeated: bool = False
    ) -> "Receipt":
        """Make a tuple of two members, with the others as attributes."""
        receipt = super().__new__(cls, sequence, known)
        receipt.token, receipt.warnings, receipt.repeated = token, warnings, repeated
        return receipt


@dataclass(eq=False, kw_only=True)
class PendingWrite:
    """Batch of one caller, written atomically, and its outcome.

    Attributes:
        key: idempotency key; None if the batch has none.
        digest: digest of the changes; detects that a key is reused for other changes.
        last: sequence of its last change, once it is written.
        repeated: whether the key was stored already, so that the batch was not written again.
        error: why the batch was not written; None if it was.
        attempted: whether a thread has tried to write the batch.
        committed: whether the transaction with the batch was committed.
    """

    key: str | None = None
    digest: bytes = b""
    last: int = 0
    repeated: bool = field(init=False, default=False)
    error: Exception | None = field(init=False, default=None)
    attempted: bool = field(init=False, default=False)
    committed: bool = field(init=False, default=False)


AnyBatch = TypeVar("AnyBatch", bound=PendingWrite)


class GroupCommit(ABC, Generic[AnyBatch]):
    """A queue of batches: the thread that holds the lock commits all that wait.

    Attributes:
        mark: high-water mark of the log.
        where: path or address of the log, for errors.
    """

    def __init__(self, mark: HighWaterMark, where: str, error: type[RecallError]) -> None:
        """Start with an empty queue.

        Args:
            mark: high-water mark of the log.
            where: path or address of the log, for errors.
            error: raised for a batch whose outcome is unknown.
        """
        self.mark, self.where = mark, where
        self._error = error
        self._queue: list[AnyBatch] = []  # append, copies and deletions of a slice are atomic
        self._lock = Lock()
        self._on_commit: Callable[[float], None] | None = None
        self._staged_mark: tuple[str, int, Sequence[Loss], Loss | None] | None = None  # arguments of `HighWaterMark.advance`

    def on_commit(self, callback: Callable[[float], None]) -> None:
        """Register a callback invoked with the seconds of each commit, fsync included."""
        self._on_commit = callback

    @abstractmethod
    def _store(self, batches: Sequence[AnyBatch]) -> None:
        """Commit batches together; set `last` of each, or its own `error`."""

    def _stage_mark(self, identity: str, sequence: int, recovered: Sequence[Loss] = (), lost: Loss | None = None) -> None:
        """Set the update of the mark that follows the commit of this transaction.

        Of several batches only the first detects a loss, as it continues with sequences after the lost ones.
        """
        if self._staged_mark is not None:
            lost = self._staged_mark[-1] or lost
        self._staged_mark = identity, sequence, recovered, lost

    def _advance_mark(self) -> None:
        """Update the high-water mark after a commit."""
        if self._staged_mark is not None:
            self.mark.advance(*self._staged_mark)

    def _commit(self, batch: AnyBatch) -> int:
        """Write a batch durably, and return the sequence of its last change.

        A batch whose key is stored already is not written again.

        Raises:
            RecallError: The batch's own error, or an error of the log. Then nothing was acknowledged: the batch may have been
                written or not.
        """
        self._queue.append(batch)
        with self._lock:
            if not batch.attempted:  # else the previous holder of the lock has written it
                waiting = self._queue[:]
                del self._queue[: len(waiting)]
                self._write(waiting)
        if batch.error is not None:
            raise batch.error
        if not batch.committed:
            raise self._error("the change was not written", where=self.where, why="the process was interrupted")
        return batch.last

    def _write(self, batches: Sequence[AnyBatch]) -> None:
        """Commit batches together, and set the outcome of each."""
        start = time.perf_counter()
        try:
            self._store(batches)
            if self._on_commit is not None:
                self._on_commit(time.perf_counter() - start)
            for batch in batches:
                batch.committed = True
        except Exception as error:
            for batch in batches:
                batch.error = batch.error or error
        finally:
            for batch in batches:
                batch.attempted = True


class DurableLog(GroupCommit[AnyBatch]):
    """A SQLite log with its high-water mark, created by the first write. Thread-safe.

    Several processes may write and read it. Writers and readers of this process have a connection each.
    """

    def __init__(self, path: Path, kind: FileKind, mark: str, wait: float, read_wait: float) -> None:
        """Open nothing yet.

        Args:
            path: path of the database.
            kind: type of the file; its tables include `CREATE_KEYS`.
            mark: file name of the high-water mark, in the same folder.
            wait: seconds that a writer waits for the lock of another process.
            read_wait: seconds that a reader waits for it.
        """
        super().__init__(HighWaterMark(path.with_name(mark)), str(path), kind.error)
        self.path = path
        self._file = DurableFile(path, kind, wait)
        self._reading, self._reader = Lock(), DurableFile(path, kind, read_wait)

    @override
    def _commit(self, batch: AnyBatch) -> int:
        last = super()._commit(batch)
        self._open_reader()
        return last

    def checkpoint(self) -> None:
        """Checkpoint: move committed pages from the `-wal` file into the main file.

        Raises:
            RecallError: An error of the file's kind.
        """
        if self.path.exists():
            with self._maintenance_connection() as connection:
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
        """Erase users: their rows, idempotency keys that contain their id, and free pages.

        Args:
            ids: ids of the users.

        Returns:
            The number of keys removed.

        Raises:
            RecallError: An error of the file's kind.
        """
        if not self.path.exists():
            return 0
        with self._maintenance_connection() as connection:
            connection.execute("PRAGMA secure_delete = ON").fetchall()
            with transaction(connection):
                self._forget(connection, ids)
                keys = connection.execute("SELECT number, key FROM batches").fetchall()
                erased = [(number,) for number, key in keys if mentions(key, ids)]
                connection.executemany("DELETE FROM batches WHERE number = ?", erased)
            connection.execute("VACUUM")  # overwrites the remains of rows in pages that were rewritten earlier
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                what = f"another process reads the {self._file.kind.noun}"
                raise self._file.kind.busy(what, where=self.where, hint="Try again in a moment")
        self._open_reader()
        return len(erased)

    def _forget(self, connection: sqlite3.Connection, ids: Sequence[str]) -> None:
        """Delete the rows of users within a transaction; a log of items has none."""

    def _open_reader(self) -> None:
        """Open the reader's connection while the disk has space for its `-shm` file."""
        with suppress(RecallError), self._reading, self._reader.translate_errors("read"):
            self._reader.reader()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction; the caller holds the writer's lock."""
        self._staged_mark = None  # a failed transaction may have left one
        with self._file.translate_errors("written"):
            connection = self._file.writer()
            with transaction(connection):
                yield connection
            self._file.check_in_place()
        self._advance_mark()

    @contextmanager
    def _maintenance_connection(self) -> Iterator[sqlite3.Connection]:
        """Yield the writer's connection outside of a transaction. Raises RecallError."""
        with self._lock, self._file.translate_errors("written"):
            yield self._file.writer()

    def _read(self, query: Callable[[sqlite3.Connection], Result], default: Result) -> Result:
        """Return the result of a query, or a default if there is no file.

        Args:
            query: reads the database.
            default: result if there is no file.

        Raises:
            RecallError: An error of the file's kind.
        """
        with self._reading:
            try:  # each answer reads here, and a context manager would cost it a microsecond
                connection = self._reader.reader()
                return default if connection is None else query(connection)
            except (sqlite3.Error, OSError) as error:
                raise self._reader.translated(error, "read") from None

    @override
    def _store(self, batches: Sequence[AnyBatch]) -> None:
        try:
            with self._transaction() as connection:
                for batch in batches:
                    write_once(batch, SqliteKeys(connection), partial(self._insert, connection))
        except Exception:
            self._file.close()  # a failed disk write may have left pages in the cache that are not on disk
            raise


# Idempotency keys: a batch that is sent again with its key is not written twice.


class KeyTable(Protocol):
    """Idempotency keys of batches, within a transaction."""

    def find_key(self, key: str) -> tuple[bytes, int] | None:
        """Return digest and last sequence of the batch stored with a key, or None."""

    def store_key(self, key: str, digest: bytes, last: int) -> None:
        """Store the key of a batch.

        Args:
            key: idempotency key.
            digest: digest of the batch.
            last: sequence of the batch's last change.
        """


def write_once(batch: AnyBatch, keys: KeyTable, insert: Callable[[AnyBatch], None]) -> None:
    """Write one batch unless its key is stored; its own error fails no other batch.

    Args:
        batch: the batch, whose outcome is set.
        keys: stored keys.
        insert: writes the batch, or raises RecallError and writes nothing.
    """
    batch.error = None  # of an earlier attempt
    try:
        stored = None if batch.key is None else keys.find_key(batch.key)
        if stored is None:
            insert(batch)
            if batch.key is not None:
                keys.store_key(batch.key, batch.digest, batch.last)
        elif stored[0] == batch.digest:
            batch.last, batch.repeated = stored[1], True
        else:
            raise key_conflict()
    except RecallError as error:
        batch.error = error


CREATE_KEYS = (
    "CREATE TABLE batches (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, last INTEGER NOT NULL)"
)
MAX_KEYS = 100_000
"""Maximum number of stored idempotency keys; the oldest are deleted."""


@dataclass(frozen=True, slots=True)
class SqliteKeys(KeyTable):
    """The table of keys of a SQLite log; the oldest keys above `MAX_KEYS` are deleted."""

    connection: sqlite3.Connection

    @override
    def find_key(self, key: str) -> tuple[bytes, int] | None:
        found: tuple[bytes, int] | None = self.connection.execute(
            "SELECT digest, last FROM batches WHERE key = ?", (key,)
        ).fetchone()
        return found

    @override
    def store_key(self, key: str, digest: bytes, last: int) -> None:
        statement = "INSERT INTO batches (key, digest, last) VALUES (?, ?, ?)"
        number = self.connection.execute(statement, (key, digest, last)).lastrowid
        self.connection.execute("DELETE FROM batches WHERE number <= ?", ((number or 0) - MAX_KEYS,))


def mentions(key: str, ids: Sequence[str]) -> bool:
    """Return whether a key contains an id that is not part of a longer word.

    Args:
        key: idempotency key.
        ids: ids of users.
    """
    return any(re.search(rf"(?<![^\W_]){re.escape(user_id)}(?![^\W_])", key) for user_id in ids)


def key_conflict() -> RequestError:
    """Return the error for a key that is reused for other changes."""
    return RequestError("the key belongs to other changes", where="/key", hint="Give each batch another key")
