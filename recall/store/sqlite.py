"""SQLite files: created atomically, opened on demand, with errors of this package."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from recall._file_system import locked_descriptor
from recall.errors import RecallError, forbids_writing

_READ_ONLY_CODES = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_READONLY_CANTINIT,
    sqlite3.SQLITE_READONLY_CANTLOCK,
    sqlite3.SQLITE_READONLY_DIRECTORY,
    sqlite3.SQLITE_READONLY_RECOVERY,
)
"""Error codes of SQLite for a file that cannot be written."""
_WRITTEN = "written"

_Stamp = tuple[int, int, int, int]
"""Identifies a state of a file: device, inode, size in bytes, and nanoseconds of the last modification since 1970."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """Type of a database file: its format, its tables and its errors.

    Attributes:
        noun: name of such a file in errors, such as "journal".
        content: description of its content in errors, such as "live changes".
        application_id: number in the file's header that identifies the type.
        version: newest readable format; new files have this format.
        create: SQL statements that create the tables.
        hint: how to recover from a damaged file.
        error: raised for all other errors.
        busy: raised when other processes hold the lock for the whole wait.
        full: raised when the disk is full.
        read_only: raised when the file cannot be written.
        damaged: raised when the file is damaged or of a different type; None for `error`.
        upgrade: upgrades the tables of an older format, within a transaction; None if there is no older format.
        wal_bytes: size to which a checkpoint truncates the `-wal` file; negative for the default of SQLite.
    """

    noun: str
    content: str
    application_id: int
    version: int
    create: tuple[str, ...]
    hint: str
    error: type[RecallError]
    busy: type[RecallError]
    full: type[RecallError]
    read_only: type[RecallError]
    damaged: type[RecallError] | None = None
    upgrade: Callable[[sqlite3.Connection], None] | None = None
    wal_bytes: int = -1


class DurableFile:
    """One connection to a database, opened on demand and reopened if the file changes.

    Attributes:
        opened: number of connections made so far.
        version: format of the open file; an older one if the file cannot be upgraded.
    """

    def __init__(self, path: Path, kind: FileKind, wait: float) -> None:
        """Open nothing yet.

        Args:
            path: path of the database.
            kind: its type.
            wait: seconds to wait for the lock of another process.
        """
        self.path = path
        self._name = str(path)
        self.kind = kind
        self.opened = 0
        self.version = kind.version
        self._wait = wait
        self._connection: sqlite3.Connection | None = None
        self._file: _Stamp | None = None
        self._immutable: tuple[int, int] | None = None

    def writer(self) -> sqlite3.Connection:
        """Return the connection; create a missing file."""
        if not self.path.exists():
            _create(self.path, self.kind)
        connection = self.reader()
        assert connection is not None
        return connection

    def reader(self) -> sqlite3.Connection | None:
        """Return the connection, or None when there is no file."""
        file = _stat(self._name)
        if self._connection is not None and file != self._file:
            # renamed, truncated or overwritten, which the page cache would hide; or checkpointed, which is as rare
            self.close()
        if self._connection is not None and self._immutable is not None and _immutable_stamp(self.path) != self._immutable:
            self.close()  # a process with write permission has changed the file
        if self._connection is None and file is not None:
            self._connection, self._file = self._open(), file
            self.opened += 1
        return self._connection

    def check_in_place(self) -> None:
        """Raise `kind.error` if the path no longer refers to the open file."""
        file = _stat(self._name)
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

    @contextmanager
    def translate_errors(self, what: str) -> Iterator[None]:
        """Raise errors of SQLite and the operating system as the kind's errors.

        Args:
            what: the operation, as in "cannot be WHAT".
        """
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self.translated(error, what) from None

    def translated(self, error: sqlite3.Error | OSError, what: str) -> RecallError:
        """Return the kind's error for an error of SQLite or the operating system.

        Args:
            error: the original error.
            what: the operation, as in "cannot be WHAT".
        """
        kind, where, why = self.kind, str(self.path), str(error)
        if what == _WRITTEN and (forbids_writing(error) or getattr(error, "sqlite_errorcode", 0) in _READ_ONLY_CODES):
            hint = f"Let this process write to the folder, or do not change the {kind.noun}"
            return kind.read_only(f"the {kind.noun} cannot be written", where=where, why=why, hint=hint)
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return kind.busy(
                    f"another process is writing to the {kind.noun}", where=where, why=why, hint="Try again in a moment"
                )
            case sqlite3.SQLITE_FULL:
                what = f"there is no room for the {kind.noun}"
                return kind.full(what, where=where, why=why, hint="Free some space, and send the change again")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return (kind.damaged or kind.error)(f"the {kind.noun} is damaged", where=where, why=why, hint=kind.hint)
        return kind.error(f"the {kind.noun} cannot be {what}", where=where, why=why)

    def _open(self) -> sqlite3.Connection:
        """Open an existing file, also in a read-only folder."""
        address, self._immutable = self.path.absolute().as_uri(), None
        try:
            return self._connect(address)
        except sqlite3.OperationalError as error:
            self._immutable = _immutable_stamp(self.path)
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or self._immutable is None:
                raise
        return self._connect(f"{address}?immutable=1")

    def _connect(self, address: str) -> sqlite3.Connection:
        kind = self.kind
        connection = sqlite3.connect(address, timeout=self._wait, isolation_level=None, check_same_thread=False, uri=True)
        try:
            application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if application_id != kind.application_id:
                what = f"the file is not a {kind.noun} of {kind.content}"
                raise (kind.damaged or kind.error)(what, where=str(self.path), hint=kind.hint)
            if version > kind.version:
                raise kind.error(
                    f"the {kind.noun} is of format {version}, newer than the format {kind.version} that this version reads",
                    where=str(self.path),
                    hint="Upgrade fm-recall",
                )
            connection.execute("PRAGMA synchronous = FULL")
            if kind.wal_bytes >= 0:
                connection.execute(f"PRAGMA journal_size_limit = {kind.wal_bytes}").fetchall()
            self.version = self._upgrade_if_writable(connection, version)
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgrade_if_writable(self, connection: sqlite3.Connection, version: int) -> int:
        """Upgrade a file of an older format if it is writable; return its format."""
        kind = self.kind
        if version == kind.version or kind.upgrade is None:
            return kind.version
        try:
            with transaction(connection):
                if int(connection.execute("PRAGMA user_version").fetchone()[0]) < kind.version:
                    kind.upgrade(connection)
                    connection.execute(f"PRAGMA user_version = {kind.version}")
            with suppress(sqlite3.Error):  # while another process reads, the file is not shrunk
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
        except sqlite3.Error as error:
            if error.sqlite_errorcode not in _READ_ONLY_CODES:
                raise
            return version
        return kind.version


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a read transaction: all reads see one snapshot."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # some errors end the transaction, and a rollback would then raise
            connection.execute("ROLLBACK")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a write transaction; wait for the lock of other processes."""
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
    """Hold an exclusive lock on a folder; fsync the folder at the end."""
    with locked_descriptor(folder) as file:
        yield
        os.fsync(file)


def _create(path: Path, kind: FileKind) -> None:
    """Create an empty database atomically, because a partial one counts as damaged."""
    header = f"PRAGMA application_id = {kind.application_id}; PRAGMA user_version = {kind.version};"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.touch(exist_ok=False)  # its OSError names the cause, an error of SQLite would not
        with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect only before the first write
            connection.executescript(f"{header} PRAGMA journal_mode = WAL; BEGIN; {'; '.join(kind.create)}; COMMIT;")
        with folder_lock(path.parent):
            if not path.exists():  # else another process was first
                for suffix in ("-wal", "-shm"):  # left by a file that was renamed: SQLite would apply them to the new one
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                os.link(temporary, path)
    finally:
        for suffix in ("", "-wal", "-shm"):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def _stat(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _immutable_stamp(path: Path) -> tuple[int, int] | None:
    """Return size and mtime of a file that is safe to open as immutable, or None.

    SQLite registers the readers of a database in a `-shm` file. In a folder where it cannot create one, no process with the
    same permissions can write either; and as long as the `-wal` file is empty or missing, no other process is writing.
    """
    if os.access(path.parent, os.W_OK):
        return None
    wal = path.with_name(f"{path.name}-wal")
    try:
        if wal.exists() and wal.stat().st_size:
            return None
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
