"""Times of interactions as numbers that sort as the times do."""

from dataclasses import dataclass

import polars as pl

from recall.errors import DataError
from recall.values import refuse

_DATE = "%Y-%m-%d"
_CLOCK = "%Y-%m-%dT%H:%M:%S%.f"
_MICROSECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Times:
    """One time for each interaction.

    Attributes:
        values: Int64 [n] or Float64 [n] without nulls: numbers as they were given, dates in microseconds since 1970.
        unit: what one unit of the configuration is in `values`: 1 for numbers, 1,000,000 for dates, which the
            configuration gives in unix seconds.
    """

    values: pl.Series
    unit: int

    @staticmethod
    def of(values: pl.Series, where: str) -> "Times":
        """Read a time column.

        Args:
            values: [n] of integers, floats, dates, datetimes, or text that holds numbers or ISO 8601 dates and times
                (UTC unless the text says otherwise).
            where: names the column in an error.

        Raises:
            DataError: a time is missing, not finite, or cannot be read.
        """
        parsed = _parsed(values, where) if values.dtype == pl.String else values
        unit = 1
        if parsed.dtype in (pl.Date, pl.Datetime):
            instants = parsed.cast(pl.Datetime("us")) if parsed.dtype == pl.Date else parsed.dt.cast_time_unit("us")
            parsed, unit = instants.to_physical(), _MICROSECOND  # a time zone changes how an instant is shown, not this
        elif parsed.dtype.is_float():
            parsed = parsed.cast(pl.Float64)
            refuse(values, (parsed.is_nan() | parsed.is_infinite()).fill_null(value=False), where, "no time")
        elif parsed.dtype.is_integer():
            parsed = parsed.cast(pl.Int64, strict=False)
            refuse(values, parsed.is_null() & values.is_not_null(), where, "no time: it needs more than 63 bits")
        else:
            mend = "Give numbers, dates or datetimes"
            raise DataError(f"a column of type {values.dtype} holds no times", where=where, mend=mend)
        if parsed.null_count():
            raise DataError(
                f"{parsed.null_count():,} of {len(values):,} rows have no time",
                where=where,
                why="without it their place among the user's interactions is not known",
                mend="Fill the times in, or leave the rows out",
            )
        return Times(parsed, unit)


def _parsed(values: pl.Series, where: str) -> pl.Series:
    for dtype in (pl.Int64, pl.Float64):
        parsed = values.cast(dtype, strict=False)
        if parsed.null_count() == values.null_count():
            return parsed
    clock = values.str.replace(" ", "T", literal=True).alias("text").to_frame()
    parsed = clock.select(
        pl.coalesce(
            pl.col("text").str.to_datetime(_CLOCK, strict=False, time_unit="us"),
            pl.col("text").str.to_datetime(_CLOCK + "%#z", strict=False, time_unit="us").dt.replace_time_zone(None),
            pl.col("text").str.to_date(_DATE, strict=False).cast(pl.Datetime("us")),
        )
    ).to_series()
    number = values.cast(pl.Float64, strict=False).is_not_null()
    refuse(values, parsed.is_null() & ~number & values.is_not_null(), where, "neither numbers nor ISO 8601 times")
    refuse(values, number, where, "written as numbers among ISO 8601 times")
    return parsed
