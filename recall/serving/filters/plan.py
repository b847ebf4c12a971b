"""A predicate after it met a catalogue: sets of codes, joined. Equal clauses select equal rows, so clauses are cached by."""

from collections.abc import Callable
from dataclasses import dataclass

from recall.index.bitmap import RowBitmap
from recall.serving.filters.column import Ranges
from recall.serving.filters.values import Kind


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that a column, with its values as a kind, has a code in these ranges for."""

    column: str
    kind: Kind
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Rest:
    """All other rows."""

    of: "Clause"


@dataclass(frozen=True, slots=True)
class Every:
    """Rows of all parts; all rows when there is none."""

    of: "frozenset[Clause]"


@dataclass(frozen=True, slots=True)
class Some:
    """Rows of any part; none when there is none."""

    of: "frozenset[Clause]"


Clause = Rows | Rest | Every | Some


def evaluate(clause: Clause, size: int, selected: Callable[[Clause], RowBitmap]) -> RowBitmap:
    """The rows of a clause that is made of others, whose own rows `selected` gives, among `size`."""
    match clause:
        case Rest(of):
            return ~selected(of)
        case Every(parts):
            result = None
            for part in parts:
                found = selected(part)
                result = found if result is None else result & found
            return RowBitmap.everything(size) if result is None else result
        case Some(parts):
            result = None
            for part in parts:
                found = selected(part)
                result = found if result is None else result | found
            return ~RowBitmap.everything(size) if result is None else result
    raise TypeError(f"{type(clause).__name__} is not made of others")
