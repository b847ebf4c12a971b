"""Check the values of one column, such as missing values, outliers or separators."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np
import polars as pl

from recall.config.schema import FieldConfig
from recall.data.conversions import LIST_NOTATION
from recall.features.canonical import BLANKS, EXACT, flatten_lists, strip_values
from recall.features.values import examples

Level = Literal["error", "warning", "note"]

# Thresholds of notes and warnings. Chosen, not tuned.
_MAX_DEVIATIONS = 8.0  # standard deviations from the mean
_MAX_DEVIATION = 1e3  # standard deviation
_MAX_RARE = 0.05  # share of the distinct texts
_MIN_VALUES = 100  # values


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check of the data.

    Attributes:
        level: error, which prevents training, warning or note.
        message: the problem and how to solve it.
        count: number of rows or values concerned.
        table: interactions, users, items, or "" for the run as a whole.
        column: the column, or "" for the table as a whole.
    """

    level: Level
    message: str
    count: int = 1
    table: str = ""
    column: str = ""

    @property
    def place(self) -> str:
        """Location as table.column, without empty parts."""
        return ".".join(part for part in (self.table, self.column) if part)

    @property
    def line(self) -> str:
        """The finding as one line."""
        return f"{self.level}: {self.place + ': ' if self.place else ''}{' '.join(self.message.split())}"


Report = Callable[[Level, str, int], Finding]
"""`Finding` with the table and the column filled in."""


def missing_findings(values: pl.Series, report: Report) -> Iterator[Finding]:
    """Report rows without a value, NaN included.

    Args:
        values: [n].
        report: makes the findings.
    """
    count = values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
    if count:
        yield report("note", f"{count / len(values):.1%} of the rows have no value; they share the row for missing", count)


def spelling_findings(values: pl.Series, report: Report) -> Iterator[Finding]:
    """Report text that is probably one value spelled in several ways.

    Args:
        values: [n]; columns of other types have no findings.
        report: makes the findings.
    """
    if values.dtype != pl.String:
        return
    texts = values.drop_nulls().unique()
    blanks = texts.filter(texts != texts.str.strip_chars())
    if len(blanks):
        yield report("warning", f"values begin or end with blanks, such as {examples(blanks.sort())}: strip them", len(blanks))
    cases = texts.filter(texts.str.to_lowercase().is_duplicated()).sort()
    if len(cases):
        yield report("warning", f"values differ in case only, such as {examples(cases)}: choose one", len(cases))
    parsed = texts.cast(pl.Float64, strict=False)
    close = texts.filter(parsed.is_not_null() & parsed.is_duplicated()).sort()
    times = Counter(map(Decimal, close))  # exact decimals, because long ids that differ may be equal in float64
    repeated = pl.Series([text for text in close if times[Decimal(text)] > 1])
    if len(repeated):
        message = f"one number is written in several ways, such as {examples(repeated)}: each counts as a separate value"
        yield report("warning", message, len(repeated))
    words, numerals = texts.filter(parsed.is_null()), texts.filter(parsed.is_not_null())
    minority = min(words, numerals, key=len)
    if 0 < len(minority) <= _MAX_RARE * len(texts):
        kinds = ("words", "numbers") if minority is words else ("numbers", "words")
        message = f"a few values are {kinds[0]} among {kinds[1]}, such as {examples(minority.sort())}: are they meant?"
        yield report("warning", message, len(minority))


def variety_findings(values: pl.Series, field: FieldConfig, report: Report, separator: str | None = None) -> Iterator[Finding]:
    """Report a column with one value only, or with nearly as many values as rows.

    Args:
        values: [n].
        field: the field that reads it.
        report: makes the findings.
        separator: separator of the values of a bag in text; None for single values.
    """
    if separator is not None and values.dtype == pl.String:
        values = values.str.split(separator).list.eval(pl.element().filter(pl.element() != ""))
    known = flatten_lists(values) if isinstance(values.dtype, pl.List) else values
    known = known.drop_nulls()
    distinct = known.n_unique()
    if distinct <= 1:
        shown = f"one value only, {examples(known)}" if distinct else "no values"
        yield report("warning", f"the column holds {shown}; nothing can be learnt from it", len(known))
    elif field.learns_values and len(known) > _MIN_VALUES and distinct > len(known) / 2:
        message = f"{distinct:,} different values in {len(known):,}: most are seen once, raise min_count or leave the field out"
        yield report("warning", message, distinct)


def spread_findings(values: pl.Series, field: FieldConfig, report: Report) -> Iterator[Finding]:
    """Report outliers, and numbers so far apart that they may not be a quantity.

    Args:
        values: [n].
        field: the field that reads it.
        report: makes the findings.
    """
    known = values.drop_nulls().to_numpy()
    if not field.standardized or len(known) < 2 or not known.std():
        return
    outliers = int((np.abs(known - known.mean()) > _MAX_DEVIATIONS * known.std()).sum())
    if outliers:
        message = (
            f"in {outliers:,} of {len(values):,} rows the value lies more than {_MAX_DEVIATIONS:g} standard deviations out: "
            'scale = "log" or "buckets" tames them'
        )
        yield report("warning", message, outliers)
    if known.std() > _MAX_DEVIATION:
        message = f"the standard deviation is {known.std():.3g}: is this a quantity rather than an id or time?"
        yield report("note", message, len(known))


def row_number_findings(ids: pl.Series, report: Report) -> Iterator[Finding]:
    """Report ids that are row numbers of their table.

    Args:
        ids: [n], of a users or items table.
        report: makes the findings.
    """
    numbers = ids.cast(pl.Int64, strict=False)
    first = numbers[0] if len(ids) > 1 else None
    if first in (0, 1) and numbers.diff().eq(1).sum() == len(ids) - 1:
        message = f"the ids count the rows of the table from {first}: if they are positions rather than names, "
        yield report("note", message + "the next export assigns them to others", len(ids))


def rounded_id_findings(ids: pl.Series, report: Report) -> Iterator[Finding]:
    """Report ids that have lost digits, because a program wrote them as floats.

    Args:
        ids: [n], as the table holds them.
        report: makes the findings.
    """
    if ids.dtype.is_float():
        lost = ids.filter(ids.abs() >= EXACT)
    elif ids.dtype == pl.String:
        lost = ids.filter(ids.str.contains(r"^-?[0-9](\.[0-9]+)?[eE]\+[0-9]+$"))
    else:
        return
    if len(lost):
        message = (
            f"{len(lost):,} of {len(ids):,} rows hold ids as floats, such as {examples(lost.cast(pl.String))}, which several "
            "ids share: write all their digits, as integers or text"
        )
        yield report("warning", message, len(lost))


def normalize_ids(ids: pl.Series) -> pl.Series:
    """Return ids without what programs add or drop.

    These are case, outer blanks and quotes, leading zeros, and marks between groups of three digits.
    """
    plain = ids.str.strip_chars(" '").str.to_lowercase().str.strip_chars_start("0")
    grouped = plain.str.contains(r"^\d{1,3}([., ]\d{3})+$")
    return plain.str.replace_all(r"[., ]", "") if grouped.all() else plain


# Bags written as text: the separator, and the values between.

_SEPARATORS = ("|", ",", ";", "/", "、", "，", "；", "؛", "،", "・")
_BLANKS = ("\t", " ")  # suggested by checks only: a draft would cut ordinary text
_MIN_COMBINED = 0.3  # share of the parts that must be in several different texts. Chosen, not tuned.
_MIN_HOLDING = 0.05  # of the cells; fewer contain a separator by chance. Chosen, not tuned.


def count_list_texts(texts: pl.Series) -> int:
    """Count texts that are lists in programming notation, such as "['a', 'b']"."""
    return int(texts.str.contains(LIST_NOTATION).sum())


def have_decimal_commas(texts: pl.Series) -> bool:
    """Return whether texts are numbers with a decimal comma, such as "1.234,5"."""
    number = texts.str.strip_chars(BLANKS).str.contains(r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?$")
    return bool(number.all()) and bool(texts.str.contains(",", literal=True).any()) and not are_years(texts)


def are_years(texts: pl.Series) -> bool:
    """Return whether texts are lists of years, such as "2017,2018"."""
    return bool(texts.str.contains(r"^\s*(19|20)\d\d(,\s*(19|20)\d\d)*\s*$").all())


def guess_separator(texts: pl.Series) -> str:
    """Return the most probable separator of the texts; empty when none fits.

    A separator is in more than one text of twenty, and the parts that it cuts recur more often than whole texts do.

    Args:
        texts: String [n], none missing.
    """
    for mark in _SEPARATORS:
        separated = texts.filter(texts.str.contains(mark, literal=True))
        if len(separated) > _MIN_HOLDING * len(texts) and (
            mark == "|"
            or (_parts_recur(separated, mark) and _parts_combine(texts, mark) and not _positions_matter(texts, mark))
        ):
            return mark
    return ""


def _parts_recur(texts: pl.Series, mark: str) -> bool:
    """Return whether the parts between marks recur more often than whole texts do."""
    parts = texts.str.split(mark).explode().str.strip_chars(BLANKS)
    most = texts.n_unique() - 1 if mark == " " else 2 * texts.n_unique()  # names of two words have more words than names
    return parts.n_unique() <= min(0.5 * len(parts), most)


def _parts_combine(texts: pl.Series, mark: str) -> bool:
    """Return whether parts are in several texts, unlike those of "Deli / Bodega"."""
    cut = pl.col("text").str.split(mark).alias("part")
    parts = texts.unique().alias("text").to_frame().with_columns(cut).explode("part", empty_as_null=False, keep_nulls=False)
    parts = parts.with_columns(pl.col("part").str.strip_chars(BLANKS)).unique().with_columns(among=pl.len().over("part"))
    return float((parts.filter(pl.col("text").str.contains(mark, literal=True))["among"] > 1).mean()) > _MIN_COMBINED  # type: ignore[arg-type]


def _positions_matter(texts: pl.Series, mark: str) -> bool:
    """Return whether a part means something by its position, as in "Smith, John".

    It has if all texts with the mark have equally many parts, and no value occurs in two positions or as a text.
    """
    texts = texts.unique()
    held = texts.str.contains(mark, literal=True)
    parts = texts.filter(held).str.split(mark)
    if parts.list.len().n_unique() > 1:
        return False
    columns = [texts.filter(~held), *(parts.list.get(place) for place in range(parts.list.len()[0]))]
    values = pl.concat([column.str.strip_chars(BLANKS).unique() for column in columns])
    return values.is_unique().all()


def bag_findings(values: pl.Series, separator: str, report: Report) -> Iterator[Finding]:
    """Report wrong separators, and values that are probably spelled in several ways.

    Args:
        values: [n], the column: lists, or text with a separator.
        separator: separator of the values in text.
        report: makes the findings.
    """
    if isinstance(values.dtype, pl.List | pl.Array):
        lists = strip_values(values.cast(pl.List(values.dtype.inner)))
    elif values.dtype == pl.String:
        texts = values.drop_nulls()
        yield from _separator_findings(texts.filter(texts != ""), separator, report)
        lists = strip_values(values.str.split(separator))
    else:
        return
    parts = flatten_lists(lists)
    if parts.dtype != pl.String:
        return
    yield from spelling_findings(parts, report)
    empty = lists.filter((lists.list.len() > 1) & (lists.list.eval(pl.element() == "").list.any()).fill_null(value=False))
    if len(empty):
        yield report("note", f"{len(empty):,} bags have an empty value between separators; it does not count", len(empty))
    counted = lists.list.eval(pl.element().filter(pl.element() != ""))
    repeated = counted.filter((counted.list.len() > counted.list.n_unique()).fill_null(value=False))
    if len(repeated):
        message = f"{len(repeated):,} bags hold a value twice, such as {examples(repeated.list.join('|'))}: it counts twice"
        yield report("note", message, len(repeated))


def _separator_findings(texts: pl.Series, separator: str, report: Report) -> Iterator[Finding]:
    """Report a separator that hardly occurs, and lists in another notation."""
    if texts.is_empty():
        return
    lists = count_list_texts(texts)
    if lists > _MIN_HOLDING * len(texts):
        shown = examples(texts.filter(texts.str.contains(LIST_NOTATION)))
        message = f"{lists:,} of {len(texts):,} cells look like lists written as text, such as {shown}: "
        yield report("warning", message + "store them as lists in Parquet, or as text with a separator", lists)
        return
    cut = int(texts.str.contains(separator, literal=True).sum())
    if cut > _MIN_HOLDING * len(texts):
        return
    for mark in (other for other in (*_SEPARATORS, *_BLANKS) if other != separator):
        separated = texts.filter(texts.str.contains(mark, literal=True))
        if len(separated) > max(_MIN_HOLDING * len(texts), cut) and (mark != " " or _parts_recur(separated, mark)):
            few = f"{f'only {cut:,} cells hold' if cut else 'no cell holds'} the separator {separator!r}"
            message = f"{few}, while {len(separated):,} of {len(texts):,} hold {mark!r}: is separator = {mark!r} meant?"
            yield report("warning", message, len(separated))
            return
