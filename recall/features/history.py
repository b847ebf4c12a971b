"""The user's previous items, cut into ranges of lags; each range is a bag.

Each range has its own rows, or all share one table. In range r of weight w_r, the item of lag l has the weight
w_r l^-decay / norm, the norm being that of all weights l^-decay in the range. While the weights are learnt, ranges that share a
table have separate rows in the feature space, which `recall.training.ranges` ties to each other.

An empty history has a feature, too: the missing row of the first range. It lets the model learn a bias for users without a
history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from recall._arrays import Float64, Int32, Int64, Integers
from recall.config.schema import HistoryField
from recall.features.column import WeightedRows
from recall.features.csr import SparseRows
from recall.features.vocabulary import MISSING, Vocabulary


@dataclass(frozen=True, slots=True)
class History:
    """Previous items, most recent first, of n requests in compressed sparse row form.

    Attributes:
        indptr: int64 [n + 1].
        items: int32 [nnz], rows of the catalogue.
    """

    indptr: Int64
    items: Int32

    def __len__(self) -> int:
        return len(self.indptr) - 1


@dataclass(frozen=True, eq=False)
class HistoryEncoder:
    """A history field with its vocabulary of items.

    Range r has rows `r * vocabulary.size` and on, or the rows of range 0 where ranges share them and their weights are known.

    Attributes:
        field: the field.
        vocabulary: item ids.
        tells_empty: whether an empty history has a feature, which it lacks in older bundles.
    """

    field: HistoryField
    vocabulary: Vocabulary
    tells_empty: bool = True

    @staticmethod
    def fit(field: HistoryField, item_ids: pl.Series, counts: Integers) -> "HistoryEncoder":
        """Learn the items.

        Args:
            field: the field.
            item_ids: String [items].
            counts: integer [items], training interactions of each.
        """
        return HistoryEncoder(field, Vocabulary.fit(item_ids, counts, field.min_count))

    def with_values_of(self, other: "HistoryEncoder") -> "HistoryEncoder":
        """Return the field with the items that either of two encoders knows."""
        return HistoryEncoder(self.field, self.vocabulary.with_values_of(other.vocabulary), self.tells_empty)

    @property
    def size(self) -> int:
        """Number of the field's rows over all ranges."""
        return self.vocabulary.size * (len(self.field.lags) if self._stride else 1)

    def blocks(self, name: str) -> list[tuple[str, int]]:
        """Return the name and number of rows of each table, for a field of this name."""
        if self.field.shared:
            return [(name, self.size)]
        return [
            (f"{name}[{first}]" if first == last else f"{name}[{first}-{last}]", self.vocabulary.size)
            for first, last in self.field.lags
        ]

    def describe(self, row: int, weight: float) -> str:  # noqa: ARG002
        """Return the item id of a learnt row.

        Args:
            row: row within one range.
            weight: ignored.
        """
        return self.vocabulary.value(row)

    def encode(self, history: History, learnt: Int32) -> SparseRows:
        """Encode many histories in the field's own rows.

        A range without items has no feature, an empty history the missing row.

        Args:
            history: previous items as rows of the catalogue.
            learnt: int32 [items], row in the vocabulary of each item of the catalogue.
        """
        lag, part = self._slots
        lengths = np.diff(history.indptr)
        row, slot = np.nonzero(lag <= lengths[:, None])
        feature = learnt[history.items[history.indptr[row] + lag[slot] - 1]].astype(np.int64)
        keys = row * self.size + feature + part[slot] * self._stride
        order = np.argsort(keys, kind="stable")  # sums the weights of a repeated item in the order of `encode_one`
        keys, weights = keys[order], self._by_length[np.minimum(lengths, self._longest)][row, slot][order]
        first = np.diff(keys, prepend=-1) > 0
        indptr = np.searchsorted(keys[first], np.arange(len(lengths) + 1) * self.size).astype(np.int64)
        indices = (keys[first] % self.size).astype(np.int32)
        weights = np.bincount(np.cumsum(first) - 1, weights).astype(np.float32)
        is_empty = (lengths == 0) & self.tells_empty
        empty = indptr[:-1][is_empty]
        indptr[1:] += np.cumsum(is_empty)
        indices = np.insert(indices, empty, np.int32(MISSING))
        return SparseRows(indptr, indices, np.insert(weights, empty, np.float32(1)), self.size)

    def encode_one(self, items: Sequence[str], offset: int = 0) -> WeightedRows:
        """Encode one history.

        Args:
            items: ids, most recent first.
            offset: first row of the field.
        """
        if not items and self.tells_empty:
            return [(offset + MISSING, 1.0)]
        learnt = self.vocabulary.rows_of(items[: self._longest])
        plan = self._plans.get(len(learnt))
        if plan is None:
            lag, part = self._slots
            filled = lag <= len(learnt)
            slots = list(zip((part * self._stride)[filled].tolist(), (lag[filled] - 1).tolist(), strict=True))
            plan = self._plans[len(learnt)] = slots, self._by_length[len(learnt)][filled].tolist()
        slots, weights = plan
        rows = [offset + start + learnt[position] for start, position in slots]
        if len(set(rows)) == len(rows):
            return list(zip(rows, weights, strict=True))
        sums: dict[int, float] = {}
        for row, weight in zip(rows, weights, strict=True):
            sums[row] = sums.get(row, 0.0) + weight
        return list(sums.items())

    @cached_property
    def _plans(self) -> dict[int, tuple[list[tuple[int, int]], list[float]]]:
        """Offset and position of each item, and weights, by the length of a history."""
        return {}

    @cached_property
    def _longest(self) -> int:
        return self.field.longest

    @cached_property
    def _stride(self) -> int:
        """Number of rows from one range to the next; 0 where all ranges share their rows."""
        return self.vocabulary.size if self.field.learn_weights or not self.field.shared else 0

    @cached_property
    def _slots(self) -> tuple[Int64, Int64]:
        """Lag and range of each position in all ranges: int64 [L] each."""
        lags = self.field.lags
        lag = np.concatenate([np.arange(first, last + 1) for first, last in lags])
        return lag, np.repeat(np.arange(len(lags)), [last - first + 1 for first, last in lags])

    @cached_property
    def _by_length(self) -> Float64:
        """Weight of each position in a history of each length: float64 [longest + 1, L]."""
        lag, part = self._slots
        filled = lag <= np.arange(self._longest + 1)[:, None]
        falling = filled * lag.astype(np.float64) ** -self.field.decay
        of_range = part == np.arange(len(self.field.lags))[:, None]  # [ranges, L]
        match self.field.norm:
            case "sqrt":
                norm = np.sqrt(falling**2 @ of_range.T)
            case "mean":
                norm = falling @ of_range.T
            case "none":
                norm = np.ones((len(falling), len(of_range)))
        scale = np.array(self.field.weights or np.ones(len(of_range))) / np.where(norm > 0, norm, 1.0)
        return np.asarray(falling * scale[:, part])


@dataclass(frozen=True, eq=False)
class HistoryGroup:
    """All history fields over one catalogue.

    Attributes:
        fields: offset of the field's blocks in the feature space, its encoder, and int32 [items], the row in its vocabulary
            of each item of the catalogue.
        n_features: size of the feature space.
    """

    fields: tuple[tuple[int, HistoryEncoder, Int32], ...]
    n_features: int

    @property
    def longest(self) -> int:
        """The longest lag of any field; 0 without lags."""
        return max((encoder.field.longest for _, encoder, _ in self.fields), default=0)

    def encode(self, history: History) -> SparseRows:
        """Encode n histories as n rows in the feature space."""
        parts = [encoder.encode(history, learnt).shifted(offset, self.n_features) for offset, encoder, learnt in self.fields]
        return SparseRows.hstack(parts) if parts else SparseRows.empty(len(history), self.n_features)
