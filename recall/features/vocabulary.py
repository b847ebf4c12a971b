"""Vocabulary of a field: the values learnt from training data, each with a row."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from recall._arrays import Int32, Integers
from recall._text_table import FEW, TextTable
from recall.features.values import Distinct, known_texts

UNKNOWN = 0
"""Row of a value that was not learnt."""
MISSING = 1
"""Row of a missing value."""
FIRST = 2
"""Row of the first value that was learnt."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Value to row, two-way and fixed: value p of `values` has row `FIRST + p`.

    Attributes:
        learnt: the distinct values, String [v] or a table that is mapped from a file; most frequent first, ties in
            alphabetical order, and values that `with_values_of` added after all others.
    """

    learnt: pl.Series | TextTable

    @staticmethod
    def fit(values: pl.Series, counts: Integers, min_count: int = 1) -> "Vocabulary":
        """Learn the values that are counted at least `min_count` times.

        Args:
            values: [n] of any single-valued dtype; nulls are skipped.
            counts: integer [n], how often each entry counts; values with a total of 0 are not learnt.
            min_count: smallest total count of a learnt value.
        """
        distinct = Distinct.of(values)
        totals = np.bincount(distinct.codes, weights=counts, minlength=len(distinct.first)).astype(np.int64)
        learnt = (
            pl.DataFrame({"value": known_texts(values.gather(distinct.first)), "count": totals})
            .filter(pl.col("value").is_not_null())
            .group_by("value")
            .agg(pl.col("count").sum())
            .filter(pl.col("count") >= max(min_count, 1))
            .sort("count", "value", descending=[True, False])
        )
        return Vocabulary(learnt["value"])

    def with_values_of(self, other: "Vocabulary") -> "Vocabulary":
        """Append the values that only the other vocabulary has; known rows stay."""
        values = self.values
        return Vocabulary(pl.concat([values, other.values.filter(~other.values.is_in(values.implode()))]))

    @property
    def values(self) -> pl.Series:
        """All values, String [v]; not cached where they are in a table."""
        return self.learnt if isinstance(self.learnt, pl.Series) else self.learnt.values.alias("value")

    def value(self, row: int) -> str:
        """Return the value of a row, from `FIRST` on."""
        if isinstance(self.learnt, pl.Series):
            return str(self.learnt[row - FIRST])
        return self.learnt.ids(np.array([row - FIRST]))[0]

    def __len__(self) -> int:
        return len(self.learnt)

    @cached_property
    def size(self) -> int:
        """Number of rows, those for unknown and missing included."""
        return FIRST + len(self.learnt)

    def rows(self, values: pl.Series) -> Int32:
        """Row of every value of a column.

        Args:
            values: [n] of any single-valued dtype.

        Returns:
            int32 [n]; `UNKNOWN` for a value that was not learnt, `MISSING` for null.
        """
        distinct = Distinct.of(values)
        texts = known_texts(values.gather(distinct.first))
        if isinstance(self.learnt, TextTable):
            rows = np.full(len(texts), MISSING, dtype=np.int32)
            known = self.learnt.rows(texts.drop_nulls().to_list())
            rows[texts.is_not_null().to_numpy()] = np.where(known >= 0, known + FIRST, UNKNOWN)
            return rows[distinct.codes]
        learnt = pl.DataFrame({"value": self.learnt, "row": np.arange(FIRST, self.size, dtype=np.int32)})
        joined = (
            texts.alias("value")
            .to_frame()
            .join(learnt, on="value", how="left", maintain_order="left")
            .select(pl.when(pl.col("value").is_null()).then(MISSING).otherwise(pl.col("row").fill_null(UNKNOWN)))
            .to_series()
            .cast(pl.Int32)
        )
        return joined.to_numpy()[distinct.codes]

    def row(self, value: str) -> int:
        """Row of one value in its written form; `UNKNOWN` for one that was not learnt."""
        if self._is_small:
            return self._few.get(value, UNKNOWN)
        position = self.table.row(value)
        return position + FIRST if position >= 0 else UNKNOWN

    def rows_of(self, values: Iterable[str]) -> list[int]:
        """`row` of each of a few values."""
        if self._is_small:
            known = self._few
            return [known.get(value, UNKNOWN) for value in values]
        return [found + FIRST if found >= 0 else UNKNOWN for found in self.table.rows(tuple(values)).tolist()]

    @cached_property
    def _is_small(self) -> bool:
        """Whether a dict has the values; polars takes as long for a length as a lookup."""
        return len(self.learnt) <= FEW

    @cached_property
    def _few(self) -> dict[str, int]:
        """Rows by value: faster than a table, and 100 bytes a value."""
        return {value: FIRST + position for position, value in enumerate(self.values.to_list())}

    @cached_property
    def table(self) -> TextTable:
        """The values as a table, which takes less memory than a dict."""
        return self.learnt if isinstance(self.learnt, TextTable) else TextTable.of(self.learnt)
