"""Weighted feature rows in CSR form, the input of every model, and their fields."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Bool, Float32, Float64, Floats, Int32, Int64, Integers
from recall.errors import DataError
from recall.features.vocabulary import UNKNOWN

_MOST = 2**31 - 1  # features, whose numbers are int32
_CHUNK = 1 << 12  # rows summed at once by weighted_sum: 1 MB of sums at k = 64, which stays in the cache
_ENTRIES = 1 << 20  # counted at once: numpy widens their features to 64 bits


def stable_order(keys: Integers, bound: int) -> Int64:
    """Return the stable argsort of integers of [0, bound): integer [n] -> int64 [n].

    numpy sorts 16-bit integers by radix, several times faster than wider ones; wider ones are sorted half by half.

    Args:
        keys: integer [n].
        bound: exclusive upper bound of the keys.
    """
    if bound <= 1 << 16:
        return np.argsort(keys.astype(np.uint16), kind="stable")
    if bound > 1 << 32:
        return np.argsort(keys, kind="stable")
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    return np.asarray(order[np.argsort((keys[order] >> 16).astype(np.uint16), kind="stable")])


def ranges(first: Int64, lengths: Int64) -> Int64:
    """Concatenate ranges of integers.

    Args:
        first: int64 [n], where each range begins.
        lengths: int64 [n].

    Returns:
        int64 [sum of lengths].
    """
    return np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def _check_size(n_features: int) -> None:
    if n_features > _MOST:
        raise DataError(
            f"the fields of one side have {n_features:,} features together, and at most {_MOST:,} can be numbered",
            where="fields",
            hint="Give the largest ones a min_count, or make them hashed fields",
        )


def take_lists(indptr: Int64, rows: Integers) -> tuple[Int64, Int64]:
    """Return offsets and entries of some lists in compressed sparse row form.

    Args:
        indptr: int64 [n + 1], offsets of all lists.
        rows: integer [m], positions of the lists to take, in any order and with repeats.

    Returns:
        int64 [m + 1], the offsets of these lists, and int64 [entries], the positions of their entries among all.
    """
    lengths = np.diff(indptr)[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ends, ranges(indptr[:-1][rows], lengths)


@dataclass(frozen=True, slots=True)
class SparseRows:
    """n rows of weighted features in compressed sparse row form.

    Row r holds features `indices[indptr[r]:indptr[r + 1]]` with the weights beside them. A feature may occur twice in
    a row; its weights then add up in `weighted_sum`, so encoders merge repeated features before they build rows.

    Attributes:
        indptr: int64 [n + 1], starts at 0 and never falls.
        indices: int32 [nnz], each in [0, n_features).
        weights: float32 [nnz].
        n_features: number of rows of the table that the indices point into.
    """

    indptr: Int64
    indices: Int32
    weights: Float32
    n_features: int

    def __post_init__(self) -> None:
        """Refuse more features than int32 can number; raises DataError."""
        _check_size(self.n_features)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of (row, feature) entries."""
        return len(self.indices)

    @property
    def owners(self) -> Int64:
        """int64 [nnz], the row of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def take(self, rows: Integers) -> "SparseRows":
        """Return the rows at positions `rows`, integer [m], in that order, with repeats."""
        indptr, source = take_lists(self.indptr, rows)
        return SparseRows(indptr, self.indices[source], self.weights[source], self.n_features)

    def weighted_sum(self, table: Floats) -> Float32:
        """sum_j x_j table[j] for every row.

        Args:
            table: float [n_features, d].

        Returns:
            float32 [n, d]; a row without features gives zeros.

        Raises:
            IndexError: a feature is outside the table.
        """
        if len(self) == 1:  # one request: the loop below costs more in calls than in sums
            return np.asarray(self.weights @ table[self.indices], dtype=np.float32)[None, :]
        if self.nnz and not 0 <= int(self.indices.min()) <= int(self.indices.max()) < len(table):
            raise IndexError(f"features {self.indices.min()}..{self.indices.max()} for a table of {len(table)} rows")
        result = np.zeros((len(self), table.shape[1]), dtype=np.float32)
        scratch = np.empty((min(len(self), _CHUNK), table.shape[1]), dtype=np.result_type(table, np.float32))
        for first in range(0, len(self), _CHUNK):
            last = min(first + _CHUNK, len(self))
            starts, lengths = self.indptr[first:last], np.diff(self.indptr[first : last + 1])
            # the longest rows first, so that those with an s-th feature are a prefix and every step is one dense sum
            order = np.argsort(-lengths, kind="stable")
            starts, falling = starts[order], -lengths[order]
            sums = np.zeros((len(order), table.shape[1]), dtype=np.float32)
            for step in range(int(-falling[0])):
                filled = int(np.searchsorted(falling, -step, side="left"))
                source = starts[:filled] + step
                # "clip" lets numpy gather straight into the scratch; the check above has shown that nothing is clipped
                parts = np.take(table, self.indices[source], axis=0, out=scratch[:filled], mode="clip")
                parts *= self.weights[source, None]
                sums[:filled] += parts
            result[first:last][order] = sums
        return result

    def counts(self) -> Int64:
        """Count the entries of each feature: int64 [n_features]."""
        counts = np.zeros(self.n_features, dtype=np.int64)
        for first in range(0, self.nnz, _ENTRIES):
            counts += np.bincount(self.indices[first : first + _ENTRIES], minlength=self.n_features)
        return counts

    def column_sums(self, values: Integers) -> Float64:
        """Return sum_r x_rj values[r] for each feature j: float64 [n_features].

        Args:
            values: integer [n].
        """
        sums, step = np.zeros(self.n_features), max(1, _ENTRIES * len(self) // max(self.nnz, 1))
        for first in range(0, len(self), step):
            lengths = np.diff(self.indptr[first : first + step + 1])
            part = slice(self.indptr[first], self.indptr[first] + lengths.sum())
            np.add.at(sums, self.indices[part], self.weights[part] * np.repeat(values[first : first + step], lengths))
        return sums

    def only(self, blocks: Iterable["FeatureBlock"]) -> "SparseRows":
        """Return the rows with the features of some blocks only."""
        return self.keep_entries(FeatureBlock.union(blocks, self.indices))

    def without(self, blocks: Iterable["FeatureBlock"]) -> "SparseRows":
        """Drop the features of some blocks, as for a model without those fields."""
        return self.keep_entries(~FeatureBlock.union(blocks, self.indices))

    def replaced(self, blocks: Sequence["FeatureBlock"], other: "SparseRows") -> "SparseRows":
        """Replace the features of some blocks by those of another request.

        Args:
            blocks: blocks to replace; all others stay.
            other: one row of the same feature space.
        """
        return SparseRows.hstack([self.without(blocks), other.only(blocks).take(np.zeros(len(self), dtype=np.int64))])

    def keep_entries(self, kept: Bool) -> "SparseRows":
        """Return the rows with some of their entries, bool [nnz]."""
        indptr = np.concatenate([[0], np.cumsum(kept)])[self.indptr]
        return SparseRows(indptr, self.indices[kept], self.weights[kept], self.n_features)

    @staticmethod
    def one_hot(features: Int32, n_features: int) -> "SparseRows":
        """Return rows with one feature of weight 1 each.

        Args:
            features: int32 [n].
            n_features: size of the feature space.
        """
        n = len(features)
        return SparseRows(np.arange(n + 1, dtype=np.int64), features, np.ones(n, dtype=np.float32), n_features)

    @staticmethod
    def from_coo(
        rows: Integers,
        features: Integers,
        weights: Floats,
        n: int,
        n_features: int,
    ) -> "SparseRows":
        """Build n rows from entries in any order; duplicates are summed.

        Args:
            rows: integer [entries], each in [0, n).
            features: integer [entries], each in [0, n_features).
            weights: float [entries].
            n: number of rows.
            n_features: size of the feature space.
        """
        keys = rows.astype(np.int64)
        keys *= n_features
        keys += features
        if (keys[1:] < keys[:-1]).any():
            order = stable_order(features, n_features)
            order = order[stable_order(rows[order], n)]
            keys, weights = keys[order], weights[order]
        differs = keys[1:] != keys[:-1]
        if not differs.all():
            starts = np.flatnonzero(np.concatenate([[True], differs]))
            keys, weights = keys[starts], np.add.reduceat(weights, starts)
        indptr = np.zeros(n + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys // n_features, minlength=n), out=indptr[1:])
        keys %= n_features
        return SparseRows(indptr, keys.astype(np.int32), weights.astype(np.float32), n_features)

    def shifted(self, offset: int, n_features: int) -> "SparseRows":
        """Return the rows in a larger feature space, where this one starts at `offset`.

        Args:
            offset: first feature of this space in the larger one.
            n_features: size of the larger space.
        """
        _check_size(n_features)  # before the sum, which would wrap
        return SparseRows(self.indptr, self.indices + np.int32(offset), self.weights, n_features)

    @staticmethod
    def empty(n: int, n_features: int) -> "SparseRows":
        """Return n rows without features.

        Args:
            n: number of rows.
            n_features: size of the feature space.
        """
        return SparseRows(
            np.zeros(n + 1, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32), n_features
        )

    @staticmethod
    def hstack(parts: Sequence["SparseRows"]) -> "SparseRows":
        """Concatenate row r of every part; all parts share one feature space and length."""
        lengths = np.stack([np.diff(part.indptr) for part in parts])
        indptr = np.concatenate([[0], np.cumsum(lengths.sum(axis=0))]).astype(np.int64)
        indices = np.empty(indptr[-1], dtype=np.int32)
        weights = np.empty(indptr[-1], dtype=np.float32)
        start = indptr[:-1].copy()
        for part, length in zip(parts, lengths, strict=True):
            target = np.repeat(start - part.indptr[:-1], length) + np.arange(part.nnz)
            indices[target] = part.indices
            weights[target] = part.weights
            start += length
        return SparseRows(indptr, indices, weights, parts[0].n_features)

    @staticmethod
    def vstack(parts: Iterable["SparseRows"]) -> "SparseRows":
        """Stack the rows of every part; there is at least one, in one feature space.

        The result grows in place, so that parts produced one at a time are never all in memory beside it.
        """
        lengths: list[Int64] = []
        indices, weights = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
        for part in parts:
            lengths.append(np.diff(part.indptr))
            filled = len(indices)
            indices.resize(filled + part.nnz, refcheck=False)
            weights.resize(filled + part.nnz, refcheck=False)
            indices[filled:], weights[filled:] = part.indices, part.weights
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return SparseRows(indptr, indices, weights, part.n_features)


# How the feature space of one side is divided among its fields.


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """A range of the feature space that belongs to a field, or to lags of a history.

    Its rows are `offset` to `offset + size`. Within a block row 0 is the unknown value, row 1 the missing value, and learnt
    values follow.
    """

    name: str
    field: str
    offset: int
    size: int

    @staticmethod
    def union(blocks: Iterable["FeatureBlock"], features: Int32) -> Bool:
        """Return which features are in some of the blocks, bool [n].

        Args:
            blocks: blocks of one feature space.
            features: int32 [n].
        """
        inside = np.zeros(len(features), dtype=np.bool_)
        for block in blocks:
            inside |= (features >= block.offset) & (features < block.offset + block.size)
        return inside


def source_rows(old: Sequence[FeatureBlock], new: Sequence[FeatureBlock]) -> Int64:
    """Return the source of each row of a grown feature space.

    Args:
        old: the blocks before.
        new: the same blocks in any order, none of them smaller.

    Returns:
        int64 [n_features]: the row of the old space that means the same, or the unknown row of its block for a value
        that is new.
    """
    by_name = {block.name: block for block in old}
    parts = []
    for after in new:
        before = by_name[after.name]
        rows = np.full(after.size, before.offset + UNKNOWN, dtype=np.int64)
        rows[: before.size] = before.offset + np.arange(before.size)
        parts.append(rows)
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class FeatureLayout:
    """Partition of the feature space of one side.

    Attributes:
        names: names of the fields; a history has one for each range of lags.
        offsets: int64 [fields], the first feature of each, rising from 0.
        n_features: size of the feature space.
    """

    names: tuple[str, ...]
    offsets: Int64
    n_features: int

    @staticmethod
    def of_sizes(sizes: Sequence[tuple[str, int]]) -> "FeatureLayout":
        """From the name and the number of features of each field, in order."""
        ends = np.cumsum([size for _, size in sizes], dtype=np.int64)
        return FeatureLayout(tuple(name for name, _ in sizes), np.concatenate([[0], ends[:-1]]).astype(np.int64), int(ends[-1]))

    def __len__(self) -> int:
        return len(self.names)

    def of(self, features: Integers) -> Int64:
        """Return the number of the field of each feature: integer [n] -> int64 [n]."""
        return np.searchsorted(self.offsets, features, side="right") - 1

    def split(self, rows: SparseRows) -> SparseRows:
        """Split each row by field: row r's field f becomes row r len(self) + f."""
        place = rows.owners * len(self) + self.of(rows.indices)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(rows) * len(self)))]).astype(np.int64)
        if (np.diff(place) >= 0).all():  # as encoders write items
            return SparseRows(indptr, rows.indices, rows.weights, rows.n_features)
        order = np.argsort(place, kind="stable")
        return SparseRows(indptr, rows.indices[order], rows.weights[order], rows.n_features)
