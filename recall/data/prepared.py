"""Read prepared data: sorted shards of interactions with rows instead of ids."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
from polars.datatypes import DataType

from recall._arrays import Bool, Float64, Int32
from recall._file_system import file_sha256
from recall.config import ColumnSplit, DataConfig
from recall.config.schema import Schema, Side
from recall.data.entities import refuse_missing_ids
from recall.data.files import unreadable_file
from recall.data.prepared_manifest import (
    ID_FILES,
    ITEM,
    PREPARE_AGAIN,
    SHARDS,
    TABLE_FILES,
    TAKEN,
    TIME,
    USER,
    WEIGHT,
    PreparedManifest,
    ReadAs,
    read_manifest,
)
from recall.data.tables import MANIFEST, UNFINISHED, Table, Tables, read_table
from recall.data.times import Times
from recall.errors import DataError
from recall.features.canonical import CanonicalTypes, ColumnForms
from recall.features.values import examples, to_enum

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
                    hint=PREPARE_AGAIN,
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
                    hint=PREPARE_AGAIN,
                )

    def ids(self, side: Side) -> pl.Series:
        """Return the ids of users or items by row, String [n]."""
        return self._read(self.folder / ID_FILES[side], "id", pl.String())

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
        where = str(self.folder / ID_FILES[side])
        ids = self.ids(side).alias(frame.columns[0])
        refuse_missing_ids(ids, where, PREPARE_AGAIN)
        if ids.n_unique() < len(ids):
            raise DataError(
                f"ids are in more than one row, such as {examples(ids.filter(ids.is_duplicated()))}",
                where=where,
                hint=PREPARE_AGAIN,
            )
        if not forms.canonical(ids, where).equals(ids):
            raise DataError(
                f"ids of {side}s were prepared in another form than the model has",
                where=where,
                hint="Read the source files, or prepare the data as the model was trained",
            )
        if not ids.head(len(frame)).equals(frame.to_series(0)):
            raise DataError(
                f"the first ids are not those of {TABLE_FILES[f'{side}s']}, in its order", where=where, hint=PREPARE_AGAIN
            )
        column = USER if side == "user" else ITEM
        rows = self.numbers(column, pl.Int32())
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(ids):
            raise DataError(
                f"{side} rows go from {rows.min()} to {rows.max()}, and there are {len(ids):,} {side}s",
                where=self.interactions.where(column),
                hint=PREPARE_AGAIN,
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
                "interactions are not sorted by user and time", where=str(self.folder / SHARDS), hint=PREPARE_AGAIN, row=row
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
                hint=PREPARE_AGAIN,
            )
        if column == WEIGHT and not (fit := values.is_finite() & (values > 0)).all():
            raise DataError(
                f"weights must be positive and finite, got {values[(row := int(fit.arg_min() or 0))]}",
                where=f"{path}, column {column!r}",
                hint=PREPARE_AGAIN,
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
            hint=PREPARE_AGAIN,
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
            hint=PREPARE_AGAIN,
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
            raise DataError(f"there is no column {name!r}", where=str(interactions.path), hint=PREPARE_AGAIN)
    users, items = (
        read_table(folder / file, text=data.text) if file in manifest.files else None for file in TABLE_FILES.values()
    )
    sides: dict[str, Side] = {data.user_id: "user", data.item_id: "item"}
    return PreparedTables(interactions, users, items, folder=folder, manifest=manifest, sides=sides)


def _require_file(path: Path) -> Path:
    if not path.exists():
        raise DataError("a file of the prepared data is missing", where=str(path), hint=PREPARE_AGAIN)
    return path
