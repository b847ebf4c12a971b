"""Draft the lines of `[fields]`: a field for every column that looks like one."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

import polars as pl

from recall.config.docs import toml, toml_key
from recall.data.findings import decimal_commas, separator_of, written_lists
from recall.data.roles import Role
from recall.data.sources import RESERVED
from recall.data.tables import Table
from recall.errors import DataError
from recall.features.canonical import BLANKS


def clean(line: str) -> str:
    """Replace characters that TOML forbids in comments, such as line breaks."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", line)


class Keys:
    """Allocator of unique keys."""

    def __init__(self, *used: str) -> None:
        self._used = set(used)

    def take(self, *wanted: str) -> str:
        """Return the first free name, or the last of them with a number."""
        numbered = (f"{wanted[-1]}_{number}" for number in count(2))
        name = next(one for one in chain(wanted, numbered) if one and one not in self._used)
        self._used.add(name)
        return name


# Thresholds. Chosen, not tuned.
_MANY = 1_000  # distinct values up to which no min_count is needed
_MOST = 10_000  # distinct values that a min_count should leave
_COUNTS = (2, 3, 5, 10, 20, 50)
_LISTS = 0.05  # share of cells that are written lists


def drafted_bag(known: pl.Series) -> tuple[str, str] | None:
    """Return the keys of a bag field and their reason, or None when it is not a bag.

    The keys are empty for text that must be rewritten.

    Args:
        known: text [n] or lists [n], none missing.
    """
    if isinstance(known.dtype, pl.List | pl.Array):
        parts = known.cast(pl.List(known.dtype.inner)).explode(empty_as_null=False, keep_nulls=False)
        return f'kind = "bag"{rare(parts)}', "lists"
    if written_lists(known) > _LISTS * len(known):
        return "", "lists written as text, which no field reads: store them as lists in Parquet, or as text with a separator"
    if decimal_commas(known):
        return (
            "",
            'numbers with a decimal comma, which no field reads: write "3,5" as "3.5" (or "3|5", for two values)',
        )
    prose = known.str.contains(r"[\r\n]").mean() > _LISTS  # type: ignore[operator]  # lists have no lines
    separator = "" if prose else separator_of(known)
    if not separator:
        return None
    parts = known.str.split(separator).explode().str.strip_chars(BLANKS)
    keys = "" if separator == "|" else f", separator = {toml(separator)}"
    return f'kind = "bag"{keys}{rare(parts)}', f"{parts.n_unique():,} values between {toml(separator)}"


def rare(values: pl.Series) -> str:
    """Return the key `min_count` for a column with many different values.

    A value seen once or twice teaches nothing of its own, and thousands of such rows overfit. So of more than 1,000 values
    those seen once are dropped; if more than 10,000 are left, the smallest of 3, 5, 10, 20 and 50 is taken that leaves no
    more, or 50.
    """
    counts = values.drop_nulls().value_counts()["count"]
    if len(counts) <= _MANY:
        return ""
    chosen = next((least for least in _COUNTS if int((counts >= least).sum()) <= _MOST), _COUNTS[-1])
    return f", min_count = {chosen}"


_COUNTED = 20  # rows from which on numbers that rise by one are a count of the rows. Chosen, not tuned.
_FEW = 50  # distinct whole numbers up to which they are categories. Chosen, not tuned.
_EACH = 20  # rows of each of them on average, from which up to _MANY are categories too, such as codes. Chosen, not tuned.
ROWS = 100_000
"""Rows that are sampled."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A guessed field.

    Attributes:
        field: its keys after `side`; empty for no field.
        reason: in words.
        unlearnable: texts of which hardly two are the same.
    """

    field: str
    reason: str
    unlearnable: bool = False


def guess(values: pl.Series) -> Guess:
    """Guess the kind of field of a column from some of its values."""
    known = values.drop_nulls()
    if known.is_empty():
        return Guess("", "no value")
    if len(known) == len(values) > 1 and not values.dtype.is_nested() and known.n_unique() == 1:
        return Guess("", f"one value only, {known[0]!r}: nothing to learn from")
    if isinstance(known.dtype, pl.List | pl.Array) and known.dtype.inner.is_nested():
        return Guess("", "lists of lists, which no field reads")
    if isinstance(known.dtype, pl.List) and len(known) == len(values) > 1 and known.n_unique() == 1:
        return Guess("", f"one value only, {known[0].to_list()}: nothing to learn from")
    if isinstance(known.dtype, pl.List | pl.Array) and (bag := drafted_bag(known)) is not None:
        return Guess(*bag)
    if known.dtype.is_temporal():
        return Guess("", "a date or time, which no field reads; write it as a category, such as a weekday")
    if known.dtype == pl.String:
        numbers = known.cast(pl.Float64, strict=False)
        if numbers.null_count() or known.str.contains(r"^0\d").any():
            return _guess_text(known)
        known = numbers
    if known.dtype == pl.Boolean:
        return Guess('kind = "categorical"', "true or false")
    if len(known) == len(values) > _COUNTED and bool((known.cast(pl.Float64).diff().drop_nulls() == 1).all()):
        return Guess("", "counts the rows: nothing to learn from")
    different = known.n_unique()
    repeated = different <= max(_FEW / 2, len(known) / 2)
    if repeated and different <= max(_FEW, min(_MANY, len(known) / _EACH)) and bool((known == known.round()).all()):
        return Guess('kind = "categorical"', f"whole numbers, {different:,} different")
    skewed = float(known.min() or 0) >= 0 and float(known.max() or 0) > 20 * float(known.median() or 0)  # type: ignore[arg-type]
    return Guess('kind = "numeric"' + (', scale = "log"' if skewed else ""), f"{different:,} different numbers")


_ADDRESS = r"^\s*(https?://|www\.)"


def _guess_text(known: pl.Series) -> Guess:
    different = known.n_unique()
    if known.str.contains(_ADDRESS).all():
        return Guess("", "addresses: nothing to learn from", unlearnable=True)
    bag = drafted_bag(known)
    if bag is not None:
        return Guess(*bag)
    if set(known.str.strip_chars().str.to_lowercase().unique()) == {"true", "false"}:
        return Guess('kind = "categorical"', "true or false")
    if different > 20 and different > 0.8 * len(known):
        return Guess("", f"{different:,} different texts in {len(known):,} rows: nothing to learn from", unlearnable=True)
    return Guess(f'kind = "categorical"{rare(known)}', f"{different:,} different texts")


ATTRIBUTE = "an attribute, which requests may filter by"
"""Why a column of items is kept that no field reads."""
_LONGEST = 500  # characters of a text on average up to which it is shown and not only stored. Chosen, not tuned.


def unlearnable(table: Table, without: Collection[str]) -> tuple[str, ...]:
    """Return the columns of texts of which hardly two are the same, such as titles.

    Args:
        table: the items.
        without: columns that are ids.
    """
    names = [name for name in table.columns if name not in without and readable(table, name)]
    found = []
    for values in Table(table.path, table.frame.head(ROWS), table.types).collect(names) if names else ():
        known = values.drop_nulls()
        if known.dtype == pl.String and guess(known).unlearnable and float(known.str.len_chars().mean()) <= _LONGEST:  # type: ignore[arg-type]
            found.append(values.name)
    return tuple(found)


def table_fields(
    table: Table,
    side: str,
    without: Collection[str],
    source: Collection[str],
    keys: Keys,
    attributes: Collection[str] = (),
) -> Iterator[str]:
    """Draft a line for each column of the users or the items table.

    Args:
        table: the table.
        side: user or item.
        without: columns that are not fields.
        source: columns that the interactions have too, where a field must say which it reads.
        keys: allocates the names of fields.
        attributes: columns that requests may filter by, although no field reads them.
    """
    for name in (name for name in table.columns if name not in without):
        if not readable(table, name):
            yield unreadable(table, name)
            continue
        found = guess(Table(table.path, table.frame.head(ROWS), table.types).collect([name])[name])
        if not found.field:
            yield f"# {name}: {found.reason}{f'; {ATTRIBUTE}' if name in attributes else ''}"
            continue
        more = [f'source = "{side}s"'] if name in source else []
        yield line(keys.take(name, f"{side}_{name}"), name, side, [found.field, *more], found.reason)


def described_fields(frame: pl.DataFrame, names: Sequence[str], side: str, id_column: str, keys: Keys) -> Iterator[str]:
    """Draft a line for each column of the interactions that describes users or items.

    Args:
        frame: some interactions.
        names: the columns, each a possible field.
        side: user or item.
        id_column: of that side.
        keys: allocates the names of fields.
    """
    for name in names:
        found = guess(one_each(frame, name, id_column))
        yield line(keys.take(name, f"{side}_{name}"), name, side, [found.field], found.reason)


def readable(table: Table, name: str) -> bool:
    """Return whether a field could read a column.

    Args:
        table: any.
        name: of a column.
    """
    if not name:
        return False
    try:
        Table(table.path, table.frame.head(0), table.types).collect([name])
    except DataError:
        return False
    return True


def unreadable(table: Table, name: str) -> str:
    """Return a comment about a column of a type that no field can read.

    Args:
        table: any.
        name: of a column.
    """
    if not name:
        return "# a column without a name: give it one, so that a field can read it"
    return f"# {name}: of type {table.types[name]}, which no field can read"


def one_each(frame: pl.DataFrame, name: str, id_column: str) -> pl.Series:
    """Return the last value of a column for each id.

    Args:
        frame: some interactions.
        name: of the column.
        id_column: of the side that it describes.
    """
    return (
        frame.select(id_column, name)
        .filter(pl.col(name).is_not_null())
        .unique(id_column, keep="last", maintain_order=True)[name]
    )


def context_fields(frame: pl.DataFrame, found: Mapping[str, Role], without: Collection[str], keys: Keys) -> Iterator[str]:
    """Draft a line for each column of the interactions that a request may know.

    Args:
        frame: some interactions.
        found: the role of each column.
        without: columns that other fields read.
        keys: allocates the names of fields.
    """
    lines = []
    for name, role in found.items():
        if role.kind in ("visit", "moment"):
            lines.append(f"# {name}: {role.reason}")
        elif role.kind == "context" and name in RESERVED:
            lines.append(f"# {name}: a context column cannot be called so; rename it in the interactions to read it")
        elif role.kind == "context" and name not in without:
            one = guess(frame[name])
            different = frame[name].n_unique() if frame[name].dtype == pl.String else 0
            if different > max(_MANY, len(frame) / 3):  # such as receipts that users share
                lines.append(f"# {name}: {different:,} different texts in {len(frame):,} rows: nothing to learn from")
            elif one.field:
                lines.append(line(keys.take(name, f"context_{name}"), name, "user", [one.field], one.reason))
            else:
                lines.append(f"# {name}: {one.reason}")
    if any(not one.startswith("#") for one in lines):
        yield "# context, read from the interactions: a request must supply it. Remove what is known only afterwards"
    yield from lines


def line(called: str, name: str, side: str, keys: Sequence[str], reason: str) -> str:
    """Format one field.

    Args:
        called: its key.
        name: the column that it reads.
        side: user or item.
        keys: further keys.
        reason: becomes the comment.
    """
    column = [f"column = {toml(name)}"] if called != name else []
    return f"{toml_key(called)} = {{ {', '.join([f'side = {toml(side)}', *keys, *column])} }}  # {reason}"
