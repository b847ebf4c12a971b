"""The interface of indexes and engines, and the checks that all of them share.

An index is built once over item vectors and never changes. A row is a position among those vectors. The same query gives
the same answer to the last bit whether it comes alone or in a batch; equal scores are ordered by row.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from recall._arrays import Float32, Int64
from recall.config import IndexConfig
from recall.errors import ExportError
from recall.index.bitmap import Mask, RowBitmap
from recall.index.query import CodedColumn, Predicate, SearchQuery, check_asked, rising_rows

Params = Mapping[str, int | float | str]
"""Parameters to open an index besides its file: numbers, or the address of a remote engine."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The best rows of each query, best first.

    Attributes:
        rows: int64 [q, n]; -1 where fewer than n rows were eligible.
        scores: float32 [q, n], inner products; -inf beside a row of -1.
        exact: bool [q], whether these are known to be the best of the eligible rows.
    """

    rows: Int64
    scores: Float32
    exact: Mask


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
    """Pad ranked lists to one rectangle.

    Args:
        ranked: one list for each query.
        n: width of the rectangle.
    """
    if len(ranked) == 1 and len(ranked[0].rows) == n:
        one = ranked[0]
        return Hits(one.rows[None], one.scores[None], np.array([one.exact]))
    rows = np.full((len(ranked), n), -1, dtype=np.int64)
    scores = np.full((len(ranked), n), -np.inf, dtype=np.float32)
    for position, one in enumerate(ranked):
        rows[position, : len(one.rows)] = one.rows
        scores[position, : len(one.rows)] = one.scores
    return Hits(rows, scores, np.array([one.exact for one in ranked], dtype=bool))


class ItemIndex(ABC):
    """Maximum inner-product search over item vectors. Thread-safe.

    Attributes:
        kind: name of the kind, as the manifest records it.
        size: number of items.
        dim: length of a vector.
        remote: whether a search waits for another machine and must stay off an event loop.
    """

    kind: str
    size: int
    dim: int
    remote: bool = False

    @property
    def error(self) -> str:
        """Return why a local copy answers in place of the engine; empty if all is well."""
        return ""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether the best rows are always found, or only most of them."""

    @property
    @abstractmethod
    def params(self) -> Params:
        """Parameters to open the index, besides its file if it has one."""

    @abstractmethod
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        """Answer checked queries.

        Engines score what they return with `recall.index.topk.rank`, so that a query has one answer to the last bit.

        Args:
            queries: at least one.
            n: rows wanted, at least 1.
            exact: search exhaustively.

        Returns:
            min(n, eligible rows) distinct rows for each query.
        """

    def search(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[RowBitmap | None] | None = None,
        predicates: Sequence[Predicate | None] | None = None,
        *,
        exact: bool = False,
    ) -> Hits:
        """Return the n rows with the largest inner product with each query.

        Args:
            queries: as for `search_each`.
            n: as for `search_each`.
            exclude: as for `search_each`.
            within: as for `search_each`.
            predicates: as for `search_each`.
            exact: as for `search_each`.

        Raises:
            RequestError: As for `search_each`.
        """
        return gather(self.search_each(queries, n, exclude, within, predicates, exact=exact), n)

    def search_each(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[RowBitmap | None] | None = None,
        predicates: Sequence[Predicate | None] | None = None,
        *,
        exact: bool = False,
    ) -> list[Ranked]:
        """Return the list of each query: the rows with the largest inner product.

        Args:
            queries: float32 [q, dim], finite.
            n: rows wanted, at least 1; it may exceed `size`.
            exclude: rows that must not be returned, one array for each query, repeats allowed; None excludes nothing.
                Meant for the hundreds of items that one user has seen; what holds for many requests is a mask.
            within: the rows that may be returned, one bitmap or None (all rows) for each query.
            predicates: the filter behind each bitmap, or None; an engine may use it, and may not rely on it.
            exact: search exhaustively, regardless of the kind of index.

        Returns:
            Exactly min(n, eligible rows) distinct rows for each query.

        Raises:
            RequestError: n is below 1, a query is of another length or not finite, or a bitmap is of other rows.
        """
        asked = check_asked(queries, n, (self.size, self.dim), exclude, within, predicates)
        return self.find(asked, n, exact=exact) if asked else []

    def search_one(
        self,
        query: Float32,
        n: int,
        excluded: Int64,
        within: RowBitmap | None = None,
        predicate: Predicate | None = None,
        *,
        exact: bool = False,
    ) -> Ranked:
        """Return the list of one query, as `search_each` does, without arrays for many.

        Args:
            query: float32 [dim], finite.
            n: rows wanted, at least 1.
            excluded: int64 [m], rows that must not be returned, repeats allowed.
            within: the rows that may be returned; None for all.
            predicate: the filter behind the bitmap, if there is one.
            exact: search exhaustively, regardless of the kind of index.

        Raises:
            RequestError: As for `search_each`.
        """
        sound = n >= 1 and query.shape == (self.dim,) and isfinite(query.dot(query))
        if not sound or (within is not None and within.size != self.size):
            check_asked(query[None], n, (self.size, self.dim), [excluded], [within])  # raises, unless the square overflows
        asked = SearchQuery(
            np.ascontiguousarray(query, dtype=np.float32),
            excluded if (excluded[1:] > excluded[:-1]).all() else rising_rows(excluded),  # sorted already, as nearly always
            within,
            predicate,
        )
        return self.find([asked], n, exact=exact)[0]

    def write(self, path: Path) -> bool:  # noqa: ARG002
        """Write the index to one file, if its engine keeps one on this machine.

        Args:
            path: a file that does not exist.

        Returns:
            Whether there is a file; without one, the engine opens the index by its parameters alone.

        Raises:
            IndexFileError: The file cannot be written.
        """
        return False

    def close(self) -> None:  # noqa: B027
        """Release connections and the like; the index can be opened again."""

    def discard(self) -> None:
        """Close an index that is not to be used, and remove what its engine keeps.

        A local index has nothing to remove.
        """
        self.close()


class TunableIndex(ItemIndex):
    """An index that looks as hard as it is set to, at no cost after it was built."""

    @property
    @abstractmethod
    def param_grid(self) -> Sequence[float]:
        """Search parameters, rising; recall does not fall along them, but for rounding."""

    @abstractmethod
    def with_search_param(self, value: float, n: int) -> "TunableIndex":
        """Return the same index with another setting.

        Args:
            value: one of `param_grid`.
            n: length of the lists that it is set for.
        """

    def with_short_param(self, value: float, short: int) -> "TunableIndex":  # noqa: ARG002
        """Return the same index with another setting for short lists.

        Args:
            value: one of `param_grid`, for lists of this length; an engine that stops by what it has found needs more for
                the head of a list than for all of it, and any other may ignore the length, or the call.
            short: their length, less than that of the lists that it is set for.
        """
        return self

    def for_longer_lists(
        self,
        vectors: Float32,  # noqa: ARG002
        queries: Float32,  # noqa: ARG002
        n: int,  # noqa: ARG002
        target: float,  # noqa: ARG002
    ) -> "TunableIndex":
        """Return the index set up for lists longer than those it was tuned for.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], those that it was tuned with.
            n: length of the lists that it was tuned for.
            target: mean share of the exact list to find.
        """
        return self


class Candidate(Protocol):
    """An index of a certain shape that the tuner may build."""

    @property
    def name(self) -> str:
        """Kind and size."""

    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> TunableIndex:
        """Build it.

        Args:
            vectors: float32 [size, dim], finite.
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
            seed: of whatever is drawn.
            threads: to build with; a search uses one.
        """


class Engine(Protocol):
    """Builds, opens and proposes indexes; `recall.index.registry` lists it.

    Attributes:
        name: as the manifest records it.
        kinds: of index that it opens.
        file: name of its file within a bundle; None if it does not keep one there.
    """

    name: str
    kinds: Sequence[str]
    file: str | None

    def with_columns(self, columns: Sequence[CodedColumn]) -> "Engine":  # noqa: ARG002
        """Return the engine with columns that it stores beside vectors, for filters."""
        return self

    def drop(self, kind: str, params: Params) -> None:  # noqa: ARG002
        """Remove what is kept of an index outside of its bundle, if it is still there.

        Args:
            kind: one of `kinds`.
            params: as the index gave them.

        Raises:
            IndexFileError: it could not be removed.
        """
        return

    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
        """Build an index without comparing it with others.

        Args:
            kind: one of `kinds`.
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one: an approximate index is fitted to them.
            config: target and length of lists.
            seed: the same arguments give the same index.
            threads: to build with.

        Raises:
            ExportError: the vectors are not finite.
        """

    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> ItemIndex:
        """Open an index that was built before.

        Args:
            path: its file, if it has one: an engine with a `file` is never passed None.
            kind: one of `kinds`.
            params: as the index gave them.
            vectors: float32 [size, dim], that it was built over.
            threads: that one search may use.

        Raises:
            IndexFileError: it cannot be opened, or is over other vectors.
        """

    def candidates(self, size: int) -> Sequence[Candidate]:
        """Return what the tuner tries for `size` items, the most promising first."""

    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        """Return what builds a similar index over other vectors; nothing if it is exact.

        Args:
            kind: one of `kinds`.
            params: as the index gave them.
        """


def check_vectors(vectors: Float32) -> None:
    """Check that vectors are finite float32 [size, dim] with at least one row.

    Raises:
        ExportError: They are not; up to five rows are named.
    """
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
