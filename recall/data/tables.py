"""Read the three tables from Parquet or CSV, one set of columns at a time.

A CSV file has no types, so every column of it is read as text: "007" stays "007", and a number is parsed only where one
is required. A folder of files reads as one table, in order of the file names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import polars as pl
from polars.datatypes import DataType

from recall.config import DataConfig, FileFormat
from recall.data.files import files_of, scan_table, unreadable_file
from recall.data.findings import Finding
from recall.errors import DataError, did_you_mean
from recall.features.values import canonical_series

MANIFEST: Final = "prepared.json"
"""The file that makes a folder one of prepared data, see `recall.data.prepared`."""
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
        text: columns whose values keep their spelling; see `DataConfig.text`.
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

    def where(self, column: str) -> str:
        """Return the location of a column, for errors."""
        return f"{self.path}, column {self.original_names.get(column, column)!r}{self.note}"

    def with_frame(self, frame: pl.LazyFrame) -> "Table":
        """Return the table with other rows or columns."""
        return replace(self, frame=frame, types=frame.collect_schema())

    def renamed(self, old: str | None, new: str) -> "Table":
        """Rename a column; nothing changes when `old` is None or equals `new`.

        Args:
            old: its name in the file.
            new: its name from here on.

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


def read_tables(config: DataConfig, root: Path) -> Tables:
    """Open the tables of a run.

    Args:
        config: names the files.
        root: folder that relative paths start at.

    Raises:
        DataError: As `read_table`, or the folder holds prepared data, which can only be opened whole.
    """
    if (root / UNFINISHED).exists():
        raise DataError(
            "the data was not prepared to the end",
            where=str(root),
            why=f"there is {UNFINISHED}",
            hint="Name the folder of the source files",
        )
    if (root / MANIFEST).exists():
        raise DataError(
            "this is prepared data",
            where=str(root),
            why="rows are added to the source files, which are then prepared again",
            hint="Name the folder of the source files",
        )
    return Tables(
        read_table(root / config.interactions, config.nulls, config.text, config.formats.get("interactions")),
        read_users(config, root / config.users) if config.users is not None else None,
        read_items(config, root / config.items) if config.items is not None else None,
    )


def read_users(config: DataConfig, path: Path) -> Table:
    """Open a file of users, with the id column under the name that interactions use.

    Args:
        config: names the id column.
        path: the file.

    Raises:
        DataError: As `read_table`.
    """
    return read_table(path, config.nulls, config.text, config.formats.get("users")).renamed(config.id_in_users, config.user_id)


def read_items(config: DataConfig, path: Path) -> Table:
    """Open a file of items, with the id column under the name that interactions use.

    Args:
        config: names the id column.
        path: the file.

    Raises:
        DataError: As `read_table`.
    """
    return read_table(path, config.nulls, config.text, config.formats.get("items")).renamed(config.id_in_items, config.item_id)


def read_table(path: Path, nulls: Sequence[str] = (), text: tuple[str, ...] = (), written: FileFormat | None = None) -> Table:
    """Open a file of Parquet, text or JSON lines, or a folder of such files.

    Args:
        path: the file or folder.
        nulls: texts of a text file that mean a missing value, as an empty cell does.
        text: columns whose values stay as they are written.
        written: format of the file; with it, a text file may have any name.

    Raises:
        DataError: The file is missing, empty, damaged, or of another format.
    """
    if not path.exists() and files_of(path) in ([], [path]):
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, beside) if beside else "Correct the path, or the data folder"
        raise DataError("no such file", where=str(path), hint=hint)
    try:
        frame = scan_table(path, nulls, written)
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
        return values.set(values == "", None) if (values == "").any() else values
    for dtype in (pl.Int64, pl.UInt64):
        integers = values.cast(dtype, strict=False)
        if integers.null_count() == values.null_count():
            return integers
    return canonical_series(values)
