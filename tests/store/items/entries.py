"""Content of a log of changes, for assertions."""

from collections.abc import Mapping
from typing import NamedTuple

from recall.store.items.log_base import ChangeLog
from recall.store.items.log_position import Base, parse_values


class Entry(NamedTuple):
    """A change as the log holds it."""

    sequence: int
    item_id: str
    features: Mapping[str, object] | None


def since(log: ChangeLog, sequence: int) -> list[Entry]:
    """The last change of each item that has changed after a sequence, in order; JournalError where some are gone."""
    state = log.state()
    reading = None if state is None else log.read(None, Base(state.identity or None, sequence))
    if reading is not None and reading.missing_through:
        raise log._gap_error(sequence + 1, reading.missing_through)
    return [] if reading is None else [Entry(row.sequence, row.item_id, parse_values(row)) for row in reading.rows]


def last(log: ChangeLog) -> int:
    """The sequence of the latest change; 0 without changes."""
    state = log.state()
    return 0 if state is None else state.last
