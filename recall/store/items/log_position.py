"""Records of the change log, and the position of a reader in it.

A reader notices when the file is no longer the log that it has read, and then loses nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import orjson

from recall.errors import RecallError, TokenError
from recall.store.high_water_mark import Marked, damage

KEPT_HEADS = 1024
"""Commits whose head is kept: far more than a reader that looks a hundred times a second is ever behind."""
MARK = "journal.mark"
"""Name of the file beside the log that says how far it reached."""

_MEND = (
    "Put the whole journal back from a backup, its -wal file included, or make those changes again; "
    f"to go on without them, remove {MARK}"
)


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


class MovedError(RecallError):
    """The log is not the one that the writer has read: read again, then write."""


class Change(NamedTuple):
    """New state of one item: its values by column, or None when it is deleted."""

    item_id: str
    features: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Base:
    """Changes of a log that a version contains: those up to a sequence.

    `log` is the log's identity, None if not recorded.
    """

    log: str | None = None
    compacted_through: int = 0


class Reading(NamedTuple):
    """Result of reading a log.

    Attributes:
        state: None when there is no file.
        rows: entries after the reader's position if the log continues from there, else all after the version's base.
        held: the version holds the changes up to this sequence; 0 where the log continues.
        goes_on: whether the log continues from the reader's position.
        mark: how far the log reached, as noted outside of it.
        lacks: changes up to this sequence of an earlier log are neither in the log nor in the version, as the log was lost.
    """

    state: State | None
    rows: list[LogRow]
    held: int
    goes_on: bool
    mark: Marked | None
    lacks: int = 0


def values_of(row: LogRow) -> Mapping[str, object] | None:
    """Return the values by column that a change gives, or None for a deletion."""
    if row.features is None:
        return None
    values: dict[str, object] = orjson.loads(row.features)
    return values


def rows_of(changes: Sequence[Change], last: int) -> list[LogRow]:
    """Return the rows of a batch of changes.

    Args:
        changes: in order.
        last: sequence of the last one.
    """
    now = int(time.time() * 1e6)
    first = last - len(changes) + 1
    return [
        LogRow(first + at, one, None if values is None else to_json(values), now) for at, (one, values) in enumerate(changes)
    ]


def to_json(values: Mapping[str, object]) -> bytes:
    """Return the values of an item as the log keeps them."""
    return orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS)


@dataclass(eq=False)
class Past:
    """The changes that are served over a version, and where they were read.

    Attributes:
        state: of the log when it was last read; None while there is no file.
        held: the version holds the changes of that log up to this sequence.
        known: the last change of each item that has changed since.
        unsaved: those of them that the file lacks.
        lost: the log that `unsaved` is from, as it was when all of it had been read.
        lost_held: `unsaved` and what is in files are all changes of that log after this sequence.
        lacks: changes of an earlier log up to this sequence are neither served nor in the file.
    """

    state: State | None = None
    held: int = 0
    known: dict[str, LogRow] = field(default_factory=dict)
    unsaved: dict[str, LogRow] = field(default_factory=dict)
    lost: State | None = None
    lost_held: int = 0
    lacks: int = 0

    def take(self, reading: Reading) -> list[LogRow] | None:
        """Take in what was read.

        Returns:
            The rows to add to what is served; None if all of `known` is to be served from scratch.
        """
        before, self.lacks = max(self.held, self.lacks), reading.lacks
        if reading.goes_on:
            rows = [row for row in reading.rows if self.unsaved.get(row.item_id, row).at <= row.at]
            for row in rows:
                self.known[row.item_id] = row
                self.unsaved.pop(row.item_id, None)
            self._settle(reading.state)
            return rows
        if reading.state is None:
            if self.state is not None:
                self._lose(dict(self.known), before)
            return []
        began = self.state is None and self.lost is None
        merged = {row.item_id: row for row in reading.rows}
        unsaved = {one: row for one, row in self.known.items() if one not in merged or merged[one].at < row.at}
        if self.state is not None:
            self._lose(unsaved, before)
        self.known, self.unsaved, self.held = merged | unsaved, unsaved, reading.held
        self._settle(reading.state)
        return reading.rows if began else None

    def ensure(self, rows: list[LogRow]) -> list[LogRow]:
        """Keep changes that were acknowledged if the log vanished before they were read."""
        missed = [row for row in rows if row.item_id not in self.known or self.known[row.item_id].sequence < row.sequence]
        if self.lost is None:
            return []
        for row in missed:
            self.known[row.item_id] = self.unsaved[row.item_id] = row
            self.lost = self.lost._replace(last=max(self.lost.last, row.sequence), at=max(self.lost.at, row.at))
        return missed

    def knows(self, identity: str, sequence: int) -> bool:
        """Return whether a change of a log is in this one, or was written back to it.

        Args:
            identity: of the log.
            sequence: of the change.
        """
        states = [one for one in (self.state, self.lost) if one is not None]
        return any(one.identity == identity or (one.base == identity and sequence <= one.base_through) for one in states)

    def error(self, mark: Marked | None, base: Base) -> str:
        """Return what is wrong with the log, in a sentence; empty when nothing is.

        Args:
            mark: how far the log reached, as noted outside of it.
            base: what the version that is served holds of it.
        """
        return self._missing(mark, base) or damage(mark, MARK, "the journal")

    def _missing(self, mark: Marked | None, base: Base) -> str:
        state = self.state
        if self.unsaved:
            what = "is gone" if state is None else "was replaced or cut short"
            return (
                f"the journal {what}: {len(self.unsaved)} acknowledged changes are served that it does not hold; they are "
                "written back with the next change, or by the service in a moment"
            )
        if mark is not None and mark.lost is not None:
            return f"acknowledged changes up to {mark.lost.through} are missing from the journal. {_MEND}"
        if self.lacks:
            return (
                f"this version was made without the changes up to {self.lacks} of an earlier journal, and the journal that has "
                "replaced it does not hold them. Serve a version that was published since, or publish one from tables that "
                "hold them, with --as-of"
            )
        reached = 0 if mark is None or self._covers(mark, base) else mark.sequence
        if state is not None and state.identity == base.log and state.last < base.compacted_through:
            reached = max(reached, base.compacted_through)
        if not reached:
            return ""
        if state is None:
            return f"the journal is gone, and acknowledged changes up to {reached} with it. {_MEND}"
        if mark is not None and mark.identity not in ("", state.identity):
            return f"the journal was replaced by a different one: it lacks changes up to {reached} of the earlier one. {_MEND}"
        return f"the journal ends at change {state.last}, and {reached} was acknowledged. {_MEND}"

    def _covers(self, mark: Marked, base: Base) -> bool:
        """Return whether all that the mark covers is in the log, the version, or memory."""
        states = [one for one in (self.state, self.lost) if one is not None]
        logs = [(one.identity, one.last) for one in states] + [(one.base, one.base_through) for one in states]
        return any(
            log == mark.identity and through >= mark.sequence for log, through in (*logs, (base.log, base.compacted_through))
        )

    def _lose(self, unsaved: dict[str, LogRow], held: int) -> None:
        self.lost, self.lost_held = self.state, held
        self.state, self.unsaved = None, unsaved

    def _settle(self, state: State | None) -> None:
        self.state = state
        if not self.unsaved:
            self.lost = None


def read_token(token: str) -> tuple[str, int]:
    """Return the identity of a log and a sequence. Raises TokenError."""
    identity, _, sequence = token.rpartition(".")
    if not (identity.isalnum() and identity.isascii() and sequence.isascii() and sequence.isdigit() and len(token) <= 100):
        raise TokenError("invalid token of a change", where="/token", hint="Send it as it was received")
    return identity, int(sequence)


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


def next_head(head: bytes, digest: bytes) -> bytes:
    """Return the hash over all changes after a batch.

    Args:
        head: before.
        digest: of the batch.
    """
    return blake2b(head + digest, digest_size=16).digest()
