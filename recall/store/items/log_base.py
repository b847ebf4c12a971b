"""Change log: the last change of each item, durable before it is acknowledged.

A change has a sequence: 1, 2, 3 and so on over all processes. A batch is written as a whole. A later change of an item replaces
the earlier one, so the log does not grow with history, and a reader that starts needs no more. Changes stay in the log when a
version contains them: a version that is trained from older tables needs them again.

The log has an identity, which distinguishes it from a different log in its place, for versions, readers and tokens. How far it
reached is noted outside of it as well; see `recall.store.high_water_mark`.

All of that is written here once, on top of `LogTables`; what holds the tables is a file of SQLite or a Redis.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import orjson

from recall.errors import JournalError
from recall.store.group_commit import GroupCommit, PendingWrite
from recall.store.high_water_mark import Lost
from recall.store.items.log_position import Base, Change, LogRow, MovedError, Reading, State, lacking, taken_over, to_json

REMOTE = "r"
"""First letter of the identity of a log that is in no file of its root."""


@dataclass(eq=False, kw_only=True)
class ItemBatch(PendingWrite):
    """Changes that one caller wants written; for the rest see `ChangeLog.append`."""

    rows: list[tuple[str, bytes | None]]
    after: int
    base: Base
    expected: State | None


class LogTables(Protocol):
    """The tables of a log at one moment, or within a transaction."""

    def state(self) -> State:
        """Return the metadata of the log."""

    def has_passed(self, sequence: int, head: bytes) -> bool:
        """Return whether the log once ended so, if it is remembered.

        Args:
            sequence: of the last change then.
            head: hash over all changes then.
        """

    def rows_after(self, sequence: int, *, whole: bool) -> list[LogRow]:
        """Return the entries after a sequence, in order.

        Args:
            sequence: of the last change that is not wanted.
            whole: check that no entry at all is missing.

        Raises:
            JournalDamagedError: one is missing or was damaged.
        """

    def time_of(self, item_id: str) -> int:
        """Return the time of the last change of an item, -1 if there is none."""

    def add(self, state: State, rows: Sequence[tuple[str, bytes | None, int]], digest: bytes) -> State:
        """Append a batch as one commit, and drop earlier changes of the same items.

        Args:
            state: of the log before.
            rows: id, features and time of each change; of two that name one item the later counts.
            digest: of the batch.

        Returns:
            The state after, which is stored.
        """

    def restore(self, state: State, rows: Sequence[LogRow]) -> State:
        """Write entries under their old sequences into an empty log.

        Args:
            state: of the log afterwards, without number and digest.
            rows: the entries.

        Returns:
            The state after, which is stored.
        """

    def drop(self, upto: int) -> int:
        """Drop all entries up to a sequence; return how many there were."""


class ChangeLog(GroupCommit[ItemBatch]):
    """The log of one root; nothing is stored before the first change. Thread-safe."""

    def append(
        self,
        changes: Sequence[Change],
        key: str | None = None,
        after: int = 0,
        base: Base = Base(),  # noqa: B008 - immutable
        expected: State | None = None,
    ) -> int:
        """Write a batch; it is durable when this returns.

        Args:
            changes: in order; of two that name one item the later counts.
            key: idempotency key. A batch with a key that the log remembers is not written again.
            after: sequences that must precede this batch, even if the log lacks them.
            base: what the served version contains of the log, so that a new one does not number it again.
            expected: where the caller has read to. The batch is written only if the log still continues from there.

        Returns:
            The sequence of the last change; of a batch that was written before, what was returned then.

        Raises:
            MovedError: The log does not continue from `expected`.
            RequestError: The key belongs to other changes.
            JournalBusyError: Others wrote for the whole wait.
            JournalFullError: There is no room.
            JournalReadOnlyError: The log cannot be written.
            JournalError: Writing failed, or this is not a log. Then nothing was acknowledged: the batch may have been written
                or not, and can be sent again with the same key.
        """
        rows = [(one, None if values is None else to_json(values)) for one, values in changes]
        digest = blake2b(orjson.dumps([(one, (raw or b"").decode()) for one, raw in rows]), digest_size=16).digest()
        return self._commit(ItemBatch(rows=rows, key=key, digest=digest, after=after, base=base, expected=expected))

    def write_back(self, rows: Iterable[LogRow], known: State, held: int) -> int:
        """Write back acknowledged changes that the log has lost.

        Args:
            rows: changes; only those later than what the log has of the same item count.
            known: the log that they are from, as it was when the caller had read all of it.
            held: the caller's version contains its changes up to this sequence, and `rows` are all later ones.

        Returns:
            How many were written.

        Raises:
            JournalError: As `append`.
        """
        return self._change(lambda tables: self._write_back(tables, sorted(rows), known, held))

    def _write_back(self, tables: LogTables, written: list[LogRow], known: State, held: int) -> int:
        state, mark, lost = tables.state(), self.mark.read(), None
        own = len({row.sequence for row in written}) == len(written)  # else some are from other logs, before this one
        if own and state.last == 0 and state.base is None:  # a new log: it becomes the one that is gone
            state = known._replace(pruned=max(known.pruned, held))
            if held > known.pruned:
                state = state._replace(base=known.identity, base_from=held, base_through=held)
            state = tables.restore(state, written)
        else:
            written = [row for row in sorted(written, key=_time) if row.at > tables.time_of(row.item_id)]
            raws = [(row.item_id, row.features, row.at) for row in written]
            before = max(state.last, known.last)
            if mark is not None and mark.sequence > before:
                if mark.identity == state.identity:
                    lost = Lost(mark.identity, mark.sequence)
                before = mark.sequence  # numbers are not given twice
            state = taken_over(state, known.identity, held, known.last)._replace(last=before)
            state = tables.add(state, raws, blake2b(repr(raws).encode(), digest_size=16).digest())
        self._reach(state.identity, state.last, (*_base(state), Lost(known.identity, known.last)), lost)
        return len(written)

    def read(self, position: State | None, base: Base) -> Reading:
        """Return what was written since a position, or everything if the log was replaced.

        Args:
            position: of the reader; None for one that starts.
            base: what its version contains of the log.

        Raises:
            JournalError: The log cannot be read, is damaged, or no longer has what the version lacks.
        """
        with self._reading_tables() as tables:
            mark = self.mark.read()  # before the log, which others write meanwhile
            if tables is None:
                return Reading(None, [], 0, False, mark)
            state = tables.state()
            goes_on = position is not None and _goes_on(tables, state, position)
            held, start = (0, position.last) if goes_on and position is not None else self._start(state, base)
            rows = tables.rows_after(start, whole=not goes_on)
        mark = self.mark.follow(mark, state.identity, state.last)
        return Reading(state, rows, held, goes_on, mark, lacking(state, base.log, base.compacted_through))

    def state(self) -> State | None:
        """Return the state of the log, or None when there is none.

        Raises:
            JournalError: It cannot be read.
        """
        with self._reading_tables() as tables:
            return None if tables is None else tables.state()

    def prune(self, upto: int) -> int:
        """Drop the changes up to a sequence that no version needs; return how many.

        Raises:
            JournalError: The log cannot be written.
        """
        return 0 if self.state() is None else self._change(lambda tables: tables.drop(min(upto, tables.state().last)))

    @abstractmethod
    def version(self) -> tuple[int, int]:
        """Return a token that changes after every committed write.

        Raises:
            JournalError: The log cannot be read.
        """

    def peek(self) -> tuple[int, int]:
        """Return `version` in microseconds, of a remote log as it was last seen.

        Raises:
            JournalError: The log cannot be read.
        """
        return self.version()

    @abstractmethod
    def set_aside_damaged(self) -> str | None:
        """Move a damaged log away, so that the next change begins a new one.

        Returns:
            Where it is now; None where there is no log, or one that can be read.

        Raises:
            JournalError: It cannot be moved.
        """

    @abstractmethod
    def size(self) -> int:
        """Return how many bytes it takes."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Make a copy of what is stored complete. Raises JournalError."""

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> int:
        """Remove the idempotency keys that name ids; return how many.

        Raises:
            JournalError: The log cannot be written.
        """

    def durability_warning(self) -> str:
        """Return how acknowledged changes may be lost, in a sentence."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; a later call opens them again."""

    @abstractmethod
    def _reading_tables(self) -> AbstractContextManager[LogTables | None]:
        """Open the tables as they are at one moment; None if nothing is stored."""

    @abstractmethod
    def _change(self, change: Callable[[LogTables], int]) -> int:
        """Run a change in one transaction; it may run again if others write."""

    def _insert_into(self, tables: LogTables, batch: ItemBatch) -> None:
        """Write one batch within a transaction. Raises MovedError."""
        state = tables.state()
        if batch.expected is not None and not _goes_on(tables, state, batch.expected):
            raise MovedError("the log is not the one that the writer has read")
        state, lost = self._numbered(state, batch)
        now = max(int(time.time() * 1e6), state.at + 1)
        state = tables.add(state, [(*row, now) for row in batch.rows], batch.digest)
        batch.last = state.last
        self._reach(state.identity, state.last, _base(state), lost)

    def _numbered(self, state: State, batch: ItemBatch) -> tuple[State, Lost | None]:
        """Return the state to number the next batch from, and what is missing by then."""
        mark, base, lost = self.mark.read(), batch.base, None
        if mark is not None and mark.identity == state.identity and mark.sequence > state.last:
            lost = Lost(mark.identity, mark.sequence)
        before = max([batch.after, base.compacted_through, *([mark.sequence] if mark is not None else [])])
        if before <= state.last:
            return state, lost
        if not state.last and not state.number:  # a new log, over a version that holds changes of one that is gone
            state = state._replace(unnamed=int(base.log is None), pruned=base.compacted_through)
            if base.log is not None:
                state = state._replace(base=base.log, base_from=base.compacted_through, base_through=base.compacted_through)
        elif base.compacted_through > state.last and base.log in (state.identity, None):
            state = state._replace(pruned=base.compacted_through)  # the version holds changes that the log lost
            missing = max(base.compacted_through, state.base_from)
            state = state._replace(base=state.identity, base_from=missing, base_through=missing)
        return state._replace(last=before), lost

    def _start(self, state: State, base: Base) -> tuple[int, int]:
        """Return the last sequence in the version, and after which it needs entries.

        Raises:
            JournalError: Neither the version nor the log has some of the changes.
        """
        same = base.log == state.identity or (base.log is None and bool(state.unnamed))
        before = base.log is not None and base.log == state.base
        held = base.compacted_through if same else state.pruned if before and base.compacted_through >= state.base_from else 0
        if held < state.pruned and not lacking(state, base.log, base.compacted_through):
            raise self._gap(held + 1, state.pruned)
        return held, held if same else 0

    def _gap(self, first: int, last: int) -> JournalError:
        return JournalError(
            f"changes {first} to {last} are no longer in the journal",
            where=self.where,
            why="the version was made without them, and later versions hold them",
            hint="Serve a version that was published since; or take this one in with `recall publish VERSION ROOT "
            f"--as-of {last}`, which says that its tables hold those changes",
        )


def _goes_on(tables: LogTables, state: State, position: State) -> bool:
    if state.identity != position.identity or state.last < position.last:
        return False
    return not state.identity or tables.has_passed(position.last, position.head)


def _base(state: State) -> tuple[Lost, ...]:
    """Return the changes of an earlier log that a log has taken over."""
    return () if state.base is None else (Lost(state.base, state.base_through),)


def _time(row: LogRow) -> int:
    return row.at
