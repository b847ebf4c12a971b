"""One column of a catalogue, ready to be asked which rows have which values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Int64
from recall.index.bitmap import RowBitmap
from recall.serving.filters.values import Form, Kind, Values, coded

Ranges = tuple[tuple[int, int], ...]
"""Codes from the first number on and before the second, in order and apart."""

_RARE = 16  # a selection of fewer rows than one in so many is written row by row, any other by looking at all
_PASSES = 4  # ranges for which all rows are looked at


@dataclass(frozen=True, eq=False)
class Column:
    """The codes of one column; see `Values`.

    Attributes:
        size: rows of the catalogue.
        values: what the codes stand for.
        entry_codes: unsigned integers [entries]; of a column with one value an item, the code of every row.
        entry_rows: int32 [entries], the row of each; None where entry r is of row r.
    """

    size: int
    values: Values
    entry_codes: npt.NDArray[np.unsignedinteger[Any]]
    entry_rows: npt.NDArray[np.int32] | None

    @staticmethod
    def of(values: pl.Series, form: Form, kind: Kind, lenient: bool = False) -> "Column":
        """Read a series [n] as that form, with its values as a kind; see `coded`.

        Raises:
            DataError: it does not hold that.
        """
        if not form.bag:
            found, codes = coded(values, kind, lenient)
            return Column(len(values), found, _narrow(codes, len(found)), None)
        lists = _lists(values, form.separator)
        lengths = lists.list.len().fill_null(0).to_numpy()
        flat = lists.explode(empty_as_null=False, keep_nulls=False)
        if flat.dtype == pl.String:
            flat = flat.set(flat == "", None)  # encoders pass empty text over, too
        found, codes = coded(flat, kind)
        narrow = _narrow(codes, len(found))
        known, missing = np.flatnonzero(narrow), np.flatnonzero(lists.is_null().to_numpy())
        rows = np.repeat(np.arange(len(values), dtype=np.int32), lengths)[known]
        return Column(
            len(values),
            found,
            np.concatenate([narrow[known], np.zeros(len(missing), dtype=narrow.dtype)]),
            np.concatenate([rows, missing.astype(np.int32)]),
        )

    @cached_property
    def starts(self) -> Int64:
        """int64 [d + 2] or one more: entries of lesser codes than each, all of them in the end."""
        counts = np.bincount(self.entry_codes, minlength=len(self.values) + 1)
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @cached_property
    def _by_code(self) -> npt.NDArray[np.int32]:
        """Rows of all entries by code: int32 [entries]."""
        order = np.argsort(self.entry_codes, kind="stable").astype(np.int32)
        return order if self.entry_rows is None else self.entry_rows[order]

    def select(self, ranges: Ranges) -> RowBitmap:
        """The rows with a code in one of these ranges."""
        count = sum(int(self.starts[high] - self.starts[low]) for low, high in ranges)
        if self.entry_rows is None and count * _RARE > self.size and len(ranges) <= _PASSES:
            return RowBitmap.of_mask(self._mask(ranges))
        parts = [self._by_code[self.starts[low] : self.starts[high]] for low, high in ranges]
        return RowBitmap.of_rows(np.concatenate([*parts, _NO_ROWS]), self.size)

    def _mask(self, ranges: Ranges) -> npt.NDArray[np.bool_]:
        number = self.entry_codes.dtype.type
        mask = np.zeros(self.size, dtype=bool)
        for low, high in ranges:  # what lies below a range wraps to numbers above it
            mask |= (self.entry_codes - number(low)) < number(high - low)
        return mask


_NO_ROWS = np.empty(0, dtype=np.int32)


def merged(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """The same codes in ranges that are in order, apart and not empty."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(one for one in ranges if one[0] < one[1]):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def _narrow(codes: pl.Series, distinct: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    # one number more than the codes, so that the length of any range of them can be written
    return np.ascontiguousarray(codes.to_numpy().astype(np.min_scalar_type(distinct + 1)))


def _lists(values: pl.Series, separator: str) -> pl.Series:
    if isinstance(values.dtype, pl.Array):
        return values.cast(pl.List(values.dtype.inner))
    return values if isinstance(values.dtype, pl.List) else values.cast(pl.String).str.split(separator)
