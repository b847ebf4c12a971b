"""One written form for every value, whatever file or request it came from.

A vocabulary knows text only. The integer 12, the float 12.0 and the text "12" are one value; a float that is not whole
is written as Python's `repr` does, a truth value as true or false, a date or time in ISO 8601. Text is left as it is,
byte for byte: "012" stays apart from "12".
"""

import datetime
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import selectors

from recall.errors import DataError

_WHOLE = 2.0**53  # beyond this a float no longer tells neighbouring integers apart


def canonical(value: object) -> str:
    """The written form of one value that is not missing.

    Raises:
        TypeError: the value is missing, not a number, or not a single value.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if value == value:
            return str(int(value)) if abs(value) < _WHOLE and value.is_integer() else repr(value)
        case Decimal() if value.is_finite():
            return canonical(float(value))
        case np.floating():  # the shortest decimal of its own width
            return canonical(float(str(value)))
        case np.generic():
            return canonical(value.item())
        case datetime.date() | datetime.time():  # a datetime is a date
            return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no written form")


def canonical_series(values: pl.Series) -> pl.Series:
    """The written form of a whole column, null where a value is missing.

    Args:
        values: [n] of any single-valued dtype; NaN counts as missing.

    Returns:
        String [n], equal to `canonical` of every value.

    Raises:
        DataError: the dtype holds something else than single values.
    """
    dtype = values.dtype
    if dtype == pl.String:
        return values
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Categorical, pl.Enum, pl.Null):
        return values.cast(pl.String)
    if dtype == pl.Float32:  # the shortest decimal of the 32-bit number, not of its 64-bit neighbour
        return canonical_series(values.cast(pl.String).cast(pl.Float64))
    if dtype.is_decimal():
        return canonical_series(values.cast(pl.Float64))
    if dtype.is_float():
        values = values.fill_nan(None)
    elif dtype not in (pl.Date, pl.Datetime, pl.Time):
        raise DataError(
            f"a column of type {dtype} does not hold single values",
            where=f"column {values.name!r}" if values.name else "",
            mend="Give text, numbers, truth values, dates or times; a list belongs to a field of kind 'bag'",
        )
    distinct = Distinct.of(values)
    texts = [None if value is None else canonical(value) for value in values.gather(distinct.first).to_list()]
    return pl.Series(values.name, texts, dtype=pl.String).gather(distinct.codes)


def as_requested(frame: pl.DataFrame) -> pl.DataFrame:
    """The same columns, with values that mean in a request what they mean in a table.

    In a request NaN is an error and not a missing value, and a 32-bit number would be read as its 64-bit neighbour.
    """
    return frame.with_columns(selectors.float().as_expr().fill_nan(None)).with_columns(
        selectors.by_dtype(pl.Float32).cast(pl.String).cast(pl.Float64)  # text keeps a 32-bit number as it was written
    )


def numbers(values: pl.Series, where: str) -> pl.Series:
    """A column as numbers, null where one is missing.

    Args:
        values: [n] of integers, floats, truth values, or text that holds numbers; NaN counts as missing.
        where: names the column in an error.

    Returns:
        Float64 [n], finite or null.

    Raises:
        DataError: a value is no number or is infinite; at most five are shown.
    """
    dtype = values.dtype
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Null)):
        raise DataError(f"a column of type {dtype} holds no numbers", where=where, mend="Give integers or floats")
    parsed = (values.str.strip_chars() if dtype == pl.String else values).cast(pl.Float64, strict=False)
    refuse(values, parsed.is_null() & values.is_not_null(), where, "no number")
    refuse(values, parsed.is_infinite().fill_null(value=False), where, "infinite")
    return parsed.fill_nan(None)


def refuse(values: pl.Series, wrong: pl.Series, where: str, what: str, mend: str = "") -> None:
    """Raise a DataError that counts the values marked in `wrong` (Boolean [n]) and shows five; return when none is."""
    count = int(wrong.sum())
    if count:
        verb = "value is" if count == 1 else "values are"
        shown = examples(values.filter(wrong))
        first = int(wrong.arg_max() or 0) + 1
        raise DataError(f"{count:,} {verb} {what}: {shown}", where=where, mend=mend, row=first)


def examples(values: pl.Series) -> str:
    """At most five different values, as they would be typed."""
    shown = list(dict.fromkeys(repr(value) for value in values.head(1000).to_list()))
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")


@dataclass(frozen=True, slots=True)
class Distinct:
    """Which rows of a column or table are equal; null equals null, and NaN equals NaN.

    Attributes:
        first: int64 [d], the first row of each distinct value, in order of appearance.
        codes: int32 [n], for every row the position of its value in `first`.
    """

    first: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]

    @staticmethod
    def of(values: pl.Series | pl.DataFrame) -> "Distinct":
        """The distinct values of a column, or the distinct rows of a table with at least one column."""
        frame = values.to_frame() if isinstance(values, pl.Series) else values
        frame = frame.rename({name: f"key {name}" for name in frame.columns})
        rows = frame.with_row_index("row").group_by(pl.exclude("row"), maintain_order=True).agg("row")["row"]
        lengths = rows.list.len().to_numpy()
        order = rows.explode().to_numpy()
        codes = np.empty(len(frame), dtype=np.int32)
        codes[order] = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
        first = order[np.cumsum(lengths, dtype=np.int64) - lengths].astype(np.int64)
        return Distinct(first, codes)
