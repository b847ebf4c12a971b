"""Recognise outcomes by their values, whatever language their names are in.

A truth value or a mark on a scale that follows neither from the user, nor from the item, nor from the calendar, is more
often the result of an interaction than something a request knows in advance. Values alone do not prove it: callers state
it as an assumption.
"""

from typing import Literal

import numpy as np
import polars as pl

from recall.data.column_names import known_before
from recall.data.dependence import codes_of, function_gain
from recall.data.split import Times
from recall.errors import DataError

Look = Literal["", "switch", "scale"]

_PAIRS = (
    *("true false", "yes no", "y n", "t f", "ja nein", "j n", "wahr falsch", "oui non", "o n", "vrai faux", "si no", "sí no"),
    *("s n", "verdadero falso", "sim não", "sim nao", "verdadeiro falso", "vero falso", "ja nee", "waar onwaar", "ja nej"),
    *("tak nie", "ano ne", "igen nem", "evet hayır", "да нет", "是 否", "はい いいえ", "예 아니요"),
)
YES_NO = frozenset(frozenset(pair.split()) for pair in _PAIRS)
"""Pairs of words for true and false, in lower case."""
YES = frozenset(pair.split()[0] for pair in _PAIRS)
"""Those for true."""

_TOPS = (4, 5, 6, 7, 10, 20, 100)  # of scales: stars, school marks, points; not of hours, weekdays from 0, months or days
_FEWEST, _MOST = 4, 21  # levels of a scale
_CALENDAR = 0.8  # the same as dependence.OF_ITEM: hours in another time zone still follow from those in UTC
_HOUR, _WEEK = 3_600, 7 * 24


def looks_like_outcome(values: pl.Series, numbers: pl.Series | None) -> Look:
    """Return whether a column holds truth values or marks that may be an outcome.

    Args:
        values: [n], the column.
        numbers: [n], the same as numbers; None where it holds others.

    Returns:
        "switch", "scale", or "" where name or levels speak against it.
    """
    if values.dtype.is_nested() or known_before(values.name):
        return ""
    known = values.drop_nulls()
    if values.dtype == pl.Boolean:
        return "switch" if known.n_unique() == 2 else ""
    if numbers is None:
        few = known.unique().head(3)
        return "switch" if known.dtype == pl.String and frozenset(few.str.strip_chars().str.to_lowercase()) in YES_NO else ""
    levels = numbers.drop_nulls().unique().sort()
    if set(levels) == {0.0, 1.0}:
        return "switch"
    if not _FEWEST <= len(levels) <= _MOST or float(levels[0]) not in (0.0, 0.5, 1.0) or float(levels[-1]) not in _TOPS:
        return ""
    halves = bool((levels * 2 == (levels * 2).round()).all())
    return "scale" if halves and len(levels) >= 0.4 * min(float(levels[-1]), 20) else ""


def of_calendar(values: pl.Series, times: pl.Series) -> bool:
    """Return whether a column follows from hour, weekday or month.

    Args:
        values: [n], of few levels.
        times: [n], the time column; one in unknown units has no calendar.
    """
    seconds = _seconds(times)
    if seconds is None:
        return False
    moments = pl.from_epoch(pl.Series(seconds), time_unit="s")
    codes = codes_of(values)
    known = codes >= 0
    hours = (seconds // _HOUR) % 24
    days = moments.dt.weekday().to_numpy()
    for groups in (hours, days, moments.dt.month().to_numpy(), days * 24 + hours):
        gain = function_gain(codes_of(pl.Series(groups[known])), codes[known])
        if gain.value >= _CALENDAR and gain.low > _CALENDAR / 2:
            return True
    return False


def _seconds(times: pl.Series) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Return the unix seconds of a time column, int64 [n]; None where it holds none."""
    try:
        found = Times.of(times, "")
    except DataError:
        return None
    values = found.values.to_numpy().astype(np.float64) / found.unit
    for factor in (1.0, 1e3, 1e6, 1e9):
        if len(values) and values.min() / factor > 3e8 and values.max() / factor < 5e9:
            return (values / factor).astype(np.int64)
    return None
