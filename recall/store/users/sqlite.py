"""Store of user changes in one SQLite file, in the root of published versions.

Like the change log of items, it is in WAL mode, fsynced at every commit, with one writing process at a time and any number of
readers. Reads are not cached, so they reflect the acknowledged changes of all processes.
"""

import sqlite3
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import override

from recall.bundle.versions import catalog_of
from recall.errors import ConfigError, StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError
from recall.store.group_commit import CREATE_KEYS, DurableLog, PendingWrite
from recall.store.high_water_mark import HighWaterMark, Loss, damage_warning
from recall.store.sqlite import FileKind
from recall.store.users.changes import (
    READ_SECONDS,
    LiveUsers,
    UserChange,
    WriteResult,
    apply_changes,
    batch_digest,
    group_by_user,
)
from recall.store.users.record import LiveUser

USERS_LIVE = "users.live.sqlite"
"""Name of the file in a root of published versions."""
USERS_MARK = "users.live.mark"
"""File name of its high-water mark."""


def _upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade a file of format 1, which has no identity."""
    connection.execute("ALTER TABLE state ADD COLUMN identity TEXT NOT NULL DEFAULT ''")
    connection.execute("UPDATE state SET identity = lower(hex(randomblob(16)))")


_HINT = "Restore the file from a copy; or move it away, and users are as in the live version"
_KIND = FileKind(
    noun="file of users",
    content="live changes",
    application_id=0x464D5255,  # "FMRU"
    version=2,
    create=(
        "CREATE TABLE users (number INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, known INTEGER NOT NULL,"
        " record BLOB NOT NULL, checksum INTEGER NOT NULL)",
        CREATE_KEYS,
        "CREATE TABLE state (sequence INTEGER NOT NULL, identity TEXT NOT NULL)",
        "INSERT INTO state VALUES (0, lower(hex(randomblob(16))))",
    ),
    hint=_HINT,
    error=StoreError,
    busy=StoreBusyError,
    full=StoreFullError,
    read_only=StoreReadOnlyError,
    upgrade=_upgrade,
    wal_bytes=4 << 20,
)
_LOSS_HINT = (
    "Put the whole file back from a backup, its -wal file included, or make those changes again; "
    f"to go on without them, remove {USERS_MARK}"
)
_READ_WAIT = 0.05  # seconds: a reader waits only for a process that recovers the file after a crash
_READ_BATCH = 32  # users read before the lock is released: a request for one user does not wait for a thousand

_Row = tuple[bytes, int]


@dataclass(eq=False, kw_only=True)
class _Batch(PendingWrite):
    """Batch of changes of one caller; `known` is that of `WriteResult`."""

    changes: tuple[UserChange, ...]
    known: dict[str, bool | None] = field(init=False, default_factory=dict)


class SqliteLiveUsers(DurableLog[_Batch], LiveUsers):
    """Store in a SQLite file, which the first write creates; see `LiveUsers`."""

    remote = False

    def __init__(self, path: Path, wait: float = 5.0) -> None:
        """Open nothing yet.

        Args:
            path: path of the file.
            wait: seconds that a writer waits for the lock of another process.
        """
        super().__init__(path, _KIND, USERS_MARK, wait, _READ_WAIT)
        self._seen: tuple[str, int] | None = None

    @override
    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser | StoreError]:
        read: list[tuple[str, list[_Row]]] = []
        for start in range(0, len(user_ids), _READ_BATCH):
            with self._reading, self._reader.translate_errors("read"):
                connection = self._reader.reader()
                if connection is None:
                    return {}
                read += [(user_id, _fetch(connection, user_id)) for user_id in user_ids[start : start + _READ_BATCH]]
        return {user_id: user for user_id, rows in read if (user := self._user(user_id, rows)) is not None}

    @override
    def write(self, changes: Sequence[UserChange], key: str | None = None) -> WriteResult:
        batch = _Batch(changes=tuple(changes), key=key, digest=batch_digest(tuple(changes)))
        last = self._commit(batch)
        if batch.repeated:
            now = self.get([*group_by_user(changes)])
            batch.known = {one: isinstance(user, LiveUser) and user.known for one, user in now.items()}
        return WriteResult(last, batch.repeated, batch.known)

    @override
    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        statement = "SELECT user_id FROM users WHERE known AND (?1 IS NULL OR user_id > ?1) ORDER BY user_id LIMIT ?2"
        return self._read(lambda one: [row[0] for row in one.execute(statement, (after, count)).fetchall()], [])

    @override
    def sequence(self) -> int:
        return self._read(_sequence, 0)

    def identity(self) -> str:
        """Return the random identity of the file; empty if there is no file.

        Raises:
            StoreError: The file cannot be read.
        """
        return self._read(lambda one: self._state(one)[1], "")

    @override
    def error(self) -> str:
        mark = self.mark.read()  # before the file, which other processes write meanwhile
        state = self._read(self._state, None)
        sequence, identity = state or (0, "")
        mark, seen = self.mark.raise_to(mark, identity, sequence), self._seen
        if mark is not None and mark.first_loss is not None:
            return f"acknowledged changes of users up to {mark.first_loss.through} are missing from their file. {_LOSS_HINT}"
        bounds = [bound for bound in (seen, None if mark is None else (mark.identity, mark.sequence)) if bound is not None]
        acknowledged = max([last for name, last in bounds if name != identity or last > sequence], default=0)
        no_loss_marked = mark is None or (mark.identity == identity and not mark.losses)
        if seen is not None and seen[0] != identity and state is not None and no_loss_marked:
            # The operator removed the mark, which accepts the loss: else the first write would have recorded it there.
            self._seen, acknowledged = (identity, sequence), 0
        if not acknowledged:
            self._seen = (identity, sequence) if identity else seen
            return damage_warning(mark, USERS_MARK, "the file of users")
        if state is None:
            return f"the file of users is gone, and acknowledged changes up to {acknowledged} with it. {_LOSS_HINT}"
        return f"the file of users was replaced or cut short: {acknowledged} changes were acknowledged. {_LOSS_HINT}"

    @override
    def durability_warning(self) -> str:
        return ""

    @override
    def _insert(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        users = {user_id: self._user(user_id, _fetch(connection, user_id)) for user_id in group_by_user(batch.changes)}
        batch.known = {user_id: None if user is None else user.known for user_id, user in users.items()}
        after = apply_changes(users, batch.changes, time.time())
        rows = [(user_id, user.known, raw := user.to_json(), _checksum(user_id, raw)) for user_id, user in after.items()]
        connection.executemany(
            "INSERT INTO users (user_id, known, record, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (user_id)"
            " DO UPDATE SET known = excluded.known, record = excluded.record, checksum = excluded.checksum",
            rows,
        )
        before, identity = self._state(connection)
        mark, lost = self.mark.read(), None
        if mark is not None and mark.identity == identity and mark.sequence > before:
            lost = Loss(identity, mark.sequence)  # sequences are never reused
        batch.last = max(before, 0 if mark is None else mark.sequence) + len(batch.changes)
        connection.execute("UPDATE state SET sequence = ?", (batch.last,))
        self._stage_mark(identity, batch.last, lost=lost)

    @override
    def _forget(self, connection: sqlite3.Connection, ids: Sequence[str]) -> None:
        connection.executemany("DELETE FROM users WHERE user_id = ?", [(one,) for one in ids])

    def _state(self, connection: sqlite3.Connection) -> tuple[int, str]:
        if self._reader.version == 1:
            return _sequence(connection), ""
        sequence, identity = connection.execute("SELECT sequence, identity FROM state").fetchall()[0]
        return int(sequence), str(identity)

    def _user(self, user_id: str, rows: list[_Row]) -> LiveUser | None:
        if not rows:
            return None
        record, checksum = rows[0]
        if not isinstance(record, bytes) or _checksum(user_id, record) != checksum:
            raise StoreError(f"user {user_id!r} was damaged after it was written", where=str(self.path), hint=_HINT)
        return LiveUser.from_json(record)


def _fetch(connection: sqlite3.Connection, user_id: str) -> list[_Row]:
    # fetchall although there is at most one row: an unfinished statement keeps its read snapshot open
    return connection.execute("SELECT record, checksum FROM users WHERE user_id = ?", (user_id,)).fetchall()


def _sequence(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT sequence FROM state").fetchall()[0][0])


def _checksum(user_id: str, record: bytes) -> int:
    return zlib.crc32(user_id.encode() + b"\0" + record)


SQLITE = "sqlite"


def open_live_users(
    setting: str, root: Path | None, read_seconds: float = READ_SECONDS, *, exported: bool = False
) -> LiveUsers | None:
    """Open the store of user changes; None for "sqlite" without a root.

    Args:
        setting: "sqlite" for a file in the root of published versions, or the address of a Redis.
        root: root of published versions, with the SQLite file, or the high-water mark of the Redis; None if there is none.
        read_seconds: time limit of a read from another machine.
        exported: whether the users of bundles are read from the Redis, too.

    Raises:
        ConfigError: The setting is neither, is "sqlite" with `exported`, or the package redis is not installed.
    """
    if setting == SQLITE and exported:
        hint = "Name it with --users redis://HOST:PORT/DB, or read them from the bundle"
        raise ConfigError("exported users are to be read from a Redis, and none is named", where="exported_users", hint=hint)
    if setting == SQLITE:
        return None if root is None else SqliteLiveUsers(root / USERS_LIVE)
    try:
        from recall.store.users.redis import USERS_REDIS_MARK, RedisLiveUsers
    except ModuleNotFoundError:
        raise ConfigError(
            "users in Redis need the package redis", where="users", hint="Install it with: pip install 'fm-recall[redis]'"
        ) from None
    if root is None:
        return RedisLiveUsers(setting, read_seconds=read_seconds, exported=exported)
    mark = HighWaterMark(root / USERS_REDIS_MARK)
    return RedisLiveUsers(setting, read_seconds=read_seconds, mark=mark, catalog=lambda: catalog_of(root), exported=exported)
