"""Plan of a filter: ranges of codes, joined by set operations.

Equal plans select equal rows, so bitmaps are cached by plan.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from recall.index.bitmap import RowBitmap
from recall.serving.filters.column import Kind, Ranges


@dataclass(frozen=True, slots=True)
class CodeRanges:
    """Rows for which a column, with its values as a kind, has a code in these ranges."""

    column: str
    kind: Kind
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Complement:
    """All other rows."""

    of: "Plan"


@dataclass(frozen=True, slots=True)
class Intersection:
    """Rows of all parts; all rows if there is none."""

    of: "frozenset[Plan]"


@dataclass(frozen=True, slots=True)
class Union:
    """Rows of any part; none if there is none."""

    of: "frozenset[Plan]"


Plan = CodeRanges | Complement | Intersection | Union


def evaluate(plan: Plan, size: int, rows: Callable[[CodeRanges], RowBitmap]) -> RowBitmap:
    """Select the rows of a plan.

    Args:
        plan: over the columns of a table.
        size: rows of the table.
        rows: selects those of one column's ranges.
    """
    match plan:
        case CodeRanges():
            return rows(plan)
        case Complement(of):
            return ~evaluate(of, size, rows)
        case Intersection(parts):
            found = [evaluate(one, size, rows) for one in parts]
            return reduce(and_, found) if found else RowBitmap.everything(size)
        case Union(parts):
            found = [evaluate(one, size, rows) for one in parts]
            return reduce(or_, found) if found else ~RowBitmap.everything(size)
