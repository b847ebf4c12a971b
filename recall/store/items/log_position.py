"""Records of the change log, and the state of a reader that follows it.

A reader detects that the log was replaced or cut short, keeps serving the changes that it has read, and can write them back.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import orjson

from recall.errors import RecallError, TokenError
from recall.store.high_water_mark import MarkState, damage_warning

KEPT_HEADS = 1024
"""Latest commits with a stored head: far more than a reader that polls a hundred times a second is ever behind."""
MARK = "journal.mark"
"""File name of the log's high-water mark."""

_HINT = (
    "Put the whole journal back from a backup, its -wal file included, or make those changes again; "
    f"to go on without them, remove {MARK}"
)


class State(NamedTuple):
    """Metadata of a log.

    Attributes:
        identity: random, set when the log was created.
        last: sequence of the last change.
        pruned: some or all of the changes up to this sequence were dropped from the log.
        head: hash chained over all batches so far.
        at: time of the last change in microseconds since 1970; monotonic even if the clock is set back.
        number, digest: number of entries, and the sum of their checksums.
        unnamed: 1 if sequences in manifests that name no log (bundle formats 1 to 3) refer to this log, else 0.
        base: identity of an earlier log with changes in this one; the log's own identity if it was restored after a loss.
        base_from, base_through: this log contains the changes of `base` after `base_from` and up to `base_through`. Earlier
            ones are in published versions only.
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


class LogReplacedError(RecallError):
    """The log was replaced since the writer read it; read again, then retry."""


class Change(NamedTuple):
    """Upsert of one item with its values by column, or its deletion if they are None."""

    item_id: str
    features: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Base:
    """Changes that a version contains: those of one log up to a sequence.

    Attributes:
        log: identity of the log; None if not recorded.
        compacted_through: sequence of the last change that the version contains.
    """

    log: str | None = None
    compacted_through: int = 0


class Reading(NamedTuple):
    """Result of reading a log.

    Attributes:
        state: metadata of the log; None if there is no log.
        rows: entries after the reader's position if the log continues from there, else all that the version lacks.
        contained_through: the version contains the changes up to this sequence; 0 if the log continues.
        continues: whether the log continues from the reader's position.
        mark: the log's high-water mark, read before the log.
        missing_through: changes of an earlier, lost log up to this sequence are neither in this log nor in the version.
    """

    state: State | None
    rows: list[LogRow]
    contained_through: int
    continues: bool
    mark: MarkState | None
    missing_through: int = 0


def parse_values(row: LogRow) -> Mapping[str, object] | None:
    """Return the upserted values by column, or None for a deletion."""
    if row.features is None:
        return None
    values: dict[str, object] = orjson.loads(row.features)
    return values


def to_rows(changes: Sequence[Change], last: int) -> list[LogRow]:
    """Return the rows of a batch of changes, with the current time.

    Args:
        changes: in order.
        last: sequence of the last change.
    """
    now = int(time.time() * 1e6)
    return [
        LogRow(sequence, item_id, None if values is None else to_json(values), now)
        for sequence, (item_id, values) in enumerate(changes, last - len(changes) + 1)
    ]


def to_json(values: Mapping[str, object]) -> bytes:
    """Return the stored form of an item's values."""
    return orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS)


@dataclass(eq=False)
class ServedChanges:
    """Live changes that a process serves on top of a version, and its log position.

    Changes that were acknowledged stay served when the log that had them is lost: they are `unsaved` until they are written
    back.

    Attributes:
        state: the log's state when it was last read; None while there is no log.
        contained_through: the version contains the changes of that log up to this sequence.
        latest: last change of each item that changed after the version, by item id.
        unsaved: the changes in `latest` that the log lacks.
        lost_log: state of the lost log that `unsaved` is from, as last read; None if nothing is unsaved.
        lost_contained_through: the version contains the changes of the lost log up to this sequence.
        missing_through: changes of an earlier log up to this sequence are neither served nor in the log.
    """

    state: State | None = None
    contained_through: int = 0
    latest: dict[str, LogRow] = field(default_factory=dict)
    unsaved: dict[str, LogRow] = field(default_factory=dict)
    lost_log: State | None = None
    lost_contained_through: int = 0
    missing_through: int = 0

    def apply(self, reading: Reading) -> list[LogRow] | None:
        """Update the state with a reading of the log.

        Returns:
            The rows to apply to the snapshot; None if the snapshot must be rebuilt from `latest`.
        """
        contained, self.missing_through = max(self.contained_through, self.missing_through), reading.missing_through
        if reading.continues:
            rows = [row for row in reading.rows if self.unsaved.get(row.item_id, row).at <= row.at]
            for row in rows:
                self.latest[row.item_id] = row
                self.unsaved.pop(row.item_id, None)
            self._set_state(reading.state)
            return rows
        if reading.state is None:
            if self.state is not None:
                self._mark_lost(dict(self.latest), contained)
            return []
        first_log = self.state is None and self.lost_log is None
        stored = {row.item_id: row for row in reading.rows}
        unsaved = {item_id: row for item_id, row in self.latest.items() if item_id not in stored or stored[item_id].at < row.at}
        if self.state is not None:
            self._mark_lost(unsaved, contained)
        self.latest, self.unsaved, self.contained_through = stored | unsaved, unsaved, reading.contained_through
        self._set_state(reading.state)
        return reading.rows if first_log else None

    def keep_acknowledged(self, rows: list[LogRow]) -> list[LogRow]:
        """Keep acknowledged changes whose log was lost before they were read back.

        Args:
            rows: the acknowledged changes.

        Returns:
            Those that were not served yet; empty if no log was lost.
        """
        missed = [row for row in rows if row.item_id not in self.latest or self.latest[row.item_id].sequence < row.sequence]
        if self.lost_log is None:
            return []
        for row in missed:
            self.latest[row.item_id] = self.unsaved[row.item_id] = row
            self.lost_log = self.lost_log._replace(last=max(self.lost_log.last, row.sequence), at=max(self.lost_log.at, row.at))
        return missed

    def includes(self, identity: str, sequence: int) -> bool:
        """Return whether a change belongs to the followed log, or was written back to it.

        Args:
            identity: identity of the log that acknowledged the change.
            sequence: sequence of the change in that log.
        """
        return any(
            state.identity == identity or (state.base == identity and sequence <= state.base_through)
            for state in self._states()
        )

    def error(self, mark: MarkState | None, base: Base) -> str:
        """Describe lost changes or a damaged mark, in a sentence; empty without faults.

        Args:
            mark: the log's high-water mark.
            base: changes that the served version contains.
        """
        return self._loss_warning(mark, base) or damage_warning(mark, MARK, "the journal")

    def _loss_warning(self, mark: MarkState | None, base: Base) -> str:
        state = self.state
        if self.unsaved:
            cause = "is gone" if state is None else "was replaced or cut short"
            return (
                f"the journal {cause}: {len(self.unsaved)} acknowledged changes are served that it does not hold; they are "
                "written back with the next change, or by the service in a moment"
            )
        if mark is not None and mark.first_loss is not None:
            return f"acknowledged changes up to {mark.first_loss.through} are missing from the journal. {_HINT}"
        if self.missing_through:
            return (
                f"this version was made without the changes up to {self.missing_through} of an earlier journal, and the "
                "journal that has replaced it does not hold them. Serve a version that was published since, or publish one "
                "from tables that hold them, with --as-of"
            )
        acknowledged = 0 if mark is None or self._covers(mark, base) else mark.sequence
        if state is not None and state.identity == base.log and state.last < base.compacted_through:
            acknowledged = max(acknowledged, base.compacted_through)
        if not acknowledged:
            return ""
        if state is None:
            return f"the journal is gone, and acknowledged changes up to {acknowledged} with it. {_HINT}"
        if mark is not None and mark.identity not in ("", state.identity):
            what = f"it lacks changes up to {acknowledged} of the earlier one"
            return f"the journal was replaced by a different one: {what}. {_HINT}"
        return f"the journal ends at change {state.last}, and {acknowledged} was acknowledged. {_HINT}"

    def _covers(self, mark: MarkState, base: Base) -> bool:
        """Return whether every write up to the mark is in the log, version or memory."""
        states = self._states()
        logs = [(state.identity, state.last) for state in states] + [(state.base, state.base_through) for state in states]
        return any(
            log == mark.identity and through >= mark.sequence for log, through in (*logs, (base.log, base.compacted_through))
        )

    def _states(self) -> list[State]:
        return [state for state in (self.state, self.lost_log) if state is not None]

    def _mark_lost(self, unsaved: dict[str, LogRow], contained_through: int) -> None:
        self.lost_log, self.lost_contained_through = self.state, contained_through
        self.state, self.unsaved = None, unsaved

    def _set_state(self, state: State | None) -> None:
        self.state = state
        if not self.unsaved:
            self.lost_log = None


def read_token(token: str) -> tuple[str, int]:
    """Return the identity of a log and a sequence. Raises TokenError."""
    identity, _, sequence = token.rpartition(".")
    if not (identity.isalnum() and identity.isascii() and sequence.isascii() and sequence.isdigit() and len(token) <= 100):
        raise TokenError("invalid token of a change", where="/token", hint="Send it as it was received")
    return identity, int(sequence)


def with_restored(state: State, identity: str, start: int, through: int) -> State:
    """Return a log's state after changes of a lost log were written back to it.

    Args:
        state: state before.
        identity: identity of the lost log; it may be the log itself.
        start: the log then contains all changes of the lost log after this sequence,
        through: and up to this one.
    """
    same_base = state.base == identity
    if same_base and start <= state.base_through and state.base_from <= through:  # the two ranges join without a gap
        start, through = min(start, state.base_from), max(through, state.base_through)
    elif state.identity == identity:
        if start <= state.last:
            return state
        start = through = max(start, state.base_from)  # an older copy of the log, which ends before changes in versions
    elif state.base is not None:
        if state.base_from and not start:
            return state  # keep the earlier log, with changes known to be missing, over one that misses none
        start = max(start, state.base_from)
        through = max(start, through)
    pruned = min(state.pruned, start) if same_base and state.pruned <= state.base_from else state.pruned
    return state._replace(base=identity, base_from=start, base_through=through, pruned=pruned)


def missing_changes_through(state: State, base: Base) -> int:
    """Return the last sequence whose changes neither the log nor the version has.

    Changes are missing from both when a log was begun again after a loss.

    Args:
        state: state of the log.
        base: changes that the version contains.

    Returns:
        Sequence in the earlier log; 0 if no change is missing.
    """
    if state.base is None or (base.log == state.base and base.compacted_through >= state.base_from):
        return 0
    # later sequences of this log were assigned after it had taken over the earlier one, so such a version contains all
    return 0 if base.log == state.identity and base.compacted_through >= state.base_through else state.base_from


def next_head(head: bytes, digest: bytes) -> bytes:
    """Return the chained hash after a batch.

    Args:
        head: chained hash before the batch.
        digest: digest of the batch.
    """
    return blake2b(head + digest, digest_size=16).digest()
