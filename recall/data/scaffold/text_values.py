"""Detect what a text column holds: nulls, numbers, times, booleans or lists.

Patterns of times are those of `strftime`. Functions that return a pattern, mark or separator return "" where none fits.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import polars as pl

from recall.data.column_names import AMOUNT, BOOLEAN_WORDS, COLUMN_WORDS, PRICE, TRUE_WORDS, names_id, word_set, words
from recall.data.conversions import (
    COLON_DURATIONS,
    MONTH_DURATION,
    NUMBER_PATTERNS,
    WORDED_DURATION,
    YEAR,
    ambiguous_comma,
    minus_first,
    parse_time,
)
from recall.data.findings import are_years, count_list_texts
from recall.data.times import Times
from recall.errors import DataError

NULL_SPELLINGS: Final = (
    "\\N",
    "NULL",
    "null",
    "(null)",
    "(none)",
    "NaN",
    "nan",
    "<NA>",
    "#N/A",
    "N/A",
    "n/a",
    "None",
    *("N/D", "n/d", "N/C", "n/c", "S/D", "s/d", "k.A.", "k. A.", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?"),
    *("#NV", "#N/D", "#BEZUG!", "#WERT!", "#VALEUR!"),  # of spreadsheets in other languages
    *("(not set)", "(not provided)"),  # of web analytics
    *("NULO", "0000-00-00", "0000-00-00 00:00:00"),
)
"""Spellings that mean a missing value in any column."""
_NO_DATE: Final = ("n.d.", "s.d.", "o.J.", "o. J.", "never", "Never", "nie", "Nie", "jamais", "Jamais", "TBA", "TBD")
"""Spellings of a missing date, which mean a missing value among numbers or times."""
_MARKS: Final = ("-", "--", "?", ".")
NULL_SPELLINGS_OF_NUMBERS: Final = (*_MARKS, "NA", "na", "unknown", "missing", "-inf", "inf", *_NO_DATE)
"""Spellings that mean a missing value if all other values of the column are numbers."""
# Thresholds. Chosen, not tuned.
_MAX_UNIT_LENGTH = 16  # characters
_MAX_UNIT_WORDS = 2  # such as "sq ft"; more may be the street after the number of a house
# share of first list members that are also later members: of ids, but not of paths such as 9|L and 9|L|red
_MIN_RECURRING = 0.3
_MIN_LISTS = 0.05  # share of cells in list notation
_MAX_LETTERS = 4  # around a year, such as those of a month
_MAX_WORDS, _MIN_PRICED = 2, 3  # distinct words and prices in a column where words mean a missing price
_MIN_NUMBERS = 100  # distinct formatted numbers beside which the only word means a missing one; fewer may be sizes or codes
_MAX_CATEGORIES = 50  # distinct texts that are categories
_PLURALS = ("", "s", "es", "n", "en")
_MULTIPLIERS = word_set("k K M B G T Mio Mrd Tsd bn mn mln mrd tys K+ M+ k+ thousand million millions billion billions")

_PLAIN_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_DAY_PATTERNS = (
    *("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%m/%d/%y", "%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y", "%d-%m-%y"),
    *("%Y/%m/%d", "%Y.%m.%d", "%m %d, %Y", "%Y年%m月%d日", "%y-%m-%d", "%y/%m/%d", "%y.%m.%d"),
)
_MONTH_NAME_PATTERNS = ("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y", "%b %d %Y")
_COMPACT_TIME = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])([0-5]\d){0,2})?$"
_COMPACT_PATTERNS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # by the number of digits
_COMPACT_CLOCK = r"^(([01]?\d|2[0-3])[0-5]\d|([01]?\d|2[0-3])[0-5]\d[0-5]\d)$"  # also of numbers: 905 is 9:05
_DURATION_WORDS = word_set(
    "duration length runtime playtime watchtime elapsed dwell spent listened watched played dauer lange laufzeit spieldauer "
    "spielzeit langd snittlangd speltid duree longueur duracion durata duracao duur czas длительность 時長 时长 再生時間"
)
_VERSION_WORDS = word_set("version versions ver app build firmware os sdk")  # 4.12.10 is a version in their columns
_MOMENT_WORDS = word_set("at on start started begin end um von bis")
_LENGTH_UNIT = r"(?i)^\d+(?:[.,]\d+)?\s*[mds]\.?$"  # of a cable, or a size, or pages (S.)
_CLOCK_WORDS = word_set("time clock zeit uhrzeit heure hora ora tijd czas godz godzina")  # 1955 is a year elsewhere
_WORDED_CLOCKS = {
    f"%H{hour}%M{minute}": rf"^([01]?\d|2[0-3]){hour}[0-5]?\d{minute}$"
    for hour, minute in (("時", "分"), ("时", "分"), ("点", "分"), ("點", "分"), ("h", "min"))
}
_CLOCK_PATTERNS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", " %Hh%M", ", %H:%M:%S", ", %H:%M")
_TIME_PATTERNS: Final = (
    *(day + clock for day in (*_DAY_PATTERNS, *_MONTH_NAME_PATTERNS) for clock in _CLOCK_PATTERNS),
    *("%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"),
    *("%d %b %Y %H:%M:%S %z", "%d %b %Y %H:%M %z", "%d %b %Y %I:%M %p %z", "%d%b%Y:%H:%M:%S"),
    *("%b %d %H:%M:%S %z %Y", "%b %d %H:%M:%S %Y"),  # of Java and C, with the name of the day before
)
"""Patterns of times, tried in this order."""


def find_null_spellings(values: pl.Series) -> Iterator[tuple[str, str]]:
    """Yield each spelling of a missing value in a text column, with the reason.

    Words among formatted numbers, such as "free" among prices, may be values of other columns.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    blank = texts.filter(texts.str.contains(r"^[^\pL\pN]+$"))  # such as "  .  .  "
    usual = dict.fromkeys((*NULL_SPELLINGS, *NULL_SPELLINGS_OF_NUMBERS, *blank.head(3)))
    present = [spelling for spelling in usual if (texts == spelling).any()]
    others = texts.filter(~texts.is_in(present)) if present else texts
    priced = others.filter(others.str.contains(r"\d"))
    money = (PRICE | AMOUNT) & set(words(values.name)) or priced.str.contains(r"\p{Sc}").any()  # not of sizes or codes
    worded = len(others) - len(priced)
    meant = (worded <= _MAX_WORDS < _MIN_PRICED <= len(priced)) if money else worded == 1 and len(priced) >= _MIN_NUMBERS
    if worded and meant and decimal_mark(priced):
        present += others.filter(~others.str.contains(r"\d")).sort().to_list()
        others = priced
    dates = others.filter(others.str.contains(r"\d"))
    if 0 < len(others) - len(dates) <= _MAX_WORDS < _MIN_PRICED <= len(dates) and are_times(dates):
        present += others.filter(~others.str.contains(r"\d")).sort().to_list()
        others = dates
    measured = decimal_mark(others) or duration_pattern(others) or detect_unit(others)
    numbers = len(others) > 0 and (bool(others.str.contains(_PLAIN_NUMBER).all()) or bool(measured))
    for spelling in present:
        if numbers:
            yield spelling, f"among the numbers of {values.name}"
        elif len(others) > 0 and (spelling in NULL_SPELLINGS or (spelling in _MARKS and _are_categories(values, others))):
            yield spelling, f"in {values.name}"
        elif spelling not in NULL_SPELLINGS and are_times(others):
            yield spelling, f"among the times of {values.name}"


def _are_categories(values: pl.Series, texts: pl.Series) -> bool:
    """Return whether texts recur, so that a mark beside them means none."""
    return bool(texts.str.contains(r"[\pL\pN]").all()) and 1 < len(texts) <= _MAX_CATEGORIES < len(values)


def decimal_mark(values: pl.Series) -> Literal["", ".", ","]:
    """Return the decimal mark of formatted numbers, such as "," of "1.234,50 €".

    Plain numbers such as 1234.5 need no conversion and have none.

    Args:
        values: String [n], without nulls.
    """
    texts = values.drop_nulls().unique().to_frame("a").select(minus_first(pl.col("a"))).to_series()
    plain = texts.str.contains(_PLAIN_NUMBER).all() and not _are_thousands(texts)
    if texts.is_empty() or plain or not texts.str.contains(r"\d").all() or are_years(texts):
        return ""
    fits_comma, fits_point = (bool(texts.str.contains(NUMBER_PATTERNS[mark]).all()) for mark in ",.")
    if fits_comma and fits_point:  # only groups of three digits, such as 1,234: thousands rather than three decimals
        return "." if texts.str.contains(",", literal=True).any() else ","
    return "," if fits_comma else "." if fits_point else ""


def _are_thousands(texts: pl.Series) -> bool:
    """Return whether the points of 207 and 1.210 divide groups of three digits.

    Fractions would have no last zero there, or all of them three digits, those of whole numbers, too.
    """
    groups = texts.filter(texts.str.contains(".", literal=True))
    return (
        0 < len(groups) < len(texts)
        and bool(groups.str.contains(r"^-?[1-9]\d{0,2}(\.\d{3})+$").all())
        and bool(groups.str.ends_with("0").any())
        and bool(texts.str.contains(r"^-?(0|[1-9]\d{0,2})(\.\d{3})*$").all())
    )


def detect_unit(values: pl.Series) -> tuple[str, ...]:
    """Return the unit that follows every number; () if there is none.

    A unit in singular and plural gives (plural, singular).
    Multipliers are not units: beside 950, 1.2k is larger.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().str.strip_chars().unique()
    suffixes = texts.str.extract(r"^[-+−]?\d[\d.,' ]*?\s*([^\d\s.,].*)$")
    if suffixes.has_nulls():
        return ()
    units = sorted(suffixes.unique(), key=lambda unit: (len(unit), unit))
    if (
        not 0 < len(units) <= 2
        or len(units[0]) > _MAX_UNIT_LENGTH
        or len(units[0].split()) > _MAX_UNIT_WORDS
        or len(texts) < 2
        or _MULTIPLIERS & {unit.strip(".") for unit in units}
    ):
        return ()
    plural = units[-1].lower().removeprefix(units[0].lower())
    return tuple(reversed(units)) if units[-1].lower() == units[0].lower() + plural and plural in _PLURALS else ()


def time_pattern(values: pl.Series) -> str:
    """Return the pattern of times that are neither numbers nor ISO 8601.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    if compact := compact_pattern(texts):
        return compact
    if texts.is_empty() or not texts.str.contains(r"\d").all() or texts.str.contains(_PLAIN_NUMBER).all():
        return ""
    try:
        Times.of(texts, "")
    except DataError:
        pass
    else:
        return ""
    four_digits = texts.head(100).str.contains(r"\d{4}")  # %Y would read 24 as the year 24
    named = set(words(values.name))
    versions = bool(_VERSION_WORDS & named) and not (COLUMN_WORDS["time"] | COLUMN_WORDS["date"]) & named
    versions = versions or bool(texts.str.contains(r"^\d+(\.\d+)*\.\d$").any())  # 5.1.2: years have two digits
    for pattern in _TIME_PATTERNS:
        if ("%Y" in pattern and not four_digits.all()) or ("%y" in pattern and versions):
            continue
        try:
            pl.select(parse_time(pl.lit(texts.head(10)), pattern))
            pl.select(parse_time(pl.lit(texts), pattern))
        except pl.exceptions.PolarsError:
            continue
        year_first = _year_first_pattern(texts, pattern)
        return year_first[0] if year_first and year_first[2] else pattern
    return ""


def compact_pattern(values: pl.Series) -> str:
    """Return the pattern of times in digits alone, such as 2024013113 for an hour.

    Unix times fit the calendar so only by chance, and numbers that identify hardly ever.

    Args:
        values: String or whole numbers [n].
    """
    if names_id(values.name) or COLUMN_WORDS["other_number"] & set(words(values.name)):
        return ""
    texts = values.drop_nulls().cast(pl.String).unique()
    pattern = _COMPACT_PATTERNS.get(len(texts[0]), "") if len(texts) else ""
    fits = bool(pattern) and texts.str.len_chars().n_unique() == 1 and bool(texts.str.contains(_COMPACT_TIME).all())
    return pattern if fits and _matches_pattern(texts, pattern) else ""


def _year_first_pattern(texts: pl.Series, pattern: str) -> tuple[str, float, bool] | None:
    """Return the year-first variant of a day-first pattern; None if it does not fit.

    Returns:
        The pattern; its distinct years divided by those of the day-first pattern, low where the year is likely to be first;
        and whether it is certain: the first numbers are consecutive years after 2012, and the last ones too many for years.
    """
    swapped = re.sub("%[dm](.)%[dm].%y", r"%y\1%m\1%d", pattern)
    if swapped == pattern or not _matches_pattern(texts, swapped):
        return None
    parts = texts.str.extract_groups(r"^\D*(\d+)\D+\d+\D+(\d+)").struct.unnest()
    years, distinct_days = parts["1"].cast(pl.Int64).unique().sort(), parts["2"].n_unique()
    certain = years[0] > 12 and years[-1] - years[0] == len(years) - 1 and len(years) < 12 < distinct_days
    return swapped, len(years) / distinct_days, certain


def _matches_pattern(texts: pl.Series, pattern: str) -> bool:
    try:
        pl.select(parse_time(pl.lit(texts), pattern))
    except pl.exceptions.PolarsError:
        return False
    return True


def are_times(values: pl.Series) -> bool:
    """Return whether all texts are dates or times rather than numbers.

    Args:
        values: String [n], without nulls.
    """
    try:
        return time_pattern(values) != "" or (len(values) > 0 and Times.of(values, "").unit > 1)
    except DataError:
        return False


def ambiguous_pattern(values: pl.Series, pattern: str) -> str:
    """Return a second pattern that fits as well, with day, month or year swapped.

    Args:
        values: String [n].
        pattern: from `time_pattern`.
    """
    if "%d" not in pattern or "%m" not in pattern:
        return ""
    texts = values.drop_nulls().unique()
    year_first = _year_first_pattern(texts, pattern)
    if year_first and year_first[1] < 2:
        return year_first[0]
    swapped = re.sub("%[dmy](.)%[dmy].%[dmy]", r"%d\1%m\1%y", pattern) if pattern.startswith("%y") else ""
    swapped = swapped or pattern.translate({ord("d"): "m", ord("m"): "d"})
    return swapped if _matches_pattern(texts, swapped) else ""


def clock_pattern(values: pl.Series) -> str:
    """Return the pattern of times of day, such as "18:30".

    Args:
        values: String or Time [n].
    """
    texts = values.drop_nulls().cast(pl.String).str.strip_chars().unique()
    if texts.is_empty():
        return ""
    if _CLOCK_WORDS & set(words(values.name)) and texts.str.contains(_COMPACT_CLOCK).all():
        return "%H%M" if texts.str.len_chars().max() <= 4 else "%H%M%S"  # type: ignore[operator]
    if _CLOCK_WORDS & set(words(values.name)) and texts.str.contains(r"^([01]?\d|2[0-3])\.[0-5]\d$").all():
        return "%H.%M"
    for pattern, written in _WORDED_CLOCKS.items():
        # 9h05min is a duration unless the name says otherwise; 9時05分 is none, as durations have 時間
        if texts.str.contains(written).all() and ("h" not in pattern or _CLOCK_WORDS & set(words(values.name))):
            return pattern
    if not texts.str.contains(r"^\d{1,2}[:h]\d{2}").all():
        return ""
    for pattern in ("%H:%M:%S", "%H:%M", "%Hh%M", "%I:%M:%S %p", "%I:%M %p", "%H:%M:%S%.f"):
        if texts.str.to_time(pattern, strict=False).null_count() == 0:
            return pattern
    return ""


def duration_pattern(values: pl.Series) -> Literal["", "m:s"]:
    """Return "m:s" for a column of durations; "" for other text and times of day.

    Args:
        values: String [n].

    Returns:
        The meaning of two numbers such as "3:45", for `durations` of `[data.formats]`.
    """
    texts = values.drop_nulls().str.strip_chars().unique()
    if texts.is_empty() or not texts.str.contains(r"\d").all():
        return ""
    has_colons = texts.str.contains(COLON_DURATIONS[2]) | texts.str.contains(COLON_DURATIONS[3])
    not_durations = texts.str.contains(_LENGTH_UNIT).all() or texts.str.contains(MONTH_DURATION).any()
    if (
        not_durations
        or not (has_colons | texts.str.contains(WORDED_DURATION)).all()
        or texts.to_frame("a").select(ambiguous_comma(pl.col("a")).any()).item()
    ):
        return ""
    named_as_duration = _DURATION_WORDS & set(words(values.name)) and not _MOMENT_WORDS & set(words(values.name))
    midnight = texts.str.replace("^24:00", "00:00").alias(values.name)
    return "m:s" if named_as_duration or not clock_pattern(midnight) else ""


def hold_years(values: pl.Series) -> bool:
    """Return whether texts hold a year and little else, such as "Q3 2019".

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    dated = texts.filter(texts.str.contains(r"\d"))
    if len(dated) < _MIN_PRICED or len(texts) - len(dated) > _MAX_WORDS or not dated.str.contains(YEAR).all():
        return False
    around = dated.str.replace(r"(1[5-9]|20)\d\d", "").unique()
    short = (around.str.count_matches(r"\pL") <= _MAX_LETTERS) & (around.str.count_matches(r"\d") <= 2)
    return len(around) > 1 and bool(short.all())


def any_names_clock(names: Iterable[str]) -> bool:
    """Return whether any of the column names denotes a time of day."""
    return any(_CLOCK_WORDS & set(words(name)) for name in names)


def date_pattern(values: pl.Series) -> str:
    """Return the pattern of dates without a time of day.

    Args:
        values: String or Date [n].
    """
    if values.dtype == pl.Date:
        return "%Y-%m-%d"
    texts = values.drop_nulls().str.strip_chars().unique()
    if len(texts) and texts.str.contains(r"^\d{4}-\d\d-\d\d$").all():
        return "%Y-%m-%d"
    pattern = time_pattern(values)
    return "" if "%H" in pattern or "%I" in pattern else pattern


def boolean_words(values: pl.Series) -> tuple[str, str] | None:
    """Return the words for true and false of a column; None if it has other values.

    Args:
        values: String [n].
    """
    counts = values.drop_nulls().str.strip_chars().value_counts().rows()
    spellings: dict[str, str] = {}  # the most frequent spelling of each word
    for text, _ in sorted(counts, key=lambda one: (-one[1], one[0])):
        spellings.setdefault(text.lower(), text)
    if frozenset(spellings) not in BOOLEAN_WORDS or frozenset(spellings) == {"true", "false"}:
        return None
    first, second = spellings
    yes, no = (first, second) if first in TRUE_WORDS and second not in TRUE_WORDS else (second, first)
    return spellings[yes], spellings[no]


def are_lists(values: pl.Series) -> bool:
    """Return whether a text column holds lists in programming notation."""
    known = values.drop_nulls()
    return len(known) > 0 and count_list_texts(known) > _MIN_LISTS * len(known)


def list_separator(ids: pl.Series) -> str:
    """Return the separator of cells that hold several ids.

    Args:
        ids: String [n], without nulls.
    """
    texts = ids.unique()
    for separator in ("|", ";", ",", " ") if len(texts) else ():
        parts = texts.str.split(separator)
        members = parts.explode().str.strip_chars()
        have_several = (parts.list.len() > 1).mean() > 0.5 and parts.list.len().n_unique() > 1  # type: ignore[operator]
        look_like_ids = not members.str.contains(r"\s").any() and (separator != " " or members.str.contains(r"\d").all())
        if not (have_several and look_like_ids) or members.n_unique() > len(members) / 2:
            continue
        first, others = (part.drop_nulls().unique() for part in (parts.list.first(), parts.list.slice(1).explode()))
        if first.is_in(others.implode()).mean() > _MIN_RECURRING:  # type: ignore[operator]
            return separator
    return ""
