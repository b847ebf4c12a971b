"""Detect the time column of the interactions, by values and name."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import polars as pl

from recall.data.column_names import AMOUNT, COLUMN_WORDS, RATING, known_before, outcome_word, word_set, words
from recall.data.conversions import date_part
from recall.data.dependence import CHOICE, Codes, Dependence, encode_distinct, function_gain
from recall.data.times import NEWEST, OLDEST, UNITS, Times
from recall.errors import DataError

_DAY = 86_400.0  # seconds
_TIME_WORDS = {  # words in names of time columns, the most certain with 3
    word: rank for rank, kind in ((1, "position"), (2, "date"), (3, "time")) for word in COLUMN_WORDS[kind]
}
_EASTERN_TIMES = tuple(word for word in _TIME_WORDS if not word.isascii())  # at the end of names
_EASTERN_NUMBERS = tuple(word for word in COLUMN_WORDS["other_number"] if not word.isascii())
_UNNAMED = 1.75  # rank by content of unix times that the name does not confirm: they may be bar codes
LATER = -1
"""Rank of the name of a time of later changes, such as `reservation_status_date`."""
_FORMATS = {
    "%m/%d/%Y %H:%M": "12/31/2010 8:26",
    "%d/%m/%Y %H:%M": "31/12/2010 8:26",
    "%m/%d/%Y": "12/31/2010",
    "%d/%m/%Y": "31/12/2010",
    "%d.%m.%Y": "31.12.2010",
    "%d.%m.%Y %H:%M": "31.12.2010 08:26",
    "%m %d, %Y": "12 31, 2010",
    "%b %d, %Y": "Dec 31, 2010",
    "%d %b %Y": "31 Dec 2010",
    "%a %b %d %H:%M:%S %z %Y": "Fri Dec 31 08:26:00 +0000 2010",
}
_SHEETS = 25_569  # the number that spreadsheets have for the first day of unix time
_SAMPLE_ROWS = 2_000  # texts that are parsed; a time column is uniform
_MIN_ROWS = 20  # rows below which a name alone decides
_MIN_AGREEING = 0.95  # share of rows that must agree. Chosen, not tuned.
_MAX_DATE_PART = 60  # numbers up to it, such as days of a month, hours or minutes, may be parts of a time
_MAX_MISSING = 0.2  # share of rows without a value up to which a column can be the time. Chosen, not tuned.
_MAX_POSITIONS = 10  # up to so many different numbers may be positions on a screen. Chosen, not tuned.
_MIN_CALENDAR_GAIN = 0.8  # the same as dependence.OF_ITEM: hours in another time zone still follow from those in UTC
_MIN_CORRELATION, _MIN_NUMBERED = 0.995, 0.9  # rank correlation with the time; share of rows with a number
_MIN_DIFFERENT = 20  # different values above which numbers can count rows. Chosen, not tuned.
_SAMPLE_TIMES = 2_000  # times that are compared


@dataclass(frozen=True, slots=True)
class TimeCandidate:
    """A column that may be the time of the interactions.

    Attributes:
        rank: preference among columns, the first part first: content (2 for dates and unix times, a quarter less for unix times
            whose name does not denote a time, 1 for ascending numbers, 0 for dates in a format that needs a conversion; half
            less if some are missing), name, number of distinct values.
        reason: why the column may be the time; a comment in the draft.
        holds_dates: whether it holds dates rather than numbers.
    """

    rank: tuple[float, int, int]
    reason: str
    holds_dates: bool = False

    @property
    def readable(self) -> bool:
        """Whether `data.time` can read the column without a conversion."""
        return self.rank[0] > 0


def rank_time_column(
    values: pl.Series, numbers: pl.Series | None, users: Codes, items: Codes, taken: pl.Series | None = None
) -> TimeCandidate | None:
    """Return the rank of a column that may be the time, or None.

    Args:
        values: the column, [n].
        numbers: the column as numbers, [n]; None if it has other values.
        users: integer [n], user of each row.
        items: integer [n], item of each row. A value that all rows of an item share, such as a release date, is not the time
            of an interaction.
        taken: bool [n], rows that need a time; None for all.
    """
    known = values.drop_nulls()
    if known.is_empty() or values.dtype == pl.Boolean:
        return None
    ranked = (
        _rank_dates(known)
        if numbers is None
        else _rank_unix_time(numbers, values.name) or _rank_rising(numbers, values.name, users)
    )
    if ranked is None:
        return None
    if ranked[0] == _UNNAMED and Dependence.of(users, items, values).choice.exceeds(CHOICE):
        return None  # of different users with equal numbers, most have one item: the number of a copy, such as a bar code
    codes = encode_distinct(values)
    has_value = codes >= 0
    # a log with one visit per user has one time per user, but so has a sign-up date
    plain = set(words(values.name)) <= set(_TIME_WORDS)
    for owners in (items,) if plain else (items, users):
        if function_gain(owners[has_value], codes[has_value]).value >= _MIN_AGREEING:
            return None
    named = words(values.name)
    name = max((_TIME_WORDS.get(word, 0) for word in named), default=0) if not COLUMN_WORDS["later"] & set(named) else LATER
    missing = values.null_count() / len(values)
    reason = ranked[1] + (f"; {missing:.1%} of the rows have none" if missing else "")
    needed = values if taken is None else values.filter(taken)
    rank = 0 if needed.null_count() > _MAX_MISSING * len(needed) else ranked[0] - (missing > 0) / 2
    return TimeCandidate((rank, name, known.n_unique()), reason, holds_dates=numbers is None)


def _rank_dates(known: pl.Series) -> tuple[int, str] | None:
    """Rank dates, or text with dates; return the rank by content and the reason."""
    if known.dtype in (pl.Date, pl.Datetime):
        return 2, "dates or times"
    if known.dtype != pl.String:
        return None
    some = known.head(_SAMPLE_ROWS)
    try:
        unit = Times.of(some, "").unit
    except DataError:
        for form, shown in _FORMATS.items():
            if not some.str.strip_chars().str.to_datetime(form, strict=False, time_unit="us").null_count():
                return 0, f"times written as {some[0]!r} (such as {shown!r}): write them in ISO 8601 to use them"
        return None
    return (2, "dates or times in ISO 8601") if unit > 1 else None


def _rank_unix_time(numbers: pl.Series, name: str) -> tuple[float, str] | None:
    """Rank numbers that are unix times, days of spreadsheets, or dates in digits."""
    known = numbers.drop_nulls()
    if COLUMN_WORDS["other_number"] & set(words(name)) or name.endswith(_EASTERN_NUMBERS) or not len(known):
        return None
    low, high, different = float(known.min()), float(known.max()), known.n_unique()  # type: ignore[arg-type]
    are_whole = bool((known == known.round()).all())
    named = any(_TIME_WORDS.get(word, 0) > 1 for word in words(name))  # other numbers may be anything
    # the days of a week are seven numbers; without such a name, few numbers are codes
    if not named and (different < min(len(known), 3) or (len(known) > 1_000 and different < 30)):
        return None
    for unit, factor in UNITS.items():
        if OLDEST * factor <= low and high <= NEWEST * factor:
            confirmed = any(word in _TIME_WORDS or word.endswith(_EASTERN_TIMES) for word in words(name))
            return 2 if confirmed else _UNNAMED, f"unix {unit}"
    if named and low >= OLDEST / _DAY + _SHEETS and high < NEWEST / _DAY + _SHEETS:
        return 2, "days as spreadsheets count them, from the end of 1899, under the name of a time"
    for digits, unit in ((8, "days"), (14, "seconds")):
        day = known // 10.0 ** (digits - 8)
        possible = day.is_between(19_900_101, 21_000_100) & (day % 100).is_between(1, 31) & (day // 100 % 100).is_between(1, 12)
        if are_whole and possible.all():
            return 2, f"{unit} written as year, month and day in one number"
    return None


def _rank_rising(numbers: pl.Series, name: str, users: Codes) -> tuple[int, str] | None:
    """Rank numbers that order the rows of each user and are named like a time."""
    named = set(words(name))
    if not named & set(_TIME_WORDS) or named & COLUMN_WORDS["other_number"] or outcome_word(name, AMOUNT | RATING):
        return None
    if "day" in named and float(numbers.max() or 0) <= _MAX_DATE_PART:  # type: ignore[arg-type]  # of a month
        return None
    known = np.flatnonzero(numbers.is_not_null().to_numpy())
    pairs = pl.DataFrame({"user": users[known], "number": numbers.gather(known)})
    if len(pairs) < _MIN_ROWS or _number_rows(pairs):
        return 1, "numbers that order the rows of a user, under the name of a time"
    plain = named <= set(_TIME_WORDS)
    part = bool(COLUMN_WORDS["date_part"] & named) and pairs["number"].max() <= _MAX_DATE_PART  # type: ignore[operator]
    many = pairs["number"].n_unique() > _MAX_POSITIONS
    if plain and many and not part and len(pairs.unique()) > len(pairs) / 2:
        return 1, "many different numbers, under the name of a time; the file is not in their order"
    return None


def _number_rows(pairs: pl.DataFrame) -> bool:
    """Return whether numbers rise within each user, or number the rows of each user."""
    if pairs["number"].n_unique() <= _MAX_POSITIONS:
        return False
    step = pairs.select((pl.col("number") - pl.col("number").shift(1)).over("user")).to_series().drop_nulls()
    rising = len(step) > 0 and (step >= 0).mean() >= _MIN_AGREEING and (step > 0).mean() > 0.5  # type: ignore[operator]
    users = pairs.group_by("user").agg(
        rows=pl.len(), different=pl.col("number").n_unique(), span=pl.col("number").max() - pl.col("number").min() + 1
    )
    counting = users.select(((pl.col("rows") == pl.col("different")) & (pl.col("span") == pl.col("rows"))).mean()).item()
    return bool(rising or counting >= _MIN_AGREEING)


def first_time_column(frame: pl.DataFrame, times: Mapping[str, TimeCandidate]) -> str:
    """Return the column of the best rank, and of equal ones with dates the earliest.

    A booking, for example, comes before the journey. Times of day before the dates of the best rank are preferred, too, if
    their name does not denote a change or an earlier event: a search comes before the stay.

    Args:
        frame: the interactions.
        times: rank of each column that may be the time; at least one.
    """
    best = max(times, key=lambda name: times[name].rank)
    content = times[best].rank[0]
    seconds: dict[str, pl.Series] = {}
    for name, time in times.items():
        if time.holds_dates and time.readable and time.rank[0] == content:
            parsed = Times.of(frame[name].drop_nulls().head(_SAMPLE_TIMES), "")
            seconds[name] = parsed.values.cast(pl.Float64) / parsed.unit
    timed = {name for name, values in seconds.items() if (values % _DAY > 0).any()}
    candidates = {
        name for name in seconds if times[name].rank[1] == times[best].rank[1] and (best not in timed or name in timed)
    }
    if best in seconds and best not in timed and content == 2:  # none is missing, so that the rows correspond
        candidates |= {
            name
            for name in timed
            if times[name].rank[1] > LATER
            and not known_before(name)
            and (seconds[name] < seconds[best] + _DAY).mean() >= _MIN_AGREEING  # type: ignore[operator]
        }
    equal = {name: float(seconds[name].median()) for name in times if name in candidates}  # type: ignore[arg-type]
    first = min(equal, key=lambda name: equal[name], default=best)
    return first if best in equal and equal[best] - equal[first] > _DAY else best


def rises_with_time(values: pl.Series, times: pl.Series) -> bool:
    """Return whether numbers rank as the times do.

    Args:
        values: the column, [n].
        times: the time column, [n].
    """
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return False
    try:
        seconds = Times.of(times.drop_nulls(), "").values
    except DataError:
        return False
    numbers = values.cast(pl.Float64, strict=False).filter(times.is_not_null())
    both = pl.DataFrame({"number": numbers, "time": seconds}).drop_nulls()
    if both["number"].n_unique() <= _MIN_DIFFERENT or len(both) < _MIN_NUMBERED * len(values):
        return False
    return bool(both.select(pl.corr("number", "time", method="spearman")).item() > _MIN_CORRELATION)


def follows_calendar(values: pl.Series, times: pl.Series) -> bool:
    """Return whether a column is a function of hour, weekday or month.

    Args:
        values: a column of few distinct values, [n].
        times: the time column, [n]; False is returned for times of an unknown unit.
    """
    try:
        parsed = Times.of(times.drop_nulls(), "")
    except DataError:
        return False
    numbers = parsed.values.cast(pl.Float64) / parsed.unit
    codes = encode_distinct(values.filter(times.is_not_null()))
    for factor in UNITS.values():
        seconds = numbers / factor
        if len(seconds) and seconds.is_between(3e8, 5e9).all():
            moment = pl.from_epoch(seconds.filter(codes >= 0).cast(pl.Int64), time_unit="s").dt
            hour, day = moment.hour(), moment.weekday()
            groups = (hour, day, moment.month(), day.cast(pl.Int32) * 24 + hour)
            return any(function_gain(encode_distinct(group), codes[codes >= 0]).exceeds(_MIN_CALENDAR_GAIN) for group in groups)
    return False


_DATE_PARTS = {  # words for each part of a date, and its range
    word_set("year jahr annee ano anio anno jaar rok год 年"): (1970, 2100),
    word_set("month monat mois mes mese maand miesiac месяц 月"): (1, 12),
    word_set("day tag jour dia giorno dag dzien день 日"): (1, 31),
    word_set("hour stunde heure hora ora uur час 時"): (0, 23),
    word_set("minute minuten minuto"): (0, 59),
    word_set("second sekunde seconde segundo secondo"): (0, 59),
}
_OTHER_DATES = word_set("birth born release released geburt naissance")  # not of the interaction


def find_date_parts(frame: pl.DataFrame, excluded: Collection[str]) -> Iterator[list[str]]:
    """Yield groups of columns for year, month, day and so on, such as order_year.

    The names of a group differ in the word for the part only.

    Args:
        frame: sample of the rows.
        excluded: columns with another role.
    """
    groups: dict[tuple[tuple[str, ...], ...], list[tuple[int, str]]] = {}
    for name in frame.columns:
        parts = words(name)
        parts = parts[:-2] if parts[-2:] == ("of", "month") else parts
        for rank, (known, (low, high)) in enumerate(_DATE_PARTS.items()):
            for position in {0, len(parts) - 1} if parts and not _OTHER_DATES & set(parts) else ():
                if parts[position] in known and _are_parts_between(frame[name], low, high):
                    groups.setdefault((parts[:position], parts[position + 1 :]), []).append((rank, name))
    for members in groups.values():
        names_by_rank = [[name for rank, name in members if rank == expected] for expected in range(len(_DATE_PARTS))]
        unique_parts = takewhile(lambda names: len(names) == 1 and names[0] not in excluded, names_by_rank)
        yield [names[0] for names in unique_parts]


def _are_parts_between(values: pl.Series, low: int, high: int) -> bool:
    if values.dtype.is_nested() or values.has_nulls():
        return False
    try:
        numbers = values.to_frame().select(date_part(pl.col(values.name))).to_series()
    except pl.exceptions.PolarsError:
        return False
    return bool((numbers.is_between(low, high) & (numbers % 1 == 0)).fill_null(value=False).all())
