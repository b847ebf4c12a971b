"""Draft the lines of `[fields]`: guess a kind of field for each column."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from time import time

import numpy as np
import polars as pl

from recall.config.docs import toml, toml_key
from recall.data.column_names import COLUMN_WORDS, PRICE, accumulates, names_person, word_set, words
from recall.data.columns import RESERVED
from recall.data.findings import count_list_texts, guess_separator, have_decimal_commas
from recall.data.roles import Role, numbers_of
from recall.data.scaffold.text_values import are_times, clock_pattern
from recall.data.tables import Table
from recall.data.times import UNITS, unit_of_time, within_unit
from recall.errors import DataError
from recall.features.canonical import BLANKS


class FieldNames:
    """Allocator of unique field names."""

    def __init__(self, *used: str) -> None:
        self._used = set(used)

    def allocate(self, *wanted: str) -> str:
        """Return the first free name; if all are used, the last one with a number."""
        numbered = (f"{wanted[-1]}_{number}" for number in count(2))
        name = next(one for one in chain(wanted, numbered) if one and one not in self._used)
        self._used.add(name)
        return name


# Thresholds. Chosen, not tuned.
_MAX_VOCABULARY = 1_000  # distinct values up to which no min_count is needed
_MAX_KEPT = 10_000  # distinct values that min_count should leave
_MIN_COUNTS = (2, 3, 5, 10, 20, 50)
_MIN_UNIQUE, _MAX_RECURRING = 20, 0.5  # more distinct values, also relative to all, are mostly seen once
_MIN_LISTS = 0.05  # share of cells in list notation


def draft_bag(known: pl.Series) -> tuple[str, str] | None:
    """Return the keys of a bag field and the reason; None for single values.

    The keys are empty for text that must be rewritten before a field can read it.

    Args:
        known: text [n] or lists [n], without nulls.
    """
    if isinstance(known.dtype, pl.List | pl.Array):
        parts = known.cast(pl.List(known.dtype.inner)).explode(empty_as_null=False, keep_nulls=False)
        if not parts.dtype.is_nested() and parts.n_unique() > max(_MIN_UNIQUE, _MAX_RECURRING * len(parts)):
            return "", "lists that hardly share a member: nothing to learn from"
        return f'kind = "bag"{min_count_key(parts)}', "lists"
    if count_list_texts(known) > _MIN_LISTS * len(known):
        return "", "lists written as text, which no field reads: store them as lists in Parquet, or as text with a separator"
    if have_decimal_commas(known):
        return "", 'numbers with a decimal comma, which no field reads: write "3,5" as "3.5" (or "3|5", for two values)'
    if known.str.contains(r"\d,\d{3}(\D|$)").mean() > 0.5:  # type: ignore[operator]  # commas between groups of digits
        return None
    prose = known.str.contains(r"[\r\n]|<\pL[^<>]*>").mean() > _MIN_LISTS  # type: ignore[operator]  # lists have no lines
    tokens = known.name.endswith(":token_seq") and known.is_duplicated().any()  # of a file of RecBole
    separator = "" if prose else " " if tokens else guess_separator(known)
    if not separator:
        return None
    parts = known.str.split(separator).explode().str.strip_chars(BLANKS)
    keys = "" if separator == "|" else f", separator = {toml(separator)}"
    return f'kind = "bag"{keys}{min_count_key(parts)}', f"{parts.n_unique():,} values between {toml(separator)}"


def min_count_key(values: pl.Series) -> str:
    """Return `, min_count = n` for a column with many distinct values, or "".

    Values that occur once or twice teach nothing, and thousands of such parameters overfit. So with more than 1,000 distinct
    values those that occur once are dropped; if more than 10,000 are left, min_count is the smallest of 3, 5, 10, 20 and 50
    that leaves at most 10,000, or 50.
    """
    counts = values.drop_nulls().value_counts()["count"]
    if len(counts) <= _MAX_VOCABULARY:
        return ""
    chosen = next((least for least in _MIN_COUNTS if int((counts >= least).sum()) <= _MAX_KEPT), _MIN_COUNTS[-1])
    return f", min_count = {chosen}"


_CODE_WORDS = word_set("id ids ean gtin upc isbn barcode kod")
_CODE_DIGITS = 8  # from which on numbers of one length identify something
_MIN_AMOUNTS = 5  # distinct numbers; fewer are grades or kinds
_MIN_CORRELATION = 0.8  # rank correlation with the interactions per user or item
_AHEAD = 5 * 365 * 86_400  # seconds from now, up to which unnamed numbers may be unix times
_YEARS = 1800, 2100  # a column of years may follow what is taken more, but adds nothing up
_MIN_COUNTING = 20  # rows; in fewer, numbers that rise by one may be chance rather than a row number
_MAX_CATEGORIES = 50  # distinct integers that are categories rather than quantities
_MIN_PER_CATEGORY = 20  # rows per distinct integer, with which up to _MAX_VOCABULARY are categories, such as codes
SAMPLE_ROWS = 100_000
"""Rows of a table that are examined."""


@dataclass(frozen=True, slots=True)
class FieldGuess:
    """Guessed configuration of a field.

    Attributes:
        keys: TOML keys after `side`; empty if no field should read the column.
        reason: reason, which the draft shows as a comment.
        unique_texts: whether nearly every row has its own text, such as titles.
    """

    keys: str
    reason: str
    unique_texts: bool = False


def guess_field(values: pl.Series) -> FieldGuess:
    """Guess the kind of field for a column from a sample of its values, [n]."""
    known = values.drop_nulls()
    if known.is_empty():
        return FieldGuess("", "no value")
    if isinstance(known.dtype, pl.List | pl.Array) and known.dtype.inner.is_nested():
        return FieldGuess("", "lists of lists, which no field reads")
    if not isinstance(known.dtype, pl.Array) and len(known) == len(values) > 1 and known.n_unique() == 1:
        return FieldGuess("", f"one value only, {known.head(1).to_list()[0]!r}: nothing to learn from")
    if isinstance(known.dtype, pl.List | pl.Array) and (bag := draft_bag(known)) is not None:
        return FieldGuess(*bag)
    if known.dtype.is_temporal():
        return FieldGuess("", _A_TIME)
    if known.dtype == pl.String:
        numbers = known.cast(pl.Float64, strict=False)
        if numbers.null_count() or known.str.contains(r"^0\d").any():
            return _guess_text_field(known)
        known = numbers
    if known.dtype == pl.Boolean:
        return FieldGuess('kind = "categorical"', "true or false")
    if len(known) == len(values) > _MIN_COUNTING and _are_row_numbers(known.cast(pl.Float64)):
        return FieldGuess("", "counts the rows: nothing to learn from")
    different, moments = known.n_unique(), known.cast(pl.Float64).to_numpy()
    identifying = bool(_CODE_WORDS & {word.rstrip("0123456789") for word in words(values.name)[-1:]})
    if not identifying and (unit := unit_of_time(moments)) and within_unit(moments, UNITS[unit]).all():
        latest = float(np.median(moments)) / UNITS[unit]  # bar codes lie decades ahead
        if latest < time() + _AHEAD or (COLUMN_WORDS["time"] | COLUMN_WORDS["date"]) & set(words(values.name)):
            return FieldGuess("", _A_TIME)
    repeated = different <= max(_MAX_CATEGORIES / 2, len(known) / 2)
    if (
        repeated
        and different <= max(_MAX_CATEGORIES, min(_MAX_VOCABULARY, len(known) / _MIN_PER_CATEGORY))
        and bool((known == known.round()).all())
    ):
        return FieldGuess('kind = "categorical"', f"whole numbers, {different:,} different")
    if identifying or _are_long_codes(known):
        return FieldGuess("", f"{different:,} different numbers that identify: nothing to learn from")
    skewed = float(known.min() or 0) >= 0 and float(known.max() or 0) > 20 * float(known.median() or 0)  # type: ignore[arg-type]
    return FieldGuess('kind = "numeric"' + (', scale = "log"' if skewed else ""), f"{different:,} different numbers")


def _are_row_numbers(known: pl.Series) -> bool:
    """Return whether numbers rise by one, but for rows that were left out since."""
    steps = known.diff().drop_nulls()
    return bool((steps >= 1).all()) and float((steps == 1).mean()) > 0.9  # type: ignore[arg-type]


def _are_long_codes(known: pl.Series) -> bool:
    """Return whether long integers identify something, such as phone numbers."""
    length = len(str(int(known.max() or 0)))  # type: ignore[arg-type]
    low = float(known.min() or 0)  # type: ignore[arg-type]
    if length < _CODE_DIGITS or low < 10 ** (length - 1) or not (known == known.round()).all():
        return False
    return known.n_unique() >= 0.9 * len(known) > _MIN_COUNTING


_A_TIME = "a date or time, which no field reads; write it as a category, such as a weekday"
_URL = r"^\s*(https?://|www\.)"


def _guess_text_field(known: pl.Series) -> FieldGuess:
    different = known.n_unique()
    if known.str.contains(_URL).all():
        return FieldGuess("", "addresses: nothing to learn from", unique_texts=True)
    if are_times(known):
        return FieldGuess("", _A_TIME)
    if different > _MAX_CATEGORIES and clock_pattern(known):
        return FieldGuess("", f"{different:,} different times of day, which no field reads; write it as an hour")
    bag = draft_bag(known)
    if bag is not None:
        return FieldGuess(*bag)
    if different > max(_MIN_UNIQUE, _MAX_RECURRING * len(known)):
        return FieldGuess("", f"{different:,} different texts in {len(known):,} rows: nothing to learn from", unique_texts=True)
    return FieldGuess(f'kind = "categorical"{min_count_key(known)}', f"{different:,} different texts")


ATTRIBUTE = "an attribute, which requests may filter by"
"""Reason for keeping an item column that no field reads."""
_MAX_TITLE_LENGTH = 500  # mean characters; longer text is not an attribute. Chosen, not tuned.


def find_unique_texts(table: Table, without: Collection[str]) -> tuple[str, ...]:
    """Return the columns in which nearly every row has its own text, such as titles.

    Args:
        table: the users or items.
        without: id columns.
    """
    names = [name for name in table.columns if name not in without and is_readable(table, name)]
    found = []
    for values in table.head(SAMPLE_ROWS).collect(names) if names else ():
        known = values.drop_nulls()
        if known.dtype != pl.String or not guess_field(known).unique_texts:
            continue
        if float(known.str.len_chars().mean()) <= _MAX_TITLE_LENGTH:  # type: ignore[arg-type]
            found.append(values.name)
    return tuple(found)


def draft_table_fields(
    table: Table,
    side: str,
    without: Collection[str],
    source: Collection[str],
    names: FieldNames,
    per_row: pl.Series,
    results: Mapping[str, str],
    attributes: Collection[str] = (),
) -> Iterator[str]:
    """Draft a field, or a comment, for each column of the users or items table.

    Args:
        table: the table.
        side: user or item.
        without: id columns.
        source: columns that the interactions have as well; their fields need the key `source`.
        names: allocates the names of fields.
        per_row: number of interactions of each row in the sample, [n].
        results: reasons by column that may result from the interactions; others are found by their names and values.
        attributes: columns that requests may filter by, although no field reads them.
    """
    columns = [name for name in table.columns if name not in without]
    frame = table.head(SAMPLE_ROWS).collect(name for name in columns if is_readable(table, name))
    for name in columns:
        if name not in frame.columns:
            yield unreadable_comment(table, name)
            continue
        values = frame[name]
        guessed = guess_field(values)
        if not values.dtype.is_nested() and values.drop_nulls().n_unique() == 1 and _missing_alike(frame, name):
            guessed = FieldGuess("", f"one value only, {values.drop_nulls()[0]!r}, and missing where others are")
        if side == "user" and values.dtype == pl.String and names_person(name):
            guessed = FieldGuess("", "names of people: nothing to learn from")
        if not guessed.keys:
            yield f"# {name}: {guessed.reason}{f'; {ATTRIBUTE}' if name in attributes else ''}"
            continue
        source_key = [f'source = "{side}s"'] if name in source else []
        line = field_line(names.allocate(name, f"{side}_{name}"), name, side, [guessed.keys, *source_key], guessed.reason)
        accumulated = results.get(name) or _accumulation_reason(values, per_row, side)
        if accumulated:
            yield f"# {name}: {accumulated}, so that a test would know its outcome; a field may read it:"
        yield f"{'# ' if accumulated else ''}{line}"


def _missing_alike(frame: pl.DataFrame, name: str) -> bool:
    """Return whether another column lacks a value in the same rows."""
    return any((other.is_null() == frame[name].is_null()).all() for other in frame.drop(name))


def _accumulation_reason(values: pl.Series, per_row: pl.Series, side: str) -> str:
    """Return the reason why a column is an aggregate of the interactions, or "".

    Args:
        values: of the table, [n].
        per_row: number of interactions of each row, [n].
        side: user or item.
    """
    numbers = None if values.dtype.is_nested() else numbers_of(values)
    is_average = bool(COLUMN_WORDS["average"] & set(words(values.name)))
    if numbers is None or (numbers.n_unique() < _MIN_AMOUNTS and not is_average):
        return ""
    if accumulates(values.name, side, fractions=bool((numbers != numbers.round()).any())):
        return "by its name it is an aggregate of the interactions"
    named = set(words(values.name))
    if side == "item" and COLUMN_WORDS["stock"] & named and not PRICE & named:
        return "by its name it is what was left when the file was written, after the interactions"
    if numbers.is_between(*_YEARS).all():
        return ""
    both = pl.DataFrame({"number": numbers, "count": per_row}).drop_nulls()
    rank_correlation = both.select(pl.corr("number", "count", method="spearman")).item()
    if len(both) > _MIN_COUNTING and both["count"].n_unique() > _MIN_AMOUNTS and rank_correlation > _MIN_CORRELATION:
        return f"it grows with the interactions of the {side} (rank correlation {rank_correlation:.2f})"
    return ""


def draft_described_fields(
    frame: pl.DataFrame, columns: Sequence[str], side: str, id_column: str, names: FieldNames
) -> Iterator[str]:
    """Draft a field for each column of the interactions that describes users or items.

    Args:
        frame: sample of the interactions.
        columns: columns to read.
        side: user or item.
        id_column: id column of that side.
        names: allocates the names of fields.
    """
    for column in columns:
        guessed = guess_field(last_value_per_id(frame, column, id_column))
        yield field_line(names.allocate(column, f"{side}_{column}"), column, side, [guessed.keys], guessed.reason)


def is_readable(table: Table, name: str) -> bool:
    """Return whether a field can read the type of a column.

    Args:
        table: the table.
        name: the column.
    """
    if not name:
        return False
    try:
        table.select([name])
    except DataError:
        return False
    return True


def unreadable_comment(table: Table, name: str) -> str:
    """Return a comment about a column of a type that no field can read.

    Args:
        table: the table.
        name: the column.
    """
    if not name:
        return "# a column without a name: give it one, so that a field can read it"
    return f"# {name}: of type {table.types[name]}, which no field can read"


def last_value_per_id(frame: pl.DataFrame, name: str, id_column: str) -> pl.Series:
    """Return the last value of a column for each user or item.

    Args:
        frame: sample of the interactions.
        name: the column.
        id_column: id column of the side that it describes.
    """
    known = frame.select(id_column, name).filter(pl.col(name).is_not_null())
    return known.unique(id_column, keep="last", maintain_order=True)[name]


def draft_context_fields(
    frame: pl.DataFrame, roles: Mapping[str, Role], without: Collection[str], names: FieldNames
) -> Iterator[str]:
    """Draft a field, or a comment, for each context column of the interactions.

    Args:
        frame: sample of the interactions.
        roles: role of each column.
        without: columns that other fields read.
        names: allocates the names of fields.
    """
    lines = []
    for name, role in roles.items():
        if role.kind in ("visit", "moment"):
            lines.append(f"# {name}: {role.reason}")
        elif role.kind == "context" and name in RESERVED:
            lines.append(f"# {name}: a context column cannot be called so; rename it in the interactions to read it")
        elif role.kind == "context" and name not in without:
            guessed = guess_field(frame[name])
            different = frame[name].n_unique() if frame[name].dtype == pl.String else 0
            if different > max(_MAX_VOCABULARY, len(frame) / 3):  # such as receipts that users share
                lines.append(f"# {name}: {different:,} different texts in {len(frame):,} rows: nothing to learn from")
            elif guessed.keys:
                lines.append(field_line(names.allocate(name, f"context_{name}"), name, "user", [guessed.keys], guessed.reason))
            else:
                lines.append(f"# {name}: {guessed.reason}")
    if any(not line.startswith("#") for line in lines):
        yield "# context, read from the interactions: a request must supply it. Remove what is known only afterwards"
    yield from lines


def field_line(name: str, column: str, side: str, keys: Sequence[str], reason: str) -> str:
    """Format the TOML line of one field.

    Args:
        name: name of the field.
        column: the column that it reads.
        side: user or item.
        keys: further TOML keys.
        reason: comment at the end of the line.
    """
    column_key = [f"column = {toml(column)}"] if name != column else []
    return f"{toml_key(name)} = {{ {', '.join([f'side = {toml(side)}', *keys, *column_key])} }}  # {reason}"
