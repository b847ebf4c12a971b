"""Find the canonical type of each column, from its values or from a bundle."""

from collections.abc import Callable, Collection, Iterator, Mapping

import polars as pl
from polars.datatypes import DataType

from recall.config.schema import Schema
from recall.data.findings import Finding
from recall.errors import ConfigError, DataError, did_you_mean
from recall.features.canonical import (
    LIST,
    TEXT,
    CanonicalTypes,
    ColumnForms,
    canonical_column,
    id_type,
    of_dtype,
    type_of,
)
from recall.features.values import canonical_series, number_column

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
        schema: names the id columns; its bag fields say how text is cut.
        frames: the tables.
        context: columns of the interactions that user fields read.
        numeric: columns that numeric fields read, by side.
        text: columns whose values stay as they are written.

    Raises:
        ConfigError: A column of `text` is not read, or is read by a numeric field.
        DataError: A column of `text` is stored as something else than text or whole numbers.
    """
    interactions, users, items = frames
    found: dict[str, dict[str, str]] = {}
    assumptions: list[Finding] = []
    for side, id_column, table in (("user", schema.user_id, users), ("item", schema.item_id, items)):
        separators, tables = schema.separators(side), [] if table is None else [(f"{side}s", column) for column in table]
        ids = [
            ("interactions", interactions(id_column)),
            *((name, column) for name, column in tables if column.name == id_column),
        ]
        columns = [(name, column) for name, column in tables if column.name != id_column]
        columns += [("interactions", interactions(name)) for name in context] if side == "user" else []
        types = found[side] = {id_column: TEXT if id_column in text else id_type([column for _, column in ids])}
        for name, column in (*ids, *columns):
            is_number, separator = column.name in numeric[side], separators.get(column.name)
            if column.name != id_column:
                types[column.name] = _number_type(column) if is_number else column_type(column, separator, text)
            if column.name in text:
                _check_text(name, column, is_number)
            if not is_number:
                assumptions += _find_assumptions(name, column, types[column.name], separator)
    read = {*found["user"], *found["item"]}
    for name in text:
        if name not in read:
            raise ConfigError(
                f"data.text names {name!r}, which no field and no attribute reads",
                where="data.text",
                hint=did_you_mean(name, read),
            )
    return CanonicalTypes(found["user"], found["item"]), tuple(assumptions)


def column_type(values: pl.Series, separator: str | None, text: Collection[str]) -> str:
    """Find the type of a column.

    Args:
        values: [n], the column.
        separator: that cuts text into bags; None for single values.
        text: names of columns whose values stay as they are written.
    """
    if values.name not in text:
        return type_of(values, separator)
    return LIST + TEXT if separator is not None or isinstance(values.dtype, pl.List | pl.Array) else TEXT


def _check_text(table: str, column: pl.Series, is_number: bool) -> None:
    """Check that a column can keep its values as they are written."""
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
    written = canonical_column(values, type_, "", separator)
    row = (written != values).fill_null(value=False).index_of(True)
    if row is not None:
        example = f"{values[row]!r} is {written[row]!r}" if values.dtype == pl.String else "inside its lists"
        yield Finding("note", f"{_ASSUMED[inner]}: {example}", 1, table, values.name)


_ASSUMED = {
    TEXT: "blanks around the values of a list are left out",
    "integer": "whole numbers written with .0 are read as integers",
    "float64": "numbers are read as equal however many decimals they are written with",
    "boolean": "true and false are read as truth values in any case",
    "date": "texts are read as dates",
    "time": "texts are read as moments, in UTC unless they say otherwise",
    "clock": "texts are read as times of day",
}


def column_forms(schema: Schema, types: CanonicalTypes) -> tuple[ColumnForms, ColumnForms]:
    """Return how the columns of each side are brought to canonical form.

    Args:
        schema: its bag fields say how text is cut.
        types: of the columns.

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
        dtype: of the column in the bundle.
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
        return of_dtype(number_column(values, "").dtype)
    except DataError:
        return TEXT
