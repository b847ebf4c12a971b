"""Detect what the text of columns means: missing values, numbers, times, lists."""

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile
from typing import Final, Literal

import polars as pl

from recall.data.column_names import YES, YES_NO, named, words
from recall.data.conversions import COLONS, DURATION, MONTHS, NUMBERS, moment, unclear
from recall.data.findings import written_lists
from recall.data.times import Times
from recall.errors import DataError

ALWAYS: Final = (
    "\\N",
    "NULL",
    "null",
    "(null)",
    "NaN",
    "nan",
    "<NA>",
    "#N/A",
    "N/A",
    "n/a",
    "None",
    *("N/D", "n/d", "N/C", "n/c", "S/D", "s/d", "k.A.", "k. A.", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?"),
    *("#NV", "#N/D", "#BEZUG!", "#WERT!", "#VALEUR!"),  # of spreadsheets in other languages
)
"""Spellings of missing values that are hardly anything else."""
_UNDATED: Final = ("n.d.", "s.d.", "o.J.", "o. J.", "never", "Never", "nie", "Nie", "jamais", "Jamais", "TBA", "TBD")
"""Those where all other values are numbers or times."""
AMONG_NUMBERS: Final = ("NA", "na", "-", "--", "?", ".", "unknown", "missing", "-inf", "inf", *_UNDATED)
"""Spellings of missing values where all other values are numbers."""
_UNIT = 12  # characters of a unit, at most. Chosen, not tuned.
_PLURALS = ("", "s", "es", "n", "en")
_FACTORS = named("k K M B G T Mio Mrd Tsd bn mn mln mrd tys K+ M+ k+ thousand million millions billion billions")
_ANYWHERE = 0.3  # share of the first of several ids that are also others; those of 9|L and 9|L|red are not. Chosen, not tuned.
_LISTS = 0.05  # share of cells that are written lists. Chosen, not tuned.
_PLAIN = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_DAYS = (
    *("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%m/%d/%y", "%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y", "%d-%m-%y"),
    *("%Y/%m/%d", "%Y.%m.%d", "%m %d, %Y", "%Y年%m月%d日", "%y-%m-%d", "%y/%m/%d", "%y.%m.%d"),
)
_WORDS = ("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y", "%b %d %Y")
_COMPACT_DAY = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
_COMPACT_CLOCK = r"^(([01]\d|2[0-3])[0-5]\d|([01]\d|2[0-3])[0-5]\d[0-5]\d)$"
_DURATION_WORDS = named(
    "duration length runtime playtime watchtime elapsed dwell spent listened watched played dauer lange laufzeit spieldauer "
    "spielzeit duree longueur duracion durata duracao duur czas длительность 時長 时长 再生時間"
)
_MOMENT_WORDS = named("at on start started begin end um von bis")
_LENGTH = r"(?i)^\d+(?:[.,]\d+)?\s*[mds]$"  # of a cable, or a size
_CLOCK_WORDS = named("time clock zeit uhrzeit heure hora ora tijd czas")  # 1955 is a year elsewhere
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", ", %H:%M")
_PATTERNS: Final = (
    *(day + clock for day in (*_DAYS, *_WORDS) for clock in _CLOCKS),
    *("%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"),
    *("%d %b %Y %H:%M:%S %z", "%d%b%Y:%H:%M:%S"),
)
"""Formats of times, tried in this order."""


def nulls_of(values: pl.Series) -> Iterator[tuple[str, str]]:
    """Yield spellings of missing values in a column of text, and why.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    blank = texts.filter(texts.str.contains(r"^[^\pL\pN]+$"))  # such as "  .  .  "
    written = [one for one in (*ALWAYS, *AMONG_NUMBERS, *blank.head(3)) if (texts == one).any()]
    others = texts.filter(~texts.is_in(written)) if written else texts
    measured = number_mark(others) or duration_form(others) or units_of(others)
    numbers = len(others) > 0 and (bool(others.str.contains(_PLAIN).all()) or bool(measured))
    for one in written:
        if numbers:
            yield one, f"among the numbers of {values.name}"
        elif one in ALWAYS and len(others) > 0:
            yield one, f"in {values.name}"
        elif one not in ALWAYS and holds_times(others):
            yield one, f"among the times of {values.name}"


def number_mark(values: pl.Series) -> Literal["", ".", ","]:
    """Return the decimal mark of written numbers; empty for plain numbers and text.

    Args:
        values: String [n], none missing.
    """
    texts = values.drop_nulls().unique().str.strip_chars()
    if texts.is_empty() or texts.str.contains(_PLAIN).all() or not texts.str.contains(r"\d").all():
        return ""
    by_comma, by_point = (bool(texts.str.contains(NUMBERS[mark]).all()) for mark in ",.")
    if by_comma and by_point:  # only groups of three, such as 1,234: a group rather than three decimals
        return "." if texts.str.contains(",", literal=True).any() else ","
    return "," if by_comma else "." if by_point else ""


def units_of(values: pl.Series) -> tuple[str, ...]:
    """Return the unit after the numbers of a column, and its plural, or ().

    A number without it may be of another: beside 1.2k, 950 is less.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().str.strip_chars().unique()
    rest = texts.str.extract(r"^[-+−]?\d[\d.,' ]*?\s*([^\d\s.,].*)$")
    if rest.has_nulls():
        return ()
    units = sorted(rest.unique(), key=lambda unit: (len(unit), unit))
    if not 0 < len(units) <= 2 or len(units[0]) > _UNIT or len(texts) < 2 or _FACTORS & {unit.strip(".") for unit in units}:
        return ()
    plural = units[-1].lower().removeprefix(units[0].lower())
    return tuple(reversed(units)) if units[-1].lower() == units[0].lower() + plural and plural in _PLURALS else ()


def time_pattern(values: pl.Series) -> str:
    """Return the format of times that are neither numbers nor ISO 8601; else empty.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    if texts.is_empty() or not texts.str.contains(r"\d").all() or texts.str.contains(_PLAIN).all():
        return ""
    try:
        Times.of(texts, "")
    except DataError:
        pass
    else:
        return ""
    some = texts.head(100).str.contains(r"\d{4}")  # a year of two digits is not one of antiquity
    for pattern in _PATTERNS:
        if "%Y" in pattern and not some.all():
            continue
        try:
            pl.select(moment(pl.lit(texts.head(10)), pattern))
            pl.select(moment(pl.lit(texts), pattern))
        except pl.exceptions.PolarsError:
            continue
        first = _year_first(texts, pattern)
        return first[0] if first and first[2] else pattern
    return ""


def _year_first(texts: pl.Series, pattern: str) -> tuple[str, float, bool] | None:
    """Return the format with the year first, how odd it is, and if it is certain.

    None where it does not fit.

    How odd is the number of different years by it, relative to those by the other format. It is certain where the first
    numbers are consecutive years after 2012, and the last ones too many for years.
    """
    other = re.sub("%[dm](.)%[dm].%y", r"%y\1%m\1%d", pattern)
    if other == pattern or not _fits(texts, other):
        return None
    parts = texts.str.extract_groups(r"^\D*(\d+)\D+\d+\D+(\d+)").struct.unnest()
    years, days = parts["1"].cast(pl.Int64).unique().sort(), parts["2"].n_unique()
    certain = years[0] > 12 and years[-1] - years[0] == len(years) - 1 and len(years) < 12 < days
    return other, len(years) / days, certain


def _fits(texts: pl.Series, pattern: str) -> bool:
    try:
        pl.select(moment(pl.lit(texts), pattern))
    except pl.exceptions.PolarsError:
        return False
    return True


def holds_times(values: pl.Series) -> bool:
    """Return whether all texts are dates or times rather than numbers.

    Args:
        values: String [n], none missing.
    """
    try:
        return time_pattern(values) != "" or (len(values) > 0 and Times.of(values, "").unit > 1)
    except DataError:
        return False


def swapped_pattern(values: pl.Series, pattern: str) -> str:
    """Return another format that the times fit: day, month or year exchanged.

    Args:
        values: String [n].
        pattern: from `time_pattern`.
    """
    if "%d" not in pattern or "%m" not in pattern:
        return ""
    texts = values.drop_nulls().unique()
    first = _year_first(texts, pattern)
    if first and first[1] < 2:
        return first[0]
    other = re.sub("%[dmy](.)%[dmy].%[dmy]", r"%d\1%m\1%y", pattern) if pattern.startswith("%y") else ""
    other = other or pattern.translate({ord("d"): "m", ord("m"): "d"})
    return other if _fits(texts, other) else ""


def clock_pattern(values: pl.Series) -> str:
    """Return the format of times of day, such as "18:30"; else empty.

    Args:
        values: String or Time [n].
    """
    texts = values.drop_nulls().cast(pl.String).str.strip_chars().unique()
    if texts.is_empty():
        return ""
    if _CLOCK_WORDS & set(words(values.name)) and texts.str.contains(_COMPACT_CLOCK).all():
        return "%H%M" if texts.str.len_chars().max() == 4 else "%H%M%S"
    if not texts.str.contains(r"^\d{1,2}:\d{2}").all():
        return ""
    for pattern in ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%H:%M:%S%.f"):
        if texts.str.to_time(pattern, strict=False).null_count() == 0:
            return pattern
    return ""


def duration_form(values: pl.Series) -> Literal["", "m:s"]:
    """Return how durations are read; empty for others, and for times of day.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().str.strip_chars().unique()
    if texts.is_empty() or not texts.str.contains(r"\d").all():
        return ""
    by_colon = texts.str.contains(COLONS[2]) | texts.str.contains(COLONS[3])
    others = texts.str.contains(_LENGTH).all() or texts.str.contains(MONTHS).any()
    if (
        others
        or not (by_colon | texts.str.contains(DURATION)).all()
        or texts.to_frame("a").select(unclear(pl.col("a")).any()).item()
    ):
        return ""
    named_so = _DURATION_WORDS & set(words(values.name)) and not _MOMENT_WORDS & set(words(values.name))
    midnight = texts.str.replace("^24:00", "00:00").alias(values.name)
    return "m:s" if named_so or not by_colon.all() or not clock_pattern(midnight) else ""


def names_clock(names: Iterable[str]) -> bool:
    """Return whether one of several names denotes a time of day."""
    return any(_CLOCK_WORDS & set(words(name)) for name in names)


def day_pattern(values: pl.Series) -> str:
    """Return the format of dates without a time of day; else empty.

    Args:
        values: String or Date [n].
    """
    if values.dtype == pl.Date:
        return "%Y-%m-%d"
    texts = values.drop_nulls().str.strip_chars().unique()
    if len(texts) and texts.str.contains(r"^\d{4}-\d\d-\d\d$").all():
        return "%Y-%m-%d"
    if len(texts) and texts.str.contains(_COMPACT_DAY).all():
        return "%Y%m%d"
    pattern = time_pattern(values)
    return "" if "%H" in pattern or "%I" in pattern else pattern


_PARTS = {  # of a date, and their range
    named("year jahr annee ano anno jaar rok год 年"): (1970, 2100),
    named("month monat mois mes mese maand miesiac месяц 月"): (1, 12),
    named("day tag jour dia giorno dag dzien день 日"): (1, 31),
    named("hour stunde heure hora ora uur час 時"): (0, 23),
    named("minute minuten minuto"): (0, 59),
    named("second sekunde seconde segundo secondo"): (0, 59),
}


def date_parts(frame: pl.DataFrame, other: Collection[str]) -> Iterator[list[str]]:
    """Yield columns of year, month, day and so on, which are otherwise named alike.

    Args:
        frame: some rows.
        other: columns that are something else.
    """
    alike: dict[tuple[tuple[str, ...], ...], list[tuple[int, str]]] = {}
    for name in frame.columns:
        parts = words(name)
        parts = parts[:-2] if parts[-2:] == ("of", "month") else parts
        for place, (known, (low, high)) in enumerate(_PARTS.items()):
            for at in {0, len(parts) - 1} if parts and not _ELSEWHEN & set(parts) else ():
                if parts[at] in known and _within(frame[name], low, high):
                    alike.setdefault((parts[:at], parts[at + 1 :]), []).append((place, name))
    for places in alike.values():
        once = [[name for place, name in places if place == wanted] for wanted in range(len(_PARTS))]
        fitting = takewhile(lambda names: len(names) == 1 and names[0] not in other, once)
        yield [names[0] for names in fitting]


_ELSEWHEN = named("birth born release released geburt naissance")  # not of the interaction


def _within(values: pl.Series, low: int, high: int) -> bool:
    if values.dtype.is_nested() or values.has_nulls():
        return False
    numbers = values.cast(pl.Float64, strict=False)
    return bool((numbers.is_between(low, high) & (numbers % 1 == 0)).fill_null(value=False).all())


def yes_and_no(values: pl.Series) -> tuple[str, str] | None:
    """Return the texts for true and false of a column; None if it has others.

    Args:
        values: String [n].
    """
    counts = values.drop_nulls().str.strip_chars().value_counts().rows()
    spelled: dict[str, str] = {}  # the commonest spelling of each word
    for text, _ in sorted(counts, key=lambda one: (-one[1], one[0])):
        spelled.setdefault(text.lower(), text)
    if frozenset(spelled) not in YES_NO or frozenset(spelled) == {"true", "false"}:
        return None
    first, second = spelled
    yes, no = (first, second) if first in YES and second not in YES else (second, first)
    return spelled[yes], spelled[no]


def is_list(values: pl.Series) -> bool:
    """Return whether a column of text holds lists in programming notation."""
    known = values.drop_nulls()
    return len(known) > 0 and written_lists(known) > _LISTS * len(known)


def members_mark(ids: pl.Series) -> str:
    """Return the text between ids where cells hold several of them; else empty.

    Args:
        ids: String [n], none missing.
    """
    texts = ids.unique()
    for mark in ("|", ";", ",", " ") if len(texts) else ():
        parts = texts.str.split(mark)
        each = parts.explode().str.strip_chars()
        several = (parts.list.len() > 1).mean() > 0.5 and parts.list.len().n_unique() > 1  # type: ignore[operator]
        ids_each = not each.str.contains(r"\s").any() and (mark != " " or each.str.contains(r"\d").all())
        if not (several and ids_each) or each.n_unique() > len(each) / 2:
            continue
        first, others = (part.drop_nulls().unique() for part in (parts.list.first(), parts.list.slice(1).explode()))
        if first.is_in(others.implode()).mean() > _ANYWHERE:  # type: ignore[operator]
            return mark
    return ""
