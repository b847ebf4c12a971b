"""Read prepared data: sorted shards of interactions with rows instead of ids.

docs/reference/prepared-data.md specifies the format, for other programs that write such a folder.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
from polars.datatypes import DataType
from pydantic import Field, JsonValue, ValidationError

from recall._arrays import Bool, Float64, Int32
from recall._file_system import file_sha256, fsync
from recall.config import ColumnSplit, DataConfig
from recall.config.schema import Record, Schema, Side
from recall.data.entities import refuse_missing_ids
from recall.data.files import unreadable_file
from recall.data.tables import MANIFEST, UNFINISHED, Table, Tables, read_table
from recall.data.times import Times
from recall.errors import DataError
from recall.features.canonical import CanonicalTypes, ColumnForms
from recall.features.values import examples, to_enum

FORMAT: Final = 1
SHARDS: Final = "interactions"
USER, ITEM, TIME, WEIGHT, TAKEN = (f"recall_{name}" for name in ("user", "item", "time", "weight", "taken"))
"""Columns of the shards besides those that are copied from the interactions."""
_IDS: Final = {"user": "user_ids.parquet", "item": "item_ids.parquet"}
_TABLES: Final = {"users": "users.parquet", "items": "items.parquet"}
_APPLIED_WHEN_READ: Final = {
    "split",
    "carve",
    "carve_last",
    "half_life",
    "available_from",
    "attributes",
    "user_attributes",
    "contains_changes_through",
}
"""Settings of [data] that may differ from those of the preparation: they apply when it is read."""

_PREPARE_AGAIN: Final = "Prepare the data again: recall data prepare CONFIG --data FOLDER --out PREPARED"


class PreparedFile(Record):
    """A file of a prepared folder."""

    rows: int
    sha256: str


class ReadAs(Record):
    """Reading of a column of the interactions by fields, on which its type depends."""

    number: Literal["Float64", "Int64", "UInt64"] | None = None
    """Type of the numbers over all rows; None if no field reads numbers."""
    separator: str | None = None
    """Separator of the values of a bag."""


class PreparedManifest(Record):
    """Contents and provenance of a prepared folder."""

    format: int
    settings: dict[str, JsonValue]
    """[data] of the configuration, with the defaults."""
    sources: dict[str, str]
    """SHA-256 of each source file."""
    interactions: int
    users: int
    items: int
    left_out: tuple[str, ...]
    """Messages about the rows that settings left out."""
    types: dict[str, dict[str, str]]
    """Types of columns by side, if rows that were left out influenced them; else found from the values."""
    read_as: dict[str, ReadAs] = Field(default={})
    """How fields read the copied columns, if `types` depends on it."""
    columns: dict[str, str]
    """Columns of the shards and their polars types."""
    files: dict[str, PreparedFile]
    """Files by path in the folder; shards in the order of their names."""

    @property
    def shards(self) -> int:
        """Number of shards."""
        return sum(name.startswith(f"{SHARDS}/") for name in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTables(Tables):
    """Tables of a prepared folder, with rows instead of ids in the interactions.

    Attributes:
        folder: the folder.
        manifest: manifest of the folder.
        sides: user or item, by id column.
    """

    folder: Path
    manifest: PreparedManifest
    sides: Mapping[str, Side]

    def column(self, name: str) -> pl.Series:
        """Read a copied column, or the ids of one side by row.

        Raises:
            DataError: As `Table.collect`.
        """
        return self.ids(self.sides[name]).alias(name) if name in self.sides else self.interactions.column(name)

    def distinct(self, name: str) -> pl.Series:
        """Read the distinct values of a copied text column; of other columns all values."""
        if name in self.sides or self.interactions.types[name] != pl.String:
            return self.column(name)
        return pl.concat([part.unique(maintain_order=True) for part in self._read_shards(name)]).unique(maintain_order=True)

    def text(self, name: str, forms: ColumnForms) -> pl.Series:
        """Read a copied column in canonical form; text is coded shard by shard.

        Args:
            name: the column.
            forms: canonical types by column.

        Raises:
            DataError: As `Table.collect` and `ColumnForms.canonical`.
        """
        where = self.interactions.where(name)
        if self.interactions.types[name] == pl.String:
            kind = to_enum(forms.canonical(self.distinct(name), where)).dtype
            if isinstance(kind, pl.Enum):
                return pl.concat([forms.canonical(part, where).cast(kind) for part in self._read_shards(name)])
        return to_enum(forms.canonical(self.column(name), where))

    def _read_shards(self, name: str) -> Iterator[pl.Series]:
        shards = (replace(self.interactions, frame=pl.scan_parquet(path)) for path in self._shard_paths())
        return (shard.column(name) for shard in shards)

    def cast_to_recorded(self, numbers: pl.Series) -> pl.Series:
        """Cast a numeric column to the type over all rows, those left out included."""
        known = self.manifest.read_as.get(numbers.name, ReadAs()).number
        return numbers if known is None else numbers.cast(getattr(pl, known))

    def require_same_reading(self, schema: Schema, context: tuple[str, ...]) -> None:
        """Check that fields read context columns as they did in the preparation.

        Args:
            schema: the fields.
            context: columns of the interactions that user fields read.

        Raises:
            DataError: A field has a different kind or separator, or reads a column that no field read.
        """
        if not self.manifest.types:
            return
        numbers, cuts = schema.number_columns("user"), schema.separators("user")
        for name in context:
            recorded = self.manifest.read_as.get(name)
            if recorded is None or (recorded.number is not None, recorded.separator) != (name in numbers, cuts.get(name)):
                raise DataError(
                    f"fields read the column {name!r} in another way than when the data was prepared",
                    where=str(self.folder),
                    why="its type depends on rows that were left out",
                    hint=_PREPARE_AGAIN,
                )

    def with_recorded_types(self, types: CanonicalTypes) -> CanonicalTypes:
        """Replace types by those that the manifest records."""
        known = CanonicalTypes.from_state(self.manifest.types or None)
        users = {name: known.users.get(name, type_) for name, type_ in types.users.items()}
        return CanonicalTypes(users, {name: known.items.get(name, type_) for name, type_ in types.items.items()})

    def verify_files(self) -> None:
        """Check the SHA-256 of every file against the manifest.

        Raises:
            DataError: A file is missing or damaged.
        """
        for name, file in self.manifest.files.items():
            digest = file_sha256(_require_file(self.folder / name))
            if digest != file.sha256:
                raise DataError(
                    "the file is damaged",
                    where=str(self.folder / name),
                    why=f"its SHA-256 is {digest}, and {self.folder / MANIFEST} says {file.sha256}",
                    hint=_PREPARE_AGAIN,
                )

    def ids(self, side: Side) -> pl.Series:
        """Return the ids of users or items by row, String [n]."""
        return self._read(self.folder / _IDS[side], "id", pl.String())

    def add_missing_ids(self, side: Side, frame: pl.DataFrame, forms: ColumnForms) -> tuple[pl.DataFrame, Int32]:
        """Return all users or items, and the row of each interaction.

        Args:
            side: user or item.
            frame: result of `recall.data.entities.read_entities`; its first column is the id.
            forms: canonical types by column.

        Returns:
            As `recall.data.entities.add_missing_ids`.

        Raises:
            DataError: Ids have a form other than the requested one, or the folder is inconsistent.
        """
        where = str(self.folder / _IDS[side])
        ids = self.ids(side).alias(frame.columns[0])
        refuse_missing_ids(ids, where, _PREPARE_AGAIN)
        if ids.n_unique() < len(ids):
            raise DataError(
                f"ids are in more than one row, such as {examples(ids.filter(ids.is_duplicated()))}",
                where=where,
                hint=_PREPARE_AGAIN,
            )
        if not forms.canonical(ids, where).equals(ids):
            raise DataError(
                f"ids of {side}s were prepared in another form than the model has",
                where=where,
                hint="Read the source files, or prepare the data as the model was trained",
            )
        if not ids.head(len(frame)).equals(frame.to_series(0)):
            raise DataError(
                f"the first ids are not those of {_TABLES[f'{side}s']}, in its order", where=where, hint=_PREPARE_AGAIN
            )
        column = USER if side == "user" else ITEM
        rows = self.numbers(column, pl.Int32())
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(ids):
            raise DataError(
                f"{side} rows go from {rows.min()} to {rows.max()}, and there are {len(ids):,} {side}s",
                where=self.interactions.where(column),
                hint=_PREPARE_AGAIN,
            )
        return pl.concat([frame, ids[len(frame) :].to_frame()], how="diagonal"), rows

    def times(self, user: Int32) -> Times | None:
        """Return the times of the interactions, or None; check that they are sorted.

        Args:
            user: int32 [n], user of each interaction.

        Raises:
            DataError: The interactions are not sorted by user and time.
        """
        times, ordered = None, user[1:] >= user[:-1]
        if TIME in self.interactions.types:
            dtype = self.interactions.types[TIME]
            times = Times.of(pl.Series(TIME, self.numbers(TIME, dtype)).cast(dtype), self.interactions.where(TIME))
            values = times.values.to_numpy()
            ordered &= (user[1:] > user[:-1]) | (values[1:] >= values[:-1])
        if not ordered.all():
            row = int(ordered.argmin()) + 2
            raise DataError(
                "interactions are not sorted by user and time", where=str(self.folder / SHARDS), hint=_PREPARE_AGAIN, row=row
            )
        return times

    def weights(self) -> Float64:
        """Return the weight of each interaction, 1 without such a column; float64 [n]."""
        unweighted = np.broadcast_to(np.float64(1), self.manifest.interactions)
        return self.numbers(WEIGHT, pl.Float64()) if WEIGHT in self.interactions.types else unweighted

    def taken(self) -> Bool | None:
        """Return which rows were taken, bool [n]; None where all were."""
        return self.numbers(TAKEN, pl.Boolean()) if TAKEN in self.interactions.types else None

    def numbers(self, column: str, dtype: DataType) -> npt.NDArray[Any]:
        """Read a column of all shards into one array, shard by shard.

        Args:
            column: column without nulls.
            dtype: type of the column.

        Raises:
            DataError: A shard lacks the column or holds another type.
        """
        values = np.empty(self.manifest.interactions, dtype=pl.Series(dtype=dtype).to_physical().to_numpy().dtype)
        end = 0
        for path in self._shard_paths():
            part = self._read(path, column, dtype).to_physical().to_numpy()
            values[end : end + len(part)] = part
            end += len(part)
        return values

    def _shard_paths(self) -> list[Path]:
        return [self.folder / name for name in sorted(self.manifest.files) if name.startswith(f"{SHARDS}/")]

    def _read(self, path: Path, column: str, dtype: DataType) -> pl.Series:
        try:
            values = pl.read_parquet(_require_file(path), columns=[column])[column]
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(path, error) from None
        if values.dtype != dtype or values.null_count():
            raise DataError(
                f"column {column!r} must be {dtype} without missing values, got {values.dtype}",
                where=str(path),
                hint=_PREPARE_AGAIN,
            )
        if column == WEIGHT and not (fit := values.is_finite() & (values > 0)).all():
            raise DataError(
                f"weights must be positive and finite, got {values[(row := int(fit.arg_min() or 0))]}",
                where=f"{path}, column {column!r}",
                hint=_PREPARE_AGAIN,
                row=row + 1,
            )
        return values


def is_prepared(folder: Path) -> bool:
    """Return whether a folder holds prepared data, complete or not."""
    return (folder / MANIFEST).exists() or (folder / UNFINISHED).exists()


def open_prepared(data: DataConfig, folder: Path) -> PreparedTables:
    """Open prepared data, without reading the interactions.

    Args:
        data: settings of the run.
        folder: folder of prepared data.

    Raises:
        DataError: The folder is incomplete, of a newer format, or was prepared with other settings.
    """
    manifest = read_manifest(folder)
    settings, recorded = data.model_dump(mode="json"), manifest.settings
    changed = [
        f"data.{name} was {orjson.dumps(recorded.get(name)).decode()} and is {orjson.dumps(settings.get(name)).decode()}"
        for name in sorted({*recorded, *settings} - _APPLIED_WHEN_READ)
        if settings.get(name) != recorded.get(name)
    ]
    if changed:
        raise DataError(
            "the configuration has changed since the data was prepared",
            where=str(folder),
            why="; ".join(changed),
            hint=_PREPARE_AGAIN,
        )
    files = [_require_file(folder / name) for name in manifest.files]
    shards = [path for path in files if path.parent.name == SHARDS]
    try:
        frame = pl.scan_parquet(shards)
        interactions = Table(folder / SHARDS, frame, frame.collect_schema(), text=data.text)
        rows = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in shards)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable_file(folder / SHARDS, error) from None
    if rows != manifest.interactions:
        raise DataError(
            f"the shards hold {rows:,} rows, and the manifest says {manifest.interactions:,} interactions",
            where=str(folder / SHARDS),
            hint=_PREPARE_AGAIN,
        )
    needed = {
        USER: True,
        ITEM: True,
        TIME: data.time is not None,
        TAKEN: data.has_negatives,
        WEIGHT: data.weighed_by is not None,
        **({data.split.column: True} if isinstance(data.split, ColumnSplit) else {}),
    }
    for name, is_needed in needed.items():
        if is_needed and name not in interactions.types:
            raise DataError(f"there is no column {name!r}", where=str(interactions.path), hint=_PREPARE_AGAIN)
    users, items = (read_table(folder / file, text=data.text) if file in manifest.files else None for file in _TABLES.values())
    sides: dict[str, Side] = {data.user_id: "user", data.item_id: "item"}
    return PreparedTables(interactions, users, items, folder=folder, manifest=manifest, sides=sides)


def read_manifest(folder: Path) -> PreparedManifest:
    """Read the manifest of a prepared folder.

    Args:
        folder: a folder of prepared data, complete or not.

    Raises:
        DataError: It is missing, damaged, or of a newer format.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(
            "the data was not prepared to the end", where=str(folder), why=f"{MANIFEST} is missing", hint=_PREPARE_AGAIN
        )
    try:
        plain = orjson.loads(path.read_bytes())
        if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
            raise DataError(
                "the data was prepared by a newer version",
                where=str(path),
                why=f"its format is {plain['format']}, and this version reads up to {FORMAT}",
                hint="Update recall",
            )
        return PreparedManifest.model_validate(plain)
    except (ValueError, ValidationError) as error:
        why = str(error).splitlines()[0]
        raise DataError("the manifest is damaged", where=str(path), why=why, hint=_PREPARE_AGAIN) from None


def write_manifest(
    data: DataConfig,
    folder: Path,
    sources: Mapping[str, str],
    left_out: tuple[str, ...] = (),
    types: Mapping[str, dict[str, str]] | None = None,
    read_as: Mapping[str, ReadAs] | None = None,
) -> PreparedManifest:
    """Write the manifest of a folder; its other files must be complete.

    Args:
        data: settings of the preparation.
        folder: folder with the shards and the tables of ids.
        sources: SHA-256 of each source file.
        left_out: messages about the rows that settings left out.
        types: types of columns by side, if rows that were left out influenced them.
        read_as: how fields read the context columns among them.

    Returns:
        The manifest.
    """
    paths = [*sorted((folder / SHARDS).glob("*.parquet")), *(folder / name for name in (*_IDS.values(), *_TABLES.values()))]
    files = {
        str(path.relative_to(folder)): PreparedFile(
            rows=pl.scan_parquet(path).select(pl.len()).collect().item(), sha256=file_sha256(path)
        )
        for path in paths
        if path.exists()
    }
    schema = pl.read_parquet_schema(paths[0])
    manifest = PreparedManifest(
        format=FORMAT,
        settings=data.model_dump(mode="json"),
        sources=dict(sources),
        interactions=sum(file.rows for name, file in files.items() if name.startswith(f"{SHARDS}/")),
        users=files[_IDS["user"]].rows,
        items=files[_IDS["item"]].rows,
        left_out=left_out,
        types=dict(types or {}),
        read_as=dict(read_as or {}),
        columns={name: str(dtype) for name, dtype in schema.items()},
        files=files,
    )
    for path in (*(folder / name for name in files), folder / SHARDS):
        fsync(path)
    part = folder / UNFINISHED
    part.write_bytes(orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    fsync(part)
    os.replace(part, folder / MANIFEST)
    fsync(folder)
    fsync(folder.parent)
    return manifest


def _require_file(path: Path) -> Path:
    if not path.exists():
        raise DataError("a file of the prepared data is missing", where=str(path), hint=_PREPARE_AGAIN)
    return path
