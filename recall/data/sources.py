"""Decide which table each field reads its columns from.

A request names each column once. So every column belongs to one table, and the fields that read it must agree on which.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from recall.config import DataConfig
from recall.config.schema import ColumnField, Schema
from recall.data.dataset import settled
from recall.data.files import converted
from recall.data.tables import Table, Tables, read_table
from recall.errors import ConfigError, DataError, did_you_mean

RESERVED = ("user", "item", "weight", "split")
"""Columns that the sorted interactions always have."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that the fields read, by table, without repetition and id columns."""

    users: tuple[str, ...]
    context: tuple[str, ...]
    items: tuple[str, ...]


def find_columns(schema: Schema, tables: Tables) -> Columns:
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
        table = _table(name, field, columns[0], schema, tables)
        for column in columns[1:]:
            _require(name, column, table, tables)
        found[table] |= dict.fromkeys(columns)
    for column in found["interactions"]:
        if column in RESERVED:
            raise ConfigError(
                f"a context column cannot be called {column!r}", where="fields", hint="Rename it in the interactions"
            )
    for column in found["users"]:
        if column in found["interactions"]:
            raise ConfigError(
                f"column {column!r} is read from the users table by one field and from the interactions by another",
                where="fields",
                why="a request names each column once",
                hint="Give both fields the same source, or rename the column in one of the tables",
            )
    return Columns(tuple(found["users"]), tuple(found["interactions"]), tuple(found["items"]))


def find_attributes(data: DataConfig, columns: Columns, tables: Tables) -> tuple[str, ...]:
    """Return the item columns for filters that no field reads, without repetition.

    Args:
        data: names the attributes.
        columns: those that fields read.
        tables: with the items table.

    Raises:
        ConfigError: There is no items table.
        DataError: The items table lacks such a column, or it cannot be filtered by.
    """
    if not data.attributes:
        return ()
    table, where = tables.items, "data.attributes"
    if table is None:
        hint = "Set data.items to its file"
        raise ConfigError("attributes are read from the items table, which is not set", where=where, hint=hint)
    for name in data.attributes:
        dtype = table.types.get(name)
        if dtype is None:
            raise DataError(f"the items table has no column {name!r}", where=where, hint=_near(name, [table]))
        if isinstance(dtype, pl.List | pl.Array) and isinstance(dtype.inner, pl.List | pl.Array):
            hint = "Store one list for each item"
            raise DataError("items cannot be filtered by lists of lists", where=table.where(name), hint=hint)
    return tuple(name for name in dict.fromkeys(data.attributes) if name not in {data.item_id, *columns.items})


def _table(name: str, field: ColumnField, column: str, schema: Schema, tables: Tables) -> str:
    where = f"fields.{name}"
    if field.side == "user" and column == schema.item_id:
        raise ConfigError(
            f"a user field cannot read the item id column {column!r}",
            where=where,
            why="it would tell the model the answer",
            hint="Give the field side = 'item'",
        )
    if field.source is not None:
        _require(name, column, field.source, tables)
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
    elsewhere = [table for table, file in tables.named.items() if column in file.columns]
    if elsewhere:
        other = "user" if field.side == "item" else "item"
        raise DataError(
            f"column {column!r} is in the {elsewhere[0]} table, which no {field.side} field reads",
            where=where,
            why="what comes with an interaction belongs to the user side, what describes an item to the item side",
            hint=f"Give the field side = '{other}', or move the column",
        )
    unset = [table for table in allowed if table not in tables.named]
    raise DataError(
        f"no table has a column {column!r}",
        where=where,
        why="; ".join(f"{table}: {tables.named[table].path if table in tables.named else 'not set'}" for table in allowed),
        hint=_near(column, [tables.named[table] for table in allowed if table in tables.named] or tables.named.values())
        + "".join(f" Or set data.{table} to the table that has it" for table in unset),
    )


def _require(name: str, column: str, table: str, tables: Tables) -> None:
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
            hint=_near(column, [tables.named[table]]),
        )


def _near(column: str, tables: Iterable[Table]) -> str:
    return did_you_mean(column, {known for table in tables for known in table.columns})


# Open tables that a Python caller gives: frames of any library, or paths.

NAMES: Final = ("interactions", "users", "items")
"""Names of the three tables."""

Library = Literal["polars", "pandas"]
"""Which library a frame is of; others than pandas are answered in polars."""


def open_sources(sources: Mapping[str, object], data: DataConfig) -> dict[str, Table]:
    """Open the given tables by name, without those that are None.

    Args:
        sources: of each table a path, a frame of pandas or polars, or an object with `__arrow_c_stream__` or `__dataframe__`.
        data: how they are written.

    Raises:
        DataError: A source is not a table, or a file cannot be read.
    """
    tables = {}
    for name, source in sources.items():
        form = {str(table): one for table, one in data.formats.items()}.get(name)
        if isinstance(source, str | Path):
            tables[name] = read_table(Path(source), data.nulls, data.text, form)
        elif source is not None:
            frame = frame_of(source, name).lazy()
            texts = [column for column, dtype in frame.collect_schema().items() if dtype == pl.String]
            if data.nulls and texts:
                frame = frame.with_columns(pl.col(texts).replace(list(data.nulls), None))
            frame = frame if form is None else converted(frame, form)
            tables[name] = Table(Path(name), frame, frame.collect_schema(), text=data.text)
    return tables


def run_tables(data: DataConfig, sources: Mapping[str, object]) -> Tables:
    """Open the given tables as a configuration says, as `open_tables` opens files.

    Args:
        data: names the columns.
        sources: as for `open_sources`; with interactions.

    Raises:
        DataError: A table or column does not match the configuration.
        ConfigError: A column to move is in its table already.
    """
    opened = open_sources(sources, data)
    users, items = opened.get("users"), opened.get("items")
    return settled(
        data,
        Tables(
            opened["interactions"],
            None if users is None else users.renamed(data.id_in_users, data.user_id),
            None if items is None else items.renamed(data.id_in_items, data.item_id),
        ),
    )


def library_of(source: object) -> Library:
    """Return the library that answers about a source are given in."""
    return "pandas" if type(source).__module__.partition(".")[0] == "pandas" else "polars"


def frame_of(source: Any, name: str) -> pl.DataFrame:
    """Convert a frame of any library.

    Args:
        source: a frame of pandas or polars, or an object with `__arrow_c_stream__` or `__dataframe__`.
        name: of the table, for errors.

    Raises:
        DataError: It is not a table, or a column has a type that polars lacks.
    """
    try:
        if isinstance(source, pl.LazyFrame):
            return source.collect()
        if isinstance(source, pl.DataFrame):
            return source
        if library_of(source) == "pandas" and hasattr(source, "columns"):
            return _of_pandas(source, name)
        if hasattr(source, "__arrow_c_stream__"):
            return pl.DataFrame(source)
        if hasattr(source, "__dataframe__"):
            return pl.from_dataframe(source)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise DataError("the table cannot be read", where=name, why=str(error).strip().splitlines()[0]) from None
    raise DataError(
        f"a table is given as a {type(source).__name__}",
        where=name,
        hint="Give a frame of pandas or polars, an Arrow table, or the path of a file",
    )


def series_of(values: Any, name: str) -> pl.Series:
    """Convert a sequence or a series of any library.

    Args:
        values: such as a list of ids, an array or a series.
        name: of the column.
    """
    if isinstance(values, pl.Series):
        return values.alias(name)
    return _of_pandas_column(values, name) if library_of(values) == "pandas" else pl.Series(name, values)


def as_library(frame: pl.DataFrame, library: Library) -> Any:
    """Convert a frame without lists to a library's.

    Args:
        frame: of numbers and texts.
        library: the one wanted.
    """
    if library == "polars":
        return frame
    pandas: Any = import_module("pandas")  # optional
    numeric = {column.name for column in frame if column.dtype.is_numeric()}
    return pandas.DataFrame(
        {column.name: column.to_numpy() if column.name in numeric else column.to_list() for column in frame}
    )


def _of_pandas(frame: Any, name: str) -> pl.DataFrame:
    """Convert column by column: polars' own way requires pyarrow."""
    if any(level is not None for level in frame.index.names):
        frame = frame.reset_index()
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"two columns have one name: {twice!r}", where=name, hint="Rename or remove one of the two")
    return pl.DataFrame([_of_pandas_column(frame[column], str(column)) for column in frame.columns])


def _of_pandas_column(column: Any, name: str) -> pl.Series:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufM":  # plain numbers, truth values and moments
        return pl.Series(name, column.to_numpy())
    objects = column.astype(object).where(column.notna(), None).tolist()
    # lists that were read from Parquet are arrays
    return pl.Series(name, [one.tolist() if hasattr(one, "tolist") else one for one in objects], strict=False)
