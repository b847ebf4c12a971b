"""The lines of `[fields]`: a field for every column that looks like one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recall.data.roles import Role
from recall.data.tables import Table
from recall.draft.toml import key, text

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
    if isinstance(known.dtype, pl.List | pl.Array):
        return Guess('kind = "bag"', "lists")
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
    if int(known.str.contains("|", literal=True).sum()) > 0.05 * len(known):
        return Guess('kind = "bag"', 'values between "|"')
    if different > 20 and different > 0.8 * len(known):
        return Guess("", f"{different:,} different texts in {len(known):,} rows: nothing to learn from")
    rare = ", min_count = 2" if different > 1_000 else ""
    return Guess(f'kind = "categorical"{rare}', f"{different:,} different texts")


def table_fields(
    table: Table | None, side: str, source: str, without: Collection[str | None], elsewhere: Collection[str]
) -> Iterator[str]:
    """One line for each column of the table; a name that is in `elsewhere` too gets the side before it."""
    if table is None:
        return
    for name in (name for name in table.columns if name not in without):
        values = Table(table.path, table.frame.head(ROWS), table.types).collect([name])[name]
        found = guess(values)
        if not found.field:
            yield f"# {name}: {found.reason}"
            continue
        twice = name in elsewhere
        keys = [found.field]
        keys += [f'source = "{source}"'] if twice and source else []
        yield line(name, side, keys, found.reason, f"{side}_{name}" if twice and side == "item" else name)


def described_fields(
    frame: pl.DataFrame, names: Sequence[str], side: str, id_column: str, elsewhere: Collection[str]
) -> Iterator[str]:
    """One line for each column of the interactions that describes their users, or their items.

    Args:
        frame: some interactions.
        names: the columns, each with something to learn from.
        side: user or item.
        id_column: of that side.
        elsewhere: names that another field has.
    """
    for name in names:
        found = guess(one_each(frame, name, id_column))
        yield line(name, side, [found.field], found.reason, f"{side}_{name}" if name in elsewhere else name)


def one_each(frame: pl.DataFrame, name: str, id_column: str) -> pl.Series:
    """A value of the column for each id."""
    return (
        frame.select(id_column, name)
        .filter(pl.col(name).is_not_null())
        .unique(id_column, keep="last", maintain_order=True)[name]
    )


def context_fields(frame: pl.DataFrame, found: Mapping[str, Role], without: Collection[str]) -> Iterator[str]:
    """One line for each column of the interactions that a request may know."""
    lines = []
    for name, role in found.items():
        if role.kind == "visit":
            lines.append(f"# {name}: {role.reason}")
        elif role.kind == "context" and name not in without:
            one = guess(frame[name])
            lines.append(line(name, "user", [one.field], one.reason) if one.field else f"# {name}: {one.reason}")
    if any(not one.startswith("#") for one in lines):
        yield "# context, read from the interactions: a request must bring it. Take out what is known only afterwards"
    yield from lines


def line(name: str, side: str, keys: Sequence[str], reason: str, called: str | None = None) -> str:
    """One field."""
    called = name if called is None else called
    column = [f"column = {text(name)}"] if called != name else []
    return f"{key(called)} = {{ {', '.join([f'side = {text(side)}', *keys, *column])} }}  # {reason}"
