"""Open the three tables, from files or from frames of pandas, polars and Arrow.

A CSV file has no types, so every column of it is read as text: "007" stays "007", and a number is parsed only where one
is required. A folder of files reads as one table, in order of the file names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from polars import selectors
from polars.datatypes import DataType

from recall.config import DataConfig, FileFormat
from recall.data.conversions import convert_columns
from recall.data.files import files_of, scan_table, unreadable_file
from recall.data.findings import Finding
from recall.errors import DataError, did_you_mean
from recall.features.values import canonical_series, cast_all, empty_to_null

TABLE_NAMES: Final = ("interactions", "users", "items")
"""Names of the three tables."""
MANIFEST: Final = "prepared.json"
"""The file that makes a folder one of prepared data, see `recall.data.prepared_manifest`."""
UNFINISHED: Final = "prepared.json.part"
"""Present from the start of a preparation until its manifest is written."""
_REFUSED = (pl.Binary, pl.Struct, pl.Object, pl.Duration)


@dataclass(frozen=True, slots=True)
class Table:
    """A source table, opened lazily.

    Attributes:
        path: the file, or a folder of files.
        frame: the rows, as a lazy frame.
        types: names and types of the columns, in order.
        original_names: original name of each renamed column.
        note: appended to the location in errors, such as how rows are counted.
        text: columns that keep the spelling of their values; see `DataConfig.text`.
    """

    path: Path
    frame: pl.LazyFrame
    types: pl.Schema
    original_names: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    text: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return self.types.names()

    def collect(self, columns: Iterable[str]) -> pl.DataFrame:
        """Read some columns; a repeated name is read once.

        Categorical and enumerated text becomes text, decimals become integers where they have no fraction, otherwise
        floats. Empty text is a missing value.

        Raises:
            DataError: A column is missing or of a type that no field can read, or the file is damaged.
        """
        try:
            return normalize(self.select(columns).collect())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(self.path, error) from None

    def column(self, name: str) -> pl.Series:
        """Read one column, as `collect`."""
        return self.collect([name])[name]

    def select(self, columns: Iterable[str]) -> pl.LazyFrame:
        """Return some columns, lazily, in types that a field can read.

        Raises:
            DataError: A column is missing or of a type that no field can read.
        """
        wanted = list(dict.fromkeys(columns))
        for name in wanted:
            if name not in self.types:
                raise DataError(f"there is no column {name!r}", where=str(self.path), hint=did_you_mean(name, self.columns))
            if any(isinstance(_innermost(self.types[name]), refused) for refused in _REFUSED):
                raise DataError(
                    f"column {name!r} is of type {self.types[name]}, which no field can read",
                    where=str(self.path),
                    hint="Store it as text, numbers, truth values, dates, times, or lists of these",
                )
        return self.frame.select(pl.col(name).cast(_readable_type(self.types[name])) for name in wanted)

    def head(self, rows: int) -> "Table":
        """Return the table with its first rows only."""
        return replace(self, frame=self.frame.head(rows))

    def where(self, column: str) -> str:
        """Return the location of a column, for errors."""
        return f"{self.path}, column {self.original_names.get(column, column)!r}{self.note}"

    def with_frame(self, frame: pl.LazyFrame) -> "Table":
        """Return the table with other rows or columns."""
        return replace(self, frame=frame, types=frame.collect_schema())

    def renamed(self, old: str | None, new: str) -> "Table":
        """Rename a column; nothing changes when `old` is None or equals `new`.

        Args:
            old: name of the column in the file.
            new: name from here on.

        Raises:
            DataError: There is no column `old`, or a column `new` exists besides it.
        """
        if old is None or old == new:
            return self
        if old not in self.types:
            raise DataError(f"there is no column {old!r}", where=str(self.path), hint=did_you_mean(old, self.columns))
        if new in self.types:
            raise DataError(
                f"column {old!r} holds the id, and there is also a column {new!r}",
                where=str(self.path),
                why=f"the id is called {new!r} everywhere else",
                hint=f"Rename or remove column {new!r}",
            )
        return replace(self.with_frame(self.frame.rename({old: new})), original_names={**self.original_names, new: old})


@dataclass(frozen=True, slots=True)
class Tables:
    """All tables of a run.

    Attributes:
        interactions: the interactions.
        users: the users; None if the configuration names none.
        items: the items; None if the configuration names none.
        findings: notes and warnings about rows that `data.missing_ids`, `data.missing_times` and `data.repeated_ids` left out,
            and about columns that were moved to users and items although their rows disagree.
    """

    interactions: Table
    users: Table | None
    items: Table | None
    findings: tuple[Finding, ...] = ()

    @property
    def named(self) -> dict[str, Table]:
        """The tables that exist, by their name in the configuration."""
        tables = {"interactions": self.interactions, "users": self.users, "items": self.items}
        return {name: table for name, table in tables.items() if table is not None}


def read_tables(data: DataConfig, sources: Path | Mapping[str, object]) -> Tables:
    """Open the tables of a run.

    Args:
        data: names the files and their formats.
        sources: folder that relative paths start at, or the source of each table by name, as for `open_table`; None for a
            table that is not given.

    Raises:
        DataError: As `open_table`, or the folder holds prepared data, which can only be opened whole.
    """
    if isinstance(sources, Path):
        _refuse_prepared(sources)
        sources = {name: sources / path for name, path in data.files.items()}
    tables = {name: open_table(name, source, data) for name, source in sources.items() if source is not None}
    return Tables(tables["interactions"], tables.get("users"), tables.get("items"))


def _refuse_prepared(folder: Path) -> None:
    hint = "Name the folder of the source files"
    if (folder / UNFINISHED).exists():
        raise DataError("the data was not prepared to the end", where=str(folder), why=f"there is {UNFINISHED}", hint=hint)
    if (folder / MANIFEST).exists():
        why = "rows are added to the source files, which are then prepared again"
        raise DataError("this is prepared data", where=str(folder), why=why, hint=hint)


def open_table(name: str, source: object, data: DataConfig) -> Table:
    """Open one table of a run; its id column gets the name that interactions use.

    Args:
        name: interactions, users or items.
        source: a path, a frame of pandas or polars, or an object with `__arrow_c_stream__` or `__dataframe__`.
        data: names the id columns and the format of the table.

    Raises:
        DataError: The source is not a table, or the file cannot be read.
    """
    form = {str(table): each for table, each in data.formats.items()}.get(name)
    if isinstance(source, str | Path):
        table = read_table(Path(source), data.nulls, data.text, form)
    else:
        frame = frame_of(source, name).lazy()
        if data.nulls:
            frame = frame.with_columns(selectors.string().replace(list(data.nulls), None))
        frame = frame if form is None else convert_columns(frame, form, f"data.formats.{name}")
        table = Table(Path(name), frame, frame.collect_schema(), text=data.text)
    ids = {"users": (data.id_in_users, data.user_id), "items": (data.id_in_items, data.item_id)}
    return table.renamed(*ids[name]) if name in ids else table


def read_table(
    path: Path, nulls: Sequence[str] = (), text: tuple[str, ...] = (), file_format: FileFormat | None = None
) -> Table:
    """Open a file of Parquet, text or JSON lines, or a folder of such files.

    Args:
        path: the file or folder.
        nulls: texts of a text file that mean a missing value, as an empty cell does.
        text: columns that keep the spelling of their values.
        file_format: format of the file; with it, a text file may have any name.

    Raises:
        DataError: The file is missing, empty, damaged, or of another format.
    """
    if not path.exists() and files_of(path) in ([], [path]):
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, beside) if beside else "Correct the path, or the data folder"
        raise DataError("no such file", where=str(path), hint=hint)
    try:
        frame = scan_table(path, nulls, file_format)
        return Table(path, frame, frame.collect_schema(), text=text)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable_file(path, error) from None


def _innermost(dtype: DataType) -> DataType:
    return _innermost(dtype.inner) if isinstance(dtype, pl.List | pl.Array) else dtype  # type: ignore[arg-type]


def _readable_type(dtype: DataType) -> DataType:
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_readable_type(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Categorical | pl.Enum | pl.Null):
        return pl.String()
    return pl.Float64() if isinstance(dtype, pl.Decimal) and dtype.scale else dtype


def normalize(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop empty texts; turn decimals without a fraction into integers."""
    return frame.with_columns(_normalize(column) for column in frame if column.dtype == pl.String or column.dtype.is_decimal())


def _normalize(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return empty_to_null(values)
    integers = cast_all(values, pl.Int64, pl.UInt64)
    return canonical_series(values) if integers is None else integers


# Frames of other libraries.

Library = Literal["polars", "pandas"]
"""Library of a caller's frames; results for other libraries than pandas are frames of polars."""


def library_of(source: object) -> Library:
    """Return the library of the frames for the caller who gave a source."""
    return "pandas" if type(source).__module__.partition(".")[0] == "pandas" else "polars"


def frame_of(source: Any, name: str) -> pl.DataFrame:
    """Convert a frame of any library.

    Args:
        source: a frame of pandas or polars, or an object with `__arrow_c_stream__` or `__dataframe__`.
        name: name of the table, for errors.

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
        name: name of the column.
    """
    if isinstance(values, pl.Series):
        return values.alias(name)
    return _of_pandas_column(values, name) if library_of(values) == "pandas" else pl.Series(name, values)


def as_library(frame: pl.DataFrame, library: Library) -> Any:
    """Convert a frame without lists to a library's.

    Args:
        frame: columns of numbers and text.
        library: library of the result.
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
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"two columns have one name: {repeated!r}", where=name, hint="Rename or remove one of the two")
    return pl.DataFrame([_of_pandas_column(frame[column], str(column)) for column in frame.columns])


def _of_pandas_column(column: Any, name: str) -> pl.Series:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufM":  # plain numbers, truth values and moments
        return pl.Series(name, column.to_numpy())
    objects = column.astype(object).where(column.notna(), None).tolist()
    # lists that were read from Parquet are arrays
    return pl.Series(name, [value.tolist() if hasattr(value, "tolist") else value for value in objects], strict=False)
