"""The values that a field has learnt, each with a row of its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from recall._arrays import Int32, Integers
from recall.features.values import Distinct, known_texts

UNKNOWN = 0
"""Row of a value that was not learnt."""
MISSING = 1
"""Row of no value at all."""
FIRST = 2
"""Row of the first value that was learnt."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Value to row, two-way and fixed: value p of `values` has row `FIRST + p`.

    Attributes:
        values: String [v], different and none of them null; commonest first, equally common ones in order of text;
            those that came by `grown` come after those that were there before.
    """

    values: pl.Series

    @staticmethod
    def fit(values: pl.Series, counts: Integers, min_count: int = 1) -> "Vocabulary":
        """Learn the values that are counted at least `min_count` times.

        Args:
            values: [n] of any single-valued dtype; nulls are skipped.
            counts: integer [n], how often each entry counts; one with count 0 is not learnt.
            min_count: threshold.
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

    def grown(self, other: "Vocabulary") -> "Vocabulary":
        """Append the values that only the other vocabulary has; known rows stay."""
        return Vocabulary(pl.concat([self.values, other.values.filter(~other.values.is_in(self.values.implode()))]))

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def size(self) -> int:
        """Number of rows, those for unknown and missing included."""
        return FIRST + len(self.values)

    def rows(self, values: pl.Series) -> Int32:
        """Row of every value of a column.

        Args:
            values: [n] of any single-valued dtype.

        Returns:
            int32 [n]; `UNKNOWN` for a value that was not learnt, `MISSING` for null.
        """
        distinct = Distinct.of(values)
        learnt = pl.DataFrame({"value": self.values, "row": np.arange(FIRST, self.size, dtype=np.int32)})
        found = (
            known_texts(values.gather(distinct.first))
            .alias("value")
            .to_frame()
            .join(learnt, on="value", how="left", maintain_order="left")
            .select(pl.when(pl.col("value").is_null()).then(MISSING).otherwise(pl.col("row").fill_null(UNKNOWN)))
            .to_series()
            .cast(pl.Int32)
        )
        return found.to_numpy()[distinct.codes]

    def row(self, value: str) -> int:
        """Row of one value in its written form; `UNKNOWN` for one that was not learnt."""
        return self._rows.get(value, UNKNOWN)

    def rows_of(self, values: Iterable[str]) -> list[int]:
        """`row` of each of a few values."""
        known = self._rows
        return [known.get(value, UNKNOWN) for value in values]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {value: FIRST + position for position, value in enumerate(self.values.to_list())}
