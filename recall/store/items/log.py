"""Change log: the last change of each item, on disk before it is acknowledged.

One SQLite file in a root of published versions, in WAL mode and fsynced at every commit. A change has a sequence: 1, 2, 3
and so on over all processes. A batch is one transaction. SQLite lets one process write at a time and any number read
meanwhile; concurrent writers of one process share one transaction, and so one fsync.

A later change of an item replaces the earlier one, so the file does not grow with history, and a reader that starts needs no
more. Changes stay in the log when a version contains them: a version that is trained from older tables needs them again.

The log has an identity, which distinguishes it from a different log in its place, for versions, readers and tokens. How far it
reached is noted outside of it as well; see `recall.store.high_water_mark`.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson
from typing_extensions import override

from recall.errors import (
    JournalBusyError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalReadOnlyError,
)
from recall.store.group_commit import DurableLog, PendingWrite
from recall.store.high_water_mark import Lost
from recall.store.items import log_tables
from recall.store.items.log_position import MARK, Base, Change, MovedError, Reading, to_json
from recall.store.items.log_tables import DamagedError, LogRow, State
from recall.store.sqlite import FileKind, folder_lock, snapshot

JOURNAL = "journal.sqlite"
"""Name of the file in a root of published versions."""
VERSION = 2

_MEND = "Take the journal back from a copy; or move it away, and give every change since the live version again"
_WAL_BYTES = 4 << 20  # of the -wal file that are kept after a checkpoint; a large batch makes it longer for a while


@dataclass(eq=False, kw_only=True)
class _Batch(PendingWrite):
    """Changes that one caller wants written; for the rest see `ChangeLog.append`."""

    rows: list[tuple[str, bytes | None]]
    after: int
    base: Base
    expected: State | None


class ChangeLog(DurableLog[_Batch]):
    """The log of one root; no file is needed before the first change. Thread-safe."""

    def __init__(self, path: Path, wait: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        """Open nothing yet.

        Args:
            path: the file.
            wait: seconds that a writer waits for another process to finish.
            clock: gives seconds since 1970.
        """
        super().__init__(path, KIND, MARK, wait, wait)
        self._clock = clock
        self._written: tuple[State, tuple[Lost, ...], Lost | None] | None = None

    def append(
        self,
        changes: Sequence[Change],
        key: str | None = None,
        after: int = 0,
        base: Base = Base(),  # noqa: B008 - immutable
        expected: State | None = None,
    ) -> int:
        """Write a batch; it is on disk when this returns.

        Args:
            changes: in order; of two that name one item the later counts.
            key: idempotency key. A batch with a key that the log remembers is not written again.
            after: sequences that must precede this batch, whatever the file contains.
            base: what the served version contains of the log, so that a new file does not number it again.
            expected: where the caller has read to. The batch is written only if the log still continues from there.

        Returns:
            The sequence of the last change; of a batch that was written before, what was returned then.

        Raises:
            MovedError: The log does not continue from `expected`.
            RequestError: The key belongs to other changes.
            JournalBusyError: Another process held the lock for the whole wait.
            JournalFullError: The disk is full.
            JournalReadOnlyError: The file cannot be written.
            JournalError: The file system refused, or the file is not a log. Then nothing was acknowledged: the batch may
                have been written or not, and can be sent again with the same key.
        """
        rows = [(one, None if values is None else to_json(values)) for one, values in changes]
        digest = blake2b(orjson.dumps([(one, (raw or b"").decode()) for one, raw in rows]), digest_size=16).digest()
        return self._commit(_Batch(rows=rows, key=key, digest=digest, after=after, base=base, expected=expected))

    def write_back(self, rows: Iterable[LogRow], known: State, held: int) -> int:
        """Write back acknowledged changes that the file has lost.

        Args:
            rows: changes; only those later than what the file has of the same item count.
            known: the log that they are from, as it was when the caller had read all of it.
            held: the caller's version contains its changes up to this sequence, and `rows` are all later ones.

        Returns:
            How many were written.

        Raises:
            JournalError: As `append`.
        """
        with self._alone() as connection:
            state, mark, lost = log_tables.read_state(connection), self.mark.read(), None
            written = sorted(rows)
            own = len({row.sequence for row in written}) == len(written)  # else some are from other logs, before this one
            if own and state.last == 0 and state.base is None:  # a new file: it becomes the log that is gone
                count, digest = log_tables.restore(connection, written)
                state = known._replace(pruned=max(known.pruned, held), number=count, digest=digest)
                if held > known.pruned:
                    state = state._replace(base=known.identity, base_from=held, base_through=held)
                log_tables.write_state(connection, state)
                log_tables.keep_head(connection, state.last, state.head)
            else:
                written = [row for row in sorted(written, key=_time) if row.at > _time_of(connection, row.item_id)]
                raws = [(row.item_id, row.features, row.at) for row in written]
                before = max(state.last, known.last)
                if mark is not None and mark.sequence > before:
                    if mark.identity == state.identity:
                        lost = Lost(mark.identity, mark.sequence)
                    before = mark.sequence  # numbers are not given twice
                state = log_tables.taken_over(state, known.identity, held, known.last)._replace(last=before)
                state = log_tables.add(connection, state, raws, blake2b(repr(raws).encode(), digest_size=16).digest())
            self._written = state, (Lost(known.identity, known.last),), lost
        return len(written)

    def read(self, position: State | None, base: Base) -> Reading:
        """Return what was written since a position, or everything if the log was replaced.

        Args:
            position: of the reader; None for one that starts.
            base: what its version contains of the log.

        Raises:
            JournalError: The file cannot be read, is damaged, or no longer has what the version lacks.
        """
        with self._reading, self._reader.reports("read"):
            mark = self.mark.read()  # before the log, which others write meanwhile
            connection = self._reader.reader()
            if connection is None:
                return Reading(None, [], 0, False, mark)
            with snapshot(connection):
                state = self._state(connection)
                goes_on = position is not None and self._goes_on(connection, state, position)
                held, start = (0, position.last) if goes_on and position is not None else self._start(state, base)
                rows = self._rows(connection, start, whole=not goes_on)
            mark = self.mark.follow(mark, state.identity, state.last)
            return Reading(state, rows, held, goes_on, mark, log_tables.lacking(state, base.log, base.compacted_through))

    def state(self) -> State | None:
        """Return the state of the log, or None when there is no file.

        Raises:
            JournalError: The file cannot be read.
        """
        return self._read(self._state, None)

    def version(self) -> tuple[int, int]:
        """Return a cheap token that changes after every committed write.

        Raises:
            JournalError: The file cannot be read.
        """
        asked = "PRAGMA data_version"
        return self._read(lambda one: (self._reader.opened, int(one.execute(asked).fetchone()[0])), (0, 0))

    def prune(self, upto: int) -> int:
        """Drop the changes up to a sequence that no version needs; return how many.

        Raises:
            JournalError: The file cannot be written.
        """
        if not self.path.exists():
            return 0
        with self._alone() as connection:
            count = log_tables.drop(connection, min(upto, log_tables.read_state(connection).last))
        with self._outside() as connection:
            connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page
        return count

    def set_aside_damaged(self) -> Path | None:
        """Move a damaged file away, so that the next change begins a new one.

        Returns:
            Where it is now; None where there is no file, or one that can be read.

        Raises:
            JournalError: it cannot be moved.
        """
        with self._reading, self._reader.reports("moved away"), folder_lock(self.path.parent):
            if not self._damaged():
                return None
            self._reader.close()
            name = f"{self.path.name}.damaged-{secrets.token_hex(4)}"
            for rest in ("-shm", "-wal", ""):  # the file itself last: without it, what is beside it counts for nothing
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + rest).rename(self.path.with_name(name + rest))
            return self.path.with_name(name)

    def _damaged(self) -> bool:
        try:
            with self._reader.reports("read"):
                connection = self._reader.reader()
                if connection is None:
                    return False
                self._rows(connection, 0, whole=True)
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except JournalDamagedError:
            return True

    def size(self) -> int:
        """Return the bytes of its files."""
        found = 0
        for name in (self.path.name, f"{self.path.name}-wal"):
            with suppress(OSError):
                found += self.path.with_name(name).stat().st_size
        return found

    @override
    def _insert(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        state = log_tables.read_state(connection)
        if batch.expected is not None and not self._goes_on(connection, state, batch.expected):
            raise MovedError("the log is not the one that the writer has read")
        state, lost = self._numbered(state, batch)
        now = max(int(self._clock() * 1e6), state.at + 1)
        state = log_tables.add(connection, state, [(*row, now) for row in batch.rows], batch.digest)
        batch.last = state.last
        self._written = state, (), lost

    def _numbered(self, state: State, batch: _Batch) -> tuple[State, Lost | None]:
        """Return the state to number the next batch from, and what is missing by then."""
        mark, base, lost = self.mark.read(), batch.base, None
        if mark is not None and mark.identity == state.identity and mark.sequence > state.last:
            lost = Lost(mark.identity, mark.sequence)
        before = max([batch.after, base.compacted_through, *([mark.sequence] if mark is not None else [])])
        if before <= state.last:
            return state, lost
        if not state.last and not state.number:  # a new file, over a version that holds changes of one that is gone
            state = state._replace(unnamed=int(base.log is None), pruned=base.compacted_through)
            if base.log is not None:
                state = state._replace(base=base.log, base_from=base.compacted_through, base_through=base.compacted_through)
        elif base.compacted_through > state.last and base.log in (state.identity, None):
            state = state._replace(pruned=base.compacted_through)  # the version holds changes that the file lost
            missing = max(base.compacted_through, state.base_from)
            state = state._replace(base=state.identity, base_from=missing, base_through=missing)
        return state._replace(last=before), lost

    @override
    def _note(self) -> None:
        if self._written is not None:
            (state, covered, lost), self._written = self._written, None
            base = () if state.base is None else (Lost(state.base, state.base_through),)
            self.mark.advance(state.identity, state.last, (*base, *covered), lost)

    def _state(self, connection: sqlite3.Connection) -> State:
        return log_tables.read_state(connection) if self._reader.version > 1 else log_tables.state_of_format_1(connection)

    def _goes_on(self, connection: sqlite3.Connection, state: State, position: State) -> bool:
        if state.identity != position.identity or state.last < position.last:
            return False
        return not state.identity or log_tables.has_passed(connection, position.last, position.head)

    def _rows(self, connection: sqlite3.Connection, sequence: int, *, whole: bool) -> list[LogRow]:
        try:
            if self._reader.version == 1:
                return log_tables.rows_of_format_1(connection, sequence)
            return log_tables.rows_after(connection, sequence, whole=whole)
        except DamagedError as error:
            raise JournalDamagedError(str(error), where=str(self.path), hint=_MEND) from None

    def _start(self, state: State, base: Base) -> tuple[int, int]:
        """Return the last sequence in the version, and after which it needs entries.

        Raises:
            JournalError: Neither the version nor the log has some of the changes.
        """
        same = base.log == state.identity or (base.log is None and bool(state.unnamed))
        taken_over = base.log is not None and base.log == state.base
        held = (
            base.compacted_through if same else state.pruned if taken_over and base.compacted_through >= state.base_from else 0
        )
        if held < state.pruned and not log_tables.lacking(state, base.log, base.compacted_through):
            raise self._gap(held + 1, state.pruned)
        return held, held if same else 0

    def _gap(self, first: int, last: int) -> JournalError:
        return JournalError(
            f"changes {first} to {last} are no longer in the journal",
            where=str(self.path),
            why="the version was made without them, and later versions hold them",
            hint="Serve a version that was published since; or take this one in with `recall publish VERSION ROOT "
            f"--as-of {last}`, which says that its tables hold those changes",
        )


def _upgrade(connection: sqlite3.Connection) -> None:
    try:
        log_tables.upgrade(connection)
    except DamagedError as error:
        raise JournalDamagedError(str(error), where=JOURNAL, hint=_MEND) from None


def _time(row: LogRow) -> int:
    return row.at


def _time_of(connection: sqlite3.Connection, item_id: str) -> int:
    found = connection.execute("SELECT at FROM entries WHERE item_id = ?", (item_id,)).fetchall()
    return int(found[0][0]) if found else -1


KIND = FileKind(
    noun="journal",
    holds="live changes",
    application=0x464D524A,  # "FMRJ"
    version=VERSION,
    create=log_tables.ALL,
    hint=_MEND,
    error=JournalError,
    damaged=JournalDamagedError,
    busy=JournalBusyError,
    full=JournalFullError,
    shut=JournalReadOnlyError,
    upgrade=_upgrade,
    wal_bytes=_WAL_BYTES,
)
"""How SQLite creates and recognises the file."""
