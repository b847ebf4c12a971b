"""Convert text columns to numbers, times, durations, lists and booleans."""

import ast
import csv
import json
import re
from collections.abc import Sequence
from typing import Final

import polars as pl

from recall.config import FileFormat
from recall.data.column_names import TRUE_MARKS
from recall.errors import DataError, did_you_mean

LIST_NOTATION: Final = r"(?s)^\s*(\[.*\]|\{.*\}|\(\s*\)|c?\(.*[,'\"].*\)|c\(.*\)|character\(0\))\s*$"
"""Pattern of lists in programming notation, for polars and for Python."""
_GROUPS = (
    " '\u2019\u00a0\u2009\u202f"  # between groups of three digits, besides a point or comma; a group never follows a 0: 0.125
)
_CODES = (  # not any three capitals, which begin article numbers, too: SKU001
    "AED ARS AUD BAM BGN BRL BYN CAD CHF CLP CNY COP CZK DKK DZD EGP EUR GBP GEL GHS HKD HRK HUF IDR ILS INR ISK JPY KES KRW "
    "KZT LKR MAD MXN MYR NGN NOK NPR NZD PEN PHP PKR PLN QAR RMB RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH USD UYU UZS VND "
    "XAF XOF ZAR"
)
_MONEY = rf"(?:[$€£¥￥₹₽₩₺₴₫₪฿%円元]|zł|kr\.?|Kč|Ft|lei|руб\.?|р\.|грн\.?|TL|{_CODES.replace(' ', '|')}|Fr\.|[A-Z]{{1,2}}\$)"
NUMBER_PATTERNS: Final = {
    mark: rf"^(?<minus>[-+−▲△]?)\s*{_MONEY}?\s*(?<other>[-+−]?)"
    rf"(?<whole>[1-9]\d{{0,2}}(?:[{group}{_GROUPS}]\d{{2,3}})*[{group}{_GROUPS}]\d{{3}}|\d+)"
    rf"(?<rest>(?:[{mark}]\d+)?(?:[eE][-+]?\d+)?)\s*{_MONEY}?$"
    for mark, group in ((",", "."), (".", ","))
}
"""Patterns of written numbers by the decimal mark, with groups of digits and currencies, for polars."""
YEAR: Final = r"(?:^|\D)((?:1[5-9]|20)\d\d)(?:\D|$)"
"""Pattern of a year within a text."""
_N = r"(\d+(?:[.,]\d+)?)\s*"
_UNITS = {  # in seconds
    86_400: "d|days?|tage?|jours?|dias?|días?|д|日|天",
    3_600: "h|hrs?|hours?|std|stunden?|heures?|horas?|or[ae]|uur|ч|час|часа|часов|時間|小时|小時|시간",
    60: "m|mins?|minutes?|minuten?|minutos?|minut[oi]|mn|мин|минут|分|分钟|分鐘|분",
    1: "s|secs?|seconds?|sek|sekunden?|secondes?|seg|segundos?|second[oi]|с|сек|секунд|秒|초",
}
WORDED_DURATION: Final = "(?i)^(-?)P?T?" + "".join(rf"(?:{_N}(?:{words})\.?,?\s*T?)?" for words in _UNITS.values()) + "$"
"""Pattern of durations with a word after each number, and of empty texts."""
MONTH_DURATION: Final = r"(?i)^\s*-?P[^T]*M"
"""Pattern of months in durations of ISO 8601, which are not minutes."""
COLON_DURATIONS: Final = {
    3: r"^(-?)((?:\d+ (?:d|days?),? )?)(\d+):(\d\d?):(\d\d?(?:[.,]\d+)?)$",
    2: r"^(-?)(\d+):(\d\d(?:[.,]\d+)?)$",
}
"""Patterns of durations with colons, by how many numbers these are between."""
_BEFORE_NOON, _AFTER_NOON = "(?i)a\\. ?m\\.?|πμ|π\\.μ\\.|ص|午前|上午|오전|öö", "(?i)p\\. ?m\\.?|μμ|μ\\.μ\\.|م|午後|下午|오후|ös"
_MONTHS = {
    "Jan": "january januar januari janvier enero gennaio janeiro stycznia января jänner janv ene gen",
    "Feb": "february februar februari février febrero febbraio fevereiro lutego февраля févr fév fev",
    "Mar": "märz maart mars marzo março marca марта mrz mär mrt",
    "Apr": "april avril abril aprile kwietnia апреля avr abr",
    "May": "mai mei mayo maggio maio maja мая mag",
    "Jun": "juni juin junio giugno junho czerwca июня",
    "Jul": "juli juillet julio luglio julho lipca июля juil",
    "Aug": "august augustus août agosto sierpnia августа ago",
    "Sep": "september septembre septiembre settembre setembro września сентября sept set",
    "Oct": "oktober octobre octubre ottobre outubro października октября okt ott out",
    "Nov": "november novembre noviembre novembro listopada ноября",
    "Dec": "dezember december décembre diciembre dicembre dezembro grudnia декабря dez dic déc",
}
_ZONES = {  # abbreviations with one usual meaning
    **dict.fromkeys(("UTC", "GMT", "WET"), "+0000"),
    **dict.fromkeys(("BST", "WEST", "CET", "MEZ"), "+0100"),
    **dict.fromkeys(("CEST", "MESZ", "EET"), "+0200"),
    "EEST": "+0300",
    "MSK": "+0300",
    "JST": "+0900",
    "AEST": "+1000",
    "AEDT": "+1100",
    "EDT": "-0400",
    "EST": "-0500",
    "CDT": "-0500",
    "MDT": "-0600",
    "MST": "-0700",
    "PDT": "-0700",
    "PST": "-0800",
}
_ENGLISH = {name.upper(): month for month, names in _MONTHS.items() for name in sorted(names.split(), key=len, reverse=True)}
_CLOCK = re.compile(r"%[-_0]?[HIklTRXrcs+]")  # parts of a format that hold a time of day


def convert_columns(frame: pl.LazyFrame, form: FileFormat, where: str) -> pl.LazyFrame:
    """Apply the conversions of a table in `[data.formats]`.

    Args:
        frame: table as it was read.
        form: conversions by column; columns that are not text remain unchanged.
        where: location of the format and table, for errors.

    Raises:
        DataError: A column of `explode`, `flags` or `dates` is missing.
    """
    if form.explode is not None:
        _refuse_missing("explode", [form.explode], frame, where)
        members = pl.col(form.explode)
        if form.explode_by is not None and frame.collect_schema().get(form.explode) == pl.String:
            members = members.str.split(form.explode_by).list.eval(pl.element().str.strip_chars())
            frame = frame.with_columns(members.list.drop_nulls())
        elif form.explode in form.lists and frame.collect_schema().get(form.explode) == pl.String:
            frame = frame.with_columns(members.map_batches(parse_lists, return_dtype=pl.List(pl.String)))
        frame = frame.explode(form.explode, empty_as_null=False, keep_nulls=False)
    while form.unnest and (nested := [name for name, dtype in frame.collect_schema().items() if isinstance(dtype, pl.Struct)]):
        frame = frame.unnest(nested, separator=".")  # a column for each member, such as `user.id`
    for name, parts in {**form.flags, **form.dates}.items():
        if not set(parts).isdisjoint(frame.collect_schema()):  # new rows may lack all of them
            _refuse_missing(f"{'flags' if name in form.flags else 'dates'}.{name}", parts, frame, where)
    frame = frame.with_columns(
        pl.col(name).forward_fill().over(pl.col(group).rle_id()) if group else pl.col(name).forward_fill()
        for name, group in form.carry.items()
    )
    columns = frame.collect_schema().names() if form.missing or form.spelling else []
    frame = frame.with_columns(respell(pl.col(name), how) for name, how in form.spelling.items() if name in columns)
    frame = frame.with_columns(
        pl.when(~pl.col(name).cast(pl.String).str.strip_chars().is_in(texts)).then(pl.col(name)).alias(name)
        for name, texts in form.missing.items()
        if name in columns
    )
    if not form.converted and not form.joined:
        return frame
    types = frame.collect_schema()
    texts = {name for name, dtype in types.items() if dtype == pl.String}
    frame = frame.with_columns(pl.col(name).replace("", None) for name in form.times if name in texts)  # of JSON
    without_units = {
        name: pl.col(name).str.strip_chars().str.replace(rf"\s*(?:{'|'.join(map(re.escape, units))})$", "")
        for name, units in form.units.items()
    }
    converted = [
        rewrite_number(without_units.get(name, pl.col(name)), mark).alias(name)
        for name, mark in form.numbers.items()
        if name in texts
    ]
    for name, pattern in form.times.items():
        clock = form.clocks.get(name)
        if clock is not None and clock in types:
            day_and_clock = [pl.col(column).cast(pl.String).str.strip_chars() for column in (name, clock)]
            compact = re.search(r" %H%M(%S)?$", pattern)  # of numbers, which have no zero in front
            day_and_clock[1] = day_and_clock[1].str.zfill(6 if compact[1] else 4) if compact else day_and_clock[1]
            converted.append(parse_time(pl.concat_str(day_and_clock, separator=" "), pattern).alias(name))
        elif name in texts:
            converted.append(parse_time(pl.col(name), pattern).alias(name))
        elif types.get(name, pl.Null()).is_numeric():  # such as 20240131
            converted.append(parse_time(pl.col(name).cast(pl.Int64).cast(pl.String), pattern).alias(name))
    converted += [pl.col(name).str.extract(YEAR) for name in form.years if name in texts]
    converted += [
        pl.col(name).map_batches(parse_lists, return_dtype=pl.List(pl.String))
        for name in form.lists
        if name in texts and name != form.explode
    ]
    converted += [
        pl.col(name).list.eval(pl.element().struct.field("name"))
        for name in form.lists
        if name != form.explode and isinstance(dtype := types.get(name), pl.List) and isinstance(dtype.inner, pl.Struct)
    ]
    converted += [
        pl.col(name)
        .str.strip_chars()
        .str.to_lowercase()
        .cast(pl.Enum([no.lower(), yes.lower()]))
        .to_physical()
        .cast(pl.Boolean)
        for name, (yes, no) in form.booleans.items()
        if name in texts
    ]
    converted += [rewrite_duration(pl.col(name), pair).alias(name) for name, pair in form.durations.items() if name in texts]
    converted += [pl.col(name).dt.total_microseconds() / 1e6 for name in form.durations if types.get(name) == pl.Duration]
    joined = [last_true_flag(names).alias(name) for name, names in form.flags.items() if not set(names).isdisjoint(types)]
    joined += [
        pl.datetime(*(date_part(pl.col(part)).cast(pl.Int32) for part in parts)).alias(name)
        for name, parts in form.dates.items()
        if set(parts) <= set(types)
    ]
    return frame.with_columns(converted).with_columns(joined).drop(*form.clocks.values(), *form.joined, strict=False)


def respell(ids: pl.Expr, spelling: str | int) -> pl.Expr:
    """Write ids as another program does, without blanks around them.

    Args:
        ids: text or integers.
        spelling: "upper", "lower", "digits" for nothing but the digits after zeros, where there are digits, or the number of
            characters that zeros in front fill.
    """
    text = ids.cast(pl.String).str.strip_chars()
    if spelling == "digits":
        digits = text.str.replace_all(r"[^0-9]", "").str.replace(r"^0+([0-9])", "${1}")
        return pl.when(digits == "").then(text).otherwise(digits)  # such as the id of a fee
    if isinstance(spelling, int):
        return text.str.zfill(spelling)
    return text.str.to_uppercase() if spelling == "upper" else text.str.to_lowercase()


def date_part(part: pl.Expr) -> pl.Expr:
    """Return the numbers of a part of dates; those of months may be names."""
    text = part.cast(pl.String).str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    named = pl.concat_str(pl.lit("1 "), pl.when(number.is_null()).then(text), pl.lit(" 2000"))
    return pl.coalesce(number, parse_time(named, "%d %B %Y").dt.month())


def _refuse_missing(setting: str, names: Sequence[str], frame: pl.LazyFrame, where: str) -> None:
    """Raise DataError if a column is missing."""
    columns = frame.collect_schema().names()
    for name in names:
        if name not in columns:
            raise DataError(
                f"{setting} in data.formats names the column {name!r}, which the table lacks",
                where=where,
                hint=did_you_mean(name, columns),
            )


def rewrite_number(text: pl.Expr, mark: str) -> pl.Expr:
    """Rewrite formatted numbers such as "1.234,50 €" as plain ones, "1234.50".

    Other text remains unchanged, so that parsing the column as numbers reports its row.

    Args:
        text: column of formatted numbers.
        mark: decimal mark.
    """
    stripped = minus_first(text)
    digits = stripped.str.replace(NUMBER_PATTERNS[mark], "${minus}${other}${whole}${rest}")
    plain = digits.str.replace_all(rf"[+{_GROUPS}{'.' if mark == ',' else ','}]", "")
    plain = plain.str.replace_many(["−", "▲", "△", ","], ["-", "-", "-", "."])
    return pl.when(stripped.str.contains(NUMBER_PATTERNS[mark])).then(plain).otherwise(text)


def minus_first(text: pl.Expr) -> pl.Expr:
    """Write the minus before a number: "5-" and "(5)" of accountants are -5."""
    before = text.str.strip_chars().str.replace(r"^\(([^()]*\d[^()]*)\)$", "-${1}")
    return before.str.replace(r"^([^-−▲△]*\d)\s*[-−]$", "-${1}")


def parse_time(text: pl.Expr, pattern: str) -> pl.Expr:
    """Parse times; text that does not match the pattern is an error.

    Args:
        text: column of times.
        pattern: `strftime` pattern.
    """
    stripped, pattern = text.str.strip_chars(), pattern.replace(".%f", "%.f")  # which polars reads as strftime does .%f
    stripped = stripped.str.replace_all("[\u200e\u200f\u202a-\u202e]", "")  # marks of the direction of writing
    if pattern.endswith("%H"):
        stripped, pattern = stripped + "00", pattern + "%M"  # which polars needs beside an hour
    if "%p" in pattern:
        stripped = stripped.str.replace(rf"\s*({_BEFORE_NOON})$", " AM").str.replace(rf"\s*({_AFTER_NOON})$", " PM")
    named = re.search("%[bB]", pattern) is not None and "%a" not in pattern
    parsed = _parse_dates(stripped, pattern, strict=not named)
    if named:
        other = pl.when(parsed.is_null()).then(_in_english(stripped))
        parsed = pl.coalesce(parsed, _parse_dates(other, pattern, strict=True))
    if _CLOCK.search(pattern) is None:
        return parsed
    return parsed.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in pattern else parsed


def _parse_dates(text: pl.Expr, pattern: str, *, strict: bool) -> pl.Expr:
    if _CLOCK.search(pattern) is None:
        return text.str.to_date(pattern, strict=strict)
    return text.str.to_datetime(pattern, time_unit="us", strict=strict)


def _in_english(text: pl.Expr) -> pl.Expr:
    """Rewrite dates in English, without names of days: "Fri 5. Januar" is "5 Jan"."""
    plain = text.str.to_uppercase().str.replace(r"^(\pL{2,}\.?,|\pL{2}\.?) +", "")
    plain = plain.str.replace(r"^\pL{3,}\.? +(\d{1,2}\.? +\pL|\pL{3,} +\d)", "${1}")
    plain = plain.str.replace(r"\b(\d\d?)(ER|ST|ND|RD|TH)\b", "${1}")
    plain = plain.str.replace_all(r"\bDE\b|(\d|\pL)\. ", "${1} ").str.replace_all(" +", " ")
    plain = plain.str.replace_many(list(_ENGLISH), list(_ENGLISH.values()), leftmost=True)
    return plain.str.replace_many([f" {zone}" for zone in _ZONES], [f" {offset}" for offset in _ZONES.values()], leftmost=True)


def ambiguous_comma(text: pl.Expr) -> pl.Expr:
    """Return where the comma of a duration may divide groups, as in "1,234 s".

    It does not where another duration of the column has it as the decimal mark.

    Args:
        text: the column.
    """
    decimal = text.str.contains(r"\d,\d{1,2}(?:\D|$)|\d,\d{4}|(?:^|\D)0\d*,\d|\d{4},\d")
    return text.str.contains(r"(?:^|[^\d.,:])[1-9]\d{0,2},\d{3}(?:\D|$)") & ~decimal.any()


def rewrite_duration(text: pl.Expr, pair: str) -> pl.Expr:
    """Rewrite durations as seconds; other text remains unchanged.

    Args:
        text: column of durations such as "1:02:33", "1 day, 0:30:00", "95 min" or "PT1H35M".
        pair: what two numbers such as "3:45" are, "m:s" or "h:m".
    """
    worded = text.str.strip_chars().str.replace(COLON_DURATIONS[3], "${1}${2}${3}h ${4}m ${5}s")
    worded = worded.str.replace(COLON_DURATIONS[2], "${1}${2}m ${3}s" if pair == "m:s" else "${1}${2}h ${3}m")
    groups = worded.str.extract_groups(WORDED_DURATION).struct
    numbers = [groups.field(str(place)).str.replace(",", ".").cast(pl.Float64) for place in range(2, 6)]
    seconds = pl.sum_horizontal(number * unit for number, unit in zip(numbers, _UNITS, strict=True))
    seconds = pl.when(groups.field("1") == "-").then(-seconds).otherwise(seconds)
    whole = seconds.round().cast(pl.Int64).cast(pl.String)
    written = pl.when(seconds == seconds.round()).then(whole).otherwise(seconds.cast(pl.String))
    known = (
        pl.any_horizontal(number.is_not_null() for number in numbers)
        & ~text.str.contains(MONTH_DURATION)
        & ~ambiguous_comma(text)
    )
    return pl.when(known).then(written).otherwise(text)


def last_true_flag(names: Sequence[str]) -> pl.Expr:
    """Return the name of the last column that is true or above 0, or null.

    Args:
        names: columns of booleans, words for them, or numbers.
    """
    texts = {name: pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase() for name in names}
    true = {
        name: text.is_in(TRUE_MARKS) | (text.cast(pl.Float64, strict=False).fill_nan(None) > 0) for name, text in texts.items()
    }
    return pl.coalesce(pl.when(true[name]).then(pl.lit(name)) for name in reversed(names))


def parse_lists(texts: pl.Series) -> pl.Series:
    """Parse lists in programming notation, List(String) [n].

    Text that is not a list becomes the only member of one.

    Args:
        texts: column of text such as "['a', 'b']", "{a,b}", 'c("a", "b")' or '[{"name": "a"}]'.
    """
    known = {text: _parse_list(text) for text in texts.unique().drop_nulls()}
    return pl.Series(texts.name, [None if text is None else known[text] for text in texts], dtype=pl.List(pl.String))


def _parse_list(text: str) -> list[str]:
    stripped = text.strip()
    if re.match(LIST_NOTATION, stripped) is None:
        return [stripped[1:-1] if re.fullmatch(r'"[^"]*"', stripped) else stripped]
    stripped = stripped.removeprefix("character(0)").removeprefix("c") or "()"  # of R, as c("a", "b")
    for parse in (json.loads, ast.literal_eval, _parse_unquoted_list):
        try:
            read = parse(stripped)
            break
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, csv.Error):
            continue
    else:
        return [stripped]
    members = list(read) if isinstance(read, list | tuple | set | frozenset | dict) else [read]
    names = (
        member.get("name", next(iter(member.values()), None)) if isinstance(member, dict) else member for member in members
    )
    return [str(name).strip() for name in names if name is not None]


def _parse_unquoted_list(text: str) -> list[str]:
    """Parse a list without quotes, such as "{a,b}"."""
    return next(csv.reader([text[1:-1]], skipinitialspace=True), [])
