"""Types of the columns of a run's tables, found from their values or taken from a bundle."""

from collections.abc import Collection

import polars as pl

from recall.canonical import TEXT, CanonicalTypes, Columns, id_type, of_dtype, separators, type_of
from recall.errors import DataError
from recall.schema import Schema
from recall.values import number_column

Frames = tuple[pl.DataFrame, pl.DataFrame | None, pl.DataFrame | None]
"""Interactions, users and items with the columns that are read of them, as they were read."""


def find_types(schema: Schema, frames: Frames, context: tuple[str, ...], numeric: Collection[str]) -> CanonicalTypes:
    """Find the type of every column that a run reads.

    An id column has one type over all tables that hold it.

    Args:
        schema: names the id columns; its bag fields say how text is cut.
        frames: the tables.
        context: columns of the interactions that user fields read.
        numeric: columns that numeric fields of either side read, as (side, column) in one text: "user age".
    """
    interactions, users, items = frames
    found: dict[str, dict[str, str]] = {}
    for side, id_column, table in (("user", schema.user_id, users), ("item", schema.item_id, items)):
        cuts = separators(schema, side)
        columns = [] if table is None else [column for column in table if column.name != id_column]
        columns += [interactions[name] for name in context] if side == "user" else []
        ids = [interactions[id_column], *([] if table is None else [table[id_column]])]
        found[side] = {id_column: id_type(ids)} | {
            column.name: _number_type(column) if f"{side} {column.name}" in numeric else type_of(column, cuts.get(column.name))
            for column in columns
        }
    return CanonicalTypes(found["user"], found["item"])


def forms(schema: Schema, types: CanonicalTypes) -> tuple[Columns, Columns]:
    """Return how the columns of users (and contexts) and those of items are brought to canonical form."""
    return Columns(types.users, separators(schema, "user")), Columns(types.items, separators(schema, "item"))


def _number_type(values: pl.Series) -> str:
    """Type of a column that a numeric field reads; what is not a number is refused where the column is read."""
    try:
        return of_dtype(number_column(values, "").dtype)
    except DataError:
        return TEXT
