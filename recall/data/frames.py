"""Open tables that a Python caller gives: frames of any library, or paths."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from polars import selectors

from recall.config import DataConfig
from recall.data.conversions import convert_columns
from recall.data.dataset import apply_settings
from recall.data.tables import Table, Tables, read_table
from recall.errors import DataError

TABLE_NAMES: Final = ("interactions", "users", "items")
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
            if data.nulls:
                frame = frame.with_columns(selectors.string().replace(list(data.nulls), None))
            frame = frame if form is None else convert_columns(frame, form, f"data.formats.{name}")
            tables[name] = Table(Path(name), frame, frame.collect_schema(), text=data.text)
    return tables


def open_run_tables(data: DataConfig, sources: Mapping[str, object]) -> Tables:
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
    return apply_settings(
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
    return pandas.DataFrame(
        {column.name: column.to_numpy() if column.dtype.is_numeric() else column.to_list() for column in frame}
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
