"""A first configuration for tables that are there already: a field for every column that looks like one.

The draft is a start to be read and corrected. What was guessed stands beside each field, and what was left out is said.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recall.data.tables import Table, read_table
from recall.errors import DataError, nearest

_TIME = re.compile(r"time|date|stamp|^(when|ts|position|created|created_at)$", re.IGNORECASE)
_PARTS = {"train", "valid", "test"}
_FEW = 50  # distinct whole numbers that are still taken for names
_ROWS = 100_000  # looked at


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column looks like: the keys of its field after `side`, empty for none, and why."""

    field: str
    reason: str


def draft(folder: Path, user_id: str = "user_id", item_id: str = "item_id") -> str:
    """The text of a configuration for the tables in `folder`.

    Args:
        folder: holds interactions, and perhaps users and items, as .parquet or .csv.
        user_id, item_id: columns with the ids.

    Raises:
        DataError: there are no interactions, or they lack an id column.
    """
    tables = {name: table for name in ("interactions", "users", "items") if (table := _open(folder, name)) is not None}
    if "interactions" not in tables:
        raise DataError(
            "there is no interactions.parquet and no interactions.csv",
            where=str(folder),
            mend="Write one row for each interaction, with the id of a user and of an item, into a file of that name",
        )
    interactions = tables["interactions"]
    for name, table in tables.items():
        for column in (user_id, item_id) if name == "interactions" else (user_id,) if name == "users" else (item_id,):
            if column not in table.columns:
                raise DataError(f"there is no column {column!r}", where=str(table.path), mend=nearest(column, table.columns))
    time = next((column for column in interactions.columns if _TIME.search(column)), None)
    lines = [f"name = {_text(folder.resolve().name)}", "", "[data]"]
    lines += [f"{name} = {_text(table.path.name)}" for name, table in tables.items()]
    lines += [f"{key} = {_text(value)}" for key, value in (("user_id", user_id), ("item_id", item_id)) if value != key]
    lines += [f"time = {_text(time)}"] if time else []
    lines += _split(interactions, time)
    taken = {user_id, item_id, time, "split", "weight"}
    lines += ["", "[fields]", f'{_key(user_id)} = {{ side = "user", kind = "categorical" }}']
    lines += _fields(tables.get("users"), "user", "users", taken, interactions.columns)
    lines += _fields(interactions, "user", "", taken | set(tables["users"].columns if "users" in tables else ()), ())
    lines += ['previous = { kind = "history", lags = [[1, 1], [2, 3], [4, 10]] }'] if time else []
    lines += [f'{_key(item_id)} = {{ side = "item", kind = "categorical" }}']
    lines += _fields(tables.get("items"), "item", "", {item_id}, list(_user_columns(tables)))
    return "\n".join([*lines, "", "[model]", "k = 64", ""])


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


def _open(folder: Path, name: str) -> Table | None:
    found = [folder / f"{name}{suffix}" for suffix in (".parquet", ".csv") if (folder / f"{name}{suffix}").exists()]
    return read_table(found[0]) if found else None


def _split(interactions: Table, time: str | None) -> list[str]:
    if "split" in interactions.columns:
        values = set(interactions.collect(["split"])["split"].cast(pl.String).unique().drop_nulls().to_list())
        if values <= _PARTS:
            return ['split = { by = "column" }']
    if time:
        return ['split = { by = "last", test = 1, valid = 1 }  # the last interaction of each user tests']
    return ["carve = 0.1  # without a time, a random tenth validates and nothing tests"]


def _user_columns(tables: dict[str, Table]) -> Iterator[str]:
    for name in ("interactions", "users"):
        yield from tables[name].columns if name in tables else ()


def _fields(table: Table | None, side: str, source: str, without: set[str | None], elsewhere: Sequence[str]) -> Iterator[str]:
    """One line for each column of the table; a name that is in `elsewhere` too gets the side before it."""
    if table is None:
        return
    columns = [name for name in table.columns if name not in without]
    for name in columns:
        values = Table(table.path, table.frame.head(_ROWS), table.types).collect([name])[name]
        found = guess(values)
        if not found.field:
            yield f"# {name}: {found.reason}"
            continue
        twice = name in elsewhere
        key = f"{side}_{name}" if twice and side == "item" else name
        keys = [f'side = "{side}"', found.field]
        keys += [f"column = {_text(name)}"] if key != name else []
        keys += [f'source = "{source}"'] if twice and source else []
        yield f"{_key(key)} = {{ {', '.join(keys)} }}  # {found.reason}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)
