"""One written form for every value, independent of where it came from.

A vocabulary knows text only. The integer 12, the float 12.0 and the text "12" are one value; a float that is not whole
is written as Python's `repr` does, a truth value as true or false, a date or time in ISO 8601. Text is not changed,
byte for byte: "012" stays apart from "12". ISO 8601 dates, times and times of day are recognized, read and written here.
"""

import datetime
import re
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import polars as pl
from polars import selectors
from polars.datatypes import DataType

from recall._arrays import Int32, Int64
from recall.errors import DataError

_WHOLE = 1e21  # larger floats are written with an exponent, as JavaScript writes them
_NEIGHBORS = 2.0**53  # from here on a float does not distinguish neighboring integers
MAX_ENUM_VALUES = 1 << 16
"""Different values up to which text is an Enum, so that a code takes at most two bytes."""
_DIGITS = 15  # decimal digits that a float always keeps
_INTEGER = r"^-?(?:0|[1-9][0-9]*)$"


def canonical(value: object) -> str:
    """Return the text form of one value.

    Raises:
        TypeError: The value is missing, not a number, or not a scalar.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if value == value:
            return str(int(value)) if abs(value) < _WHOLE and value.is_integer() else repr(value)  # an integer of equal value
        case Decimal() if value.is_finite():
            return _decimal(value)
        case np.floating():  # the shortest decimal for its width
            return canonical(float(str(value)))
        case np.generic():
            return canonical(value.item())
        case datetime.datetime() if value.tzinfo is not None:  # equal moments are one value, regardless of their zone
            return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat()
        case datetime.date() | datetime.time():  # a datetime is a date
            return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no written form")


def _decimal(value: Decimal) -> str:
    """Format a finite decimal like an equal integer or float, or else exactly."""
    if value == value.to_integral_value():
        return str(int(value))
    normalized = value.normalize()
    return canonical(float(normalized)) if len(normalized.as_tuple().digits) <= _DIGITS else format(normalized, "f")


def canonical_series(values: pl.Series) -> pl.Series:
    """Return the text form of a column, null where a value is missing.

    Args:
        values: [n] of any single-valued dtype; NaN counts as missing.

    Returns:
        String [n], equal to `canonical` of every value.

    Raises:
        DataError: The dtype does not hold scalars.
    """
    dtype = values.dtype
    if dtype == pl.String:
        return values
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Categorical, pl.Enum, pl.Null):
        return values.cast(pl.String)
    if dtype == pl.Float32:  # the shortest decimal of the 32-bit number, not of its 64-bit neighbour
        return canonical_series(values.cast(pl.String).cast(pl.Float64))
    if dtype.is_float():
        values = values.fill_nan(None)
    elif not dtype.is_decimal() and dtype not in (pl.Date, pl.Datetime, pl.Time):
        raise DataError(
            f"a column of type {dtype} does not hold single values",
            where=f"column {values.name!r}" if values.name else "",
            hint="Give text, numbers, truth values, dates or times; a list belongs to a field of kind 'bag'",
        )
    distinct = Distinct.of(values)
    distinct_values = values.gather(distinct.first)
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
        instants = distinct_values.to_physical().to_list()  # datetimes would lose the last digits
        texts = [None if value is None else moment_text(*divmod(value, 1_000_000_000)) for value in instants]
    else:
        texts = [None if value is None else canonical(value) for value in distinct_values.to_list()]
    return pl.Series(values.name, texts, dtype=pl.String).gather(distinct.codes)


def known_texts(values: pl.Series) -> pl.Series:
    """Return `canonical_series` with empty text as null, a missing value."""
    return empty_to_null(canonical_series(values))


def empty_to_null(values: pl.Series) -> pl.Series:
    """Turn empty text into null; a column of another type is unchanged."""
    return values.set(values == "", None) if values.dtype == pl.String and (values == "").any() else values


def to_request_values(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert the values of a table to the same values in a request.

    In a request NaN is an error and not a missing value, and a 32-bit number would be read as its 64-bit neighbour.
    """
    return frame.with_columns(selectors.float().as_expr().fill_nan(None)).with_columns(
        selectors.by_dtype(pl.Float32).cast(pl.String).cast(pl.Float64)  # text keeps a 32-bit number as it was written
    )


def to_float(values: pl.Series, where: str) -> pl.Series:
    """Parse a column as numbers, null where one is missing.

    Args:
        values: [n] of integers, floats, truth values, or text that holds numbers; NaN counts as missing.
        where: names the column in an error.

    Returns:
        Float64 [n], finite or null.

    Raises:
        DataError: A value is not a finite number; shows at most five.
    """
    dtype = values.dtype
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Null)):
        raise DataError(f"a column of type {dtype} holds no numbers", where=where, hint="Give integers or floats")
    if dtype == pl.String:
        values = empty_to_null(values)
        parsed = values.str.strip_chars().cast(pl.Float64, strict=False)
    elif dtype == pl.Float32:  # 0.1 is the number that a request gives, and not its 32-bit neighbor
        parsed = values.cast(pl.String).cast(pl.Float64)
    else:
        parsed = values.cast(pl.Float64, strict=False)
    raise_if_any(values, parsed.is_null() & values.is_not_null(), where, "not a number")
    raise_if_any(values, parsed.is_infinite().fill_null(value=False), where, "infinite")
    return parsed.fill_nan(None)


def to_enum(values: pl.Series) -> pl.Series:
    """Return text with few distinct values as an Enum, and other columns unchanged."""
    if values.dtype != pl.String or values.head(2 * MAX_ENUM_VALUES).n_unique() > MAX_ENUM_VALUES:
        return values
    categories = values.unique().drop_nulls().sort()
    return values if len(categories) > MAX_ENUM_VALUES else values.cast(pl.Enum(categories))


def number_column(values: pl.Series, where: str) -> pl.Series:
    """Read a column as numbers without losing a digit.

    Args:
        values: [n], as for `to_float`.
        where: names the column in an error.

    Returns:
        [n]: Float64, or Int64 or UInt64 where all values are integers and a float would round one of them; null where one is
        missing.

    Raises:
        DataError: As `to_float`.
    """
    parsed = to_float(values, where)
    if not (parsed.abs() >= _NEIGHBORS).any():
        return parsed
    if values.dtype == pl.String:
        values = empty_to_null(values.str.strip_chars())
        if not values.str.contains(_INTEGER).all():
            return parsed
    elif not values.dtype.is_integer():
        return parsed
    exact = cast_all(values, pl.Int64, pl.UInt64)
    return parsed if exact is None else exact


def cast_all(values: pl.Series, *dtypes: type[DataType]) -> pl.Series | None:
    """Cast a column to the first type that can hold all values; None if none can.

    Args:
        values: [n].
        dtypes: types of polars.
    """
    casts = (values.cast(dtype, strict=False) for dtype in dtypes)
    return next((cast for cast in casts if cast.null_count() == values.null_count()), None)


def raise_if_any(values: pl.Series, wrong: pl.Series, where: str, what: str, hint: str = "") -> None:
    """Check that no value is marked as wrong.

    Args:
        values: [n], the column.
        wrong: Boolean [n].
        where: names the column in the error.
        what: the problem, as in "3 values are WHAT".
        hint: how to correct it.

    Raises:
        DataError: Some are wrong; counts them and shows five.
    """
    count = int(wrong.sum())
    if count:
        verb = "value is" if count == 1 else "values are"
        shown = examples(values.filter(wrong))
        first = int(wrong.arg_max() or 0) + 1
        raise DataError(f"{count:,} {verb} {what}: {shown}", where=where, hint=hint, row=first)


def examples(values: pl.Series) -> str:
    """At most five different values, as they would be typed."""
    distinct = list(dict.fromkeys(repr(value) for value in values.head(1000).to_list()))
    return ", ".join(distinct[:5]) + (", ..." if len(distinct) > 5 else "")


@dataclass(frozen=True, slots=True)
class Distinct:
    """Equal rows of a column or table; null equals null, and NaN equals NaN.

    Attributes:
        first: int64 [d], the first row of each distinct value, in order of appearance.
        codes: int32 [n], for every row the position of its value in `first`.
    """

    first: Int64
    codes: Int32

    @staticmethod
    def of(values: pl.Series | pl.DataFrame) -> "Distinct":
        """Find the distinct values of a column, or the distinct rows of a table."""
        frame = values.to_frame() if isinstance(values, pl.Series) else values
        frame = frame.rename({name: f"key {name}" for name in frame.columns})
        rows = frame.with_row_index("row").group_by(pl.exclude("row"), maintain_order=True).agg("row")["row"]
        lengths = rows.list.len().to_numpy()
        order = rows.explode().to_numpy()
        codes = np.empty(len(frame), dtype=np.int32)
        codes[order] = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
        first = order[np.cumsum(lengths, dtype=np.int64) - lengths].astype(np.int64)
        return Distinct(first, codes)


_HOURS, _MINUTES = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_ZONE = f"[Zz]|[+-]{_HOURS}(?::?{_MINUTES})?"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = rf"{_HOURS}:{_MINUTES}(?::[0-5][0-9](?:[.,][0-9]{{1,9}})?)?"
TIME = rf"{DATE}(?:[Tt ]{CLOCK}(?: ?(?:{_ZONE}))?)?"
"""Patterns of a date, a time of day, and a date or time with or without a zone."""

_clock = re.compile(CLOCK)
_time = re.compile(f"({DATE})(?:[Tt ]({CLOCK})(?: ?({_ZONE}))?)?")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def moment(text: str) -> tuple[int, int]:
    """Read an ISO 8601 date or time, in UTC unless it says otherwise.

    Returns:
        Seconds since 1970, and nanoseconds from 0 to 999,999,999 after them.

    Raises:
        ValueError: The text is not a date or time.
    """
    found = _time.fullmatch(text)
    if found is None:
        raise ValueError("not an ISO 8601 date or time")
    day, clock, zone = found.groups()
    of_day, nanoseconds = time_of_day(clock or "00:00")
    midnight = datetime.datetime.fromisoformat(f"{day}T00:00{(zone or 'Z').upper()}")  # which would cut nanoseconds
    return (midnight - _EPOCH) // datetime.timedelta(seconds=1) + of_day, nanoseconds


def time_of_day(text: str) -> tuple[int, int]:
    """Read a time of day.

    Returns:
        Seconds since midnight, and nanoseconds from 0 to 999,999,999 after them.

    Raises:
        ValueError: The text is not a time of day.
    """
    if _clock.fullmatch(text) is None:
        raise ValueError("not a time of day")
    whole, _, fraction = text.replace(",", ".").partition(".")
    time = datetime.time.fromisoformat(whole)
    return (time.hour * 60 + time.minute) * 60 + time.second, int(fraction.ljust(9, "0"))


def moment_text(seconds: int, nanoseconds: int) -> str:
    """Format a date and time in UTC, as `moment` reads it.

    Args:
        seconds: since 1970.
        nanoseconds: after them.

    Raises:
        OverflowError: The year is not from 1 to 9999.
    """
    days, of_day = divmod(seconds, 86_400)
    return f"{(_EPOCH + datetime.timedelta(days=days)).date().isoformat()}T{clock_text(of_day, nanoseconds)}"


def clock_text(seconds: int, nanoseconds: int) -> str:
    """Format a time of day, with 6 or 9 decimals where needed.

    Args:
        seconds: since midnight.
        nanoseconds: after them.
    """
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if not nanoseconds:
        return clock
    return f"{clock}.{nanoseconds:09}" if nanoseconds % 1000 else f"{clock}.{nanoseconds // 1000:06}"
