"""What every kind of index promises, and the checks that all of them share.

An index is built once over item vectors and never changes. A row is a position among those vectors. The same query gives
the same answer to the last bit whether it comes alone or in a batch; equal scores are ordered by row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from recall._arrays import Float32, Int64
from recall.errors import ExportError, RequestError
from recall.index.bitmap import Mask, RowBitmap

Params = Mapping[str, int | float]
"""The numbers that an index needs beside its file in order to be opened again."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The best rows of each query, best first.

    Attributes:
        rows: int64 [q, n]; -1 where fewer than n rows were eligible.
        scores: float32 [q, n], inner products; -inf beside a row of -1.
        exact: bool [q], whether these are surely the best of the eligible rows.
    """

    rows: Int64
    scores: Float32
    exact: Mask

    def ranked(self, query: int) -> "Ranked":
        """Return the list of one query, without what fills it up."""
        rows, scores = self.rows[query], self.scores[query]
        if rows[rows.argmin()] < 0:  # nearly always there is nothing to leave out, and nothing is copied
            rows, scores = rows[rows >= 0], scores[rows >= 0]
        return Ranked(rows, scores, bool(self.exact[query]))


class Ranked(NamedTuple):
    """Eligible candidates of one query, best first.

    Attributes:
        rows: int64 [m].
        scores: float32 [m].
        exact: whether they are known to be the best.
    """

    rows: Int64
    scores: Float32
    exact: bool


def gather(ranked: list[Ranked], n: int) -> Hits:
    """The ranked lists as one rectangle of width n."""
    if len(ranked) == 1 and len(ranked[0].rows) == n:
        one = ranked[0]
        return Hits(one.rows[None], one.scores[None], np.array([one.exact]))
    rows = np.full((len(ranked), n), -1, dtype=np.int64)
    scores = np.full((len(ranked), n), -np.inf, dtype=np.float32)
    for position, one in enumerate(ranked):
        rows[position, : len(one.rows)] = one.rows
        scores[position, : len(one.rows)] = one.scores
    return Hits(rows, scores, np.array([one.exact for one in ranked], dtype=bool))


class ItemIndex(Protocol):
    """Maximum inner-product search over item vectors; `search` may be called from several threads at once."""

    @property
    def kind(self) -> str:
        """Name of the kind, as the manifest records it."""

    @property
    def size(self) -> int:
        """Number of items."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def exact(self) -> bool:
        """Whether the best rows are always found, or only most of them."""

    @property
    def params(self) -> Params:
        """What `open_index` needs to know beside the file."""

    def search(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[RowBitmap | None] | None = None,
        *,
        exact: bool = False,
    ) -> Hits:
        """The n rows with the largest inner product with each query.

        Args:
            queries: float32 [q, dim], finite.
            n: rows wanted, at least 1; it may exceed `size`.
            exclude: rows that must not be returned, one array for each query, repeats allowed; None excludes nothing.
                Meant for the hundreds of items that one user has seen; what holds for many requests is a selection.
            within: the rows that may be returned, one selection or None (all rows) for each query.
            exact: search exhaustively, whatever the kind of index.

        Returns:
            Exactly min(n, eligible rows) distinct rows for each query.

        Raises:
            RequestError: n is below 1, a query is of another length or not finite, or a selection is of other rows.
        """

    def write(self, path: Path) -> None:
        """Write the index to one file. Raises IndexFileError when that fails."""


def check_vectors(vectors: Float32) -> None:
    """Raise ExportError, naming up to five rows, unless vectors are a filled float32 [size, dim] of finite numbers."""
    if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        raise ExportError(
            f"item vectors of shape {vectors.shape} and type {vectors.dtype} cannot be indexed",
            where="item vectors",
            hint="Give float32 [items, dim] with at least one item",
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        shown = ", ".join(str(row) for row in wrong[:5])
        raise ExportError(
            f"{len(wrong)} of {len(vectors)} item vectors hold NaN or an infinity, first in rows {shown}",
            where="item vectors",
            hint="Look at the training metrics: a model that diverged cannot be searched",
        )


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One query, checked.

    Attributes:
        vector: float32 [dim].
        excluded: int64 [m], rising and without repeats.
        within: the rows that may be returned; None for all.
    """

    vector: Float32
    excluded: Int64
    within: RowBitmap | None


def check_asked(
    queries: Float32,
    n: int,
    shape: tuple[int, int],
    exclude: Sequence[Int64] | None,
    within: Sequence[RowBitmap | None] | None,
) -> list[SearchQuery]:
    """The queries of a `search` over vectors of `shape` one by one. Raises RequestError unless it can be answered."""
    size, dim = shape
    if n < 1:
        raise RequestError(f"{n} results were asked for", where="/n", hint="Ask for at least 1")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise RequestError(f"user vectors of shape {queries.shape} do not fit items of {dim} numbers", where="user vector")
    # the squares of one query add up to a finite number unless it is very large or not finite: one call, not two
    if not (len(queries) == 1 and isfinite(queries[0].dot(queries[0]))) and not np.isfinite(queries).all():
        row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise RequestError(f"user vector {row} holds NaN or an infinity", where="user vector")
    for name, given in (("exclude", exclude), ("within", within)):
        if given is not None and len(given) != len(queries):
            raise RequestError(f"{len(given)} entries of {name} for {len(queries)} user vectors", where=f"/{name}")
    for selection in within or ():
        if selection is not None and selection.size != size:
            raise RequestError(f"a selection among {selection.size} rows in an index of {size}", where="/within")
    excluded = [_NONE] * len(queries) if exclude is None else [_rising(rows) if len(rows) > 1 else rows for rows in exclude]
    vectors = np.ascontiguousarray(queries, dtype=np.float32)
    return list(map(SearchQuery, vectors, excluded, within if within is not None else [None] * len(queries)))


def _rising(rows: Int64) -> Int64:
    """Rows in order, each once; without repeats this takes a third of the time of np.unique."""
    rising = rows.copy()
    rising.sort()
    new = rising[1:] != rising[:-1]
    return rising if np.count_nonzero(new) == len(new) else np.concatenate([rising[:1], rising[1:][new]])


_NONE: Int64 = np.empty(0, dtype=np.int64)


# How hard an approximate index looks, which is what tuning sets.


@dataclass(frozen=True, slots=True)
class Effort:
    """How many lists a query looks into: more for longer results, for they lie in more lists.

    Attributes:
        nprobe: lists for up to `n` results.
        growth: lists grow as this power of the number of results beyond `n`.
        n: number of results that `nprobe` was set for.
    """

    nprobe: int
    growth: float
    n: int

    def at(self, results: int) -> int:
        """Lists for this many results, excluded ones counted in."""
        return math.ceil(self.nprobe * math.pow(max(1.0, results / self.n), self.growth))


class TunableIndex(ItemIndex, Protocol):
    """An index that looks as hard as it is told to, at no cost after it was built."""

    @property
    def efforts(self) -> Sequence[float]:
        """How hard it can look, rising; recall does not fall along them, but for rounding."""

    def tuned(self, effort: float, n: int) -> "TunableIndex":
        """The same index with one of its efforts, for lists of n."""
