"""Read and write the manifest of prepared data.

docs/reference/prepared-data.md specifies the format, for other programs that write such a folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import orjson
import polars as pl
from pydantic import Field, JsonValue, ValidationError

from recall._file_system import file_sha256, fsync
from recall.config import DataConfig
from recall.config.schema import Record
from recall.data.tables import MANIFEST, UNFINISHED
from recall.errors import DataError

FORMAT: Final = 1
SHARDS: Final = "interactions"
USER, ITEM, TIME, WEIGHT, TAKEN = (f"recall_{name}" for name in ("user", "item", "time", "weight", "taken"))
"""Columns of the shards besides those that are copied from the interactions."""
ID_FILES: Final = {"user": "user_ids.parquet", "item": "item_ids.parquet"}
TABLE_FILES: Final = {"users": "users.parquet", "items": "items.parquet"}
PREPARE_AGAIN: Final = "Prepare the data again: recall data prepare CONFIG --data FOLDER --out PREPARED"


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
            "the data was not prepared to the end", where=str(folder), why=f"{MANIFEST} is missing", hint=PREPARE_AGAIN
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
        raise DataError("the manifest is damaged", where=str(path), why=why, hint=PREPARE_AGAIN) from None


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
    paths = [
        *sorted((folder / SHARDS).glob("*.parquet")),
        *(folder / name for name in (*ID_FILES.values(), *TABLE_FILES.values())),
    ]
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
        users=files[ID_FILES["user"]].rows,
        items=files[ID_FILES["item"]].rows,
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
