"""Tables of the change log: the last change of each item, in order of sequence.

    log      one row: identity, sequence of the last change, and what was dropped or written back
    entries  the last change of each item; a later change of the same item replaces the earlier one
    blocks   number and checksum sum of the entries of each 256 sequences: gaps are normal, and a lost entry is still noticed
    heads    hash over all changes up to a commit, for the latest commits: shows whether a reader's past is this file's past

Every function runs inside a transaction of the caller.
"""

import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from recall.store.group_commit import CREATE as CREATE_KEYS

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
KEPT_HEADS = 1024
"""Commits whose head is kept: far more than a reader that looks a hundred times a second is ever behind."""
_BLOCK = 8  # bits: 256 sequences, few enough to add up at each look, and few rows when all entries are far apart


class State(NamedTuple):
    """Metadata of a log.

    Attributes:
        identity: random, given when the file was created.
        last: sequence of the last change.
        pruned: changes up to this sequence are not in the file, or not all of them.
        head: hash over all changes so far.
        at: microseconds since 1970 of the last change; later changes have later times even if the clock is set back.
        number, digest: how many entries there are, and the sum of their checksums.
        unnamed: whether versions that name no log, as those of formats 1 to 3, count in this one.
        base: identity of an earlier log that this one has taken over; its own, if it was begun again after a loss.
        base_from, base_through: its changes after the first and up to the second are here. Those before are in versions only.
    """

    identity: str
    last: int
    pruned: int
    head: bytes
    at: int
    number: int
    digest: int
    unnamed: int
    base: str | None
    base_from: int
    base_through: int


class LogRow(NamedTuple):
    """One stored change.

    `features` is JSON, or None for a deletion, and `at` microseconds since 1970.
    """

    sequence: int
    item_id: str
    features: bytes | None
    at: int


class DamagedError(Exception):
    """Entries are missing, or are not what was written; the message says which."""


def read_state(connection: sqlite3.Connection) -> State:
    """Return the metadata of the log."""
    return State(*connection.execute("SELECT * FROM log").fetchall()[0])


def write_state(connection: sqlite3.Connection, state: State) -> None:
    """Replace the state of the log.

    Args:
        connection: in a transaction.
        state: the new one.
    """
    connection.execute("DELETE FROM log")
    connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", state)


def taken_over(state: State, identity: str, held: int, through: int) -> State:
    """Return the state of a log that gets back changes of its own or an earlier log.

    Args:
        state: before.
        identity: of the log that they are from.
        held: all of its changes after this sequence,
        through: and up to this one are there afterwards.
    """
    again = state.base == identity
    if again and held <= state.base_through and state.base_from <= through:  # else there is a gap between the two
        held, through = min(held, state.base_from), max(through, state.base_through)
    elif state.identity == identity:
        if held <= state.last:
            return state
        held = through = max(held, state.base_from)  # an older copy of the file, which ends before what versions hold
    elif state.base is not None:
        if state.base_from and not held:
            return state  # what is known to be missing counts for more than a log of which nothing is
        held = max(held, state.base_from)
        through = max(held, through)
    pruned = min(state.pruned, held) if again and state.pruned <= state.base_from else state.pruned
    return state._replace(base=identity, base_from=held, base_through=through, pruned=pruned)


def lacking(state: State, log: str | None, compacted_through: int) -> int:
    """Return up to which sequence changes are missing from both log and version.

    This happens to a log that was begun again after a loss.

    Args:
        state: of the log.
        log: identity of the one whose changes the version contains, None if not recorded.
        compacted_through: the version contains them up to this sequence.

    Returns:
        Sequence in the earlier log; 0 when nothing is missing.
    """
    if state.base is None or (log == state.base and compacted_through >= state.base_from):
        return 0
    # numbers after those of the earlier log were given when the two were one, so a version of that time held all
    return 0 if log == state.identity and compacted_through >= state.base_through else state.base_from


def add(connection: sqlite3.Connection, state: State, rows: Sequence[tuple[str, bytes | None, int]], digest: bytes) -> State:
    """Append a batch as one commit, and drop earlier changes of the same items.

    Args:
        connection: in a transaction.
        state: of the log before.
        rows: id, features and time of each change; of two that name one item the later counts.
        digest: of the batch.

    Returns:
        The state after, which is stored.
    """
    changes: dict[int, list[int]] = {}
    newest = {item_id: place for place, (item_id, _, _) in enumerate(rows, start=state.last + 1)}
    count, total = state.number, state.digest
    for item_id, place in newest.items():
        _, features, at = rows[place - state.last - 1]
        gone = connection.execute("DELETE FROM entries WHERE item_id = ? RETURNING sequence, checksum", (item_id,)).fetchall()
        for sequence, old in gone:
            _note(changes, sequence, -1, -old)
            count, total = count - 1, total - old
        own = checksum(place, item_id, features)
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (place, item_id, features, at, own))
        _note(changes, place, 1, own)
        count, total = count + 1, total + own
    _write_blocks(connection, changes)
    head = next_head(state.head, digest) if rows else state.head
    last = state.last + len(rows)
    after = state._replace(last=last, head=head, at=max([state.at, *(at for _, _, at in rows)]), number=count, digest=total)
    write_state(connection, after)
    keep_head(connection, last, head)
    return after


def next_head(head: bytes, digest: bytes) -> bytes:
    """Return the hash over all changes after a batch.

    Args:
        head: before.
        digest: of the batch.
    """
    return blake2b(head + digest, digest_size=16).digest()


def restore(connection: sqlite3.Connection, rows: Iterable[LogRow]) -> tuple[int, int]:
    """Write entries under their old sequences; return number and sum of checksums.

    Args:
        connection: in a transaction.
        rows: the entries.
    """
    changes: dict[int, list[int]] = {}
    count = total = 0
    for row in rows:
        own = checksum(row.sequence, row.item_id, row.features)
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (*row, own))
        _note(changes, row.sequence, 1, own)
        count, total = count + 1, total + own
    _write_blocks(connection, changes)
    return count, total


def drop(connection: sqlite3.Connection, upto: int) -> int:
    """Drop all entries up to a sequence; return how many there were.

    Args:
        connection: in a transaction.
        upto: the sequence.
    """
    state = read_state(connection)
    changes: dict[int, list[int]] = {}
    count, total = state.number, state.digest
    gone = connection.execute("DELETE FROM entries WHERE sequence <= ? RETURNING sequence, checksum", (upto,)).fetchall()
    for sequence, old in gone:
        _note(changes, sequence, -1, -old)
        count, total = count - 1, total - old
    _write_blocks(connection, changes)
    write_state(connection, state._replace(pruned=max(state.pruned, upto), number=count, digest=total))
    return len(gone)


def keep_head(connection: sqlite3.Connection, sequence: int, head: bytes) -> None:
    """Remember the head after a commit, and forget the oldest.

    Args:
        connection: in a transaction.
        sequence: of the last change.
        head: hash over all changes.
    """
    number = connection.execute("INSERT OR REPLACE INTO heads (sequence, head) VALUES (?, ?)", (sequence, head)).lastrowid
    connection.execute("DELETE FROM heads WHERE number <= ?", ((number or 0) - KEPT_HEADS,))


def has_passed(connection: sqlite3.Connection, sequence: int, head: bytes) -> bool:
    """Return whether the log once ended with a sequence and head, if remembered.

    Args:
        connection: in a transaction.
        sequence: of a change.
        head: hash over all changes up to it.
    """
    if sequence == 0:
        return True
    return connection.execute("SELECT head FROM heads WHERE sequence = ?", (sequence,)).fetchall() == [(head,)]


def rows_after(connection: sqlite3.Connection, sequence: int, *, whole: bool = False) -> list[LogRow]:
    """Return the entries after a sequence, in order.

    Args:
        connection: in a transaction.
        sequence: of the last change that is not wanted.
        whole: check the sums of all blocks against the log's own as well.

    Raises:
        DamagedError: one is missing or was damaged.
    """
    first = (sequence + 1) >> _BLOCK
    held = {
        block: [count, digest] for block, count, digest in connection.execute("SELECT * FROM blocks WHERE block >= ?", (first,))
    }
    before = "SELECT count(*), coalesce(sum(checksum), 0) FROM entries WHERE sequence BETWEEN ? AND ?"
    passed = connection.execute(before, (first << _BLOCK, sequence)).fetchone()
    found: dict[int, list[int]] = {first: list(passed)} if passed[0] else {}
    rows = []
    statement = "SELECT sequence, item_id, features, at, checksum FROM entries WHERE sequence > ? ORDER BY sequence"
    for number, item_id, features, at, own in connection.execute(statement, (sequence,)):
        if not isinstance(item_id, str) or checksum(number, item_id, features) != own:
            raise DamagedError(f"change {number} was damaged after it was written")
        _note(found, number, 1, own)
        rows.append(LogRow(number, item_id, features, at))
    if found != held:
        wrong = min(block for block in found.keys() | held.keys() if found.get(block) != held.get(block))
        raise DamagedError(
            f"changes among those from {wrong << _BLOCK} to {((wrong + 1) << _BLOCK) - 1} are missing from the journal"
        )
    if whole:
        totals = connection.execute("SELECT coalesce(sum(count), 0), coalesce(sum(digest), 0) FROM blocks").fetchone()
        if tuple(totals) != connection.execute("SELECT number, digest FROM log").fetchone():
            raise DamagedError("changes are missing from the journal")
    return rows


def checksum(sequence: int, item_id: str, features: bytes | None) -> int:
    """Return the checksum of one entry.

    Args:
        sequence: of the entry.
        item_id: of the entry.
        features: JSON, or None for a deletion.
    """
    parts = (str(sequence).encode(), item_id.encode(), b"deleted" if features is None else b"given", features or b"")
    return zlib.crc32(b"\0".join(parts))


def upgrade(connection: sqlite3.Connection) -> None:
    """Turn tables of format 1, which kept every change, into those of today.

    Raises:
        DamagedError: a change is missing or was damaged.
    """
    pruned = int(connection.execute("SELECT pruned FROM state").fetchone()[0])
    newest, last = _rows_of_format_1(connection, pruned)
    connection.execute("ALTER TABLE changes RENAME TO old")
    connection.execute("DROP TABLE state")
    for statement in CREATE:
        connection.execute(statement)
    count, total = restore(connection, sorted(newest.values()))
    connection.execute("DROP TABLE old")
    state = read_state(connection)
    head = secrets.token_bytes(16)
    write_state(connection, state._replace(last=last, pruned=pruned, head=head, at=last, number=count, digest=total, unnamed=1))
    if last:
        keep_head(connection, last, head)


def state_of_format_1(connection: sqlite3.Connection) -> State:
    """Return `read_state` of a read-only file of format 1."""
    pruned = int(connection.execute("SELECT pruned FROM state").fetchone()[0])
    last = int(connection.execute("SELECT coalesce(max(sequence), 0) FROM changes").fetchone()[0])
    return State("", max(last, pruned), pruned, b"", 0, 0, 0, 1, None, 0, 0)


def rows_of_format_1(connection: sqlite3.Connection, sequence: int) -> list[LogRow]:
    """Return `rows_after` of a file of format 1.

    Args:
        connection: in a transaction.
        sequence: after which rows are returned.
    """
    return sorted(_rows_of_format_1(connection, sequence)[0].values())


def _rows_of_format_1(connection: sqlite3.Connection, sequence: int) -> tuple[Mapping[str, LogRow], int]:
    newest: dict[str, LogRow] = {}
    last = sequence
    statement = "SELECT sequence, item_id, features, checksum FROM changes WHERE sequence > ? ORDER BY sequence"
    for number, item_id, features, own in connection.execute(statement, (sequence,)):
        last += 1
        if number != last:
            raise DamagedError(f"change {last} is missing from the journal")
        if not isinstance(item_id, str) or checksum(number, item_id, features) != own:
            raise DamagedError(f"change {number} was damaged after it was written")
        newest[item_id] = LogRow(number, item_id, features, number)  # long before any time that is written today
    return newest, last


def _note(changes: dict[int, list[int]], sequence: int, count: int, digest: int) -> None:
    both = changes.setdefault(sequence >> _BLOCK, [0, 0])
    both[0] += count
    both[1] += digest


def _write_blocks(connection: sqlite3.Connection, changes: Mapping[int, Sequence[int]]) -> None:
    statement = (
        "INSERT INTO blocks VALUES (?, ?, ?) ON CONFLICT (block)"
        " DO UPDATE SET count = count + excluded.count, digest = digest + excluded.digest"
    )
    connection.executemany(statement, [(block, *both) for block, both in changes.items() if any(both)])
    connection.executemany("DELETE FROM blocks WHERE block = ? AND count = 0", [(block,) for block in changes])


ALL = (*CREATE, CREATE_KEYS)
"""Statements that create all tables."""
