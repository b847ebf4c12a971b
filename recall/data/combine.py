"""Combine two tables: append, upsert, or move columns to users and items.

Columns that two tables share are cast so that polars can concatenate them: numbers to a common numeric type, all other
types that differ to text in canonical form.
"""

from collections.abc import Iterable
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


def append_rows(older: Table, newer: Table) -> Table:
    """Append the rows of a newer table to an older one, in their common columns.

    Args:
        older: table whose rows come first.
        newer: table whose rows follow; the result has its path and settings.

    Raises:
        DataError: A column holds bags in one table and single values in the other.
    """
    frames = [_common_columns(table, counterpart) for table, counterpart in ((older, newer), (newer, older))]
    return _combined(newer, pl.concat(frames, how="vertical_relaxed"))


def upsert_rows(older: Table, newer: Table, key: str) -> Table:
    """Append a newer table to an older one, whose rows of the same ids it replaces.

    Args:
        older: the rows before the change.
        newer: new and changed rows; the result has its path and settings.
        key: id column, which both tables have; its values become text.

    Raises:
        DataError: As `append_rows`, or a table has no id column.
    """
    for table in (older, newer):
        if key not in table.types:
            raise DataError(f"there is no column {key!r}", where=str(table.path), hint="Every row needs its id")
    before, after = (
        _common_columns(table, counterpart).with_columns(ids_to_text(newer, key))
        for table, counterpart in ((older, newer), (newer, older))
    )
    kept = before.join(after.select(key), on=key, how="anti", maintain_order="left")
    return _combined(newer, pl.concat([kept, after], how="vertical_relaxed"))


def find_source_row(older: Table, newer: Table, key: str | None, row: int) -> tuple[Table, int]:
    """Return the table and the row in it that a row of a combined table comes from.

    Args:
        older: argument of `upsert_rows` or `append_rows`.
        newer: argument of `upsert_rows` or `append_rows`.
        key: id column of `upsert_rows`; None for `append_rows`.
        row: row of the combined table, counted from 1.

    Returns:
        `older` or `newer`, and the row in it, counted from 1.
    """
    kept_rows = older.frame.with_row_index("row")
    if key is not None:
        ids = older.frame.select(key), newer.frame.select(key)
        before, after = (ids_of_table.select(ids_to_text(newer, key)) for ids_of_table in ids)
        kept_rows = before.with_row_index("row").join(after, on=key, how="anti", maintain_order="left")
    kept = kept_rows.select("row").collect()["row"]
    return (older, int(kept[row - 1]) + 1) if row <= len(kept) else (newer, row - len(kept))


def _combined(newer: Table, frame: pl.LazyFrame) -> Table:
    return Table(newer.path, frame, frame.collect_schema(), text=newer.text)


def _common_columns(table: Table, counterpart: Table) -> pl.LazyFrame:
    """Select the columns that both tables have, in compatible types."""
    return table.frame.select(cast_compatible(sorted(set(table.types) & set(counterpart.types)), table, counterpart))


def cast_compatible(columns: Iterable[str], table: Table, counterpart: Table) -> list[pl.Expr]:
    """Cast columns of a table so that they can be concatenated with its counterpart's.

    Args:
        columns: columns that both tables have.
        table: table whose columns are cast.
        counterpart: table with the types that they must be compatible with.

    Raises:
        DataError: A column holds bags in one table and single values in the other.
    """
    return [_cast_column(name, table, counterpart) for name in columns]


def _cast_column(name: str, table: Table, counterpart: Table) -> pl.Expr:
    own_type, other_type = table.types[name], counterpart.types[name]
    if pl.Null in (own_type, other_type):
        return pl.col(name)  # a column of nulls can be concatenated with any type
    if isinstance(own_type, pl.List | pl.Array) != isinstance(other_type, pl.List | pl.Array):
        raise DataError(
            f"column {name!r} is of type {own_type} here and {other_type} in {counterpart.path}",
            where=str(table.path),
            hint="Write both tables in the same way",
        )
    castable = own_type == other_type or _family(own_type) == _family(other_type) != ""
    return pl.col(name) if castable else to_text(pl.col(name))


def _family(dtype: DataType) -> str:
    """Return the family of types that polars casts to a common one, or ""."""
    if isinstance(dtype, pl.List | pl.Array):
        return "list"
    return "number" if dtype.is_numeric() and not dtype.is_decimal() else ""


def to_text(column: pl.Expr) -> pl.Expr:
    """Convert a column to text in canonical form."""
    return column.map_batches(canonical_series, return_dtype=pl.String())


def ids_to_text(table: Table, key: str) -> pl.Expr:
    """Convert ids to text in canonical form, so that 17.0 and 17 are one id.

    Ids of a column in `data.text` keep their spelling.

    Args:
        table: table with the setting `data.text`.
        key: id column.
    """
    return pl.col(key).map_batches(canonical_series if key in table.text else canonical_ids, return_dtype=pl.String())


# Columns of the interactions that describe users or items, as in a log that repeats the item's title in every row.
@dataclass(frozen=True, slots=True)
class GroupModes:
    """Most frequent value of a column for each group of rows, such as those of a user.

    Attributes:
        mode_row: int64 [groups], a row with the most frequent value of the group; -1 if no row of the group has a value.
        disagreeing: number of rows with a different value than the mode of their group.
        rows: number of rows with a value.
    """

    mode_row: Int64
    disagreeing: int
    rows: int


def find_modes(groups: Distinct, values: pl.Series) -> GroupModes:
    """Find the most frequent value of each group; of a tie, the one that occurs last.

    Args:
        groups: group of each of n rows.
        values: [n]; nulls do not count.
    """
    known = np.flatnonzero(values.is_not_null().to_numpy())
    distinct = Distinct.of(values.gather(known))
    pair = groups.codes[known].astype(np.int64) * max(len(distinct.first), 1) + distinct.codes
    pairs, first_from_end, count = np.unique(pair[::-1], return_index=True, return_counts=True)
    last_row, group = len(known) - 1 - first_from_end, pairs // max(len(distinct.first), 1)
    order = np.lexsort((last_row, count, group))
    modes = order[np.append(np.diff(group[order]) > 0, len(order) > 0)] if len(order) else order
    mode_row = np.full(len(groups.first), -1, dtype=np.int64)
    mode_row[group[modes]] = known[last_row[modes]]
    return GroupModes(mode_row, int(len(known) - count[modes].sum()), len(known))


def move_columns(data: DataConfig, tables: Tables, known: Tables | None = None) -> Tables:
    """Move `data.user_columns` and `data.item_columns` to the users and items tables.

    Every user and item gets the most frequent value of its interactions.

    Args:
        data: names the columns.
        tables: the opened tables.
        known: users and items of an earlier run with these columns, whose values new ones override.

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
    for side, key, names in (("user", data.user_id, data.user_columns), ("item", data.item_id, data.item_columns)):
        table = tables.named.get(f"{side}s")
        duplicates = [name for name in names if table is not None and name in table.types]
        if duplicates:
            raise ConfigError(
                f"column {duplicates[0]!r} is in the {side}s table already",
                where=f"data.{side}_columns",
                hint=f"Take it out of data.{side}_columns, or rename it in one of the tables",
            )
        earlier = known.named.get(f"{side}s") if known is not None else None
        values, counts = _modes_by_id(interactions, key, names, f"{side}s")
        for newer in (_present_columns(earlier, key, names), values):
            table = _upsert_cells(table, newer, key)
        sides[side] = table
        moved += counts
    frame = interactions.frame.drop(columns)
    remaining = replace(interactions, frame=frame, types=frame.collect_schema())
    return replace(tables, interactions=remaining, users=sides["user"], items=sides["item"], moved=tuple(moved))


def _present_columns(table: Table | None, key: str, columns: tuple[str, ...]) -> Table | None:
    """Select the columns that a table has; None if it has none of them."""
    present = [name for name in columns if table is not None and name in table.types]
    if table is None or not present:
        return None
    frame = table.frame.select(key, *present)
    return replace(table, frame=frame, types=frame.collect_schema())


def _modes_by_id(interactions: Table, key: str, columns: tuple[str, ...], table: str) -> tuple[Table | None, list[MovedColumn]]:
    """Return the most frequent values of each user or item, with counts by column."""
    if not columns:
        return None, []
    raw = interactions.collect([key, *columns])
    ids = canonical_series(raw[key]) if key in interactions.text else canonical_ids(raw[key])
    groups = Distinct.of(ids)
    modes = {column: find_modes(groups, raw[column]) for column in columns}
    values = [_gather_or_null(raw[column], mode.mode_row) for column, mode in modes.items()]
    frame = pl.DataFrame([ids.gather(groups.first), *values]).filter(pl.col(key).is_not_null())
    counts = [MovedColumn(table, column, mode.rows, mode.disagreeing) for column, mode in modes.items()]
    return replace(interactions, frame=frame.lazy(), types=frame.schema), counts


def _gather_or_null(values: pl.Series, rows: Int64) -> pl.Series:
    """Return the values at the given rows, [m]; null for row -1."""
    return values.gather(pl.Series(rows).replace(-1, None))


def _upsert_cells(table: Table | None, newer: Table | None, key: str) -> Table | None:
    """Upsert cells: newer values replace those of the same id and column."""
    if table is None or newer is None:
        return table if newer is None else newer
    common = [column for column in newer.columns if column in table.types and column != key]
    old = table.frame.with_columns(ids_to_text(newer, key), *cast_compatible(common, table, newer))
    new = newer.frame.with_columns(ids_to_text(newer, key), *cast_compatible(common, newer, table)).rename(
        {column: f"{column} new" for column in common}
    )
    joined = old.join(new, on=key, how="full", coalesce=True, maintain_order="left_right")
    frame = joined.with_columns(pl.coalesce(f"{column} new", column).alias(column) for column in common).drop(
        f"{column} new" for column in common
    )
    return replace(table, frame=frame, types=frame.collect_schema())
