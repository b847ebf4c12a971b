"""What can be odd about the times of interactions: mixed units, sentinels, outliers, and bounds in another unit."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from recall._arrays import Bool, Float64
from recall.config import Split, TimeSplit
from recall.data.findings import Finding
from recall.data.split import Times

_UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
"""Units of unix time, by how many of them make a second."""
_OLDEST = datetime(1990, 1, 1, tzinfo=UTC).timestamp()  # few logs are older than the web
_NEWEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()  # seconds up to here are below any milliseconds from 1990 on
_AHEAD = timedelta(days=1).total_seconds()  # clocks and time zones differ
_FACTOR = 1000.0  # beyond the median of numbers that are no unix time
_SPREADS = 20.0  # beyond the quartiles, in interquartile ranges


@dataclass(frozen=True, slots=True)
class _Oddity:
    rows: Bool
    what: str
    hint: str


def time_findings(times: Times, users: pl.Series, rule: Split, column: str, now: datetime) -> Iterator[Finding]:
    """Report times that are probably no times of their own, and bounds of a split that are in another unit.

    Args:
        times: of all interactions, [n].
        users: whose they are, [n].
        rule: the split.
        column: the time column.
        now: the moment beyond which times lie in the future.
    """
    values = times.values.to_numpy().astype(np.float64)
    if times.naive:
        message = f"{times.naive:,} of {len(values):,} times have no offset from UTC, the others do: they are read as UTC"
        yield Finding("warning", "interactions", column, message, times.naive)
    unit = "microseconds" if times.unit > 1 else _unit(values)
    for odd in _moments(values, unit, now) if unit else _numbers(values):
        if odd.rows.any():
            yield Finding("warning", "interactions", column, _said(odd, times, users), int(odd.rows.sum()))
    if isinstance(rule, TimeSplit):
        yield from _bounds(values, times.unit, rule, column)


def _unit(values: Float64) -> str:
    """The unit of unix time that most of the numbers are in; empty when half of them are in none."""
    shares = {name: float(_within(values, each).mean()) for name, each in _UNITS.items()}
    return max(shares, key=lambda name: shares[name]) if sum(shares.values()) > 0.5 else ""


def _within(values: Float64, each: float) -> Bool:
    return np.asarray((values >= _OLDEST * each) & (values < _NEWEST * each))


def _moments(values: Float64, unit: str, now: datetime) -> Iterator[_Oddity]:
    """Oddities of times in a known unit of unix time."""
    seconds = values / _UNITS[unit]
    left = np.ones(len(values), dtype=np.bool_)
    for other, each in _UNITS.items():
        if other != unit:
            mixed = _within(values, each) & ~_within(values, _UNITS[unit])
            left &= ~mixed
            yield _Oddity(mixed, f"look like {other} among {unit}", "their order and the split are wrong")
    future = left & (seconds > now.timestamp() + _AHEAD)
    yield _Oddity(future, "lie in the future", "a stand-in for no date, or another unit?")
    old = left & (seconds < _OLDEST)
    yield _Oddity(old, "lie before 1990", "a stand-in for no date, such as 0 or -1, or another unit?")
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    spread = max(high - low, timedelta(days=1).total_seconds())
    far = left & ~future & ~old & (np.abs(seconds - middle) > _SPREADS * spread)
    if far.mean() < 0.25:
        yield _Oddity(far, "lie far from all others", "are they right?")


def _numbers(values: Float64) -> Iterator[_Oddity]:
    """Oddities of numbers that are no unix time, such as positions."""
    middle = max(float(np.median(np.abs(values))), 1.0)
    yield _Oddity(values > _FACTOR * middle, f"are more than {_FACTOR:g} times the median", "a stand-in, or another unit?")
    negative = values < 0
    if 0 < negative.mean() < 0.5:
        yield _Oddity(negative, "are negative among positive ones", "a stand-in such as -1?")


def _said(odd: _Oddity, times: Times, users: pl.Series) -> str:
    rows = np.flatnonzero(odd.rows)
    shown = list(dict.fromkeys(_written(times, int(row)) for row in rows[:1000]))[:3]
    frame = pl.DataFrame({"user": users, "time": times.values, "odd": odd.rows})
    latest = frame.group_by("user").agg(pl.col("odd").filter(pl.col("time") == pl.col("time").max()).any())["odd"]
    last = f", and for {int(latest.sum()):,} of {len(latest):,} users it is the latest" if latest.any() else ""
    return f"{len(rows):,} times {odd.what}, such as {', '.join(shown)}, first in row {rows[0] + 1:,}{last}: {odd.hint}"


def _written(times: Times, row: int) -> str:
    value = times.values[row]
    if times.unit == 1:
        return str(value)
    moment = pl.from_epoch(pl.Series([value]), time_unit="us").dt.to_string("%Y-%m-%dT%H:%M:%S")[0]
    return str(moment)


def _bounds(values: Float64, unit: int, rule: TimeSplit, column: str) -> Iterator[Finding]:
    """Bounds of a split that lie outside of all times."""
    low, high = values.min() / unit, values.max() / unit
    for key, bound in (("test", rule.test), ("valid", rule.valid)):
        if bound is None or 0 < bound < 1 or low < bound <= high:
            continue
        message = (
            f"data.split.{key} = {bound:.15g} lies {'after the last' if bound > high else 'before all but the first'} time, "
        )
        message += f"{high:.15g}" if bound > high else f"{low:.15g}"
        for factor in (1e3, 1e6, 1e9):
            for other, mean in ((bound / factor, "divided"), (bound * factor, "multiplied")):
                if low < other <= high:
                    message += f": {mean} by {factor:,.0f} it would be {other:.15g}, among them; is it in another unit?"
        yield Finding("warning", "interactions", column, message, len(values))
