"""Times of interactions as numbers that sort as the times do."""

import re
from calendar import isleap
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from recall._arrays import Bool, Float64, Int64
from recall.errors import DataError
from recall.features.values import Distinct, cast_all, raise_if_any

UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
"""Units of unix time: how many make a second."""
OLDEST = datetime(1990, 1, 1, tzinfo=UTC).timestamp()  # few logs are older than the web
NEWEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()  # seconds up to here are below any milliseconds from 1990 on
_CLOCK = "%Y-%m-%dT%H:%M:%S%.f"


@dataclass(frozen=True, slots=True)
class Times:
    """One time for each interaction, as a number.

    Attributes:
        values: Int64 [n] or Float64 [n] without nulls: numbers as they were given, dates in microseconds since 1970.
        unit: factor from times in the configuration to `values`: 1 for numbers, 1,000,000 for dates, which the configuration
            gives in unix seconds.
        naive: number of ISO 8601 texts without an offset, read as UTC, where others have one; else 0.
    """

    values: pl.Series
    unit: int
    naive: int = 0

    def at(self, positions: Int64) -> "Times":
        """Return the times at some positions, int64 [m]."""
        return replace(self, values=self.values.gather(positions))

    @staticmethod
    def of(values: pl.Series, where: str) -> "Times":
        """Read a time column.

        Args:
            values: [n] of integers, floats, dates, datetimes, or text that holds numbers or ISO 8601 dates and times
                (UTC unless the text says otherwise).
            where: names the column in an error.

        Raises:
            DataError: A time is missing, not finite, or cannot be read.
        """
        parsed, naive = _parse_text(values, where) if values.dtype == pl.String else (values, 0)
        unit = 1
        if parsed.dtype in (pl.Date, pl.Datetime):
            instants = parsed.cast(pl.Datetime("us")) if parsed.dtype == pl.Date else parsed.dt.cast_time_unit("us")
            parsed, unit = instants.to_physical(), 1_000_000  # a time zone changes only how an instant is displayed
        elif parsed.dtype.is_float():
            parsed = parsed.cast(pl.Float64)
            raise_if_any(values, (parsed.is_nan() | parsed.is_infinite()).fill_null(value=False), where, "not times")
        elif parsed.dtype.is_integer():
            parsed = parsed.cast(pl.Int64, strict=False)
            raise_if_any(values, parsed.is_null() & values.is_not_null(), where, "not times: they need more than 63 bits")
        else:
            raise DataError(
                f"a time column must hold numbers, dates or text, got {values.dtype}",
                where=where,
                hint="Give numbers, dates or datetimes",
            )
        if parsed.null_count():
            raise DataError(
                f"{parsed.null_count():,} of {len(values):,} rows have no time",
                where=where,
                why="without it their position among the user's interactions is unknown",
                hint="Fill the times in, or leave the rows out",
                row=int(parsed.is_null().arg_max() or 0) + 1,
            )
        return Times(parsed, unit, naive)


def _parse_text(values: pl.Series, where: str) -> tuple[pl.Series, int]:
    """Parse a column of text as numbers or moments; count texts without an offset.

    The count is 0 where no text has an offset.
    """
    numbers = cast_all(values.str.strip_chars(), pl.Int64, pl.Float64)
    if numbers is not None:
        return numbers, 0
    iso8601 = _parse_iso8601(values)
    parsed = iso8601["moment"]
    unread = parsed.is_null() & values.is_not_null()
    numbers = pl.select(pl.when(unread).then(values.str.strip_chars().cast(pl.Float64, strict=False))).to_series()
    raise_if_any(
        values,
        unread & numbers.is_null(),
        where,
        "neither numbers nor ISO 8601 times",
        "Write 2024-01-31T10:05:00Z, or unix seconds",
    )
    known = numbers.drop_nulls().to_numpy()
    factor = UNITS[(unit_of_time(known) if len(known) else "") or "seconds"]  # a log that changed how it writes times
    unix = numbers.is_between(OLDEST * factor, NEWEST * factor, closed="left").fill_null(value=False)
    raise_if_any(values, numbers.is_not_null() & ~unix, where, "written as numbers among ISO 8601 times")
    moments = (numbers / factor * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us"))
    aware = int(iso8601["aware"].sum()) + int(unix.sum())
    return pl.select(pl.coalesce(parsed, moments)).to_series(), len(values) - values.null_count() - aware if aware else 0


def _parse_iso8601(values: pl.Series) -> pl.DataFrame:
    """Return the moment in UTC of each ISO 8601 text, and whether it has an offset.

    The usual forms are parsed column-wise. The rest goes through `datetime.fromisoformat`, once for each different text.
    A zone written as UTC or GMT, or after a blank, is accepted, as data warehouses export it.

    Returns:
        `moment` Datetime [n] without a zone, null for other text, and `aware` Boolean [n].
    """
    text = pl.col("text")
    plain = values.str.strip_chars().str.replace(" ", "T", literal=True).alias("text").to_frame()
    plain = plain.select(pl.when(text.str.contains(r"^\d{4}")).then(text))  # a year of two digits would be one of antiquity
    zoned = text.str.to_datetime(_CLOCK + "%#z", strict=False, time_unit="us").dt.replace_time_zone(None)
    found = plain.select(
        pl.coalesce(
            text.str.to_datetime(_CLOCK, strict=False, time_unit="us"),
            zoned,
            text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")),
        ).alias("moment"),
        aware=zoned.is_not_null(),
    )
    unparsed = found["moment"].is_null() & values.is_not_null()
    if not unparsed.any():
        return found
    texts = values.filter(unparsed)
    distinct = Distinct.of(texts)
    read = [_parse_unusual_iso8601(text) or (None, False) for text in texts.gather(distinct.first)]
    others = pl.DataFrame(read, schema={"moment": pl.Datetime("us"), "aware": pl.Boolean}, orient="row")[distinct.codes]
    found = found.with_columns(pl.col("aware").fill_null(value=False))
    return found.select(column.scatter(unparsed.arg_true(), others[column.name]) for column in found)


def _parse_unusual_iso8601(text: str) -> tuple[datetime, bool] | None:
    """Return the moment in UTC, and whether the text has an offset, or None."""
    plain = re.sub(" ?(?:UTC|GMT)$", "Z", text.strip().upper())
    plain = re.sub("(?<=.) (?=[-+Z][^ ]*$)", "", plain)  # a blank before the offset
    day, mark, clock = plain.partition("T" if "T" in plain else " ")
    digits = day.replace("-", "")
    if len(digits) > 8 and digits.isdecimal():  # unix milliseconds, whose ninth digit fromisoformat would take for a "T"
        return None
    try:
        if len(digits) == 7 and digits.isdecimal():  # a day of the year, which fromisoformat does not know
            year, days = int(digits[:4]), int(digits[4:])
            if not 1 <= days <= 365 + isleap(year):
                return None
            day = (date(year, 1, 1) + timedelta(days=days - 1)).isoformat()
        elif len(day) == 7 and len(digits) == 6 and not mark:  # a month is its first day
            day += "-01"
        midnight = clock.startswith(("24:00", "2400"))  # the end of a day is the start of the next
        moment = datetime.fromisoformat(day + mark + (clock.replace("24", "00", 1) if midnight else clock))
        moment += timedelta(days=midnight)
        if moment.tzinfo is None:
            return moment, False
        return moment.astimezone(UTC).replace(tzinfo=None), True
    except (ValueError, OverflowError):
        return None


def unit_of_time(values: Float64) -> str:
    """Return the unit of unix time of most numbers; empty when half fit none.

    Args:
        values: float64 [n].
    """
    shares = {name: float(within_unit(values, each).mean()) for name, each in UNITS.items()}
    return max(shares, key=lambda name: shares[name]) if sum(shares.values()) > 0.5 else ""


def within_unit(values: Float64, each: float) -> Bool:
    """Return which numbers are plausible unix times of a unit; bool [n].

    Args:
        values: float64 [n].
        each: how many of the unit make a second.
    """
    return np.asarray((values >= OLDEST * each) & (values < NEWEST * each))
