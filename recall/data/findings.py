"""What can be odd about one column, whatever it is used for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from recall.config.schema import FieldConfig
from recall.features.values import examples

Level = Literal["error", "warning", "note"]

_FAR = 8.0
_WIDE = 1e3
_RARE = 0.05
_MANY = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to correct (error), to look at (warning), or to know (note).

    Attributes:
        level: how much it matters; with an error nothing can be trained.
        table: interactions, users, items, or "" for the run as a whole.
        column: "" for the table as a whole.
        message: what was found and what to do about it.
        count: how many rows or values it concerns.
    """

    level: Level
    table: str
    column: str
    message: str
    count: int

    @property
    def place(self) -> str:
        """The table and column, as far as there are any."""
        return ".".join(part for part in (self.table, self.column) if part)


Report = Callable[[Level, str, int], Finding]
"""Makes the finding (level, message, count) for one column."""


def missing(values: pl.Series, report: Report) -> Iterator[Finding]:
    """Rows without a value, NaN included."""
    count = values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
    if count:
        yield report("note", f"{count / len(values):.1%} of the rows have no value; they share the row for missing", count)


def spelling(values: pl.Series, report: Report) -> Iterator[Finding]:
    """Text that is probably one value written in several ways; other columns have nothing to say."""
    if values.dtype != pl.String:
        return
    texts = values.drop_nulls().unique()
    blanks = texts.filter(texts != texts.str.strip_chars())
    if len(blanks):
        yield report("warning", f"values begin or end with blanks, such as {examples(blanks)}: strip them", len(blanks))
    cases = texts.filter(texts.str.to_lowercase().is_duplicated()).sort()
    if len(cases):
        yield report("warning", f"values differ in case only, such as {examples(cases)}: choose one", len(cases))
    parsed = texts.cast(pl.Float64, strict=False)
    twice = texts.filter(parsed.is_not_null() & parsed.is_duplicated()).sort()
    if len(twice):
        message = f"one number is written in several ways, such as {examples(twice)}: each way is a value of its own"
        yield report("warning", message, len(twice))
    words, numerals = texts.filter(parsed.is_null()), texts.filter(parsed.is_not_null())
    fewer = min(words, numerals, key=len)
    if 0 < len(fewer) <= _RARE * len(texts):
        kinds = ("words", "numbers") if fewer is words else ("numbers", "words")
        message = f"a few values are {kinds[0]} among {kinds[1]}, such as {examples(fewer.sort())}: are they meant?"
        yield report("warning", message, len(fewer))


def variety(values: pl.Series, field: FieldConfig, report: Report, separator: str | None = None) -> Iterator[Finding]:
    """A column with one value only, or with nearly as many values as rows."""
    if separator is not None and values.dtype == pl.String:
        values = values.str.split(separator).list.eval(pl.element().filter(pl.element() != ""))
    known = values.explode(empty_as_null=False, keep_nulls=False) if isinstance(values.dtype, pl.List) else values
    known = known.drop_nulls()
    distinct = known.n_unique()
    if distinct <= 1:
        shown = f"one value only, {examples(known)}" if distinct else "no value at all"
        yield report("warning", f"the column holds {shown}, and teaches nothing", len(known))
    elif field.learns_values and len(known) > _MANY and distinct > len(known) / 2:
        message = f"{distinct:,} different values in {len(known):,}: most are seen once, raise min_count or leave the field out"
        yield report("warning", message, distinct)


def spread(values: pl.Series, field: FieldConfig, report: Report) -> Iterator[Finding]:
    """Numbers that lie far from the rest, or so wide apart that they may be no quantity."""
    known = values.drop_nulls().to_numpy()
    if not field.standardized or len(known) < 2 or not known.std():
        return
    far = int((np.abs(known - known.mean()) > _FAR * known.std()).sum())
    if far:
        message = f'{far:,} values lie more than {_FAR:g} standard deviations out: scale = "log" or "buckets" tames them'
        yield report("warning", message, far)
    if known.std() > _WIDE:
        message = f"the standard deviation is {known.std():.3g}: is this a quantity, and no id or time?"
        yield report("note", message, len(known))


def positions(ids: pl.Series, report: Report) -> Iterator[Finding]:
    """Ids that count the rows of their own table."""
    numbers = ids.cast(pl.Int64, strict=False)
    for first in (0, 1):
        if len(ids) > 1 and numbers.equals(pl.Series(numbers.name, range(first, first + len(ids)), dtype=pl.Int64)):
            message = (
                f"the ids count the rows of the table from {first}: were they positions and no names, "
                "the next export would give them to others"
            )
            yield report("note", message, len(ids))
