"""Add new tables to the files of the old ones, each file replaced as a whole."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from recall._file_system import fsync
from recall.config import DataConfig
from recall.data.combine import upsert_rows
from recall.data.files import files_of
from recall.data.incremental import drop_repeated, read_new_tables
from recall.data.tables import Table, read_tables
from recall.errors import DataError, RecallError


class AppendError(RecallError):
    """The file system refused a file with the added rows; the file stays as it was."""

    exit_code = 73


def check_appendable(data: DataConfig, new: Path, old: Path) -> None:
    """Check that `append` can add tables to others without a loss.

    Args:
        data: names the tables and columns.
        new: folder of the new tables.
        old: folder of the old tables.

    Raises:
        DataError: A table is in a format that is read but not written, or the columns differ.
    """
    before = read_tables(data, old)
    for name, newer in read_new_tables(data, new, before.named).named.items():
        older, path = before.named[name], before.named[name].path
        first = files_of(path)[0]
        if name in data.formats or first.suffix.lower() not in (".parquet", ".csv") or path not in (first, first.parent):
            raise DataError(
                "rows cannot be added to this file",
                where=str(path),
                why="rows are added to a file of Parquet or plain CSV, or to a folder of such files",
                hint="Convert it, or leave out --data to continue from the bundle and the new tables alone",
            )
        if path.is_dir() and name != "interactions":
            raise DataError(
                f"the {name} are a folder of files, in which no row can be replaced",
                where=str(path),
                hint="Write them as one file, or leave out --data",
            )
        for column, dtype in older.types.items():
            if column not in newer.types:
                raise DataError(
                    f"the new {name} lack column {column!r}, which the old ones have",
                    where=str(newer.path),
                    hint="Give every column; its cells may be empty",
                )
            if newer.types[column] != dtype and path.is_dir():
                raise DataError(
                    f"column {column!r} is of type {newer.types[column]}, and {dtype} in {path}",
                    where=str(newer.path),
                    hint="Write both in one type",
                )
        for column in newer.columns:
            if column not in older.types:
                raise DataError(
                    f"the new {name} have column {column!r}, which the old ones lack",
                    where=str(newer.path),
                    why="its values would be lost where the rows are added to the old ones",
                    hint=f"Add the column to {path}, where its cells may be empty, or leave it out",
                )


def append(data: DataConfig, new: Path, old: Path) -> Mapping[str, int]:
    """Add new interactions to the old ones, and replace users and items by new ones.

    Interactions that equal old ones are left out, and a file whose rows stay the same is not written: a second call changes
    nothing, and one after an interruption does the rest.

    Args:
        data: names the tables and columns.
        new: folder of the new tables.
        old: folder of the old tables; a folder of interactions gets another file.

    Returns:
        The number of rows that were added or replaced, by table.

    Raises:
        DataError: As `check_appendable`.
        AppendError: The file system refused; tables before the one that it names have their rows.
    """
    before, counts = read_tables(data, old), {}
    for name, newer in read_new_tables(data, new, before.named).named.items():
        older = before.named[name]
        if name == "interactions":
            rows = drop_repeated(data, older, newer)[0].frame.select(older.columns).collect()
            written = rows if older.path.is_dir() else pl.concat([older.frame.collect(), rows], how="vertical_relaxed")
            counts[name] = len(rows)
        else:
            key = data.user_id if name == "users" else data.item_id
            written = upsert_rows(older, newer, key).frame.select(older.columns).collect()
            counts[name] = 0 if written.equals(older.frame.collect()) else newer.frame.select(pl.len()).collect().item()
        if counts[name]:
            _write(older, written.rename(dict(older.original_names)))
    return counts


def _write(table: Table, rows: pl.DataFrame) -> None:
    path, ending = table.path, table.path.suffix.lower()
    if path.is_dir():
        ending = files_of(path)[0].suffix
        digest = hashlib.sha256(rows.write_csv().encode() if ending == ".csv" else rows.write_ipc(None).getvalue())
        path = path / f"zz-added-{digest.hexdigest()[:16]}{ending}"  # after all others by name, which is the order of rows
    staged = path.with_name(f".{path.name}.part")
    try:
        (rows.write_csv if ending == ".csv" else rows.write_parquet)(staged)
        fsync(staged)
        os.replace(staged, path)
        fsync(path.parent)
    except (OSError, PolarsError) as error:
        raise AppendError(
            "the new rows could not be added", where=str(path), why=str(error), hint="Free some space, and run it again"
        ) from None
    finally:
        staged.unlink(missing_ok=True)
