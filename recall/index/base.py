"""Interfaces of indexes, of candidates of the tuner, and of index engines.

An index is built once over item vectors and never changes. A row is the position of an item among these vectors. A query gets
the same answer, bit for bit, alone or in a batch; equal scores are ordered by row.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from recall._arrays import Float32, Int64
from recall.config import IndexConfig
from recall.errors import ExportError, IndexDownError
from recall.index.bitmap import Mask, RowBitmap
from recall.index.query import CodedColumn, Predicate, SearchQuery, check_queries, sorted_distinct

REPLACE_HINT = "Copy the bundle again, or make another index for it: recall tune-index BUNDLE"
"""Hint of errors about an index that is damaged or missing."""
OTHER_EXPORT_HINT = "Index and vectors come from different exports; export again"
"""Hint of errors about an index of other vectors than the bundle's."""

Params = Mapping[str, int | float | str]
"""Parameters needed to open an index besides its file, such as the name of a collection on a server."""


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
    """Pad ranked lists to arrays of one width.

    Args:
        ranked: one list for each query.
        n: width of the arrays, at least the length of each list.
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
        remote: whether a search waits for a server, so that it must not run on an event loop.
    """

    kind: str
    size: int
    dim: int
    remote: bool = False

    @property
    def error(self) -> str:
        """Return why this process answers instead of a server; empty if it does not."""
        return ""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether each search finds the best rows; an approximate index may miss some."""

    @property
    @abstractmethod
    def params(self) -> Params:
        """Parameters needed to open the index, besides its file."""

    @abstractmethod
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        """Answer checked queries.

        An engine scores its results with `recall.index.topk.rank`, so that all engines return bit-identical scores.

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
        """Return the rows with the largest inner product for each query, as lists.

        Args:
            queries: float32 [q, dim], finite.
            n: rows wanted, at least 1; it may exceed `size`.
            exclude: int64 [m] for each query, rows that must not be returned, repeats allowed; None excludes nothing. Meant
                for the hundreds of items that one user has seen; use `within` for larger sets, and for sets of many requests.
            within: the rows that may be returned, one bitmap or None (all rows) for each query.
            predicates: for each query, the filter that the bitmap was made from, or None. An engine may evaluate it to read
                fewer rows, but the bitmap decides.
            exact: search exhaustively, regardless of the kind of index.

        Returns:
            Exactly min(n, eligible rows) distinct rows for each query.

        Raises:
            RequestError: n is below 1, a query has the wrong length or is not finite, or a bitmap has the wrong size.
        """
        checked = check_queries(queries, n, (self.size, self.dim), exclude, within, predicates)
        return self.find(checked, n, exact=exact) if checked else []

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
        """Return the list of one query: `search_each` without the overhead of a batch.

        Args:
            query: float32 [dim], finite.
            n: rows wanted, at least 1.
            excluded: int64 [m], rows that must not be returned, repeats allowed.
            within: the rows that may be returned; None for all.
            predicate: the filter that the bitmap was made from; None without a filter.
            exact: search exhaustively, regardless of the kind of index.

        Raises:
            RequestError: As for `search_each`.
        """
        valid = n >= 1 and query.shape == (self.dim,) and isfinite(query.dot(query))
        if not valid or (within is not None and within.size != self.size):
            check_queries(query[None], n, (self.size, self.dim), [excluded], [within])  # raises, unless only the dot overflowed
        checked = SearchQuery(
            np.ascontiguousarray(query, dtype=np.float32),
            excluded if (excluded[1:] > excluded[:-1]).all() else sorted_distinct(excluded),  # nearly always sorted already
            within,
            predicate,
        )
        return self.find([checked], n, exact=exact)[0]

    def write(self, path: Path) -> bool:  # noqa: ARG002
        """Write the index to a file, if its engine uses local files.

        Args:
            path: a file that does not exist.

        Returns:
            Whether a file was written; if not, the engine opens the index from its parameters alone.

        Raises:
            IndexFileError: The file cannot be written.
        """
        return False

    def close(self) -> None:  # noqa: B027
        """Release connections and files; the index can be opened again."""

    def discard(self) -> None:
        """Close an index that was not chosen, and delete its data on a server.

        A local index has nothing to delete.
        """
        self.close()


class TunableIndex(ItemIndex):
    """An index with a search parameter, its effort, that can be set after the build.

    More effort finds more of the exact list, and takes longer.
    """

    @property
    @abstractmethod
    def param_grid(self) -> Sequence[float]:
        """Values of the search parameter, ascending; recall does not fall along them."""

    @abstractmethod
    def with_search_param(self, value: float, n: int) -> "TunableIndex":
        """Return the same index with a value of the search parameter.

        Args:
            value: one of `param_grid`.
            n: length of the lists that the value was tuned for.
        """

    def with_short_param(self, value: float, short: int) -> "TunableIndex":  # noqa: ARG002
        """Return the same index with a value of the search parameter for short lists.

        Args:
            value: one of `param_grid`. An engine that stops early by the results found so far needs a larger value for the
                head of a list than for the whole list; other engines may ignore it.
            short: length of the short lists, less than that of the lists that the index is tuned for.
        """
        return self

    def for_longer_lists(
        self,
        vectors: Float32,  # noqa: ARG002
        queries: Float32,  # noqa: ARG002
        n: int,  # noqa: ARG002
        target: float,  # noqa: ARG002
    ) -> "TunableIndex":
        """Return the index with its search parameter extended to longer lists.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], the queries that it was tuned with.
            n: length of the lists that it was tuned for.
            target: mean share of the exact list to find.
        """
        return self


class Candidate(Protocol):
    """A kind and size of index that the tuner may build and measure."""

    @property
    def name(self) -> str:
        """Kind and size."""

    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> TunableIndex:
        """Build the index.

        Args:
            vectors: float32 [size, dim], finite.
            queries: float32 [q, dim], vectors of real users, at least one; the index is fitted to their distribution.
            seed: of all random draws.
            threads: to build with; a search uses one.
        """


class Engine(Protocol):
    """Builds and opens indexes of some kinds, and proposes candidates to the tuner.

    `recall.index.registry` lists all engines.

    Attributes:
        name: as the manifest records it.
        kinds: kinds of index that it opens.
        file: name of its file within a bundle; None if its indexes have no local file.
    """

    name: str
    kinds: Sequence[str]
    file: str | None

    def with_columns(self, columns: Sequence[CodedColumn]) -> "Engine":  # noqa: ARG002
        """Return the engine with columns that it stores beside the vectors, for filters."""
        return self

    def drop(self, kind: str, params: Params) -> None:  # noqa: ARG002
        """Delete the data of an index outside of its bundle, if they still exist.

        Args:
            kind: one of `kinds`.
            params: the index's `params`.

        Raises:
            IndexFileError: It cannot be deleted.
        """
        return

    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
        """Build an index without comparing it with others.

        Args:
            kind: one of `kinds`.
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one; an approximate index is fitted to them.
            config: target recall and length of lists.
            seed: the same arguments give the same index.
            threads: to build with.

        Raises:
            ExportError: The vectors are not finite.
        """

    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> ItemIndex:
        """Open an index that was built before.

        Args:
            path: its file; None only for an engine without a `file`.
            kind: one of `kinds`.
            params: the index's `params`.
            vectors: float32 [size, dim], the vectors that it was built over.
            threads: that one search may use.

        Raises:
            IndexFileError: It cannot be opened, or was built over other vectors.
        """

    def candidates(self, size: int) -> Sequence[Candidate]:
        """Return the candidates for `size` items, the most promising first."""

    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        """Return candidates that resemble an existing index; none for an exact one.

        Args:
            kind: one of `kinds`.
            params: the index's `params`.
        """


def discard_all(indexes: Iterable[ItemIndex]) -> None:
    """Discard indexes; on a server that does not answer, they remain."""
    for index in indexes:
        with suppress(IndexDownError):
            index.discard()


@contextmanager
def discarded_on_error(*indexes: ItemIndex) -> Iterator[None]:
    """Discard indexes if the block raises: on a server, they would remain.

    Args:
        indexes: the indexes.
    """
    try:
        yield
    except BaseException:
        discard_all(indexes)
        raise


def check_vectors(vectors: Float32) -> None:
    """Check that vectors are finite float32 [size, dim] with at least one row.

    Raises:
        ExportError: They are not; the message names up to five rows.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        raise ExportError(
            f"item vectors must be float32 [items, dim] with at least one item, got {vectors.dtype} {vectors.shape}",
            where="item vectors",
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        shown = ", ".join(str(row) for row in wrong[:5])
        raise ExportError(
            f"{len(wrong)} of {len(vectors)} item vectors hold NaN or an infinity, first in rows {shown}",
            where="item vectors",
            hint="Check the training metrics: the model may have diverged",
        )
