"""SQLite files: created atomically, opened on demand, with plain errors."""

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from recall._fsync import descriptor
from recall.errors import RecallError, forbids_writing

_SHUT = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_READONLY_CANTINIT,
    sqlite3.SQLITE_READONLY_CANTLOCK,
    sqlite3.SQLITE_READONLY_DIRECTORY,
    sqlite3.SQLITE_READONLY_RECOVERY,
)
"""Errors of SQLite that say that nothing can be written there."""
_WRITTEN = "written"


@dataclass(frozen=True, slots=True)
class FileKind:
    """The purpose of a file, and its errors.

    Attributes:
        noun: what it is called in errors, such as "journal".
        holds: what is in it, such as "live changes".
        application: number in the header of the file, which identifies its kind.
        version: the newest format that is read, and the one that is written.
        create: SQL statements that make the tables.
        hint: what to do about a damaged one.
        error, busy, full, shut: raised when it cannot be used, when other processes hold the lock for the whole wait, when the
            disk is full, and when the file cannot be written.
        damaged: raised when the file is damaged or not of this kind; `error` when None.
        upgrade: brings the tables of an older version to the newest one, inside a transaction; None if there is none.
        wal_bytes: the `-wal` file is truncated to this size after a checkpoint.
    """

    noun: str
    holds: str
    application: int
    version: int
    create: tuple[str, ...]
    hint: str
    error: type[RecallError]
    busy: type[RecallError]
    full: type[RecallError]
    shut: type[RecallError]
    damaged: type[RecallError] | None = None
    upgrade: Callable[[sqlite3.Connection], None] | None = None
    wal_bytes: int = -1


class DurableFile:
    """One connection to a file, opened on demand and again when it is replaced."""

    def __init__(self, path: Path, kind: FileKind, wait: float) -> None:
        """Nothing is opened yet; `wait` is in seconds, for other processes that write."""
        self.path = path
        self._name = str(path)
        self.kind = kind
        self.opened = 0
        """Connections made so far."""
        self.version = kind.version
        """Format of the file that is open: an older one where it may not be written."""
        self._wait = wait
        self._connection: sqlite3.Connection | None = None
        self._file: _Stamp | None = None
        self._frozen: tuple[int, int] | None = None

    def writer(self) -> sqlite3.Connection:
        """Return the connection; creates the file if there is none."""
        if not self.path.exists():
            _create(self.path, self.kind)
        connection = self.reader()
        assert connection is not None
        return connection

    def reader(self) -> sqlite3.Connection | None:
        """Return the connection, or None when there is no file."""
        file = _number(self._name)
        if self._connection is not None and (file is None or self._file is None or file != self._file):
            # moved away, cut short or overwritten, which pages in memory would hide; or a checkpoint, which is as rare
            self.close()
        if self._connection is not None and self._frozen is not None and _frozen(self.path) != self._frozen:
            self.close()  # a process with the rights to write has done so
        if self._connection is None and file is not None:
            self._connection, self._file = self._opened(), file
            self.opened += 1
        return self._connection

    def check_in_place(self) -> None:
        """Raise an error of the kind unless the open file is still the one at its path."""
        file = _number(self._name)
        if file is None or self._file is None or file[:2] != self._file[:2]:
            raise self.kind.error(
                f"the {self.kind.noun} was moved away while it was written",
                where=str(self.path),
                hint="Nothing was acknowledged: send the change again",
            )

    def close(self) -> None:
        """Close the connection, if there is one; the next call makes another."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def reports(self, what: str) -> "_Reports":
        """Return a block that turns errors of SQLite and the file system into the kind's."""
        return _Reports(self, what)

    def reported(self, error: sqlite3.Error | OSError, what: str) -> RecallError:
        """Return what to raise for an error of SQLite or of the file system.

        Args:
            error: the error.
            what: the operation, as in "cannot be WHAT".
        """
        kind, where, why = self.kind, str(self.path), str(error)
        if what == _WRITTEN and (forbids_writing(error) or getattr(error, "sqlite_errorcode", 0) in _SHUT):
            hint = f"Let this process write to the folder, or leave the {kind.noun} as it is"
            return kind.shut(f"the {kind.noun} cannot be written", where=where, why=why, hint=hint)
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                said = f"another process is writing to the {kind.noun}"
                return kind.busy(said, where=where, why=why, hint="Try again in a moment")
            case sqlite3.SQLITE_FULL:
                said = f"there is no room for the {kind.noun}"
                return kind.full(said, where=where, why=why, hint="Free some space, and send the change again")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return (kind.damaged or kind.error)(f"the {kind.noun} is damaged", where=where, why=why, hint=kind.hint)
        return kind.error(f"the {kind.noun} cannot be {what}", where=where, why=why)

    def _opened(self) -> sqlite3.Connection:
        """Open an existing file, even where not even readers may write beside it."""
        address, self._frozen = self.path.absolute().as_uri(), None
        try:
            return self._connect(address)
        except sqlite3.OperationalError as error:
            self._frozen = _frozen(self.path)
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or self._frozen is None:
                raise
        return self._connect(f"{address}?immutable=1")

    def _connect(self, address: str) -> sqlite3.Connection:
        kind = self.kind
        connection = sqlite3.connect(address, timeout=self._wait, isolation_level=None, check_same_thread=False, uri=True)
        try:
            application = int(connection.execute("PRAGMA application_id").fetchone()[0])
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if application != kind.application:
                said = f"the file is not a {kind.noun} of {kind.holds}"
                raise (kind.damaged or kind.error)(said, where=str(self.path), hint=kind.hint)
            if version > kind.version:
                raise kind.error(
                    f"the {kind.noun} is of format {version}, newer than the format {kind.version} that this version reads",
                    where=str(self.path),
                    hint="Upgrade fm-recall",
                )
            connection.execute("PRAGMA synchronous = FULL")
            if kind.wal_bytes >= 0:
                connection.execute(f"PRAGMA journal_size_limit = {kind.wal_bytes}").fetchall()
            self.version = self._upgraded(connection, version)
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgraded(self, connection: sqlite3.Connection, version: int) -> int:
        """Upgrade a file of an older format if it may be written; return its format."""
        kind = self.kind
        if version == kind.version or kind.upgrade is None:
            return kind.version
        try:
            with transaction(connection):
                if int(connection.execute("PRAGMA user_version").fetchone()[0]) < kind.version:
                    kind.upgrade(connection)
                    connection.execute(f"PRAGMA user_version = {kind.version}")
            with suppress(sqlite3.Error):  # someone reads: the file stays as large as it was
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
        except sqlite3.Error as error:
            if error.sqlite_errorcode not in _SHUT:
                raise
            return version
        return kind.version


class _Reports:
    """The block of `DurableFile.reports`.

    A class, because every request runs one, and a generator takes three times as long.
    """

    __slots__ = ("_file", "_what")

    def __init__(self, file: DurableFile, what: str) -> None:
        self._file, self._what = file, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (sqlite3.Error, OSError)):
            raise self._file.reported(error, self._what) from None


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let everything in the block read one state of the file."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # some errors end it, and rolling back would hide them
            connection.execute("ROLLBACK")


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


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from putting files in place; fsync the folder at the end."""
    with descriptor(folder) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
        os.fsync(opened)


def _create(path: Path, kind: FileKind) -> None:
    """Create an empty file atomically, because a partial one counts as damaged."""
    numbers = f"PRAGMA application_id = {kind.application}; PRAGMA user_version = {kind.version};"
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        made.touch(exist_ok=False)  # SQLite would not say why it cannot
        with closing(sqlite3.connect(made, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is written
            connection.executescript(f"{numbers} PRAGMA journal_mode = WAL; BEGIN; {'; '.join(kind.create)}; COMMIT;")
        with folder_lock(path.parent):
            if not path.exists():  # else another process was first
                for rest in ("-wal", "-shm"):  # of a file that was moved away: SQLite would take it for the new one's
                    path.with_name(path.name + rest).unlink(missing_ok=True)
                os.link(made, path)
    finally:
        for rest in ("", "-wal", "-shm"):
            made.with_name(made.name + rest).unlink(missing_ok=True)


class _Stamp(NamedTuple):
    """File system metadata: device, number, bytes, and modification in nanoseconds."""

    device: int
    number: int
    size: int
    changed: int


def _number(path: str) -> _Stamp | None:
    if not os.access(path, os.F_OK):  # every request asks: an exception takes four times as long
        return None
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _frozen(path: Path) -> tuple[int, int] | None:
    """Return the state of a file that this process cannot change, or None.

    SQLite notes the readers of a file beside it. Where it cannot, no process with the same rights can write either; and as
    long as there is no log beside the file, no other process does.
    """
    if os.access(path.parent, os.W_OK):
        return None
    log = path.with_name(f"{path.name}-wal")
    try:
        if log.exists() and log.stat().st_size:
            return None
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
