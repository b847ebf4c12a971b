"""Columns as codes, and the operands that values are compared with.

The code of a value is its rank among the distinct values, from 1; 0 is a missing value.
"""

import bisect
import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.dtypes import StringDType
from polars.datatypes import DataType

from recall._arrays import Bool, Int32, Int64
from recall.errors import DataError
from recall.features.canonical import LIST, TEXT, as_lists, flatten_lists
from recall.features.values import canonical_series, empty_to_null, moment, number_column, to_request_values
from recall.index.bitmap import RowBitmap
from recall.index.query import Kind, Ranges

Operand = str | int | float | Fraction
"""A value for comparisons: a time is microseconds since 1970 UTC, a clock nanoseconds since midnight."""

_LARGEST = 2**63 - 1
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


_TEXT_KINDS: dict[str, Kind] = {"date": "time", "time": "time", "clock": "clock"}
"""Kind of text by canonical type; text of other types is compared as text."""


@dataclass(frozen=True, slots=True)
class Form:
    """Form of a column: type, bag and separator of its values.

    Attributes:
        kind: type that its values are compared as.
        bag: whether an item has a bag of values.
        separator: separates the values of a bag in text; empty for a column of lists.
        type: canonical type that the bundle records; text is in the canonical form of this type.
    """

    kind: Kind
    bag: bool = False
    separator: str = ""
    type: str = TEXT

    @staticmethod
    def of(dtype: DataType, separator: str = "", type_: str = TEXT) -> "Form | None":
        """Return the form of a column; None if it cannot be compared.

        Args:
            dtype: dtype of the column.
            separator: separator of a bag in text; empty for one value an item.
            type_: canonical type of the column, which determines what text is compared as.
        """
        inner_type = type_.removeprefix(LIST)
        if isinstance(dtype, pl.List | pl.Array):
            inner = Form.of(dtype.inner, "", inner_type)  # type: ignore[arg-type]
            return None if inner is None or inner.bag else Form(inner.kind, bag=True, type=inner.type)
        if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            return Form(_TEXT_KINDS.get(inner_type, "text"), bool(separator), separator, inner_type)
        if dtype.is_numeric():
            return Form("number")
        if dtype in (pl.Date, pl.Datetime):
            return Form("time")
        kinds: dict[type[DataType], Kind] = {pl.Boolean: "truth", pl.Time: "clock"}
        return Form(kinds[dtype.base_type()]) if dtype.base_type() in kinds else None


@dataclass(frozen=True, eq=False, slots=True)
class Values:
    """The distinct values of a column.

    Attributes:
        sorted: [d], ascending, of StringDType, int64, uint64 or float64.
        scale: units of a microsecond, if the values are times.
    """

    sorted: npt.NDArray[Any]
    scale: int = 1

    def __len__(self) -> int:
        return len(self.sorted)

    def place(self, operand: Operand) -> tuple[int, int]:
        """Return the range of codes equal to an operand.

        The range is empty if the operand is not a value; it then separates the codes of smaller and larger values.
        """
        if isinstance(operand, str):
            less = bisect.bisect_left(self.sorted, operand)
            return less + 1, less + 1 + (less < len(self) and self.sorted[less] == operand)
        if self.sorted.dtype.kind == "f":
            low, high = _as_floats(operand if not isinstance(operand, Fraction) else float(operand))
        else:
            low, high = math.ceil(operand * self.scale), math.floor(operand * self.scale)
        return self._less(low) + 1, self._less(high, or_equal=True) + 1

    def _less(self, number: int | float, or_equal: bool = False) -> int:
        """Count the values less than a number, which may be out of the type's range."""
        if self.sorted.dtype.kind != "f":
            bounds = np.iinfo(self.sorted.dtype)
            if not bounds.min <= number <= bounds.max:
                return 0 if number < bounds.min else len(self)
        return int(self.sorted.searchsorted(self.sorted.dtype.type(number), "right" if or_equal else "left"))


def _as_floats(number: int | float) -> tuple[float, float]:
    """Return the least float that is not below a number, and the largest not above it."""
    if isinstance(number, float):
        return number, number
    try:
        near = float(number)
    except OverflowError:
        return (math.inf, math.inf) if number > 0 else (-math.inf, -math.inf)
    return (near if near >= number else math.nextafter(near, math.inf)), (
        near if near <= number else math.nextafter(near, -math.inf)
    )


def coded(values: pl.Series, kind: Kind, lenient: bool = False) -> tuple[Values, pl.Series]:
    """Return the distinct values of a series and the code of each row, UInt32 [n].

    Args:
        values: [n].
        kind: type that they are compared as.
        lenient: give text that cannot be read as this kind a code above all others, which is in no range, and do not raise.

    Raises:
        DataError: A value cannot be read as this kind.
    """
    unreadable = None
    try:
        keys, scale = _keys(values, kind)
    except DataError:
        if not lenient or values.dtype != pl.String:
            raise
        unreadable = pl.Series([one is not None and not _is_readable_as(one, kind) for one in values], dtype=pl.Boolean)
        keys, scale = _keys(values.set(unreadable, None), kind)
    distinct = keys.drop_nulls().unique().sort()
    places = distinct.to_frame("key").with_row_index("code", offset=1)
    codes = keys.to_frame("key").join(places, on="key", how="left", maintain_order="left")["code"].fill_null(0)
    if unreadable is not None:
        codes = codes.set(unreadable, len(distinct) + 1)
    ascending = np.array(distinct.to_list(), dtype=StringDType()) if kind == "text" else distinct.to_numpy()
    return Values(ascending, scale), codes


def microseconds(value: datetime.date) -> int:
    """Return the microseconds since 1970 of a date or datetime, by default in UTC."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    return ((value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)) - _EPOCH) // _MICROSECOND


def microseconds_of(text: str) -> int | Fraction:
    """Parse a date or time of ISO 8601 to microseconds since 1970.

    A time with nanoseconds is returned as a fraction.

    Raises:
        ValueError: The text is not a date or time.
    """
    try:
        seconds, nanoseconds = moment(text.strip())
    except ValueError:  # other forms of ISO 8601, such as 20260131
        return microseconds(datetime.datetime.fromisoformat(text.strip()))
    whole, rest = divmod(nanoseconds, 1000)
    return seconds * 1_000_000 + whole + (Fraction(rest, 1000) if rest else 0)


def nanoseconds(value: datetime.time) -> int:
    """Return the nanoseconds since midnight of a time of day."""
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000_000 + value.microsecond * 1_000


def nanoseconds_of(text: str) -> int:
    """Parse a time of day of ISO 8601 to nanoseconds since midnight.

    Raises:
        ValueError: The text is not a time of day, or has a zone.
    """
    value = datetime.time.fromisoformat(text.strip())
    if value.tzinfo is not None:
        raise ValueError("a time of day must not have a zone")
    return nanoseconds(value)


def _is_readable_as(text: str, kind: Kind) -> bool:
    """Return whether a text can be read as a kind."""
    try:
        _keys(pl.Series([text]), kind)
    except DataError:
        return False
    return True


def _keys(values: pl.Series, kind: Kind) -> tuple[pl.Series, int]:
    """Return the values in a sortable type, and the scale of `Values`."""
    dtype = values.dtype
    where = f"column {values.name!r}"
    own = Form.of(dtype)
    if kind == "text":
        return canonical_series(values), 1
    if kind == "number" and dtype == pl.String:
        return number_column(values, where), 1
    if kind in ("time", "clock") and dtype == pl.String:
        return _parsed(values, microseconds_of if kind == "time" else nanoseconds_of, where)
    if own is None or own.bag or own.kind != kind:
        if values.null_count() == len(values):
            return pl.Series(values.name, [None] * len(values), dtype=pl.Int64), 1
        raise DataError(f"a column of type {dtype} cannot be compared as a {kind}", where=where)
    if kind == "time":
        nano = isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns"
        zone = dtype.time_zone if isinstance(dtype, pl.Datetime) else None
        return values.cast(pl.Datetime("ns" if nano else "us", zone)).to_physical(), 1000 if nano else 1
    if kind == "number" and dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128):
        return values.cast(pl.UInt64 if dtype == pl.UInt64 else pl.Int64), 1
    if kind == "number":
        return to_request_values(values.to_frame()).to_series().cast(pl.Float64).fill_nan(None), 1
    return values.to_physical().cast(pl.Int64), 1


def _parsed(values: pl.Series, parse: Callable[[str], int | Fraction], where: str) -> tuple[pl.Series, int]:
    """Parse text to integers; the scale is 1000 if a time has nanoseconds."""
    texts = values.drop_nulls().unique()
    parsed: list[int | Fraction] = []
    for text in texts.to_list():
        try:
            parsed.append(parse(text))
        except ValueError:
            raise DataError(f"{text[:40]!r} is not a time", where=where, hint="Write times in ISO 8601") from None
    scale = 1000 if any(isinstance(one, Fraction) for one in parsed) else 1
    keys = [int(one * scale) for one in parsed]
    if any(abs(key) > _LARGEST for key in keys):  # years for which nanoseconds exceed 63 bits: round to microseconds
        scale, keys = 1, [math.floor(one) for one in parsed]
    return values.replace_strict(texts, pl.Series(keys, dtype=pl.Int64), default=None, return_dtype=pl.Int64), scale


# A bitmap is made by comparing the codes of all rows if it has more than 1 / _RARE of the rows and at most _PASSES ranges,
# each of which takes a pass over the rows; else from the rows of each code.
_RARE = 16
_PASSES = 4


@dataclass(frozen=True, eq=False)
class Column:
    """The codes of a column.

    Attributes:
        size: rows of the segment.
        values: values by code.
        entry_codes: unsigned integers [entries], the code of each entry.
        entry_rows: int32 [entries], the row of each entry; None for a column with one value an item, where entry r is row r.
    """

    size: int
    values: Values
    entry_codes: npt.NDArray[np.unsignedinteger[Any]]
    entry_rows: Int32 | None

    @staticmethod
    def of(values: pl.Series, form: Form, kind: Kind, lenient: bool = False) -> "Column":
        """Encode a series.

        Args:
            values: [n].
            form: form of the column.
            kind: type that its values are compared as.
            lenient: as for `coded`.

        Raises:
            DataError: A value cannot be read as this kind.
        """
        if not form.bag:
            found, codes = coded(values, kind, lenient)
            return Column(len(values), found, _narrow(codes, len(found)), None)
        nested = isinstance(values.dtype, pl.List | pl.Array)
        lists = as_lists(values if nested else values.cast(pl.String), form.separator)
        lengths = lists.list.len().fill_null(0).to_numpy()
        entries = empty_to_null(flatten_lists(lists))  # encoders ignore empty text, too
        found, codes = coded(entries, kind)
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
        """Number of entries with smaller codes, by code: int64 [d + 2 or d + 3]."""
        counts = np.bincount(self.entry_codes, minlength=len(self.values) + 1)
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @cached_property
    def _by_code(self) -> Int32:
        """Rows of all entries, sorted by code: int32 [entries]."""
        order = np.argsort(self.entry_codes, kind="stable").astype(np.int32)
        return order if self.entry_rows is None else self.entry_rows[order]

    def select(self, ranges: Ranges) -> RowBitmap:
        """Return the rows with a code in one of these ranges."""
        count = sum(int(self.starts[high] - self.starts[low]) for low, high in ranges)
        if self.entry_rows is None and count * _RARE > self.size and len(ranges) <= _PASSES:
            return RowBitmap.of_mask(self._mask(ranges))
        parts = [self._by_code[self.starts[low] : self.starts[high]] for low, high in ranges]
        return RowBitmap.of_rows(np.concatenate([*parts, _NO_ROWS]), self.size)

    def _mask(self, ranges: Ranges) -> Bool:
        number = self.entry_codes.dtype.type
        mask = np.zeros(self.size, dtype=bool)
        for low, high in ranges:  # codes below the range wrap around to numbers above its length
            mask |= (self.entry_codes - number(low)) < number(high - low)
        return mask


_NO_ROWS = np.empty(0, dtype=np.int32)


def merged(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Return the same codes in ranges that are sorted, disjoint and not empty."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(one for one in ranges if one[0] < one[1]):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def _narrow(codes: pl.Series, distinct: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    # a type for one number more than the codes, so that it also holds the length of any range
    return np.ascontiguousarray(codes.to_numpy().astype(np.min_scalar_type(distinct + 1)))
