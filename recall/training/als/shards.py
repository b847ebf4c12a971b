"""Feature matrices for the whole-catalogue solver, cut into shards of rows.

A shard has only the features of its rows, and numbers its entries within them. Its contributions to a feature table are
first summed in a table of its features; the tables of all shards are summed in order. The cut depends only on the data,
so the result is bit-identical for any number of threads.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int32, Int64, UInt8
from recall.features.csr import SparseRows, stable_order
from recall.training.als import sparse_kernels
from recall.training.als.sparse_kernels import STRIDE, Entries

# Threads that share out the parts of a sum.

Part = TypeVar("Part")
Result = TypeVar("Result")


class Workers:
    """Thread pool that maps a function over parts, with results in order.

    The partition never depends on the number of threads, so neither do the bits of sums over it.
    """

    def __init__(self, threads: int) -> None:
        self._ahead = 2 * threads  # results that may wait: enough to keep every thread busy, few enough to bound memory
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="solver") if threads > 1 else None

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
        """Yield function(part) for every part, in order.

        Args:
            function: runs on a thread.
            parts: the parts.
        """
        if self._pool is None:
            yield from map(function, parts)
            return
        waiting: deque[Future[Result]] = deque()
        for part in parts:
            if len(waiting) == self._ahead:
                yield waiting.popleft().result()
            waiting.append(self._pool.submit(function, part))
        while waiting:
            yield waiting.popleft().result()

    def run(self, function: Callable[[Part], None], parts: Sequence[Part]) -> None:
        """Run function(part) for every part.

        Args:
            function: runs on a thread.
            parts: the parts.
        """
        for _ in self.map(function, parts):
            pass


_SHARDS = 16  # at most
_LEAST_WORK = 1 << 12  # entries of a shard, about: with fewer, passing it to a thread takes longer than its sums
_SHARD_WORK = 1 << 20  # entries of a shard, about: its feature table is then small compared with them
_ROWS = 1 << 16  # processed together, to limit memory
_BLOCK_VALUES = 1 << 17  # vector components worked on at a time, 512 KB: two such blocks stay in a core's cache


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive rows of a feature matrix X.

    Attributes:
        first, last: the rows are [first, last).
        x: their entries, numbered within `features`, `groups` rows of them for each; delta-encoded.
        is_delta: uint8 [(last - first) groups], from `delta_encode`.
        groups: rows of x that sum to one row of X.
        features: int32 [m], rising: the features that these rows have.
    """

    first: int
    last: int
    x: Entries
    is_delta: UInt8
    features: Int32
    groups: int

    def blocks(self, d: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of rows, from `first`, whose vectors of d components fit the cache."""
        rows = max(1, _BLOCK_VALUES // max(d, 1) // STRIDE) * STRIDE
        for first in range(0, self.last - self.first, rows):
            yield first, min(first + rows, self.last - self.first)

    def rows(self, first: int, last: int) -> tuple[Entries, UInt8]:
        """Return the entries and `is_delta` of the shard's own rows [first, last).

        Args:
            first: position of the first row.
            last: position after the last row.
        """
        part = slice(first * self.groups, last * self.groups)
        return self.x.rows(part.start, part.stop), self.is_delta[part]


class FeatureMatrix:
    """X of one side, [n, n_features], in shards. Features of a row must be distinct.

    The entries of a row may be in groups, which are summed separately.

    Attributes:
        n, n_features, groups: rows, features and groups of a row.
        shards: its rows, in order.
    """

    def __init__(
        self,
        rows: SparseRows,
        groups: int,
        work: npt.NDArray[np.integer],
        workers: Workers,
        delta_encoded: bool = False,
    ) -> None:
        """Cut rows into shards of about equal work.

        Args:
            rows: n groups rows, those of one row of X after one another.
            groups: of each row.
            work: integer [n], entries that pass through each row.
            workers: share them.
            delta_encoded: rows may be delta-encoded; powers and transposes are then unavailable.
        """
        self.n, self.n_features, self.groups = len(work), rows.n_features, groups
        self._workers = workers
        cuts = _shard_bounds(work)
        self.shards = tuple(self._cut(rows, cuts, delta_encoded and groups == 1))

    def vstack(self, other: "FeatureMatrix") -> "FeatureMatrix":
        """Append the rows of another matrix of the same features, without a copy."""
        both = copy.copy(self)
        both.n = self.n + other.n
        moved = (replace(shard, first=shard.first + self.n, last=shard.last + self.n) for shard in other.shards)
        both.shards = (*self.shards, *moved)
        return both

    def times(self, table: Float32, power: int = 1) -> Float32:
        """Return X table, [n groups, d].

        Args:
            table: [n_features, d].
            power: to which the entries of X are raised.
        """
        out = np.empty((self.n * self.groups, table.shape[1]), dtype=np.float32)
        self.fill(self.shards, table, out, power)
        return out

    def fill(self, shards: Sequence[Shard], table: Float32, out: Float32, power: int = 1) -> None:
        """Compute X table for the rows of consecutive shards.

        Args:
            shards: of the rows.
            table: [n_features, d].
            out: [rows groups, d].
            power: to which the entries of X are raised.
        """
        start = shards[0].first

        def gathered(shard: Shard) -> None:
            rows = out[(shard.first - start) * self.groups : (shard.last - start) * self.groups]
            sparse_kernels.gather(*_powered(shard.x, power), shard.is_delta, shard.features, table, rows)

        self._workers.run(gathered, shards)

    def transposed_times(self, rows: Float32, power: int = 1) -> Float32:
        """Return X' rows, [n_features, d].

        Args:
            rows: [n groups, d].
            power: to which the entries of X are raised.
        """

        def scattered(shard: Shard) -> Float32:
            part = np.zeros((len(shard.features), rows.shape[1]), dtype=np.float32)
            own = rows[shard.first * self.groups : shard.last * self.groups]
            sparse_kernels.scatter(*_powered(shard.x, power), shard.is_delta, own, part)
            return part

        total = np.zeros((self.n_features, rows.shape[1]), dtype=np.float32)
        self.add(scattered, total)
        return total

    def add(self, function: Callable[[Shard], Float32], total: Float32) -> None:
        """Add what each shard contributes to its own features.

        Args:
            function: gives [m, d] for a shard.
            total: [n_features, d], added to.
        """
        for shard, part in zip(self.shards, self.mapped(function), strict=True):
            m = len(shard.features)
            home = Entries(np.arange(m + 1), shard.features, np.ones(m, dtype=np.float32))
            sparse_kernels.scatter(*home, np.zeros(m, dtype=np.uint8), part, total)

    def mapped(self, function: Callable[[Shard], Result]) -> Iterator[Result]:
        """function(shard) for every shard, in their order."""
        return self._workers.map(function, self.shards)

    def _cut(self, rows: SparseRows, cuts: list[int], delta_encoded: bool) -> Iterator[Shard]:
        for first, last in pairwise(cuts):
            indptr = rows.indptr[first * self.groups : last * self.groups + 1]
            indices, weights = rows.indices[indptr[0] : indptr[-1]], rows.weights[indptr[0] : indptr[-1]]
            present = np.bincount(indices, minlength=rows.n_features) > 0
            local = (np.cumsum(present, dtype=np.int32) - np.int32(1))[indices]
            features = np.flatnonzero(present).astype(np.int32)
            x, is_delta = Entries(indptr - indptr[0], local, weights), np.zeros(len(indptr) - 1, dtype=np.uint8)
            if delta_encoded:
                x, is_delta = sparse_kernels.delta_encode(x, len(features))
            yield Shard(first, last, x, is_delta, features, self.groups)


def _shard_bounds(work: npt.NDArray[np.integer]) -> list[int]:
    """Return where to cut rows into shards of about equal work, rising from 0."""
    cumulative = np.cumsum(work)
    total = int(cumulative[-1]) if len(cumulative) else 0
    count = max(1, min(_SHARDS, total // _LEAST_WORK), total // _SHARD_WORK)
    inner = np.searchsorted(cumulative, np.arange(1, count) * (total / count))
    return [int(cut) for cut in np.unique(np.concatenate([[0], inner, [len(work)]]))]


def squared_sums(rows: SparseRows, values: Float32) -> Float32:
    """Return (X o X)' values: [n_features, d].

    Args:
        rows: X.
        values: [n, d].
    """
    total = np.zeros((rows.n_features, values.shape[1]))
    for first in range(0, len(rows), _ROWS):
        last = min(first + _ROWS, len(rows))
        entries = slice(rows.indptr[first], rows.indptr[last])
        lengths = np.diff(rows.indptr[first : last + 1])
        for column in range(values.shape[1]):
            weights = rows.weights[entries] ** 2 * np.repeat(values[first:last, column], lengths)
            total[:, column] += np.bincount(rows.indices[entries], weights, rows.n_features)
    return total.astype(np.float32)


def _powered(x: Entries, power: int) -> Entries:
    return x if power == 1 else x._replace(weights=x.weights**power)


# Observed pairs in the two orders in which the whole-catalogue solver reads them.

_CHUNK_VALUES = 1 << 23  # vector components of the contexts in memory at a time, 32 MB
_RANGES = 16  # parts of a chunk that may be worked on at the same time; no two share an item


@dataclass(frozen=True, slots=True)
class ItemRange:
    """Pairs of some contexts and some items, item after item.

    Attributes:
        items: int32 [n], one for each row of `pairs`.
        pairs: indices are contexts, counted from the first one of the chunk.
    """

    items: Int32
    pairs: Entries


@dataclass(frozen=True, slots=True)
class Chunk:
    """The pairs of consecutive shards of contexts, item after item.

    Attributes:
        shards: of the contexts' feature matrix.
        ranges: all pairs; no two ranges share an item.
    """

    shards: tuple[Shard, ...]
    ranges: tuple[ItemRange, ...]

    def with_items(self, other: "Chunk", items: int) -> "Chunk":
        """Add the pairs of further items with the same contexts.

        Args:
            other: its items count from `items` on.
            items: number of items of this chunk.
        """
        moved = tuple(replace(part, items=part.items + np.int32(items)) for part in other.ranges)
        return Chunk(self.shards, self.ranges + moved)

    @property
    def first(self) -> int:
        """The first context."""
        return self.shards[0].first

    @property
    def last(self) -> int:
        """One past the last context."""
        return self.shards[-1].last


def by_item(pairs: Entries, columns: int, shards: Sequence[Shard], k: int) -> Iterator[Chunk]:
    """Yield the pairs in chunks, each sorted by item, then context.

    The context vectors of a chunk, of k components, are in memory at once.

    Args:
        pairs: a row for each context; indices are items in [0, columns).
        columns: number of items.
        shards: of the contexts' feature matrix; they and k determine the chunks.
        k: number of components.
    """
    rows = max(1, _CHUNK_VALUES // max(k, 1))
    taken: list[Shard] = []
    for shard in shards:
        if taken and shard.last - taken[0].first > rows:
            yield _chunk(pairs, columns, tuple(taken))
            taken = []
        taken.append(shard)
    if taken:
        yield _chunk(pairs, columns, tuple(taken))


def _chunk(pairs: Entries, columns: int, shards: tuple[Shard, ...]) -> Chunk:
    first, last = shards[0].first, shards[-1].last
    by_column = transposed(pairs.rows(first, last), columns)
    items = np.flatnonzero(np.diff(by_column.indptr)).astype(np.int32)
    indptr = np.append(by_column.indptr[items], by_column.indptr[-1])
    count = max(1, min(_RANGES, int(indptr[-1]) // _LEAST_WORK))
    ranges = tuple(
        ItemRange(items[low:high], by_column._replace(indptr=indptr[low : high + 1]))
        for low, high in split_by_entries(indptr, count)
    )
    return Chunk(shards, ranges)


def transposed(pairs: Entries, columns: int) -> Entries:
    """Return the same pairs as one row for each column, in order of rows.

    Args:
        pairs: the pairs.
        columns: number of columns.
    """
    start, stop = pairs.indptr[0], pairs.indptr[-1]
    order = stable_order(pairs.indices[start:stop], columns)
    rows = np.repeat(np.arange(pairs.n, dtype=np.int32), np.diff(pairs.indptr))
    counts = np.bincount(pairs.indices[start:stop], minlength=columns)
    return Entries(np.concatenate([[0], np.cumsum(counts)]), rows[order], pairs.weights[start:stop][order])


def split_by_entries(indptr: Int64, parts: int) -> list[tuple[int, int]]:
    """Return at most `parts` ranges of rows with about equally many entries.

    Args:
        indptr: int64 [n + 1].
        parts: maximum number.
    """
    inner = np.searchsorted(indptr, indptr[0] + np.arange(1, parts) * ((indptr[-1] - indptr[0]) / parts))
    bounds = np.unique(np.concatenate([[0], inner, [len(indptr) - 1]]))
    return [(int(low), int(high)) for low, high in pairwise(bounds)]
