"""Change log in one SQLite file, in a root of published versions.

    log      one row: identity, sequence of the last change, and what was dropped or written back
    entries  the last change of each item; a later change of the same item replaces the earlier one
    blocks   number and checksum sum of the entries of each 256 sequences: gaps are normal, and a lost entry is still noticed
    heads    hash over all changes up to a commit, for the latest commits: shows whether a reader's past is this file's past

The file is in WAL mode and fsynced at every commit. A batch is one transaction. SQLite lets one process write at a time and any
number read meanwhile; concurrent writers of one process share one transaction, and so one fsync.
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
from recall.store.items.log_position import KEPT_HEADS, MARK, LogRow, State, next_head
from recall.store.sqlite import FileKind, folder_lock, snapshot

JOURNAL = "journal.sqlite"
"""Name of the file in a root of published versions."""
VERSION = 2
SQLITE = "sqlite"
VARIABLE = "RECALL_ITEMS"
"""Environment variable that says where the changes of items are kept."""

_WAL_BYTES = 4 << 20  # of the -wal file that are kept after a checkpoint; a large batch makes it longer for a while

CREATE = (
    "CREATE TABLE log (identity TEXT NOT NULL, last INTEGER NOT NULL, pruned INTEGER NOT NULL, head BLOB NOT NULL,"
    " at INTEGER NOT NULL, number INTEGER NOT NULL, digest INTEGER NOT NULL, unnamed INTEGER NOT NULL,"
    " base TEXT, base_from INTEGER NOT NULL, base_through INTEGER NOT NULL)",
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, features BLOB, at INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL)",
    "CREATE TABLE blocks (block INTEGER PRIMARY KEY, count INTEGER NOT NULL, digest INTEGER NOT NULL)",
    "CREATE TABLE heads (number INTEGER PRIMARY KEY, sequence INTEGER NOT NULL UNIQUE, head BLOB NOT NULL)",
    # format 1 called the table so: what still writes that format fails, instead of writing past the checksums
    "CREATE VIEW changes AS SELECT sequence, item_id, features, checksum FROM entries",
    "INSERT INTO log VALUES (lower(hex(randomblob(16))), 0, 0, x'', 0, 0, 0, 0, NULL, 0, 0)",
)
ALL = (*CREATE, CREATE_KEYS)
"""Statements that create all tables."""
_HINT = "Take the journal back from a copy; or move it away, and give every change since the live version again"
_BLOCK = 8  # bits: 256 sequences, few enough to add up at each look, and few rows when all entries are far apart

_Sums = dict[int, list[int]]
"""Number of entries and sum of their checksums by block, of a table or of what changes in it."""


class SqliteChangeLog(DurableLog[ItemBatch], ChangeLog):
    """The log in a file; no file is needed before the first change."""

    def __init__(self, path: Path, wait: float = 5.0) -> None:
        """Open nothing yet.

        Args:
            path: the file.
            wait: seconds that a writer waits for another process to finish.
        """
        super().__init__(path, KIND, MARK, wait, wait)

    @override
    def version(self) -> tuple[int, int]:
        asked = "PRAGMA data_version"
        return self._read(lambda one: (self._reader.opened, int(one.execute(asked).fetchone()[0])), (0, 0))

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
            for rest in ("-shm", "-wal", ""):  # the file itself last: without it, what is beside it counts for nothing
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + rest).rename(self.path.with_name(name + rest))
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
        found = 0
        for name in (self.path.name, f"{self.path.name}-wal"):
            with suppress(OSError):
                found += self.path.with_name(name).stat().st_size
        return found

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
        with self._write_transaction() as connection:
            return change(SqliteTables(connection, False, self.where))

    @override
    def _store(self, batches: Sequence[ItemBatch]) -> None:
        mark = self.mark.read()
        if mark is not None and mark.identity.startswith(REMOTE):  # it would be a second log, which no service reads
            raise JournalReadOnlyError(
                "the changes of these items are kept in a Redis",
                where=self.where,
                why=f"{MARK} says so, and {VARIABLE} or --items names none",
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
        connection: to the file.
        old: whether the file is of format 1, which is read only.
        where: what errors name.
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
        asked = "SELECT head FROM heads WHERE sequence = ?"
        return sequence == 0 or self.connection.execute(asked, (sequence,)).fetchall() == [(head,)]

    @override
    def rows_after(self, sequence: int, *, whole: bool) -> list[LogRow]:
        if self.old:
            return self._rows_of_format_1(sequence)
        first = (sequence + 1) >> _BLOCK
        asked = "SELECT * FROM blocks WHERE block >= ?"
        held = {block: [count, digest] for block, count, digest in self.connection.execute(asked, (first,))}
        before = "SELECT count(*), coalesce(sum(checksum), 0) FROM entries WHERE sequence BETWEEN ? AND ?"
        passed = self.connection.execute(before, (first << _BLOCK, sequence)).fetchone()
        found: _Sums = {first: list(passed)} if passed[0] else {}
        rows = []
        statement = "SELECT sequence, item_id, features, at, checksum FROM entries WHERE sequence > ? ORDER BY sequence"
        for number, item_id, features, at, own in self.connection.execute(statement, (sequence,)):
            self._check(number, item_id, features, own)
            _note(found, number, 1, own)
            rows.append(LogRow(number, item_id, features, at))
        if found != held:
            wrong = min(block for block in found.keys() | held.keys() if found.get(block) != held.get(block))
            raise self._damaged(
                f"changes among those from {wrong << _BLOCK} to {((wrong + 1) << _BLOCK) - 1} are missing from the journal"
            )
        if whole:
            totals = self.connection.execute("SELECT coalesce(sum(count), 0), coalesce(sum(digest), 0) FROM blocks").fetchone()
            if tuple(totals) != self.connection.execute("SELECT number, digest FROM log").fetchone():
                raise self._damaged("changes are missing from the journal")
        return rows

    @override
    def time_of(self, item_id: str) -> int:
        found = self.connection.execute("SELECT at FROM entries WHERE item_id = ?", (item_id,)).fetchall()
        return int(found[0][0]) if found else -1

    @override
    def add(self, state: State, rows: Sequence[tuple[str, bytes | None, int]], digest: bytes) -> State:
        newest = {item_id: place for place, (item_id, _, _) in enumerate(rows, start=state.last + 1)}
        sums: _Sums = {}
        for item_id, place in newest.items():
            _, features, at = rows[place - state.last - 1]
            self._delete(sums, "DELETE FROM entries WHERE item_id = ? RETURNING sequence, checksum", item_id)
            self._insert(sums, LogRow(place, item_id, features, at))
        head = next_head(state.head, digest) if rows else state.head
        latest = max([state.at, *(at for _, _, at in rows)])
        return self._write(state._replace(last=state.last + len(rows), head=head, at=latest), sums)

    @override
    def restore(self, state: State, rows: Sequence[LogRow]) -> State:
        sums: _Sums = {}
        for row in rows:
            self._insert(sums, row)
        return self._write(state._replace(number=0, digest=0), sums)

    @override
    def drop(self, upto: int) -> int:
        state, sums = self.state(), _Sums()
        count = self._delete(sums, "DELETE FROM entries WHERE sequence <= ? RETURNING sequence, checksum", upto)
        self._write(state._replace(pruned=max(state.pruned, upto)), sums)
        return count

    def _insert(self, sums: _Sums, row: LogRow) -> None:
        own = _checksum(row.sequence, row.item_id, row.features)
        self.connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (*row, own))
        _note(sums, row.sequence, 1, own)

    def _delete(self, sums: _Sums, statement: str, which: str | int) -> int:
        """Delete entries by a statement that returns them; return how many there were."""
        gone = self.connection.execute(statement, (which,)).fetchall()
        for sequence, own in gone:
            _note(sums, sequence, -1, -own)
        return len(gone)

    def _write(self, state: State, changes: _Sums) -> State:
        """Write what changed of the entries' sums, the state, and its head.

        Returns:
            The state with the sums, as it is stored.
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
        """Return `rows_after` of a file of format 1, which kept every change."""
        newest: dict[str, LogRow] = {}
        asked = "SELECT sequence, item_id, features, checksum FROM changes WHERE sequence > ? ORDER BY sequence"
        found = self.connection.execute(asked, (sequence,))
        for expected, (number, item_id, features, own) in enumerate(found, start=sequence + 1):
            if number != expected:
                raise self._damaged(f"change {expected} is missing from the journal")
            self._check(number, item_id, features, own)
            newest[item_id] = LogRow(number, item_id, features, number)  # long before any time that is written today
        return sorted(newest.values())

    def _check(self, number: int, item_id: object, features: bytes | None, checksum: int) -> None:
        """Raise JournalDamagedError for an entry that is not what was written."""
        if not isinstance(item_id, str) or _checksum(number, item_id, features) != checksum:
            raise self._damaged(f"change {number} was damaged after it was written")

    def _damaged(self, what: str) -> JournalDamagedError:
        return JournalDamagedError(what, where=self.where, hint=_HINT)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Turn tables of format 1, which kept every change, into those of today.

    Raises:
        JournalDamagedError: a change is missing or was damaged.
    """
    old, new = (SqliteTables(connection, one, JOURNAL) for one in (True, False))
    before = old.state()
    rows = old.rows_after(before.pruned, whole=True)
    connection.execute("ALTER TABLE changes RENAME TO old")
    connection.execute("DROP TABLE state")
    for statement in CREATE:
        connection.execute(statement)
    head, last = secrets.token_bytes(16), before.last
    new.restore(new.state()._replace(last=last, pruned=before.pruned, head=head, at=last, unnamed=1), rows)
    connection.execute("DROP TABLE old")


def _checksum(sequence: int, item_id: str, features: bytes | None) -> int:
    parts = (str(sequence).encode(), item_id.encode(), b"deleted" if features is None else b"given", features or b"")
    return zlib.crc32(b"\0".join(parts))


def _note(sums: _Sums, sequence: int, count: int, digest: int) -> None:
    both = sums.setdefault(sequence >> _BLOCK, [0, 0])
    both[0] += count
    both[1] += digest


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
"""Tables, identification and errors of the file."""


def open_log(root: Path, setting: str | None = None) -> ChangeLog:
    """Open the log of the changes that are served on top of a root's versions.

    Args:
        root: of published versions.
        setting: "sqlite" for a file in the root, or the address of a Redis; by default what RECALL_ITEMS says, or "sqlite".

    Raises:
        ConfigError: The setting is neither, or what it needs is not installed.
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
