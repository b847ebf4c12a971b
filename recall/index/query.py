"""A query as an engine gets it; its filter is ranges of codes and set operations.

The code of a value is its place among the different values of its column in order, and 0 is a missing one. Whatever a column
holds, an engine compares small integers, so that it and the filters in this process cannot disagree on text, time zones or
rounding.
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
"""Types that values are compared as; a date is the time at which it begins, a clock a time of day."""
Ranges = tuple[tuple[int, int], ...]
"""Codes from the first of each pair up to, but without, the second; in order, disjoint and not empty."""


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


class Predicate(NamedTuple):
    """The filter of a request.

    Attributes:
        request: the filter as in the request; docs/how-to/recommendations.md describes the form.
        plan: the same over the codes of the published columns.
    """

    request: Mapping[str, object]
    plan: Plan


@dataclass(frozen=True, slots=True, eq=False)
class CodedColumn:
    """A column that an engine may store beside the vectors, for filters.

    Attributes:
        name: of the column.
        kind: what its values are compared as.
        codes: int32 [entries].
        rows: int32 [entries], the row of each entry; None where entry r is of row r, and each row has one.
    """

    name: str
    kind: Kind
    codes: Int32
    rows: Int32 | None


MOST_RANGES = 1_000
"""Ranges in an expression, at most: parsing more takes an engine longer than looking at more rows. Chosen, not tuned."""


def expression(plan: Plan, leaf: Callable[[CodeRanges], str | None]) -> str | None:
    """Write a plan as an expression of `and`, `or` and `not`, as SQL and Milvus have.

    Args:
        plan: the filter.
        leaf: writes one condition; None if the engine cannot evaluate it.

    Returns:
        An expression that holds for every row of the plan, and where nothing was left out for no other; None for all rows.
    """
    parts = plan.of if isinstance(plan, Intersection) else [plan]
    written = [one for one in (_exactly(part, leaf) for part in parts) if one is not None]
    return " and ".join(sorted(written)) if written else None


def _exactly(plan: Plan, leaf: Callable[[CodeRanges], str | None]) -> str | None:
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
    """One query, checked.

    Attributes:
        vector: float32 [dim].
        excluded: int64 [m], rows that must not be returned, rising and without repeats.
        within: the rows that may be returned; None for all.
        predicate: the filter that `within` was made from, for engines that filter by columns of their own; None if there was
            none. Every row of `within` matches it, but not every match is in `within`: that decides.
    """

    vector: Float32
    excluded: Int64
    within: RowBitmap | None
    predicate: Predicate | None = None


def check_asked(
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
        RequestError: the search cannot be answered.
    """
    size, dim = shape
    if n < 1:
        raise RequestError(f"{n} results were asked for", where="/n", hint="Ask for at least 1")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise RequestError(f"user vectors of shape {queries.shape} do not fit items of {dim} numbers", where="user vector")
    # the squares of one query add up to a finite number unless it is very large or not finite: one call, not two
    if not (len(queries) == 1 and isfinite(queries[0].dot(queries[0]))) and not np.isfinite(queries).all():
        row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise RequestError(f"user vector {row} holds NaN or an infinity", where="user vector")
    for name, given in (("exclude", exclude), ("within", within), ("predicates", predicates)):
        if given is not None and len(given) != len(queries):
            raise RequestError(f"{len(given)} entries of {name} for {len(queries)} user vectors", where=f"/{name}")
    for selection in within or ():
        if selection is not None and selection.size != size:
            raise RequestError(f"a selection among {selection.size} rows in an index of {size}", where="/within")
    excluded = [_NONE] * len(queries) if exclude is None else [rising_rows(rows) for rows in exclude]
    vectors = np.ascontiguousarray(queries, dtype=np.float32)
    nothing = [None] * len(queries)
    return list(map(SearchQuery, vectors, excluded, within or nothing, predicates or nothing))


def rising_rows(rows: Int64) -> Int64:
    """Sort rows and drop repeats; without repeats in a third of the time of np.unique."""
    rising = rows.copy()
    rising.sort()
    new = rising[1:] != rising[:-1]
    return rising if np.count_nonzero(new) == len(new) else np.concatenate([rising[:1], rising[1:][new]])
