"""Change log of the catalogue: numbered upserts and deletions of items.

Sequences are 1, 2, 3, ... over all processes. A batch is written atomically and is durable before it is acknowledged. The log
is compacted by key: it keeps the last change of each item, so it does not grow with the number of changes. Changes stay in the
log when a version contains them, because a later version trained from older tables needs them again.

A random identity distinguishes a log from a different one in its place, for versions, readers and tokens. The last acknowledged
sequence is also stored outside of the log, see `recall.store.high_water_mark`.

`ChangeLog` implements this on top of `LogTables`, which SQLite and Redis implement.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import Protocol

import orjson

from recall.errors import JournalError
from recall.store.group_commit import GroupCommit, PendingWrite
from recall.store.high_water_mark import Loss
from recall.store.items.log_position import (
    Base,
    Change,
    LogReplacedError,
    LogRow,
    Reading,
    State,
    missing_changes_through,
    next_head,
    to_json,
    with_restored,
)

REMOTE = "r"
"""First letter of the identity of a log in Redis; others are hexadecimal."""


@dataclass(eq=False, kw_only=True)
class ItemBatch(PendingWrite):
    """Batch of changes of one caller; see `ChangeLog.append` for the attributes."""

    rows: list[tuple[str, bytes | None]]
    after: int
    base: Base
    expected: State | None


class LogTables(Protocol):
    """The tables of a log, in one snapshot or transaction."""

    def state(self) -> State:
        """Return the metadata of the log."""

    def has_head(self, sequence: int, head: bytes) -> bool:
        """Return whether a commit with this sequence and head is among the latest ones.

        Args:
            sequence: sequence of the last change of the commit.
            head: chained hash after the commit.
        """

    def rows_after(self, sequence: int, *, whole: bool) -> list[LogRow]:
        """Return the entries after a sequence, in order.

        Args:
            sequence: exclusive lower bound.
            whole: also check that no earlier entry is missing.

        Raises:
            JournalDamagedError: An entry is missing or damaged.
        """

    def time_of(self, item_id: str) -> int:
        """Return the time of an item's last change in microseconds, or -1."""

    def write(self, state: State, rows: Sequence[LogRow]) -> State:
        """Insert entries in place of earlier ones of the same items, and store the state.

        Args:
            state: the new state, with number and digest of the entries before.
            rows: entries of distinct items in order of their sequences, which are above those in the log.

        Returns:
            The stored state.
        """

    def drop(self, upto: int) -> int:
        """Delete all entries up to a sequence; return their number."""


class ChangeLog(GroupCommit[ItemBatch]):
    """The change log of one root; created by the first write. Thread-safe."""

    def append(
        self,
        changes: Sequence[Change],
        key: str | None = None,
        after: int = 0,
        base: Base = Base(),  # noqa: B008 - immutable
        expected: State | None = None,
    ) -> int:
        """Append a batch; it is durable when this returns.

        Args:
            changes: in order; the last change of an item replaces earlier ones.
            key: idempotency key. A batch with a key that the log remembers is not written again.
            after: a sequence that the batch must exceed, even if the log lacks the changes before.
            base: changes that the served version contains, so that a new log does not reuse their sequences.
            expected: the caller's read position. The batch is written only if the log continues from there.

        Returns:
            The sequence of the last change; for a repeated batch, the sequence returned the first time.

        Raises:
            LogReplacedError: The log does not continue from `expected`.
            RequestError: The key belongs to other changes.
            JournalBusyError: Other processes wrote for the whole wait.
            JournalFullError: The disk or server is full.
            JournalReadOnlyError: The log cannot be written.
            JournalError: Writing failed, or this is not a log. Then nothing was acknowledged: the batch may have been written
                or not, and can be sent again with the same key.
        """
        rows = [(item_id, None if values is None else to_json(values)) for item_id, values in changes]
        digest = blake2b(orjson.dumps([(item_id, (raw or b"").decode()) for item_id, raw in rows]), digest_size=16).digest()
        return self._commit(ItemBatch(rows=rows, key=key, digest=digest, after=after, base=base, expected=expected))

    def write_back(self, rows: Iterable[LogRow], lost_log: State, contained_through: int) -> int:
        """Write back acknowledged changes that the log has lost.

        Args:
            rows: the lost changes; one that is older than the log's entry of the same item is ignored.
            lost_log: state of the log that acknowledged them, as last read.
            contained_through: the caller's version contains the changes of `lost_log` up to this sequence; `rows` are all
                later ones.

        Returns:
            The number of changes written.

        Raises:
            JournalError: As `append`.
        """
        return self._transact(lambda tables: self._write_back(tables, sorted(rows), lost_log, contained_through))

    def _write_back(self, tables: LogTables, rows: list[LogRow], lost_log: State, contained_through: int) -> int:
        state, mark, loss = tables.state(), self.mark.read(), None
        one_log = len({row.sequence for row in rows}) == len(rows)  # else some were acknowledged by still earlier logs
        if one_log and state.last == 0 and state.base is None:  # an empty log becomes the lost one
            state = lost_log._replace(pruned=max(lost_log.pruned, contained_through), number=0, digest=0)
            if contained_through > lost_log.pruned:
                state = state._replace(base=lost_log.identity, base_from=contained_through, base_through=contained_through)
            state = tables.write(state, rows)
        else:
            rows = [row for row in sorted(rows, key=attrgetter("at")) if row.at > tables.time_of(row.item_id)]
            raws = [(row.item_id, row.features, row.at) for row in rows]
            last = max(state.last, lost_log.last)
            if mark is not None and mark.sequence > last:
                if mark.identity == state.identity:
                    loss = Loss(mark.identity, mark.sequence)
                last = mark.sequence  # sequences are never reused
            state = with_restored(state, lost_log.identity, contained_through, lost_log.last)._replace(last=last)
            state = append_rows(tables, state, raws, blake2b(repr(raws).encode(), digest_size=16).digest())
        recovered = (*_taken_over(state), Loss(lost_log.identity, lost_log.last))
        self._stage_mark(state.identity, state.last, recovered, loss)
        return len(rows)

    def read(self, position: State | None, base: Base) -> Reading:
        """Return the changes since a position, or all if the log was replaced.

        Args:
            position: state of the log at the reader's last read; None for a new reader.
            base: changes that the reader's version contains.

        Raises:
            JournalError: The log cannot be read, is damaged, or has dropped changes that the version lacks.
        """
        with self._open_tables() as tables:
            mark = self.mark.read()  # before the log, which other processes write meanwhile
            if tables is None:
                return Reading(None, [], 0, False, mark)
            state = tables.state()
            continues = position is not None and _continues(tables, state, position)
            if continues and position is not None:
                contained, start = 0, position.last
                if start < state.pruned:  # dropped before this reader has seen all: the version must contain them
                    self._find_start(state, base)
            else:
                contained, start = self._find_start(state, base)
            rows = tables.rows_after(start, whole=not continues)
        mark = self.mark.raise_to(mark, state.identity, state.last)
        missing = missing_changes_through(state, base)
        return Reading(state, rows, contained, continues, mark, missing)

    def state(self) -> State | None:
        """Return the state of the log, or None if there is no log.

        Raises:
            JournalError: The log cannot be read.
        """
        with self._open_tables() as tables:
            return None if tables is None else tables.state()

    def prune(self, upto: int) -> int:
        """Delete the changes up to a sequence; return their number.

        The caller ensures that all versions in use contain them.

        Raises:
            JournalError: The log cannot be written.
        """
        return 0 if self.state() is None else self._transact(lambda tables: tables.drop(min(upto, tables.state().last)))

    @abstractmethod
    def version(self) -> tuple[int, int]:
        """Return a token that changes after every committed write.

        Raises:
            JournalError: The log cannot be read.
        """

    def peek(self) -> tuple[int, int]:
        """Return `version` within microseconds; for Redis, its last observed value.

        Raises:
            JournalError: The log cannot be read.
        """
        return self.version()

    @abstractmethod
    def set_aside_damaged(self) -> str | None:
        """Rename a damaged log, so that the next change creates a new one.

        Returns:
            The new path or address; None if there is no log or it is readable.

        Raises:
            JournalError: The log cannot be renamed.
        """

    @abstractmethod
    def size(self) -> int:
        """Return its size in bytes."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Make a copy of what is stored complete. Raises JournalError."""

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> int:
        """Delete the idempotency keys that contain an id; return their number.

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
    def _open_tables(self) -> AbstractContextManager[LogTables | None]:
        """Open a consistent snapshot of the tables; None if there is no log."""

    @abstractmethod
    def _transact(self, change: Callable[[LogTables], int]) -> int:
        """Run a change in one transaction; it is retried if another process writes."""

    def _append_batch(self, tables: LogTables, batch: ItemBatch) -> None:
        """Append one batch within a transaction. Raises LogReplacedError."""
        state = tables.state()
        if batch.expected is not None and not _continues(tables, state, batch.expected):
            raise LogReplacedError("the log is not the one that the writer has read")
        state, loss = self._skip_used_sequences(state, batch)
        now = max(int(time.time() * 1e6), state.at + 1)
        state = append_rows(tables, state, [(*row, now) for row in batch.rows], batch.digest)
        batch.last = state.last
        self._stage_mark(state.identity, state.last, _taken_over(state), loss)

    def _skip_used_sequences(self, state: State, batch: ItemBatch) -> tuple[State, Loss | None]:
        """Return the state that the batch continues from, and the log's loss, if any.

        Sequences that were assigned before a loss are skipped, so that no two changes have the same one.
        """
        mark, base, loss = self.mark.read(), batch.base, None
        if mark is not None and mark.identity == state.identity and mark.sequence > state.last:
            loss = Loss(mark.identity, mark.sequence)
        last = max([batch.after, base.compacted_through, *([mark.sequence] if mark is not None else [])])
        if last <= state.last:
            return state, loss
        if not state.last and not state.number:  # a new log, and the version contains changes of a lost one
            state = state._replace(unnamed=int(base.log is None), pruned=base.compacted_through)
            if base.log is not None:
                state = state._replace(base=base.log, base_from=base.compacted_through, base_through=base.compacted_through)
        elif base.compacted_through > state.last and base.log in (state.identity, None):
            state = state._replace(pruned=base.compacted_through)  # the version contains changes that the log lost
            missing = max(base.compacted_through, state.base_from)
            state = state._replace(base=state.identity, base_from=missing, base_through=missing)
        return state._replace(last=last), loss

    def _find_start(self, state: State, base: Base) -> tuple[int, int]:
        """Return the last sequence in the version, and the one to read entries after.

        Raises:
            JournalError: The log has dropped changes that the version lacks.
        """
        same = base.log == state.identity or (base.log is None and bool(state.unnamed))
        taken_over = base.log is not None and base.log == state.base and base.compacted_through >= state.base_from
        contained = base.compacted_through if same else state.pruned if taken_over else 0
        if contained < state.pruned and not missing_changes_through(state, base):
            raise self._gap_error(contained + 1, state.pruned)
        return contained, contained if same else 0

    def _gap_error(self, first: int, last: int) -> JournalError:
        return JournalError(
            f"changes {first} to {last} are no longer in the journal",
            where=self.where,
            why="the version was built without them; later versions contain them",
            hint="Serve a later version; or adopt this one with `recall publish VERSION ROOT "
            f"--as-of {last}`, which states that its tables contain those changes",
        )


def append_rows(tables: LogTables, state: State, changes: Sequence[tuple[str, bytes | None, int]], digest: bytes) -> State:
    """Append a batch of changes as one commit; return the stored state.

    Args:
        tables: tables of the log, within a transaction.
        state: state of the log before; sequences continue from its `last`.
        changes: id, features as JSON and time of each change, in order; the last change of an item replaces earlier ones.
        digest: digest of the batch.
    """
    rows = [LogRow(sequence, *change) for sequence, change in enumerate(changes, start=state.last + 1)]
    after = state._replace(
        last=state.last + len(rows),
        head=next_head(state.head, digest) if rows else state.head,
        at=max([state.at, *(row.at for row in rows)]),
    )
    return tables.write(after, sorted({row.item_id: row for row in rows}.values()))


def _continues(tables: LogTables, state: State, position: State) -> bool:
    """Return whether a log contains all that a reader has read at a position."""
    if state.identity != position.identity or state.last < position.last:
        return False
    return not state.identity or tables.has_head(position.last, position.head)


def _taken_over(state: State) -> tuple[Loss, ...]:
    """Return the changes of an earlier log that a log contains."""
    return () if state.base is None else (Loss(state.base, state.base_through),)
