"""Item ids whose deletion was compacted into a version, in `deleted.parquet`.

A change log is pruned once every version contains its changes. This file keeps the deletions among them, so that a later
rebuild can report deleted ids that its table brings back. It exists only if there are any.
"""

from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from recall.bundle import files
from recall.errors import BundleError, PublishError

ITEM_ID, SEQUENCE = "item_id", "sequence"
SCHEMA = {ITEM_ID: pl.String(), SEQUENCE: pl.Int64()}
"""One row for each deleted id, and the sequence of its deletion in the log that the manifest names."""


def no_deletions() -> pl.DataFrame:
    """Return an empty table of deletions."""
    return pl.DataFrame(schema=SCHEMA)


def write_deletions(folder: Path, deletions: pl.DataFrame) -> None:
    """Write the deletions of a new bundle; nothing if there are none.

    Args:
        folder: of the bundle.
        deletions: columns as in `SCHEMA`, each id once.

    Raises:
        PublishError: The file system refused.
    """
    if deletions.is_empty():
        return
    path = folder / files.DELETIONS
    try:
        deletions.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).write_parquet(path)
    except (OSError, PolarsError) as error:
        raise PublishError("the deletions could not be written", where=str(path), why=str(error)) from None


def read_deletions(folder: Path) -> pl.DataFrame:
    """Return the deletions of a bundle, possibly none, with the columns of `SCHEMA`.

    Raises:
        BundleError: The file cannot be read or has other columns.
    """
    path = folder / files.DELETIONS
    if not path.exists():
        return no_deletions()
    try:
        found = pl.read_parquet(path)
    except (OSError, PolarsError) as error:
        raise BundleError("the table cannot be read", where=str(path), why=str(error)) from None
    if dict(found.schema) != SCHEMA or found.null_count().sum_horizontal().item() or not found[ITEM_ID].is_unique().all():
        raise BundleError("the table is not one of deletions", where=str(path), why=f"its columns are {dict(found.schema)}")
    return found
