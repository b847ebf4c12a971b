"""The user's previous items, cut into ranges of lags; each range is a bag with rows of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.features.blocks import Entries
from recall.features.sparse import SparseRows
from recall.schema import HistoryField
from recall.vocabulary import Vocabulary

_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class History:
    """Previous items, most recent first, of n requests in compressed sparse row form.

    Attributes:
        indptr: int64 [n + 1].
        items: int32 [nnz], rows of the catalogue.
    """

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.indptr) - 1


@dataclass(frozen=True, eq=False)
class HistoryEncoder:
    """A history field with its vocabulary of items. Range r has rows `r * vocabulary.size` and on."""

    field: HistoryField
    vocabulary: Vocabulary

    @staticmethod
    def fit(field: HistoryField, item_ids: pl.Series, counts: npt.NDArray[np.integer]) -> "HistoryEncoder":
        """Learn the items; item r was interacted with `counts[r]` times in training."""
        return HistoryEncoder(field, Vocabulary.fit(item_ids, counts, field.min_count))

    @property
    def size(self) -> int:
        """Number of the field's rows over all ranges."""
        return len(self.field.lags) * self.vocabulary.size

    def blocks(self, name: str) -> list[tuple[str, int]]:
        """Name and number of rows of each range of lags, for a field of that name."""
        return [
            (f"{name}[{first}]" if first == last else f"{name}[{first}-{last}]", self.vocabulary.size)
            for first, last in self.field.lags
        ]

    def encode(self, history: History, item_ids: pl.Series) -> SparseRows:
        """Rows of many histories; a range without items gives none.

        Args:
            history: previous items as rows of the catalogue.
            item_ids: String [items], the catalogue.
        """
        learnt = self.vocabulary.rows(item_ids)
        parts = [self._encode(history, learnt, first) for first in range(0, len(history), _AT_ONCE)]
        return SparseRows.below(parts) if parts else SparseRows.empty(0, self.size)

    def encode_one(self, items: Sequence[str]) -> Entries:
        """Rows of one history, given as item ids, most recent first."""
        entries: dict[int, float] = {}
        for part, (first, last) in enumerate(self.field.lags):
            lagged = items[first - 1 : last]
            norm = {"none": 1.0, "mean": float(len(lagged)), "sqrt": len(lagged) ** 0.5}[self.field.norm]
            for item in lagged:
                row = part * self.vocabulary.size + self.vocabulary.row(item)
                entries[row] = entries.get(row, 0.0) + 1.0 / norm
        return list(entries.items())

    def _encode(self, history: History, learnt: npt.NDArray[np.int32], start: int) -> SparseRows:
        indptr = history.indptr[start : start + _AT_ONCE + 1]
        n, lengths = len(indptr) - 1, np.diff(indptr)
        rows = learnt[history.items[indptr[0] : indptr[-1]]] if indptr[-1] > indptr[0] else np.empty(0, dtype=np.int32)
        row = np.repeat(np.arange(n), lengths)
        lag = np.arange(len(rows)) - np.repeat(indptr[:-1] - indptr[0], lengths) + 1
        parts = []
        for part, (first, last) in enumerate(self.field.lags):
            inside = (lag >= first) & (lag <= last)
            counts = np.clip(lengths - first + 1, 0, last - first + 1)
            weight = {"none": np.ones(n), "mean": 1.0 / np.maximum(counts, 1), "sqrt": 1.0 / np.sqrt(np.maximum(counts, 1))}[
                self.field.norm
            ]
            owner = row[inside]
            parts.append(SparseRows.gathered(owner, part * self.vocabulary.size + rows[inside], weight[owner], n, self.size))
        return SparseRows.beside(parts)
