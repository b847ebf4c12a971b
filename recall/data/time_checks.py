"""Check the times of interactions, and bounds of a split by time."""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import polars as pl

from recall._arrays import Bool, Float64
from recall.config import Split, TimeSplit
from recall.data.findings import Finding, Report
from recall.data.times import OLDEST, UNITS, Times, unit_of_time, within_unit

_DAY = 86_400.0  # seconds
_MAX_FACTOR = 1000.0  # times the median, for numbers that are not unix times. Chosen, not tuned.
_MAX_SPREADS = 20.0  # interquartile ranges from the median. Chosen, not tuned.


_Implausible = Iterator[tuple[Bool, str, str]]
"""Which rows are implausible, bool [n]; what is wrong with their time; a hint."""


def time_findings(times: Times, users: pl.Series, rule: Split, report: Report, now: datetime) -> Iterator[Finding]:
    """Report implausible times, and bounds of a split in another unit.

    Args:
        times: times of all interactions, [n].
        users: user of each interaction, [n].
        rule: the split.
        report: makes the findings.
        now: current time; later times are in the future.
    """
    values = times.values.to_numpy().astype(np.float64)
    if not len(values):
        return
    if times.naive:
        message = f"{times.naive:,} of {len(values):,} times have no offset from UTC, the others do: they are read as UTC"
        yield report("warning", message, times.naive)
    unit = "microseconds" if times.unit > 1 else unit_of_time(values)
    for rows, problem, hint in _implausible_unix_times(values, unit, now) if unit else _implausible_numbers(values):
        if rows.any():
            yield report("warning", _describe_rows(times, users, rows, problem) + f": {hint}", int(rows.sum()))
    if isinstance(rule, TimeSplit):
        yield from _bound_findings(values, times.unit, rule, report)


def _implausible_unix_times(values: Float64, unit: str, now: datetime) -> _Implausible:
    seconds = values / UNITS[unit]
    plausible = np.ones(len(values), dtype=np.bool_)
    for other, each in UNITS.items():
        mixed = within_unit(values, each) & ~within_unit(values, UNITS[unit])  # none of the unit itself
        plausible &= ~mixed
        yield mixed, f"looks like {other} among {unit}", "the order and the split are wrong"
    future = plausible & (seconds > now.timestamp() + _DAY)  # clocks and time zones differ
    yield future, "is in the future", "a placeholder for a missing date, or another unit?"
    old = plausible & (seconds < OLDEST)
    yield old, "lies before 1990", "a placeholder for a missing date, such as 0 or -1, or another unit?"
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    far = plausible & ~future & ~old & (np.abs(seconds - middle) > _MAX_SPREADS * max(high - low, _DAY))
    if far.mean() < 0.25:
        yield far, "is far from all others", "is it right?"


def _implausible_numbers(values: Float64) -> _Implausible:
    """Yield implausible numbers that are not unix times, such as positions."""
    far = values > _MAX_FACTOR * max(float(np.median(np.abs(values))), 1.0)
    yield far, f"is more than {_MAX_FACTOR:g} times the median", "a placeholder, or another unit?"
    negative = values < 0
    if negative.mean() < 0.5:
        yield negative, "is negative among positive ones", "a placeholder such as -1?"


def _describe_rows(times: Times, users: pl.Series, rows: Bool, problem: str) -> str:
    """Say how many rows [n] have a problem, with up to three of their times."""
    values = times.values.filter(rows).head(1000).unique(maintain_order=True).head(3)
    examples = values if times.unit == 1 else pl.from_epoch(values, time_unit="us").dt.to_string("%Y-%m-%dT%H:%M:%S")
    frame = pl.DataFrame({"user": users, "time": times.values, "wrong": rows})
    latest = frame.group_by("user").agg(pl.col("wrong").filter(pl.col("time") == pl.col("time").max()).any())["wrong"]
    last = f", and for {int(latest.sum()):,} of {len(latest):,} users it is the latest" if latest.any() else ""
    count = f"in {int(rows.sum()):,} of {len(users):,} rows the time {problem}, such as {', '.join(map(str, examples))}"
    return f"{count}, first in row {int(rows.argmax()) + 1:,}{last}"


def _bound_findings(values: Float64, unit: int, rule: TimeSplit, report: Report) -> Iterator[Finding]:
    """Report bounds of a split outside the range of all times."""
    low, high = values.min() / unit, values.max() / unit
    for key, bound in (("test", rule.test), ("valid", rule.valid)):
        if bound is None or 0 < bound < 1 or low < bound <= high:
            continue
        side, end = ("after the last", high) if bound > high else ("before all but the first", low)
        message = f"data.split.{key} = {bound:.15g} lies {side} time, {end:.15g}"
        for factor in (1e3, 1e6, 1e9):
            for other, mean in ((bound / factor, "divided"), (bound * factor, "multiplied")):
                if low < other <= high:
                    message += f": {mean} by {factor:,.0f} it would be {other:.15g}, among them; is it in another unit?"
        yield report("warning", message, len(values))
