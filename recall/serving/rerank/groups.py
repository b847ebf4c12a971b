"""What every item holds in one column, as numbers: the values themselves play no part in a rule, only which are equal."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recall._arrays import Int32, Int64
from recall.features.values import Distinct


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The values of a column: none, one or several for each item.

    Attributes:
        codes: int32 [values of all items], equal where the values are.
        indptr: int64 [items + 1]; item r holds `codes[indptr[r] : indptr[r + 1]]`, each value once. None where every item
            has one code, and -1 stands for no value.
        values: the different values in the order of their codes.
    """

    codes: Int32
    indptr: Int64 | None
    values: pl.Series

    @property
    def count(self) -> int:
        """Number of different values; codes are below it."""
        return len(self.values)

    @classmethod
    def of(cls, values: pl.Series, separator: str | None = None, known: pl.Series | None = None) -> "Groups":
        """Number the values of a column.

        Args:
            values: [items] of any dtype; an item of a list column holds each entry, but for empty text.
            separator: cuts text into several values.
            known: different values that have the first codes, whether an item holds them or not.
        """
        if separator is not None and values.dtype == pl.String:
            values = values.str.split(separator)
        if not isinstance(values.dtype, pl.List | pl.Array):
            codes, different = _coded(values, known)
            return cls(codes, None, different)
        lists = values.cast(pl.List(values.dtype.inner)) if isinstance(values.dtype, pl.Array) else values
        if lists.dtype == pl.List(pl.String):  # encoders pass empty text over, too
            lists = lists.list.eval(pl.element().filter(pl.element() != ""))
        lists = lists.list.drop_nulls().list.unique(maintain_order=True).fill_null([])
        codes, different = _coded(lists.explode(empty_as_null=False), known)
        indptr = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        return cls(codes, indptr, different)

    def extended(self, values: pl.Series, separator: str | None = None) -> "Groups":
        """The same with more items below them, whose column is of the same type."""
        more = Groups.of(values, separator, self.values)
        codes = np.concatenate([self.codes, more.codes])
        if self.indptr is None or more.indptr is None:
            return Groups(codes, None, more.values)
        return Groups(codes, np.concatenate([self.indptr, self.indptr[-1] + more.indptr[1:]]), more.values)

    def single(self, rows: Int64) -> Int32:
        """The one code of each row, -1 for none: int32 [m]; only where `indptr` is None."""
        return self.codes[rows]

    def several(self, rows: Int64) -> tuple[Int32, Int64]:
        """Codes of rows below each other, and where each row's begin: int32 [values], int64 [m + 1]."""
        assert self.indptr is not None
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return self.codes[np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])], ends


def _coded(values: pl.Series, known: pl.Series | None) -> tuple[Int32, pl.Series]:
    """A number for each value, -1 where there is none, and the different values: those known, then others as they appear."""
    every = values if known is None else pl.concat([known, values])
    if every.dtype.is_float():
        every = every.fill_nan(None)
    distinct = Distinct.of(every)
    different = every.gather(distinct.first)
    held = different.is_not_null()
    names = np.cumsum(held.to_numpy(), dtype=np.int32) - 1
    names[~held.to_numpy()] = -1
    return names[distinct.codes[len(every) - len(values) :]], different.filter(held)
