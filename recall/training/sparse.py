"""Feature matrices for the whole-catalogue solver, cut into shards of rows.

A shard keeps the features that its rows have and numbers its entries within them. Whatever a shard adds to a feature
table it adds to a table of its own features first; the shards' tables are summed in their order. The cut depends on the
data alone, so the result has the same bits on any number of threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recall.features.sparse import SparseRows
from recall.training.kernels.contract import STRIDE, Entries, Float32, Int32, Kernels, UInt8
from recall.training.workers import Workers

_SHARDS = 16  # at least, so that there is something to share out
_SHARD_WORK = 1 << 20  # entries in one shard, about: its own feature table is then small beside them
_ROWS = 1 << 16  # looked at together where memory would be filled otherwise
_BLOCK_VALUES = 1 << 17  # vector components worked on at a time, 512 KB: two such blocks stay in a core's cache


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive rows of a feature matrix X.

    Attributes:
        first, last: the rows are [first, last).
        x: their entries, numbered within `features`; of a row that follows, what sets it apart from the row before.
        follows: uint8 [last - first].
        features: int32 [m], rising: the features that these rows have.
    """

    first: int
    last: int
    x: Entries
    follows: UInt8
    features: Int32

    def blocks(self, d: int) -> Iterator[tuple[int, int]]:
        """Ranges of the shard's own rows, counted from `first`, whose vectors of d components stay in the cache."""
        rows = max(1, _BLOCK_VALUES // max(d, 1) // STRIDE) * STRIDE
        for first in range(0, self.x.n, rows):
            yield first, min(first + rows, self.x.n)


class FeatureMatrix:
    """X of one side, [n, n_features]. No row may hold a feature twice, or its square would be wrong.

    Attributes:
        shape: (n, n_features).
        shards: its rows, in order.
        single: whether no row has two features, so that features never meet.
    """

    def __init__(
        self, rows: SparseRows, work: npt.NDArray[np.integer], kernels: Kernels, workers: Workers, abridged: bool = False
    ) -> None:
        """Cut `rows` where their `work` (integer [n], entries that pass through each) is shared out evenly.

        With `abridged`, rows may be kept as differences from the row before; powers and transposes are then not at hand.
        """
        self.shape = (len(rows), rows.n_features)
        self.shards = tuple(_abridged(shard, kernels) if abridged else shard for shard in _cut(rows, work))
        self.single = bool(np.diff(rows.indptr).max(initial=0) <= 1)
        self._kernels = kernels
        self._workers = workers

    def times(self, table: Float32, power: int = 1) -> Float32:
        """X table, the entries of X raised to a power: [n_features, d] -> [n, d]."""
        out = np.empty((self.shape[0], table.shape[1]), dtype=np.float32)
        self.fill(self.shards, table, out, power)
        return out

    def fill(self, shards: Sequence[Shard], table: Float32, out: Float32, power: int = 1) -> None:
        """X table for the rows of consecutive shards: [n_features, d] -> out [rows, d]."""
        start = shards[0].first

        def gathered(shard: Shard) -> None:
            rows = out[shard.first - start : shard.last - start]
            self._kernels.gather(_powered(shard.x, power), shard.follows, shard.features, table, rows)

        for _ in self._workers.map(gathered, shards):
            pass

    def transposed_times(self, rows: Float32, power: int = 1) -> Float32:
        """X' rows, the entries of X raised to a power: [n, d] -> [n_features, d]."""

        def scattered(shard: Shard) -> Float32:
            part = np.zeros((len(shard.features), rows.shape[1]), dtype=np.float32)
            self._kernels.scatter(_powered(shard.x, power), shard.follows, rows[shard.first : shard.last], part)
            return part

        total = np.zeros((self.shape[1], rows.shape[1]), dtype=np.float32)
        for shard, part in zip(self.shards, self._workers.map(scattered, self.shards), strict=True):
            self.add(shard, part, total)
        return total

    def add(self, shard: Shard, part: Float32, total: Float32) -> None:
        """Add a table of the shard's own features [m, d] to one of all features [n_features, d]."""
        m = len(shard.features)
        home = Entries(np.arange(m + 1), shard.features, np.ones(m, dtype=np.float32))
        self._kernels.scatter(home, np.zeros(m, dtype=np.uint8), part, total)


def _cut(rows: SparseRows, work: npt.NDArray[np.integer]) -> Iterator[Shard]:
    upto = np.cumsum(work)
    total = int(upto[-1]) if len(upto) else 0
    count = max(_SHARDS, total // _SHARD_WORK)
    inner = np.searchsorted(upto, np.arange(1, count) * (total / count))
    bounds = np.unique(np.concatenate([[0], inner, [len(rows)]]))
    for first, last in pairwise(bounds):
        start, stop = rows.indptr[first], rows.indptr[last]
        indices = rows.indices[start:stop]
        met = np.bincount(indices, minlength=rows.n_features) > 0
        local = (np.cumsum(met, dtype=np.int32) - np.int32(1))[indices]
        x = Entries(rows.indptr[first : last + 1] - start, local, rows.weights[start:stop])
        yield Shard(int(first), int(last), x, np.zeros(x.n, dtype=np.uint8), np.flatnonzero(met).astype(np.int32))


def _abridged(shard: Shard, kernels: Kernels) -> Shard:
    x, follows = kernels.differences(shard.x, len(shard.features))
    return replace(shard, x=x, follows=follows)


def squared_sums(rows: SparseRows, values: Float32) -> Float32:
    """(X o X)' values: [n, d] -> [n_features, d]."""
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
