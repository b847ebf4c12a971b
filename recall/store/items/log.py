"""Change log in one SQLite file, in a root of published versions.

    log      one row: identity, sequence of the last change, and what was dropped or written back
    entries  the last change of each item; a later change of the same item replaces the earlier one
    blocks   number and checksum sum of the entries in each block of 256 sequences: detects lost entries, as gaps are normal
    heads    chained hash after each of the latest commits: detects that a reader has read a different log

The file is in WAL mode and fsynced at every commit. A batch is one transaction. SQLite allows one writing process and any
number of readers at a time; concurrent writers of one process share one transaction, and therefore one fsync.
"""

import os
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from recall.bundle.versions import catalog_of
from recall.errors import (
    ConfigError,
    JournalBusyError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalReadOnlyError,
)
from recall.store.group_commit import CREATE_KEYS, DurableLog
from recall.store.high_water_mark import HighWaterMark
from recall.store.items.log_base import REMOTE, ChangeLog, ItemBatch, LogTables
from recall.store.items.log_position import KEPT_HEADS, MARK, LogRow, State
from recall.store.sqlite import FileKind, folder_lock, snapshot

JOURNAL = "journal.sqlite"
"""Name of the file in a root of published versions."""
VERSION = 2
SQLITE = "sqlite"
VARIABLE = "RECALL_ITEMS"
"""Environment variable with the location of the log: "sqlite", or the address of a Redis."""

_WAL_BYTES = 4 << 20  # size of the -wal file after a checkpoint

CREATE = (
    "CREATE TABLE log (identity TEXT NOT NULL, last INTEGER NOT NULL, pruned INTEGER NOT NULL, head BLOB NOT NULL,"
    " at INTEGER NOT NULL, number INTEGER NOT NULL, digest INTEGER NOT NULL, unnamed INTEGER NOT NULL,"
    " base TEXT, base_from INTEGER NOT NULL, base_through INTEGER NOT NULL)",
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, features BLOB, at INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL)",
    "CREATE TABLE blocks (block INTEGER PRIMARY KEY, count INTEGER NOT NULL, digest INTEGER NOT NULL)",
    "CREATE TABLE heads (number INTEGER PRIMARY KEY, sequence INTEGER NOT NULL UNIQUE, head BLOB NOT NULL)",
    # the table's name in format 1: a process that still writes that format fails instead of bypassing the checksums
    "CREATE VIEW changes AS SELECT sequence, item_id, features, checksum FROM entries",
    "INSERT INTO log VALUES (lower(hex(randomblob(16))), 0, 0, x'', 0, 0, 0, 0, NULL, 0, 0)",
)
ALL = (*CREATE, CREATE_KEYS)
"""Statements that create all tables."""
_HINT = "Take the journal back from a copy; or move it away, and give every change since the live version again"
_BLOCK = 8  # bits: 256 sequences, few enough to sum at each poll, and few rows of blocks if entries are sparse

_Sums = dict[int, list[int]]
"""Number of entries and sum of their checksums by block; of a table, or of changes to it."""


class SqliteChangeLog(DurableLog[ItemBatch], ChangeLog):
    """Change log in a SQLite file, which the first write creates."""

    def __init__(self, path: Path, wait: float = 5.0) -> None:
        """Open nothing yet.

        Args:
            path: path of the file.
            wait: seconds to wait for the lock of another process.
        """
        super().__init__(path, KIND, MARK, wait, wait)

    @override
    def version(self) -> tuple[int, int]:
        statement = "PRAGMA data_version"
        return self._read(lambda reader: (self._reader.opened, int(reader.execute(statement).fetchone()[0])), (0, 0))

    @override
    def prune(self, upto: int) -> int:
        count = super().prune(upto)
        if count:
            with self._maintenance_connection() as connection:
                connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page
        return count

    @override
    def set_aside_damaged(self) -> str | None:
        with self._reading, self._reader.translate_errors("moved away"), folder_lock(self.path.parent):
            if not self._damaged():
                return None
            self._reader.close()
            name = f"{self.path.name}.damaged-{secrets.token_hex(4)}"
            for suffix in ("-shm", "-wal", ""):  # the main file last: without it, the others have no meaning
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + suffix).rename(self.path.with_name(name + suffix))
            return str(self.path.with_name(name))

    def _damaged(self) -> bool:
        try:
            with self._reader.translate_errors("read"):
                connection = self._reader.reader()
                if connection is None:
                    return False
                self._tables(connection).rows_after(0, whole=True)
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except JournalDamagedError:
            return True

    @override
    def size(self) -> int:
        size = 0
        for name in (self.path.name, f"{self.path.name}-wal"):
            with suppress(OSError):
                size += self.path.with_name(name).stat().st_size
        return size

    @override
    @contextmanager
    def _open_tables(self) -> Iterator[LogTables | None]:
        with self._reading, self._reader.translate_errors("read"):
            connection = self._reader.reader()
            if connection is None:
                yield None
                return
            with snapshot(connection):
                yield self._tables(connection)

    @override
    def _transact(self, change: Callable[[LogTables], int]) -> int:
        with self._lock, self._transaction() as connection:
            result = change(SqliteTables(connection, False, self.where))
        self._open_reader()
        return result

    @override
    def _store(self, batches: Sequence[ItemBatch]) -> None:
        mark = self.mark.read()
        if mark is not None and mark.identity.startswith(REMOTE):  # the services read the log in Redis, not this file
            raise JournalReadOnlyError(
                "the changes of these items are kept in a Redis",
                where=self.where,
                why=f"{MARK} belongs to a log in Redis, and neither {VARIABLE} nor --items has its address",
                hint=f"Give its address; or, to begin a log in a file, remove {MARK}",
            )
        super()._store(batches)

    @override
    def _insert(self, connection: sqlite3.Connection, batch: ItemBatch) -> None:
        self._append_batch(SqliteTables(connection, False, self.where), batch)

    def _tables(self, connection: sqlite3.Connection) -> "SqliteTables":
        return SqliteTables(connection, self._reader.version == 1, self.where)


@dataclass(frozen=True, slots=True)
class SqliteTables(LogTables):
    """The tables of a file, within a transaction or a snapshot.

    Attributes:
        connection: connection to the file.
        old: whether the file has format 1, which is only read.
        where: path of the file, for errors.
    """

    connection: sqlite3.Connection
    old: bool
    where: str

    @override
    def state(self) -> State:
        if not self.old:
            return State(*self.connection.execute("SELECT * FROM log").fetchall()[0])
        pruned = int(self.connection.execute("SELECT pruned FROM state").fetchone()[0])
        last = int(self.connection.execute("SELECT coalesce(max(sequence), 0) FROM changes").fetchone()[0])
        return State("", max(last, pruned), pruned, b"", 0, 0, 0, 1, None, 0, 0)

    @override
    def has_head(self, sequence: int, head: bytes) -> bool:
        statement = "SELECT head FROM heads WHERE sequence = ?"
        return sequence == 0 or self.connection.execute(statement, (sequence,)).fetchall() == [(head,)]

    @override
    def rows_after(self, sequence: int, *, whole: bool) -> list[LogRow]:
        if self.old:
            return self._rows_of_format_1(sequence)
        first = (sequence + 1) >> _BLOCK
        statement = "SELECT * FROM blocks WHERE block >= ?"
        expected = {block: [count, digest] for block, count, digest in self.connection.execute(statement, (first,))}
        statement = "SELECT count(*), coalesce(sum(checksum), 0) FROM entries WHERE sequence BETWEEN ? AND ?"
        before = self.connection.execute(statement, (first << _BLOCK, sequence)).fetchone()  # the first block's other entries
        sums: _Sums = {first: list(before)} if before[0] else {}
        rows = []
        statement = "SELECT sequence, item_id, features, at, checksum FROM entries WHERE sequence > ? ORDER BY sequence"
        for number, item_id, features, at, checksum in self.connection.execute(statement, (sequence,)):
            self._check(number, item_id, features, checksum)
            _add(sums, number, 1, checksum)
            rows.append(LogRow(number, item_id, features, at))
        if sums != expected:
            block = min(block for block in sums.keys() | expected.keys() if sums.get(block) != expected.get(block))
            raise self._damaged(
                f"changes among those from {block << _BLOCK} to {((block + 1) << _BLOCK) - 1} are missing from the journal"
            )
        if whole:
            totals = self.connection.execute("SELECT coalesce(sum(count), 0), coalesce(sum(digest), 0) FROM blocks").fetchone()
            if tuple(totals) != self.connection.execute("SELECT number, digest FROM log").fetchone():
                raise self._damaged("changes are missing from the journal")
        return rows

    @override
    def time_of(self, item_id: str) -> int:
        times = self.connection.execute("SELECT at FROM entries WHERE item_id = ?", (item_id,)).fetchall()
        return int(times[0][0]) if times else -1

    @override
    def write(self, state: State, rows: Sequence[LogRow]) -> State:
        sums: _Sums = {}
        for row in rows:
            self._delete(sums, "DELETE FROM entries WHERE item_id = ? RETURNING sequence, checksum", row.item_id)
            checksum = _checksum(row.sequence, row.item_id, row.features)
            self.connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (*row, checksum))
            _add(sums, row.sequence, 1, checksum)
        return self._store_state(state, sums)

    @override
    def drop(self, upto: int) -> int:
        state, sums = self.state(), _Sums()
        count = self._delete(sums, "DELETE FROM entries WHERE sequence <= ? RETURNING sequence, checksum", upto)
        self._store_state(state._replace(pruned=max(state.pruned, upto)), sums)
        return count

    def _delete(self, sums: _Sums, statement: str, parameter: str | int) -> int:
        """Run a DELETE that returns sequences and checksums; return their number."""
        deleted = self.connection.execute(statement, (parameter,)).fetchall()
        for sequence, checksum in deleted:
            _add(sums, sequence, -1, -checksum)
        return len(deleted)

    def _store_state(self, state: State, changes: _Sums) -> State:
        """Apply changes to the blocks' sums, and store the state and its head.

        Returns:
            The new state, with number and digest of all entries.
        """
        statement = (
            "INSERT INTO blocks VALUES (?, ?, ?) ON CONFLICT (block)"
            " DO UPDATE SET count = count + excluded.count, digest = digest + excluded.digest"
        )
        self.connection.executemany(statement, [(block, *both) for block, both in changes.items() if any(both)])
        self.connection.executemany("DELETE FROM blocks WHERE block = ? AND count = 0", [(block,) for block in changes])
        number, digest = (sum(both[part] for both in changes.values()) for part in (0, 1))
        state = state._replace(number=state.number + number, digest=state.digest + digest)
        self.connection.execute("DELETE FROM log")
        self.connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", state)
        keep = "INSERT OR REPLACE INTO heads (sequence, head) VALUES (?, ?)"
        kept = self.connection.execute(keep, (state.last, state.head)).lastrowid or 0
        self.connection.execute("DELETE FROM heads WHERE number <= ?", (kept - KEPT_HEADS,))
        return state

    def _rows_of_format_1(self, sequence: int) -> list[LogRow]:
        """Return `rows_after` of a file of format 1, which has all changes of an item."""
        newest: dict[str, LogRow] = {}
        statement = "SELECT sequence, item_id, features, checksum FROM changes WHERE sequence > ? ORDER BY sequence"
        entries = self.connection.execute(statement, (sequence,))
        for expected, (number, item_id, features, checksum) in enumerate(entries, start=sequence + 1):
            if number != expected:
                raise self._damaged(f"change {expected} is missing from the journal")
            self._check(number, item_id, features, checksum)
            newest[item_id] = LogRow(number, item_id, features, number)  # as a time, it is before that of any new change
        return sorted(newest.values())

    def _check(self, number: int, item_id: object, features: bytes | None, checksum: int) -> None:
        """Raise JournalDamagedError if an entry does not match its checksum."""
        if not isinstance(item_id, str) or _checksum(number, item_id, features) != checksum:
            raise self._damaged(f"change {number} was damaged after it was written")

    def _damaged(self, what: str) -> JournalDamagedError:
        return JournalDamagedError(what, where=self.where, hint=_HINT)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Convert the tables of format 1, which has all changes of an item, to format 2.

    Raises:
        JournalDamagedError: A change is missing or damaged.
    """
    old, new = SqliteTables(connection, True, JOURNAL), SqliteTables(connection, False, JOURNAL)
    before = old.state()
    rows = old.rows_after(before.pruned, whole=True)
    connection.execute("ALTER TABLE changes RENAME TO old")
    connection.execute("DROP TABLE state")
    for statement in CREATE:
        connection.execute(statement)
    head, last = secrets.token_bytes(16), before.last
    new.write(new.state()._replace(last=last, pruned=before.pruned, head=head, at=last, unnamed=1), rows)
    connection.execute("DROP TABLE old")


def _checksum(sequence: int, item_id: str, features: bytes | None) -> int:
    parts = (str(sequence).encode(), item_id.encode(), b"deleted" if features is None else b"given", features or b"")
    return zlib.crc32(b"\0".join(parts))


def _add(sums: _Sums, sequence: int, count: int, digest: int) -> None:
    block = sums.setdefault(sequence >> _BLOCK, [0, 0])
    block[0] += count
    block[1] += digest


KIND = FileKind(
    noun="journal",
    content="live changes",
    application_id=0x464D524A,  # "FMRJ"
    version=VERSION,
    create=ALL,
    hint=_HINT,
    error=JournalError,
    damaged=JournalDamagedError,
    busy=JournalBusyError,
    full=JournalFullError,
    read_only=JournalReadOnlyError,
    upgrade=_upgrade,
    wal_bytes=_WAL_BYTES,
)
"""Format, tables and errors of the file."""


def open_log(root: Path, setting: str | None = None) -> ChangeLog:
    """Open the change log of a root of published versions.

    Args:
        root: folder of published versions.
        setting: "sqlite" for a file in the root, or the address of a Redis; by default the value of RECALL_ITEMS, or "sqlite".

    Raises:
        ConfigError: The setting is neither, or the package redis is not installed.
    """
    setting = os.environ.get(VARIABLE, SQLITE) if setting is None else setting
    if setting == SQLITE:
        return SqliteChangeLog(root / JOURNAL)
    try:
        from recall.store.items.log_redis import RedisChangeLog
    except ModuleNotFoundError:
        raise ConfigError(
            "changes of items in Redis need the package redis",
            where="items",
            hint="Install it with: pip install 'fm-recall[redis]'",
        ) from None
    return RedisChangeLog(setting, HighWaterMark(root / MARK), catalog=lambda: catalog_of(root))
