"""The user's previous items, cut into ranges of lags; each range is a bag.

Ranges have rows of their own, or share one table. In range r of weight w_r, the item of lag l has the weight
w_r l^-decay / norm, the norm being that of all weights l^-decay in the range. While the weights are learnt, ranges that share a
table have rows of their own in the feature space, which `recall.training.ranges` ties to each other.

An empty history has a feature, too: the missing row of the first range. It lets the model learn a bias for users without a
history.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from recall._arrays import Float64, Int32, Int64, Integers
from recall.config.schema import HistoryField
from recall.features.column import WeightedRows, norm_one, norms
from recall.features.csr import SparseRows
from recall.features.vocabulary import MISSING, Vocabulary

_NOTHING = np.int32(2**31 - 1)


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
        tells_empty: whether an empty history has a feature; older bundles lack it.
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

    def grown(self, other: "HistoryEncoder") -> "HistoryEncoder":
        """Return the field with the items that either of two encoders knows."""
        return HistoryEncoder(self.field, self.vocabulary.grown(other.vocabulary), self.tells_empty)

    @property
    def size(self) -> int:
        """Number of the field's rows over all ranges."""
        return self.vocabulary.size * (len(self.field.lags) if self._apart else 1)

    def blocks(self, name: str) -> list[tuple[str, int]]:
        """Name and number of rows of each table, for a field of that name."""
        if self.field.shared:
            return [(name, self.size)]
        return [
            (f"{name}[{first}]" if first == last else f"{name}[{first}-{last}]", self.vocabulary.size)
            for first, last in self.field.lags
        ]

    def describe(self, row: int, weight: float) -> str:  # noqa: ARG002
        """Return the item id of a learnt row.

        Args:
            row: within one range.
            weight: ignored.
        """
        return self.vocabulary.value(row)

    def encode(self, history: History, learnt: Int32) -> SparseRows:
        """Encode many histories in the field's own rows.

        A range without items has no feature, an empty history the missing row.

        Args:
            history: previous items as rows of the catalogue.
            learnt: int32 [items], the row of each item of the catalogue in the vocabulary.
        """
        indptr, indices, weights = (self._counted if self._alike else self._weighted)(history, learnt)
        nothing = (np.diff(history.indptr) == 0) & self.tells_empty
        empty = indptr[:-1][nothing]
        indptr[1:] += np.cumsum(nothing)
        indices = np.insert(indices, empty, np.int32(MISSING))
        return SparseRows(indptr, indices, np.insert(weights.astype(np.float32), empty, np.float32(1)), self.size)

    def _counted(self, history: History, learnt: Int32) -> tuple[Int64, Int32, Float64]:
        """Return entries where all items of a range weigh alike, and so count."""
        lags, (lag, part) = self.field.lags, self._slots
        there = lag <= np.diff(history.indptr)[:, None]  # [n, L]
        rows = np.full(there.shape, _NOTHING)
        rows[there] = learnt[history.items[(history.indptr[:-1, None] + (lag - 1))[there]]]
        new = np.ones_like(there)
        for columns in (slice(*np.searchsorted(part, [number, number + 1])) for number in range(len(lags))):
            rows[:, columns].sort(axis=1)  # brings equal items of a range together and what is not there to its end
            new[:, columns][:, 1:] = rows[:, columns][:, 1:] != rows[:, columns][:, :-1]
        there = rows != _NOTHING
        times = np.diff(np.append(np.flatnonzero(new[there]), there.sum()))  # how often the range holds the item
        new &= there
        counts = np.stack([there[:, part == number].sum(axis=1) for number in range(len(lags))], axis=1)  # [n, ranges]
        weights = times / norms(self.field.norm, counts)[:, part][new]
        indptr = np.concatenate([[0], np.cumsum(new.sum(axis=1))])
        indices = (rows + (part * self.vocabulary.size).astype(np.int32))[new]
        return indptr, indices, weights

    def _weighted(self, history: History, learnt: Int32) -> tuple[Int64, Int32, Float64]:
        """Return entries where an item's weight depends on its lag."""
        lag, part = self._slots
        lengths = np.diff(history.indptr)
        row, slot = np.nonzero(lag <= lengths[:, None])
        feature = learnt[history.items[history.indptr[row] + lag[slot] - 1]].astype(np.int64)
        if self._apart:
            feature += part[slot] * self.vocabulary.size
        keys = row * self.size + feature
        order = np.argsort(keys, kind="stable")  # adds up what a repeated item weighs in the order of `encode_one`
        keys, weights = keys[order], self._by_length[np.minimum(lengths, self._longest)][row, slot][order]
        first = np.diff(keys, prepend=-1) > 0
        indptr = np.searchsorted(keys[first], np.arange(len(lengths) + 1) * self.size).astype(np.int64)
        return indptr, (keys[first] % self.size).astype(np.int32), np.bincount(np.cumsum(first) - 1, weights).astype(np.float64)

    def encode_one(self, items: Sequence[str], offset: int = 0) -> WeightedRows:
        """Encode one history.

        Args:
            items: ids, most recent first.
            offset: where the field's rows begin.
        """
        if not items and self.tells_empty:
            return [(offset + MISSING, 1.0)]
        learnt = self.vocabulary.rows_of(items[: self._longest])
        if not self._alike:
            return self._weighted_one(learnt, offset)
        entries: WeightedRows = []
        start, size = offset, self.vocabulary.size
        for first, last in self.field.lags:
            rows = learnt[first - 1 : last]
            if rows:
                norm = norm_one(self.field.norm, len(rows))
                if len(set(rows)) == len(rows):  # as it mostly is; counting takes longer than all the rest
                    weight = 1 / norm
                    entries += [(start + row, weight) for row in rows]
                else:
                    entries += [(start + row, count / norm) for row, count in Counter(rows).items()]
            start += size
        return entries

    def _weighted_one(self, learnt: Sequence[int], offset: int) -> WeightedRows:
        """Return the entries of one history, given its rows in the vocabulary."""
        plan = self._plans.get(len(learnt))
        if plan is None:
            lag, part = self._slots
            there = lag <= len(learnt)
            starts = part * self.vocabulary.size if self._apart else 0 * part
            slots = list(zip(starts[there].tolist(), (lag[there] - 1).tolist(), strict=True))
            plan = self._plans[len(learnt)] = slots, self._by_length[len(learnt)][there].tolist()
        slots, weights = plan
        rows = [offset + start + learnt[at] for start, at in slots]
        if len(set(rows)) == len(rows):
            return list(zip(rows, weights, strict=True))
        sums: dict[int, float] = {}
        for row, weight in zip(rows, weights, strict=True):
            sums[row] = sums.get(row, 0.0) + weight
        return list(sums.items())

    @cached_property
    def _plans(self) -> dict[int, tuple[list[tuple[int, int]], list[float]]]:
        """Start of the rows and place of each item, and weights, by length of history."""
        return {}

    @cached_property
    def _longest(self) -> int:
        return self.field.longest

    @cached_property
    def _alike(self) -> bool:
        """Whether all items of a range weigh alike, and no two ranges share rows."""
        return self._apart and not (self.field.weights or self.field.decay)

    @property
    def _apart(self) -> bool:
        """Whether each range has rows of its own."""
        return self.field.learn_weights or not self.field.shared

    @cached_property
    def _slots(self) -> tuple[Int64, Int64]:
        """Lag and range of each position, all ranges side by side: int64 [L] both."""
        lags = self.field.lags
        lag = np.concatenate([np.arange(first, last + 1) for first, last in lags])
        return lag, np.repeat(np.arange(len(lags)), [last - first + 1 for first, last in lags])

    @cached_property
    def _by_length(self) -> Float64:
        """Weight of each position in a history of each length: float64 [longest + 1, L]."""
        lag, part = self._slots
        there = lag <= np.arange(self._longest + 1)[:, None]
        falling = there * lag.astype(np.float64) ** -self.field.decay
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
        fields: where the field's blocks start in the feature space, its encoder, and int32 [items] the row of each
            item of the catalogue in its vocabulary.
        n_features: size of the feature space.
    """

    fields: tuple[tuple[int, HistoryEncoder, Int32], ...]
    n_features: int

    @property
    def longest(self) -> int:
        """The longest lag of any field; 0 when there is none."""
        return max((encoder.field.longest for _, encoder, _ in self.fields), default=0)

    def encode(self, history: History) -> SparseRows:
        """n histories as n rows in the feature space."""
        parts = [encoder.encode(history, learnt).shifted(offset, self.n_features) for offset, encoder, learnt in self.fields]
        return SparseRows.hstack(parts) if parts else SparseRows.empty(len(history), self.n_features)
