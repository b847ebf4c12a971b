"""The file of a journal as SQLite sees it: made as a whole, opened when it is needed, its errors told in words."""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recall.errors import JournalBusyError, JournalError, JournalFullError

FORMAT = 1
MEND = "Take the journal back from a copy; or move it away, and give every change since the live version again"

_APPLICATION = 0x464D524A  # "FMRJ", in the header of the file
_NUMBERS = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {FORMAT};"
_CREATE = """
    PRAGMA journal_mode = WAL;
    BEGIN;
    CREATE TABLE changes (sequence INTEGER PRIMARY KEY, item_id TEXT NOT NULL, features BLOB, checksum INTEGER NOT NULL);
    CREATE TABLE batches (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, last INTEGER NOT NULL);
    CREATE TABLE state (pruned INTEGER NOT NULL);
    INSERT INTO state VALUES (0);
    COMMIT;
"""


class JournalFile:
    """One connection to a file, made when it is asked for, and made anew when another file stands in its place."""

    def __init__(self, path: Path, wait: float) -> None:
        """Nothing is opened yet; `wait` is in seconds, for other processes that write."""
        self.path = path
        self.opened = 0
        """Connections made so far."""
        self._wait = wait
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def writer(self) -> sqlite3.Connection:
        """The connection, to a file that is created if there is none."""
        if not self.path.exists():
            _create(self.path)
        connection = self.reader()
        assert connection is not None
        return connection

    def reader(self) -> sqlite3.Connection | None:
        """The connection, or None when there is no file."""
        file = _number(self.path)
        if self._connection is not None and file != self._file:
            self.close()  # it was moved away: what is written there would never be read
        if self._connection is None and file is not None:
            self._connection, self._file = self._connect(), file
            self.opened += 1
        return self._connection

    def close(self) -> None:
        """Close the connection, if there is one; the next call makes another."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self._wait, isolation_level=None, check_same_thread=False)
        try:
            application = int(connection.execute("PRAGMA application_id").fetchone()[0])
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if application != _APPLICATION:
                raise JournalError("the file is no journal of live changes", where=str(self.path), mend=MEND)
            if version > FORMAT:
                raise JournalError(
                    f"the journal is of format {version}, newer than the format {FORMAT} that this version reads",
                    where=str(self.path),
                    mend="Upgrade fm-recall",
                )
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def reports(what: str, path: Path) -> Iterator[None]:
    """Let the errors of SQLite and of the file system, of something that cannot be `what`, be errors of this library."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _reported(error, what, path) from None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything in the block, or nothing of it; waits for other processes that write."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _reported(error: sqlite3.Error | OSError, what: str, path: Path) -> JournalError:
    why = str(error)
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return JournalBusyError(
                "another process is writing to the journal", where=str(path), why=why, mend="Try again in a moment"
            )
        case sqlite3.SQLITE_FULL:
            return JournalFullError(
                "there is no room for the journal", where=str(path), why=why, mend="Free some space, and send the change again"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return JournalError("the journal is damaged", where=str(path), why=why, mend=MEND)
    return JournalError(f"the journal cannot be {what}", where=str(path), why=why)


def _create(path: Path) -> None:
    """Put an empty journal in place as a whole: a file that is empty or half made is a damaged one."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.executescript(_NUMBERS + _CREATE)
        finally:
            connection.close()  # moves everything from the WAL into the file, and removes the WAL
        with suppress(FileExistsError):  # another process was first
            os.link(made, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        for rest in ("", "-wal", "-shm"):
            made.with_name(made.name + rest).unlink(missing_ok=True)


def _number(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
