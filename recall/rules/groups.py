"""What every item holds in one column, as numbers: the values themselves play no part in a rule, only which are equal."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.features.sparse import Int64
from recall.values import Distinct

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The values of a column: none, one or several for each item.

    Attributes:
        codes: int32 [values of all items], equal where the values are.
        indptr: int64 [items + 1]; item r holds `codes[indptr[r] : indptr[r + 1]]`, each value once. None where every item
            has one code, and -1 stands for no value.
        count: number of different values; codes are below it.
    """

    codes: Int32
    indptr: Int64 | None
    count: int

    @classmethod
    def of(cls, values: pl.Series, separator: str | None = None) -> "Groups":
        """Number the values of a column.

        Args:
            values: [items] of any dtype; an item of a list column holds each entry, but for empty text.
            separator: cuts text into several values.
        """
        if separator is not None and values.dtype == pl.String:
            values = values.str.split(separator)
        if not isinstance(values.dtype, pl.List | pl.Array):
            codes = _codes(values)
            return cls(codes, None, int(codes.max(initial=-1)) + 1)
        lists = values.cast(pl.List(values.dtype.inner)) if isinstance(values.dtype, pl.Array) else values
        if lists.dtype == pl.List(pl.String):  # encoders pass empty text over, too
            lists = lists.list.eval(pl.element().filter(pl.element() != ""))
        lists = lists.list.drop_nulls().list.unique(maintain_order=True).fill_null([])
        codes = _codes(lists.explode(empty_as_null=False))
        indptr = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
        return cls(codes, indptr, int(codes.max(initial=-1)) + 1)

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


def _codes(values: pl.Series) -> Int32:
    """A number for each value, in order of appearance, and -1 for none; NaN is none."""
    if values.dtype.is_float():
        values = values.fill_nan(None)
    distinct = Distinct.of(values)
    names = np.cumsum(values.gather(distinct.first).is_not_null().to_numpy(), dtype=np.int32) - 1
    names[values.gather(distinct.first).is_null().to_numpy()] = -1
    return names[distinct.codes]
