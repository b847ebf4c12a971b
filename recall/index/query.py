"""Search queries; their filters are set operations on ranges of codes.

The code of a value is its rank among the distinct values of its column, from 1; 0 is a missing value. For every type of
column, an engine compares small integers, so that its filters cannot differ from those of this process in collation, time
zones or rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple, assert_never

import numpy as np

from recall._arrays import Float32, Int32, Int64
from recall.errors import RequestError
from recall.index.bitmap import RowBitmap

_NONE: Int64 = np.empty(0, dtype=np.int64)

Kind = Literal["text", "number", "truth", "time", "clock"]
"""Types for comparisons; a date is compared as the time at which it begins, and a clock is a time of day."""
Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of codes, [low, high): sorted, disjoint and not empty."""


@dataclass(frozen=True, slots=True)
class CodeRanges:
    """Rows with a code in some ranges.

    Attributes:
        column: the column of the codes.
        kind: type that its values are compared as.
        ranges: of codes.
    """

    column: str
    kind: Kind
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Complement:
    """Rows that a plan does not select."""

    of: "Plan"


@dataclass(frozen=True, slots=True)
class Intersection:
    """Rows that all parts select; all rows if there are no parts."""

    of: "frozenset[Plan]"


@dataclass(frozen=True, slots=True)
class Union:
    """Rows that at least one part selects; no rows if there are no parts."""

    of: "frozenset[Plan]"


Plan = CodeRanges | Complement | Intersection | Union
"""A compiled filter. Equal plans select equal rows, so bitmaps can be cached by plan."""


class Predicate(NamedTuple):
    """The filter of a request.

    Attributes:
        request: the filter as in the request; docs/how-to/recommendations.md describes the form.
        plan: the same filter, over the codes of the published columns.
    """

    request: Mapping[str, object]
    plan: Plan


@dataclass(frozen=True, slots=True, eq=False)
class CodedColumn:
    """A column that an engine may store beside the vectors, for filters.

    Attributes:
        name: of the column.
        kind: type that its values are compared as.
        codes: int32 [entries].
        rows: int32 [entries], the row of each entry; None for a column with one value an item, where entry r is of row r.
    """

    name: str
    kind: Kind
    codes: Int32
    rows: Int32 | None


MOST_RANGES = 1_000
"""Largest number of ranges in an expression: parsing more takes longer than reading more rows. Chosen, not tuned."""


def expression(plan: Plan, leaf: Callable[[CodeRanges], str | None]) -> str | None:
    """Write a plan as a boolean expression, in the syntax of SQL and Milvus.

    Args:
        plan: the filter.
        leaf: writes one condition; None if the engine cannot evaluate it.

    Returns:
        An expression that is true for every row of the plan. It may be true for more rows: parts of an intersection that the
        engine cannot evaluate are left out. None if it would be true for all rows.
    """
    parts = plan.of if isinstance(plan, Intersection) else [plan]
    written = [one for one in (_exactly(part, leaf) for part in parts) if one is not None]
    return " and ".join(sorted(written)) or None


def _exactly(plan: Plan, leaf: Callable[[CodeRanges], str | None]) -> str | None:
    """Write a plan with all of its parts; None if the engine cannot evaluate one."""
    match plan:
        case CodeRanges(ranges=ranges):
            return None if len(ranges) > MOST_RANGES else leaf(plan)
        case Complement(of):
            inner = _exactly(of, leaf)
            return None if inner is None else f"(not {inner})"
        case Intersection(parts) | Union(parts):
            joined = [_exactly(one, leaf) for one in parts]
            if None in joined:
                return None
            if not joined:
                return "(row >= 0)" if isinstance(plan, Intersection) else "(row < 0)"
            return f"({(' and ' if isinstance(plan, Intersection) else ' or ').join(sorted(map(str, joined)))})"
        case _:
            assert_never(plan)


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One checked query.

    Attributes:
        vector: float32 [dim].
        excluded: int64 [m], rows that must not be returned, sorted and distinct.
        within: the rows that may be returned; None for all.
        predicate: the filter that `within` was made from, for engines that evaluate filters themselves; None without a filter.
            Every row of `within` matches it, but not every match is in `within`, which decides.
    """

    vector: Float32
    excluded: Int64
    within: RowBitmap | None
    predicate: Predicate | None = None


def check_queries(
    queries: Float32,
    n: int,
    shape: tuple[int, int],
    exclude: Sequence[Int64] | None,
    within: Sequence[RowBitmap | None] | None,
    predicates: Sequence[Predicate | None] | None = None,
) -> list[SearchQuery]:
    """Check the arguments of a search and return its queries one by one.

    Args:
        queries: float32 [q, dim].
        n: rows wanted.
        shape: of the vectors, (size, dim).
        exclude: as for `ItemIndex.search`.
        within: as for `ItemIndex.search`.
        predicates: as for `ItemIndex.search`.

    Raises:
        RequestError: n is below 1, a query has the wrong length or is not finite, or an argument has the wrong size.
    """
    size, dim = shape
    if n < 1:
        raise RequestError(f"n must be at least 1, got {n}", where="/n")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise RequestError(f"user vectors must be [q, {dim}], as the items' vectors, got {queries.shape}", where="user vector")
    # for one query, a finite sum of squares shows in one call that all numbers are finite
    if not (len(queries) == 1 and isfinite(queries[0].dot(queries[0]))) and not np.isfinite(queries).all():
        row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise RequestError(f"user vector {row} holds NaN or an infinity", where="user vector")
    for name, given in (("exclude", exclude), ("within", within), ("predicates", predicates)):
        if given is not None and len(given) != len(queries):
            what = f"{name} must have an entry for each of the {len(queries)} user vectors, got {len(given)}"
            raise RequestError(what, where=f"/{name}")
    for bitmap in within or ():
        if bitmap is not None and bitmap.size != size:
            raise RequestError(f"a bitmap of {bitmap.size} rows does not fit an index of {size}", where="/within")
    excluded = [_NONE] * len(queries) if exclude is None else [sorted_distinct(rows) for rows in exclude]
    vectors = np.ascontiguousarray(queries, dtype=np.float32)
    nothing = [None] * len(queries)
    return list(map(SearchQuery, vectors, excluded, within or nothing, predicates or nothing))


def sorted_distinct(rows: Int64) -> Int64:
    """Return distinct rows, sorted; three times as fast as np.unique without repeats."""
    ordered = np.sort(rows)
    new = ordered[1:] != ordered[:-1]
    return ordered if np.count_nonzero(new) == len(new) else np.concatenate([ordered[:1], ordered[1:][new]])
