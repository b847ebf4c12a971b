"""Combine two tables: append, upsert, or move columns to users and items."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from polars.datatypes import DataType

from recall._arrays import Int64
from recall.config import DataConfig
from recall.data.tables import MovedColumn, Table, Tables
from recall.errors import ConfigError, DataError, did_you_mean
from recall.features.canonical import canonical_ids
from recall.features.values import Distinct, canonical_series

Turn = Callable[[pl.Expr], pl.Expr]


def followed(older: Table, newer: Table) -> Table:
    """Append the rows of one table to another, in the columns that both have.

    Args:
        older: comes first.
        newer: gives the path and settings of the result.

    Raises:
        DataError: A column holds bags in one of them and single values in the other.
    """
    frames = [_alike(one, other) for one, other in ((older, newer), (newer, older))]
    return _table(newer, pl.concat(frames, how="vertical_relaxed"))


def replaced(older: Table, newer: Table, key: str) -> Table:
    """Append a table to another, without older rows whose id the newer one has.

    Args:
        older: the rows as they were.
        newer: the rows that are new or have changed.
        key: the id column, which both tables have; its values become text.

    Raises:
        DataError: As `followed`, or a table has no id column.
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
    """Return the table that a row of a combined table comes from, and its row there.

    Args:
        older: as of `replaced` or `followed`.
        newer: as of `replaced` or `followed`.
        key: the id column of `replaced`; None for `followed`.
        row: of the combined table, from 1.

    Returns:
        One of the two tables, and the row in it, from 1.
    """
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
    """Select the columns that both tables have, in compatible types."""
    return table.frame.select(alike(sorted(set(table.types) & set(other.types)), table, other))


def alike(columns: Iterable[str], table: Table, other: Table) -> list[pl.Expr]:
    """Cast columns of one table so that they can be concatenated with another's.

    Args:
        columns: that both tables have.
        table: whose columns are returned.
        other: whose types they must be compatible with.

    Raises:
        DataError: A column holds bags in one of them and single values in the other.
    """
    return [_turn(name, table, other)(pl.col(name)) for name in columns]


def _turn(name: str, table: Table, other: Table) -> Turn:
    mine, theirs = table.types[name], other.types[name]
    if pl.Null in (mine, theirs):
        return _same  # all missing, which any type allows
    if isinstance(mine, pl.List | pl.Array) != isinstance(theirs, pl.List | pl.Array):
        raise DataError(
            f"column {name!r} is of type {mine} here and {theirs} in {other.path}",
            where=str(table.path),
            hint="Write both tables in the same way",
        )
    return _same if mine == theirs or _kind(mine) == _kind(theirs) != "" else written


def _kind(dtype: DataType) -> str:
    """Return what two types share so that polars can unify them; empty for neither."""
    if isinstance(dtype, pl.List | pl.Array):
        return "list"
    return "number" if dtype.is_numeric() and not dtype.is_decimal() else ""


def _same(column: pl.Expr) -> pl.Expr:
    return column


def written(column: pl.Expr) -> pl.Expr:
    """Convert the values of a column to text."""
    return column.map_batches(canonical_series, return_dtype=pl.String())


def written_ids(table: Table, key: str) -> pl.Expr:
    """Convert the ids of a table to text in canonical form.

    17.0 in one table is then 17 in another. Ids of a column in `data.text` stay as they are written.

    Args:
        table: says which columns are text.
        key: the id column.
    """
    return pl.col(key).map_batches(canonical_series if key in table.text else canonical_ids, return_dtype=pl.String())


# Columns of the interactions that describe users or items, as in a log that repeats the item's title in every row.
@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the rows of one user, or of one item, in a column.

    Attributes:
        value: int64 [groups], the row that holds the value of each; -1 where all of its rows lack one.
        other: number of rows with another value than that of their group.
        rows: number of rows with a value.
    """

    value: Int64
    other: int
    rows: int


def agreement(groups: Distinct, values: pl.Series) -> Agreement:
    """Find the most frequent value of each group; the last one wins a tie.

    Args:
        groups: of n rows.
        values: [n]; nulls do not count.
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
    """Move `data.user_columns` and `data.item_columns` to users and items.

    Args:
        data: names the columns.
        tables: as they were opened.
        known: users and items of an earlier run with these columns, which new values override.

    Raises:
        DataError: The interactions lack a column.
        ConfigError: The users or items table has such a column itself.
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
    sides: dict[str, Table | None] = {}
    moved: list[MovedColumn] = []
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
        values, counts = _values(interactions, key, named, f"{side}s")
        for newer in (_part(before, key, named), values):
            table = _over(table, newer, key)
        sides[side] = table
        moved += counts
    frame = interactions.frame.drop(columns)
    left = replace(interactions, frame=frame, types=frame.collect_schema())
    return replace(tables, interactions=left, users=sides["user"], items=sides["item"], moved=tuple(moved))


def _part(table: Table | None, key: str, columns: tuple[str, ...]) -> Table | None:
    """Select the columns that a table has; None where it has none of them."""
    there = [name for name in columns if table is not None and name in table.types]
    if table is None or not there:
        return None
    frame = table.frame.select(key, *there)
    return replace(table, frame=frame, types=frame.collect_schema())


def _values(interactions: Table, key: str, columns: tuple[str, ...], table: str) -> tuple[Table | None, list[MovedColumn]]:
    """Return a value for each user or item of the interactions, and the agreement."""
    if not columns:
        return None, []
    raw = interactions.collect([key, *columns])
    ids = canonical_series(raw[key]) if key in interactions.text else canonical_ids(raw[key])
    groups = Distinct.of(ids)
    agreed = {column: agreement(groups, raw[column]) for column in columns}
    values = [_gathered(raw[column], one.value) for column, one in agreed.items()]
    frame = pl.DataFrame([ids.gather(groups.first), *values]).filter(pl.col(key).is_not_null())
    counts = [MovedColumn(table, column, one.rows, one.other) for column, one in agreed.items()]
    return replace(interactions, frame=frame.lazy(), types=frame.schema), counts


def _gathered(values: pl.Series, at: Int64) -> pl.Series:
    """Return the values at rows `at` [m]; null for -1."""
    return values.gather(pl.Series(at).replace(-1, None))


def _over(table: Table | None, newer: Table | None, key: str) -> Table | None:
    """Upsert the values of another table, cell by cell."""
    if table is None or newer is None:
        return table if newer is None else newer
    twice = [column for column in newer.columns if column in table.types and column != key]
    old = table.frame.with_columns(written_ids(newer, key), *alike(twice, table, newer))
    new = newer.frame.with_columns(written_ids(newer, key), *alike(twice, newer, table)).rename(
        {column: f"{column} new" for column in twice}
    )
    joined = old.join(new, on=key, how="full", coalesce=True, maintain_order="left_right")
    frame = joined.with_columns(pl.coalesce(f"{column} new", column).alias(column) for column in twice).drop(
        f"{column} new" for column in twice
    )
    return replace(table, frame=frame, types=frame.collect_schema())
