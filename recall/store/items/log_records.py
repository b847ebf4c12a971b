"""Records of the log of live changes: changes as they are made, as they are kept, and as they are read."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from recall.store.high_water_mark import Marked
from recall.store.items.log_tables import Row, State


class MovedError(Exception):
    """The log is not the one that the writer has read, or no longer is: read it again, then write."""


class Change(NamedTuple):
    """What becomes of one item: its values by column, or None when it is deleted."""

    item_id: str
    features: Mapping[str, object] | None


class Entry(NamedTuple):
    """A change as the journal holds it."""

    sequence: int
    item_id: str
    features: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Base:
    """What a version holds of a log: the changes up to a sequence; `log` is the log's identity, None if not recorded."""

    log: str | None = None
    folded: int = 0


class Reading(NamedTuple):
    """What a reader finds.

    Attributes:
        state: None when there is no file.
        rows: entries after the reader's position if the log goes on from there, else all after the version's base.
        held: the version holds the changes up to this sequence; 0 where the log goes on.
        goes_on: whether the log goes on from the reader's position.
        mark: how far the log reached, as noted outside of it.
        lacks: changes up to this sequence of an earlier log are neither in the log nor in the version, as the log was lost.
    """

    state: State | None
    rows: list[Row]
    held: int
    goes_on: bool
    mark: Marked | None
    lacks: int = 0


def values_of(row: Row) -> Mapping[str, object] | None:
    """Return the values by column that a change gives, or None for a deletion."""
    if row.features is None:
        return None
    values: dict[str, object] = orjson.loads(row.features)
    return values


def rows_of(changes: Sequence[Change], last: int) -> list[Row]:
    """Return the rows of a batch of changes, of which the last one has this sequence."""
    now = int(time.time() * 1e6)
    first = last - len(changes) + 1
    return [Row(first + at, one, None if values is None else to_json(values), now) for at, (one, values) in enumerate(changes)]


def to_json(values: Mapping[str, object]) -> bytes:
    """Return the values of an item as the log keeps them."""
    return orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS)
