"""The lines of `[fields]`: a field for every column that looks like one."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

import polars as pl

from recall.data.bag_text import separator_of, written_lists
from recall.data.roles import Role
from recall.data.tables import Table
from recall.errors import DataError
from recall.features.canonical import BLANKS

# Pieces of TOML.


def text(value: str) -> str:
    """A text with its quotes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    """A name as a key, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name)


def clean(line: str) -> str:
    """A line without characters that TOML allows in no comment, such as a line break in the name of a column."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", line)


class Keys:
    """Keys of one table, each given out once."""

    def __init__(self, *used: str) -> None:
        self._used = set(used)

    def take(self, *wanted: str) -> str:
        """The first of the wanted names that is free, or the last of them with a number."""
        numbered = (f"{wanted[-1]}_{number}" for number in count(2))
        name = next(one for one in chain(wanted, numbered) if one and one not in self._used)
        self._used.add(name)
        return name


def array(values: Iterable[str]) -> str:
    """A list of texts."""
    return f"[{', '.join(map(text, values))}]"


def numbers(values: Mapping[str, float]) -> str:
    """An inline table of numbers."""
    return f"{{ {', '.join(f'{key(name)} = {value:g}' for name, value in values.items())} }}"


# Bags in a draft: the separator that cuts a column of text, and how many of its values are worth a row of their own.

_MANY = 1_000  # values that need no min_count
_MOST = 10_000
_COUNTS = (2, 3, 5, 10, 20, 50)
_LISTS = 0.05  # share of cells


def drafted_bag(known: pl.Series) -> tuple[str, str] | None:
    """The keys of a bag field and the reason for it, empty keys for text that must be rewritten; None when it is no bag.

    Args:
        known: text [n] or lists [n], none missing.
    """
    if isinstance(known.dtype, pl.List | pl.Array):
        parts = known.cast(pl.List(known.dtype.inner)).explode(empty_as_null=False, keep_nulls=False)
        return f'kind = "bag"{rare(parts)}', "lists"
    if written_lists(known) > _LISTS * len(known):
        return "", "lists written as text, which no field reads: store them as lists in Parquet, or as text with a separator"
    separator = separator_of(known)
    if not separator:
        return None
    parts = known.str.split(separator).explode().str.strip_chars(BLANKS)
    keys = "" if separator == "|" else f", separator = {text(separator)}"
    return f'kind = "bag"{keys}{rare(parts)}', f"{parts.n_unique():,} values between {text(separator)}"


def rare(values: pl.Series) -> str:
    """The key `min_count` for a column with many different values; empty for few.

    A value seen once or twice teaches nothing of its own, and thousands of such rows take the fit from the others. So of
    more than 1,000 values those seen once go; if more than 10,000 are left, the smallest of 3, 5, 10, 20 and 50 is taken
    that leaves no more, or 50.
    """
    counts = values.drop_nulls().value_counts()["count"]
    if len(counts) <= _MANY:
        return ""
    chosen = next((least for least in _COUNTS if int((counts >= least).sum()) <= _MOST), _COUNTS[-1])
    return f", min_count = {chosen}"


_FEW = 50  # distinct whole numbers that are still taken for names
ROWS = 100_000
"""Rows that are looked at."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column looks like: the keys of its field after `side`, empty for none, and why."""

    field: str
    reason: str


def guess(values: pl.Series) -> Guess:
    """What kind of field a column looks like, from some of its values."""
    known = values.drop_nulls()
    if known.is_empty():
        return Guess("", "no value")
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
    different = known.n_unique()
    if different <= _FEW and bool((known == known.round()).all()):
        return Guess('kind = "categorical"', f"whole numbers, {different} different")
    skewed = float(known.min() or 0) >= 0 and float(known.max() or 0) > 20 * float(known.median() or 0)  # type: ignore[arg-type]
    return Guess('kind = "numeric"' + (', scale = "log"' if skewed else ""), f"{different:,} different numbers")


def _guess_text(known: pl.Series) -> Guess:
    different = known.n_unique()
    bag = drafted_bag(known)
    if bag is not None:
        return Guess(*bag)
    if different > 20 and different > 0.8 * len(known):
        return Guess("", f"{different:,} different texts in {len(known):,} rows: nothing to learn from")
    return Guess(f'kind = "categorical"{rare(known)}', f"{different:,} different texts")


def table_fields(table: Table, side: str, without: Collection[str], source: Collection[str], keys: Keys) -> Iterator[str]:
    """One line for each column of the users or the items table.

    Args:
        table: the table.
        side: user or item.
        without: columns that are no fields.
        source: columns that the interactions have too, where a field must say which it reads.
        keys: gives each field a name of its own.
    """
    for name in (name for name in table.columns if name not in without):
        if not readable(table, name):
            yield unreadable(table, name)
            continue
        found = guess(Table(table.path, table.frame.head(ROWS), table.types).collect([name])[name])
        if not found.field:
            yield f"# {name}: {found.reason}"
            continue
        more = [f'source = "{side}s"'] if name in source else []
        yield line(keys.take(name, f"{side}_{name}"), name, side, [found.field, *more], found.reason)


def described_fields(frame: pl.DataFrame, names: Sequence[str], side: str, id_column: str, keys: Keys) -> Iterator[str]:
    """One line for each column of the interactions that describes their users, or their items.

    Args:
        frame: some interactions.
        names: the columns, each with something to learn from.
        side: user or item.
        id_column: of that side.
        keys: gives each field a name of its own.
    """
    for name in names:
        found = guess(one_each(frame, name, id_column))
        yield line(keys.take(name, f"{side}_{name}"), name, side, [found.field], found.reason)


def readable(table: Table, name: str) -> bool:
    """Whether a field could read the column at all."""
    try:
        Table(table.path, table.frame.head(0), table.types).collect([name])
    except DataError:
        return False
    return True


def unreadable(table: Table, name: str) -> str:
    """A line that says so."""
    return f"# {name}: of type {table.types[name]}, which no field can read"


def one_each(frame: pl.DataFrame, name: str, id_column: str) -> pl.Series:
    """A value of the column for each id."""
    return (
        frame.select(id_column, name)
        .filter(pl.col(name).is_not_null())
        .unique(id_column, keep="last", maintain_order=True)[name]
    )


def context_fields(frame: pl.DataFrame, found: Mapping[str, Role], without: Collection[str], keys: Keys) -> Iterator[str]:
    """One line for each column of the interactions that a request may know."""
    lines = []
    for name, role in found.items():
        if role.kind in ("visit", "moment"):
            lines.append(f"# {name}: {role.reason}")
        elif role.kind == "context" and name not in without:
            one = guess(frame[name])
            if one.field:
                lines.append(line(keys.take(name, f"context_{name}"), name, "user", [one.field], one.reason))
            else:
                lines.append(f"# {name}: {one.reason}")
    if any(not one.startswith("#") for one in lines):
        yield "# context, read from the interactions: a request must bring it. Take out what is known only afterwards"
    yield from lines


def line(called: str, name: str, side: str, keys: Sequence[str], reason: str) -> str:
    """One field under its key, which reads the column `name`."""
    column = [f"column = {text(name)}"] if called != name else []
    return f"{key(called)} = {{ {', '.join([f'side = {text(side)}', *keys, *column])} }}  # {reason}"
