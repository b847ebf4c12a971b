"""Decide which table each field reads its columns from.

A request names each column once. So every column belongs to one table, and the fields that read it must agree on which.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from recall.config import DataConfig
from recall.config.schema import ColumnField, Schema, Side
from recall.data.tables import Table, Tables
from recall.errors import ConfigError, DataError, did_you_mean

RESERVED = ("user", "item", "weight", "split")
"""Columns that the sorted interactions always have."""


@dataclass(frozen=True, slots=True)
class FieldColumns:
    """Columns that the fields read, by table, without repetition and id columns."""

    users: tuple[str, ...]
    context: tuple[str, ...]
    items: tuple[str, ...]


def find_columns(schema: Schema, tables: Tables) -> FieldColumns:
    """Find the table of every column that a field reads.

    Args:
        schema: the fields.
        tables: where the columns may be.

    Raises:
        ConfigError: A column is in two tables and the field does not say which, or two fields disagree.
        DataError: A column is in none of the tables where it may be.
    """
    if schema.user_id == schema.item_id:
        raise ConfigError(f"users and items have one id column, {schema.user_id!r}", where="data.item_id")
    found: dict[str, dict[str, None]] = {"users": {}, "interactions": {}, "items": {}}
    for name, field in schema.column_fields.items():
        columns = field.columns(name)
        if columns[0] == (schema.user_id if field.side == "user" else schema.item_id):
            continue  # every table has the id
        table = _find_table(name, field, columns[0], schema, tables)
        for column in columns:
            _require_column(name, column, table, tables)
        found[table] |= dict.fromkeys(columns)
    for column in found["interactions"]:
        if column in RESERVED:
            raise ConfigError(
                f"a context column cannot be called {column!r}", where="fields", hint="Rename it in the interactions"
            )
        if column in found["users"]:
            raise ConfigError(
                f"column {column!r} is read from the users table by one field and from the interactions by another",
                where="fields",
                why="a request names each column once",
                hint="Give both fields the same source, or rename the column in one of the tables",
            )
    return FieldColumns(tuple(found["users"]), tuple(found["interactions"]), tuple(found["items"]))


def find_attributes(data: DataConfig, columns: FieldColumns, tables: Tables, side: Side = "item") -> tuple[str, ...]:
    """Return the attributes of items or users that no field reads, without repetition.

    Args:
        data: names the attributes.
        columns: those that fields read.
        tables: with the table of that side.
        side: whose attributes.

    Raises:
        ConfigError: There is no such table, or a field reads a column of that name from the interactions.
        DataError: The table lacks such a column, or holds lists of lists in it.
    """
    if side == "item":
        named, table, where, read = data.attributes, tables.items, "data.attributes", {data.item_id, *columns.items}
    else:
        named, table, where, read = data.user_attributes, tables.users, "data.user_attributes", {data.user_id, *columns.users}
    if not named:
        return ()
    if table is None:
        raise ConfigError(
            f"attributes are read from the {side}s table, which is not set", where=where, hint=f"Set data.{side}s to its file"
        )
    for name in named:
        dtype = table.types.get(name)
        if dtype is None:
            raise DataError(f"the {side}s table has no column {name!r}", where=where, hint=_suggest(name, [table]))
        if isinstance(dtype, pl.List | pl.Array) and isinstance(dtype.inner, pl.List | pl.Array):
            raise DataError(
                f"{side}s cannot have lists of lists", where=table.where(name), hint=f"Store one list for each {side}"
            )
        if side == "user" and name in columns.context:
            raise ConfigError(
                f"a field reads the column {name!r} of the interactions",
                where=where,
                why="a request names each column once",
                hint="Rename the column in one of the tables",
            )
    return tuple(name for name in dict.fromkeys(named) if name not in read)


def _find_table(name: str, field: ColumnField, column: str, schema: Schema, tables: Tables) -> str:
    where = f"fields.{name}"
    if field.side == "user" and column == schema.item_id:
        raise ConfigError(
            f"a user field cannot read the item id column {column!r}",
            where=where,
            why="it would tell the model the answer",
            hint="Give the field side = 'item'",
        )
    if field.source is not None:
        return field.source
    allowed = ("items",) if field.side == "item" else ("interactions", "users")
    having = [table for table in allowed if table in tables.named and column in tables.named[table].columns]
    if len(having) == 1:
        return having[0]
    if having:
        raise ConfigError(
            f"column {column!r} is in the {' and in the '.join(having)} table",
            where=where,
            hint=f'Write which one is meant: source = "{having[0]}" or source = "{having[1]}"',
        )
    for table, file in tables.named.items():
        if column in file.columns:
            raise DataError(
                f"column {column!r} is in the {table} table, which no {field.side} field reads",
                where=where,
                why="what comes with an interaction belongs to the user side, what describes an item to the item side",
                hint=f"Give the field side = '{'user' if field.side == 'item' else 'item'}', or move the column",
            )
    raise DataError(
        f"no table has a column {column!r}",
        where=where,
        why="; ".join(f"{table}: {tables.named[table].path if table in tables.named else 'not set'}" for table in allowed),
        hint=_suggest(column, [tables.named[table] for table in allowed if table in tables.named] or tables.named.values())
        + "".join(f" Or set data.{table} to the table that has it" for table in allowed if table not in tables.named),
    )


def _require_column(name: str, column: str, table: str, tables: Tables) -> None:
    if table not in tables.named:
        raise ConfigError(
            f"the field reads the {table} table, which is not set",
            where=f"fields.{name}",
            hint=f"Set data.{table} to its file",
        )
    if column not in tables.named[table].columns:
        raise DataError(
            f"the {table} table has no column {column!r}",
            where=f"fields.{name}",
            why=f"its file is {tables.named[table].path}",
            hint=_suggest(column, [tables.named[table]]),
        )


def _suggest(column: str, tables: Iterable[Table]) -> str:
    return did_you_mean(column, {known for table in tables for known in table.columns})
