"""Find the columns that a run reads: the table of each, and its canonical type.

A request names each column once. So every column belongs to one table, and the fields that read it must agree on which.
The type comes from the values, or from a bundle.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl
from polars.datatypes import DataType

from recall.config import DataConfig
from recall.config.schema import ColumnField, Schema, Side
from recall.data.findings import Finding
from recall.data.tables import Table, Tables
from recall.errors import ConfigError, DataError, did_you_mean
from recall.features.canonical import (
    LIST,
    TEXT,
    CanonicalTypes,
    ColumnForms,
    canonical_column,
    id_type,
    type_of,
    type_of_dtype,
)
from recall.features.values import canonical_series, number_column

RESERVED = ("user", "item", "weight", "split")
"""Columns that the sorted interactions always have."""


@dataclass(frozen=True, slots=True)
class RunColumns:
    """Columns that a run reads, without repetition and id columns.

    Attributes:
        users: columns of the users table that fields read.
        context: columns of the interactions that fields read.
        items: columns of the items table that fields read.
        user_attributes: columns of the users table that no field reads and that are kept with each user.
        item_attributes: columns of the items table that no field reads and that requests may filter by.
    """

    users: tuple[str, ...]
    context: tuple[str, ...]
    items: tuple[str, ...]
    user_attributes: tuple[str, ...] = ()
    item_attributes: tuple[str, ...] = ()


def find_columns(schema: Schema, data: DataConfig, tables: Tables) -> RunColumns:
    """Find the table of every column that a field reads, and the attributes.

    Args:
        schema: the fields.
        data: names the attributes.
        tables: the opened tables.

    Raises:
        ConfigError: A column is in two tables and the field does not say which, or two fields disagree; or attributes are named
            without a table, or have the name of a context column.
        DataError: No table has a column, or an attribute holds lists of lists.
    """
    if schema.user_id == schema.item_id:
        raise ConfigError(f"users and items have one id column, {schema.user_id!r}", where="data.item_id")
    columns_by_table: dict[str, dict[str, None]] = {"users": {}, "interactions": {}, "items": {}}
    for name, field in schema.column_fields.items():
        columns = field.columns(name)
        if columns[0] == (schema.user_id if field.side == "user" else schema.item_id):
            continue  # every table has the id
        table = _find_table(name, field, columns[0], schema, tables)
        for column in columns:
            _require_column(name, column, table, tables)
        columns_by_table[table] |= dict.fromkeys(columns)
    for column in columns_by_table["interactions"]:
        if column in RESERVED:
            raise ConfigError(
                f"a context column cannot be called {column!r}", where="fields", hint="Rename it in the interactions"
            )
        if column in columns_by_table["users"]:
            raise ConfigError(
                f"column {column!r} is read from the users table by one field and from the interactions by another",
                where="fields",
                why="a request names each column once",
                hint="Give both fields the same source, or rename the column in one of the tables",
            )
    users, context, items = (tuple(columns_by_table[table]) for table in ("users", "interactions", "items"))
    return RunColumns(
        users,
        context,
        items,
        _find_attributes("user", data.user_attributes, tables.users, {data.user_id, *users}, context),
        _find_attributes("item", data.attributes, tables.items, {data.item_id, *items}),
    )


def _find_attributes(
    side: Side, named: tuple[str, ...], table: Table | None, read: Collection[str], context: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the attributes of one side that no field reads.

    Args:
        side: user or item.
        named: attributes in the configuration.
        table: table of that side.
        read: columns of the table that are read anyway.
        context: columns of the interactions, whose names users' attributes cannot have.
    """
    where = "data.attributes" if side == "item" else "data.user_attributes"
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
        if name in context:
            raise ConfigError(
                f"a field reads the column {name!r} of the interactions",
                where=where,
                why="a request names each column once",
                hint="Rename the column in one of the tables",
            )
    return tuple(name for name in dict.fromkeys(named) if name not in read)


def _find_table(name: str, field: ColumnField, column: str, schema: Schema, tables: Tables) -> str:
    """Return the name of the table that has the column of a field."""
    where = f"fields.{name}"
    if field.side == "user" and column == schema.item_id:
        raise ConfigError(
            f"a user field cannot read the item id column {column!r}",
            where=where,
            why="it would give the model the answer",
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
    """Check that a table has a column that the field `name` reads."""
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


# Canonical types of the columns.

Frames = tuple[Callable[[str], pl.Series], pl.DataFrame | None, pl.DataFrame | None]
"""Columns of interactions by name, users and items, with the columns that a run reads, as read."""


def find_types(
    schema: Schema,
    frames: Frames,
    context: tuple[str, ...],
    numeric: Mapping[str, Collection[str]],
    text: Collection[str] = (),
) -> tuple[CanonicalTypes, tuple[Finding, ...]]:
    """Find the type of every column that a run reads, and the assumptions behind it.

    An id column has one type over all tables that hold it.

    Args:
        schema: names the id columns; its bag fields have the separators of values in text.
        frames: the tables.
        context: columns of the interactions that user fields read.
        numeric: columns that numeric fields read, by side.
        text: columns whose values stay as they are written.

    Raises:
        ConfigError: A column of `text` is not read, or is read by a numeric field.
        DataError: A column of `text` is stored as something else than text or whole numbers.
    """
    interactions, users, items = frames
    types_by_side: dict[str, dict[str, str]] = {}
    assumptions: list[Finding] = []
    for side, id_column, table in (("user", schema.user_id, users), ("item", schema.item_id, items)):
        separators, tables = schema.separators(side), [] if table is None else [(f"{side}s", column) for column in table]
        ids = [
            ("interactions", interactions(id_column)),
            *((name, column) for name, column in tables if column.name == id_column),
        ]
        columns = [(name, column) for name, column in tables if column.name != id_column]
        columns += [("interactions", interactions(name)) for name in context] if side == "user" else []
        types = types_by_side[side] = {id_column: TEXT if id_column in text else id_type([column for _, column in ids])}
        for name, column in (*ids, *columns):
            is_number, separator = column.name in numeric[side], separators.get(column.name)
            if column.name != id_column:
                types[column.name] = _number_type(column) if is_number else column_type(column, separator, text)
            if column.name in text:
                _check_text(name, column, is_number)
            if not is_number:
                assumptions += _find_assumptions(name, column, types[column.name], separator)
    read = {*types_by_side["user"], *types_by_side["item"]}
    for name in text:
        if name not in read:
            raise ConfigError(
                f"data.text names {name!r}, which no field and no attribute reads",
                where="data.text",
                hint=did_you_mean(name, read),
            )
    return CanonicalTypes(types_by_side["user"], types_by_side["item"]), tuple(assumptions)


def column_type(values: pl.Series, separator: str | None, text: Collection[str]) -> str:
    """Find the type of a column.

    Args:
        values: [n], the column.
        separator: separator of the values of a bag in text; None for single values.
        text: names of columns whose values stay as they are written.
    """
    if values.name not in text:
        return type_of(values, separator)
    return LIST + TEXT if separator is not None or isinstance(values.dtype, pl.List | pl.Array) else TEXT


def _check_text(table: str, column: pl.Series, is_number: bool) -> None:
    """Check that `data.text` can name a column: its original text is known."""
    if is_number:
        raise ConfigError(
            f"data.text names {column.name!r}, which a numeric field reads",
            where="data.text",
            hint="Make the field categorical, or take the column out of data.text",
        )
    inner = column.dtype.inner if isinstance(column.dtype, pl.List | pl.Array) else column.dtype
    if inner != pl.String and not inner.is_integer():
        raise DataError(
            f"data.text names {column.name!r}, which the {table} table stores as {column.dtype}",
            where="data.text",
            why="the original text of its values is lost",
            hint="Store the column as text, or take it out of data.text",
        )


def _find_assumptions(table: str, values: pl.Series, type_: str, separator: str | None) -> Iterator[Finding]:
    """Yield an assumption where at least one text differs from its canonical form."""
    inner = type_.removeprefix(LIST)
    if type_ == TEXT or values.dtype not in (pl.String, pl.List(pl.String)):
        return
    canonical = canonical_column(values, type_, "", separator)
    row = (canonical != values).fill_null(value=False).index_of(True)
    if row is not None:
        example = f"{values[row]!r} is {canonical[row]!r}" if values.dtype == pl.String else "inside its lists"
        yield Finding("note", f"{_ASSUMED[inner]}: {example}", 1, table, values.name)


_ASSUMED = {
    TEXT: "blanks around the values of a list are left out",
    "integer": "whole numbers written with .0 are read as integers",
    "float64": "numbers are read as equal regardless of the number of decimals",
    "boolean": "true and false are read as truth values in any case",
    "date": "texts are read as dates",
    "time": "texts are read as moments, in UTC unless they state a zone",
    "clock": "texts are read as times of day",
}


def column_forms(schema: Schema, types: CanonicalTypes) -> tuple[ColumnForms, ColumnForms]:
    """Return the canonical forms of the columns of both sides.

    Args:
        schema: its bag fields have the separators of values in text.
        types: canonical types of the columns.

    Returns:
        The columns of users and contexts, and those of items.
    """
    return ColumnForms(types.users, schema.separators("user")), ColumnForms(types.items, schema.separators("item"))


_WRITTEN = {pl.Date: "%Y-%m-%d", pl.Datetime: "%Y-%m-%dT%H:%M:%S%.f", pl.Time: "%H:%M:%S%.f"}
"""Patterns of the canonical form, by dtype."""


def cast_to_trained(values: pl.Series, dtype: DataType, type_: str) -> pl.Series:
    """Cast a column to the dtype that it had in training.

    A file then means the same when its rows are upserted.

    Args:
        values: [n], text in canonical form.
        dtype: type of the column in the bundle.
        type_: canonical type of the column.

    Returns:
        [n] of `dtype`; the column unchanged where a value cannot be cast.
    """
    if values.dtype == dtype or isinstance(values.dtype, pl.List | pl.Array) or isinstance(dtype, pl.List | pl.Array):
        return values
    if dtype == pl.String:
        return canonical_column(canonical_series(values), type_)
    if values.dtype != pl.String:
        return values
    read = values
    if dtype.is_numeric():
        read = values.cast(dtype, strict=False)
    elif dtype == pl.Boolean:
        read = values.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    elif dtype.is_temporal() and dtype.base_type() in _WRITTEN:
        naive = pl.Datetime(dtype.time_unit) if isinstance(dtype, pl.Datetime) else dtype
        read = values.str.strptime(naive, _WRITTEN[dtype.base_type()], strict=False).cast(dtype)  # type: ignore[arg-type]
    return read if read.null_count() == values.null_count() else values


def _number_type(values: pl.Series) -> str:
    """Return the type of a numeric field's column; reading it reports bad values."""
    try:
        return type_of_dtype(number_column(values, "").dtype)
    except DataError:
        return TEXT
