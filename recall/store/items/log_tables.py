"""Tables of the change log: the last change of each item, in order of sequence.

    log      one row: identity, sequence of the last change, and what was dropped or written back
    entries  the last change of each item; a later change of the same item replaces the earlier one
    blocks   number and checksum sum of the entries of each 256 sequences: gaps are normal, and a lost entry is still noticed
    heads    hash over all changes up to a commit, for the latest commits: shows whether a reader's past is this file's past

All of it runs inside a transaction of the caller.
"""

import secrets
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from recall.errors import JournalDamagedError
from recall.store.group_commit import CREATE as CREATE_KEYS
from recall.store.items.log_base import LogTables
from recall.store.items.log_position import KEPT_HEADS, LogRow, State, next_head

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
MEND = "Take the journal back from a copy; or move it away, and give every change since the live version again"
_BLOCK = 8  # bits: 256 sequences, few enough to add up at each look, and few rows when all entries are far apart

_Sums = dict[int, list[int]]
"""Number of entries and sum of their checksums by block, of a table or of what changes in it."""


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
    def has_passed(self, sequence: int, head: bytes) -> bool:
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
        return JournalDamagedError(what, where=self.where, hint=MEND)


def upgrade(connection: sqlite3.Connection, where: str) -> None:
    """Turn tables of format 1, which kept every change, into those of today.

    Args:
        connection: in a transaction.
        where: what errors name.

    Raises:
        JournalDamagedError: a change is missing or was damaged.
    """
    old, new = (SqliteTables(connection, one, where) for one in (True, False))
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
