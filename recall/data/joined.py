"""Two tables as one: newer rows beside the older ones, or in their place."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.datatypes import DataType

from recall.config import DataConfig
from recall.data.tables import Table, Tables, Told
from recall.errors import ConfigError, DataError, did_you_mean
from recall.features.canonical import canonical_ids
from recall.features.values import Distinct, canonical_series

Turn = Callable[[pl.Expr], pl.Expr]


def followed(older: Table, newer: Table) -> Table:
    """The rows of one table and then those of another, in the columns that both have.

    Raises:
        DataError: a column holds bags in one of them and single values in the other.
    """
    frames = [_alike(one, other) for one, other in ((older, newer), (newer, older))]
    return _table(newer, pl.concat(frames, how="vertical_relaxed"))


def replaced(older: Table, newer: Table, key: str) -> Table:
    """As `followed`, but a row of the older table whose id the newer one has too is left out.

    Args:
        older: the rows as they were.
        newer: the rows that are new or have changed.
        key: the id column, which both tables have; its values become text.

    Raises:
        DataError: as `followed`, or one of them has no id column.
    """
    for table in (older, newer):
        if key not in table.types:
            raise DataError(f"there is no column {key!r}", where=str(table.path), hint="Every row needs its id")
    before, after = (
        _alike(one, other).with_columns(written_ids(newer, key)) for one, other in ((older, newer), (newer, older))
    )
    kept = before.join(after.select(key), on=key, how="anti", maintain_order="left")
    return _table(newer, pl.concat([kept, after], how="vertical_relaxed"))


def origin(older: Table, newer: Table, key: str | None, row: int) -> tuple[Table, int]:
    """The table that a row of `replaced` (of `followed` without a key) comes from, and its row there; both from 1."""
    there = older.frame.with_row_index("row")
    if key is not None:
        ids = older.frame.select(key), newer.frame.select(key)
        before, after = (one.select(written_ids(newer, key)) for one in ids)
        there = before.with_row_index("row").join(after, on=key, how="anti", maintain_order="left")
    kept = there.select("row").collect()["row"]
    return (older, int(kept[row - 1]) + 1) if row <= len(kept) else (newer, row - len(kept))


def _table(newer: Table, frame: pl.LazyFrame) -> Table:
    return Table(newer.path, frame, frame.collect_schema(), text=newer.text)


def _alike(table: Table, other: Table) -> pl.LazyFrame:
    """The columns that the other table has too, in types that can stand under each other."""
    return table.frame.select(alike(sorted(set(table.types) & set(other.types)), table, other))


def alike(columns: Iterable[str], table: Table, other: Table) -> list[pl.Expr]:
    """Columns of one table, in types that can stand under or over those of the other table, which has them too.

    Raises:
        DataError: a column holds bags in one of them and single values in the other.
    """
    return [_turn(name, table, other)(pl.col(name)) for name in columns]


def _turn(name: str, table: Table, other: Table) -> Turn:
    mine, theirs = table.types[name], other.types[name]
    if pl.Null in (mine, theirs):
        return _same  # nothing but missing values, which any type has
    if isinstance(mine, pl.List | pl.Array) != isinstance(theirs, pl.List | pl.Array):
        raise DataError(
            f"column {name!r} is of type {mine} here and {theirs} in {other.path}",
            where=str(table.path),
            hint="Write both tables in the same way",
        )
    return _same if mine == theirs or _kind(mine) == _kind(theirs) != "" else written


def _kind(dtype: DataType) -> str:
    """What two types have in common that polars can bring to one; empty when only their written form is comparable."""
    if isinstance(dtype, pl.List | pl.Array):
        return "list"
    return "number" if dtype.is_numeric() and not dtype.is_decimal() else ""


def _same(column: pl.Expr) -> pl.Expr:
    return column


def written(column: pl.Expr) -> pl.Expr:
    """The values of a column in their written form."""
    return column.map_batches(canonical_series, return_dtype=pl.String())


def written_ids(table: Table, key: str) -> pl.Expr:
    """A table's ids as text in canonical form, so that 17.0 in one table is 17 in another; or as written if it says so."""
    return pl.col(key).map_batches(canonical_series if key in table.text else canonical_ids, return_dtype=pl.String())


# What the interactions say of their users and items themselves, as in a log that repeats an item's title in every row.


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the rows of one user, or of one item, agree in a column.

    Attributes:
        value: int64 [groups], the row that holds the value of each; -1 where all of its rows lack one.
        other: number of rows with another value than that of their group.
        rows: number of rows with a value.
    """

    value: npt.NDArray[np.int64]
    other: int
    rows: int


def agreement(groups: Distinct, values: pl.Series) -> Agreement:
    """The most frequent value of each group, of equally frequent ones the last in order of rows.

    Args:
        groups: of n rows.
        values: [n]; null is no value.
    """
    known = np.flatnonzero(values.is_not_null().to_numpy())
    different = Distinct.of(values.gather(known))
    pair = groups.codes[known].astype(np.int64) * max(len(different.first), 1) + different.codes
    pairs, first_from_end, count = np.unique(pair[::-1], return_index=True, return_counts=True)
    last, group = len(known) - 1 - first_from_end, pairs // max(len(different.first), 1)
    order = np.lexsort((last, count, group))
    best = order[np.append(np.diff(group[order]) > 0, len(order) > 0)] if len(order) else order
    value = np.full(len(groups.first), -1, dtype=np.int64)
    value[group[best]] = known[last[best]]
    return Agreement(value, int(len(known) - count[best].sum()), len(known))


def described(data: DataConfig, tables: Tables, known: Tables | None = None) -> Tables:
    """The tables with `data.user_columns` and `data.item_columns` moved from the interactions to the users and items.

    Args:
        data: names the columns.
        tables: as they were opened.
        known: users and items of an earlier run, which have these columns; the interactions' values go over theirs.

    Raises:
        DataError: the interactions lack a column.
        ConfigError: the users or items table has such a column itself.
    """
    columns = (*data.user_columns, *data.item_columns)
    if not columns:
        return tables
    interactions = tables.interactions
    for name in columns:
        if name not in interactions.types:
            raise DataError(
                f"there is no column {name!r}",
                where=str(interactions.path),
                why="data.user_columns and data.item_columns name columns of the interactions",
                hint=did_you_mean(name, interactions.columns),
            )
    moved: dict[str, Table | None] = {}
    told: list[Told] = []
    for side, key, named in (("user", data.user_id, data.user_columns), ("item", data.item_id, data.item_columns)):
        table = tables.named.get(f"{side}s")
        twice = [name for name in named if table is not None and name in table.types]
        if twice:
            raise ConfigError(
                f"column {twice[0]!r} is in the {side}s table already",
                where=f"data.{side}_columns",
                hint=f"Take it out of data.{side}_columns, or rename it in one of the tables",
            )
        before = known.named.get(f"{side}s") if known is not None else None
        values, counts = _told(interactions, key, named, f"{side}s")
        for newer in (_part(before, key, named), values):
            table = _over(table, newer, key)
        moved[side] = table
        told += counts
    frame = interactions.frame.drop(columns)
    left = replace(interactions, frame=frame, types=frame.collect_schema())
    return Tables(left, moved["user"], moved["item"], tuple(told))


def _part(table: Table | None, key: str, columns: tuple[str, ...]) -> Table | None:
    """Some columns of a table, as far as it has them; None where it has none of them."""
    there = [name for name in columns if table is not None and name in table.types]
    if table is None or not there:
        return None
    frame = table.frame.select(key, *there)
    return replace(table, frame=frame, types=frame.collect_schema())


def _told(interactions: Table, key: str, columns: tuple[str, ...], table: str) -> tuple[Table | None, list[Told]]:
    """What the interactions say of each user or item that they name, and how far their rows agree; None for no column."""
    if not columns:
        return None, []
    raw = interactions.collect([key, *columns])
    ids = canonical_series(raw[key]) if key in interactions.text else canonical_ids(raw[key])
    groups = Distinct.of(ids)
    agreed = {column: agreement(groups, raw[column]) for column in columns}
    values = [_gathered(raw[column], one.value) for column, one in agreed.items()]
    frame = pl.DataFrame([ids.gather(groups.first), *values]).filter(pl.col(key).is_not_null())
    counts = [Told(table, column, one.rows, one.other) for column, one in agreed.items()]
    return replace(interactions, frame=frame.lazy(), types=frame.schema), counts


def _gathered(values: pl.Series, at: npt.NDArray[np.int64]) -> pl.Series:
    """The values at rows `at` [m]; null for -1."""
    return values.gather(pl.Series(at).replace(-1, None))


def _over(table: Table | None, told: Table | None, key: str) -> Table | None:
    """A table with the values of another put over its own, and with the rows that only the other has after them."""
    if table is None or told is None:
        return table if told is None else told
    twice = [column for column in told.columns if column in table.types and column != key]
    older = table.frame.with_columns(written_ids(told, key), *alike(twice, table, told))
    newer = told.frame.with_columns(written_ids(told, key), *alike(twice, told, table)).rename(
        {column: f"{column} told" for column in twice}
    )
    joined = older.join(newer, on=key, how="full", coalesce=True, maintain_order="left_right")
    frame = joined.with_columns(pl.coalesce(f"{column} told", column).alias(column) for column in twice).drop(
        f"{column} told" for column in twice
    )
    return replace(table, frame=frame, types=frame.collect_schema())
