"""Combine two tables: append, upsert, or move columns to users and items.

Columns that two tables share are cast so that polars can concatenate them: numbers to a common numeric type, all other
types that differ to text in canonical form.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from recall.config import DataConfig
from recall.data.findings import Finding
from recall.data.tables import Table, Tables
from recall.errors import ConfigError, DataError, did_you_mean
from recall.features.canonical import canonical_ids
from recall.features.values import Distinct, canonical_series

_MAX_DISAGREEING = 0.1  # share of rows above which a column hardly describes the user or item. Chosen, not tuned.


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
        before, after = (rows.with_columns(ids_to_text(newer, key)) for rows in (kept_rows, newer.frame))
        kept_rows = before.join(after, on=key, how="anti", maintain_order="left")
    kept = kept_rows.select("row").collect()["row"]
    return (older, int(kept[row - 1]) + 1) if row <= len(kept) else (newer, row - len(kept))


def _combined(newer: Table, frame: pl.LazyFrame) -> Table:
    return Table(newer.path, frame, frame.collect_schema(), text=newer.text)


def _common_columns(table: Table, counterpart: Table) -> pl.LazyFrame:
    """Select the columns that both tables have, in compatible types."""
    return table.frame.select(
        cast_compatible(name, table, counterpart) for name in sorted(set(table.types) & set(counterpart.types))
    )


def cast_compatible(name: str, table: Table, counterpart: Table) -> pl.Expr:
    """Cast a column so that it can be concatenated with that of another table.

    Args:
        name: column that both tables have.
        table: table whose column is cast.
        counterpart: the other table.

    Raises:
        DataError: The column holds bags in one table and single values in the other.
    """
    types = table.types[name], counterpart.types[name]
    are_lists = [isinstance(dtype, pl.List | pl.Array) for dtype in types]
    if pl.Null in types:
        return pl.col(name)  # a column of nulls can be concatenated with any type
    if len(set(are_lists)) > 1:
        raise DataError(
            f"column {name!r} is of type {types[0]} here and {types[1]} in {counterpart.path}",
            where=str(table.path),
            hint="Write both tables in the same way",
        )
    if types[0] == types[1] or all(are_lists) or all(dtype.is_numeric() and not dtype.is_decimal() for dtype in types):
        return pl.col(name)
    return pl.col(name).map_batches(canonical_series, return_dtype=pl.String())


def ids_to_text(table: Table, key: str) -> pl.Expr:
    """Convert ids to text in canonical form, so that 17.0 and 17 are one id.

    Ids of a column in `data.text` keep their spelling.

    Args:
        table: table with the setting `data.text`.
        key: id column.
    """
    return pl.col(key).map_batches(canonical_series if key in table.text else canonical_ids, return_dtype=pl.String())


# Columns of the interactions that describe users or items, as in a log that repeats the item's title in every row.


def find_modes(groups: Distinct, values: pl.Series) -> tuple[pl.Series, int]:
    """Find the most frequent value of each group; of a tie, the one that occurs last.

    Args:
        groups: group of each of n rows, such as those of a user.
        values: [n]; nulls do not count.

    Returns:
        Integer [groups], a row with the most frequent value of the group, null if no row of the group has a value; and the
        number of rows with a different value than the mode of their group.
    """
    rows = pl.DataFrame({"group": groups.codes, "value": Distinct.of(values).codes}).with_row_index("row")
    counts = rows.filter(values.is_not_null()).group_by("group", "value").agg(pl.col("row").max(), count=pl.len())
    modes = counts.sort("count", "row").unique("group", keep="last")
    every_group = pl.DataFrame({"group": np.arange(len(groups.first), dtype=np.int32)})
    mode_rows = every_group.join(modes, on="group", how="left", maintain_order="left")["row"]
    return mode_rows, int(counts["count"].to_numpy().sum() - modes["count"].to_numpy().sum())


def move_columns(data: DataConfig, tables: Tables, known: Mapping[str, Table] | None = None) -> Tables:
    """Move `data.user_columns` and `data.item_columns` to the users and items tables.

    Every user and item gets the most frequent value of its interactions.

    Args:
        data: names the columns.
        tables: the opened tables.
        known: users and items of an earlier run with these columns, by name, whose values new ones override.

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
    entities: dict[str, Table | None] = {"users": tables.users, "items": tables.items}
    findings = list(tables.findings)
    for side, key, names in (("user", data.user_id, data.user_columns), ("item", data.item_id, data.item_columns)):
        table = entities[f"{side}s"]
        for name in names:
            if table is not None and name in table.types:
                raise ConfigError(
                    f"column {name!r} is in the {side}s table already",
                    where=f"data.{side}_columns",
                    hint=f"Take it out of data.{side}_columns, or rename it in one of the tables",
                )
        earlier = None if known is None else known[f"{side}s"]
        if earlier is not None and not earlier.types.keys().isdisjoint(names):
            present = [name for name in names if name in earlier.types]
            table = _upsert_cells(table, earlier.with_frame(earlier.frame.select(key, *present)), key)
        if names:
            values, disagreeing = _modes_by_id(interactions, key, names, side)
            entities[f"{side}s"] = _upsert_cells(table, values, key)
            findings += disagreeing
    remaining = interactions.with_frame(interactions.frame.drop(columns))
    return replace(tables, interactions=remaining, users=entities["users"], items=entities["items"], findings=tuple(findings))


def _modes_by_id(interactions: Table, key: str, columns: tuple[str, ...], side: str) -> tuple[Table, list[Finding]]:
    """Return the most frequent values of each user or item, and columns with others."""
    raw = interactions.collect([key, *columns]).with_columns(ids_to_text(interactions, key))
    groups = Distinct.of(raw[key])
    modes, findings = [raw[key].gather(groups.first)], []
    for values in raw.select(columns):
        rows, disagreeing = find_modes(groups, values)
        modes.append(values.gather(rows))
        if disagreeing:
            message = f"{disagreeing:,} of {values.count():,} interactions hold another value than the most frequent "
            message += f"of their {side}, which is taken"
            finding = Finding("note", message, disagreeing, f"{side}s", values.name)
            if disagreeing > _MAX_DISAGREEING * values.count():
                finding = replace(finding, level="warning", message=f"{message}: does it describe the {side}?")
            findings.append(finding)
    return interactions.with_frame(pl.LazyFrame(modes).filter(pl.col(key).is_not_null())), findings


def _upsert_cells(table: Table | None, newer: Table, key: str) -> Table:
    """Upsert cells: newer values replace those of the same id and column."""
    if table is None:
        return newer
    common = [column for column in newer.columns if column in table.types and column != key]
    old, new = (
        side.frame.with_columns(ids_to_text(newer, key), *(cast_compatible(column, side, other) for column in common))
        for side, other in ((table, newer), (newer, table))
    )
    joined = old.join(new, on=key, how="full", coalesce=True, maintain_order="left_right", suffix=" new")
    updated = joined.with_columns(pl.coalesce(f"{column} new", column).alias(column) for column in common)
    return table.with_frame(updated.drop(f"{column} new" for column in common))
