"""Combine new tables with those of earlier runs, in memory or in their files."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from recall._file_system import replaced_file
from recall.config import DataConfig, RunConfig
from recall.data.columns import column_type
from recall.data.combine import append_rows, find_source_row, move_columns, upsert_rows
from recall.data.dataset import Dataset, dataset_of
from recall.data.files import files_of
from recall.data.selection import drop_unused_rows
from recall.data.tables import Table, Tables, read_tables
from recall.data.times import Times
from recall.errors import DataError, RecallError
from recall.features.canonical import CanonicalTypes, canonical_column
from recall.features.values import Distinct

_MIN_KNOWN, _MIN_ITEMS = 0.05, 10  # share of known items among those of new interactions; fewer items say nothing


def load_additions(config: RunConfig, new: Path, old: Path) -> Dataset:
    """Load old and new tables as one data set.

    New rows of users and items replace old ones. The split applies to all interactions; a random share for validation
    (`data.carve`) is drawn from the new ones only, because the old ones may have been trained on.

    Args:
        config: names the tables and columns.
        new: folder of the new tables; users and items are optional if none is new or changed.
        old: folder of the old tables.

    Raises:
        DataError: As `load_dataset`; or a column changed its type between the tables.
        ConfigError: As `load_dataset`.
    """
    return addition_tables(config.data, new, old).dataset(config)


@dataclass(frozen=True, slots=True)
class Additions:
    """Old and new tables, and their combination.

    Attributes:
        tables: the combined tables.
        known: number of old interactions, which are the first rows of the combined ones.
        note: message about new interactions that repeat old ones and are dropped, or whose items are nearly all unknown;
            "" for none.
        before: the old tables.
        after: the new tables.
    """

    tables: Tables
    known: int
    note: str
    before: Tables
    after: Tables

    def dataset(self, config: RunConfig, types: CanonicalTypes | None = None) -> Dataset:
        """Return the data set of these tables.

        Args:
            config: names the columns and fields.
            types: as for `load_dataset`.

        Raises:
            RecallError: As `load_dataset`; names the row of the original file.
        """
        keys = {"interactions": None, "users": config.data.user_id, "items": config.data.item_id}
        try:
            return dataset_of(config, self.tables, self.known, types)
        except DataError as error:
            for name, newer in self.after.named.items():
                older = self.before.named.get(name)
                if older is not None and error.where.startswith(str(newer.path)):
                    raise _at_source_row(error, older, newer, keys[name]) from None
            raise


def _at_source_row(error: DataError, older: Table, newer: Table, key: str | None) -> DataError:
    """Return an error about a row of a combined table for the row of its source file."""
    if error.row is None:
        return error
    table, row = find_source_row(older, newer, key, error.row)
    return error.at(str(table.path) + error.where.removeprefix(str(newer.path)) + table.note, row)


def addition_tables(data: DataConfig, new: Path, old: Path) -> Additions:
    """Return the tables that `load_additions` reads.

    Args:
        data: names the tables and columns.
        new: folder of the new tables.
        old: folder of the old tables.

    Raises:
        DataError: As `load_additions`, or the two folders are one.
    """
    if new.resolve() == old.resolve():
        raise DataError("the new tables are the old ones", where=str(new), hint="Give the folder of what came since")
    before = drop_unused_rows(data, read_tables(data, old))
    after = drop_unused_rows(data, read_new_tables(data, new, before.named))
    added, note, known = drop_repeated(data, before.interactions, after.interactions)
    tables = replace(_upsert_entities(data, before.named, after), interactions=append_rows(before.interactions, added))
    return Additions(move_columns(data, tables), known, note, before, after)


def drop_repeated(data: DataConfig, older: Table, newer: Table) -> tuple[Table, str, int]:
    """Drop new interactions that repeat old ones.

    Two interactions are equal if they have the same user, item and time, and the same label and event where such columns
    are configured. Without a time column, all columns must be equal. Of a row that occurs several times, as many copies
    are dropped as the old table has.

    Args:
        data: names the columns.
        older: the old interactions.
        newer: the new interactions.

    Returns:
        The new interactions that remain; a message, see `Additions.note`; and the number of old interactions.

    Raises:
        DataError: A column is missing, or a time cannot be read.
    """
    combined, known = append_rows(older, newer), older.frame.select(pl.len()).collect().item()
    outcome_columns = [data.label, data.events.column if data.events is not None else None]
    names = [data.user_id, data.item_id, data.time, *outcome_columns] if data.time is not None else combined.columns
    keys = list(dict.fromkeys(name for name in names if name is not None))
    for table in (older, newer):
        table.select(keys)  # raises if a column is missing
    raw = combined.collect(keys)
    columns = [
        canonical_column(raw[name], column_type(raw[name], None, data.text), combined.where(name), None).alias(name)
        for name in keys
    ]
    if data.time is not None:
        try:
            columns[keys.index(data.time)] = Times.of(raw[data.time], combined.where(data.time)).values
        except DataError as error:
            raise _at_source_row(error, older, newer, None) from None
    rows = pl.DataFrame({"code": Distinct.of(pl.DataFrame(columns)).codes}).with_row_index("row")
    is_old = pl.col("row") < known
    copies = rows.select(is_old.sum().over("code") > pl.int_range(pl.len()).over("code") - is_old.sum().over("code"))
    repeated = copies.to_series()[known:]
    if not repeated.any():
        items = columns[keys.index(data.item_id)]
        distinct = items[known:].unique()
        shared = int(distinct.is_in(items[:known].unique().implode()).sum())
        return newer, unknown_items_note(shared, len(distinct), "the old interactions"), known
    equal_in = "every column" if data.time is None else "user, item and time"
    message = f"{repeated.sum():,} of {len(repeated):,} new interactions equal old ones in {equal_in}"
    remaining = replace(newer, frame=newer.frame.collect().filter(~repeated).lazy())
    return remaining, f"{message}: they are left out, so that none counts twice", known


def unknown_items_note(known: int, items: int, among: str) -> str:
    """Return a warning if nearly all items of the new interactions are unknown, or "".

    Args:
        known: how many of these items are known.
        items: number of distinct items of the new interactions.
        among: where known items come from.
    """
    if items < _MIN_ITEMS or known >= _MIN_KNOWN * items:
        return ""
    return (
        f"{known:,} of the {items:,} items of the new interactions are in {among}: are they those of another data set, or "
        "written in another way?"
    )


def addition_tables_alone(data: DataConfig, new: Path, users: Table, items: Table) -> Tables:
    """Return the new interactions, and the users and items of all runs.

    Args:
        data: names the tables and columns.
        new: folder of the new tables.
        users: users of the earlier runs.
        items: items of the earlier runs.
    """
    before = {"users": users, "items": items}
    after = drop_unused_rows(data, read_new_tables(data, new, before))
    moved = [*data.user_columns, *data.item_columns]  # by an earlier run, from the interactions
    own = {name: table.with_frame(table.frame.drop(moved, strict=False)) for name, table in before.items()}
    return move_columns(data, _upsert_entities(data, own, after), before)


def read_new_tables(data: DataConfig, folder: Path, before: Collection[str]) -> Tables:
    """Open the new tables; users and items are optional if earlier runs had them.

    Args:
        data: names the tables.
        folder: folder of the new tables.
        before: names of the tables of earlier runs.

    Raises:
        DataError: As `read_tables`.
    """
    old = {*before} - {"interactions"}
    missing = [name for name, path in data.files.items() if name in old and not (folder / path).exists()]
    return read_tables(data.model_copy(update=dict.fromkeys(missing)), folder)


def _upsert_entities(data: DataConfig, before: Mapping[str, Table], after: Tables) -> Tables:
    """Return the new tables, with the users and items of the old ones that they lack."""
    entities = {}
    for name, key in (("users", data.user_id), ("items", data.item_id)):
        older, newer = before.get(name), after.named.get(name)
        entities[name] = newer or older if older is None or newer is None else upsert_rows(older, newer, key)
    return replace(after, users=entities["users"], items=entities["items"])


# Append to the files.


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
    for name, older, newer in _old_and_new_tables(data, new, old):
        path = older.path
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
        AppendError: The file system refused; tables before the one that it names have their rows.
    """
    counts = {}
    for name, older, newer in _old_and_new_tables(data, new, old):
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


def _old_and_new_tables(data: DataConfig, new: Path, old: Path) -> Iterator[tuple[str, Table, Table]]:
    before = read_tables(data, old).named
    yield from ((name, before[name], newer) for name, newer in read_new_tables(data, new, before).named.items())


def _write(table: Table, rows: pl.DataFrame) -> None:
    path, ending = table.path, table.path.suffix.lower()
    if path.is_dir():
        ending = files_of(path)[0].suffix
        digest = hashlib.sha256(rows.write_csv().encode() if ending == ".csv" else rows.write_ipc(None).getvalue())
        path = path / f"zz-added-{digest.hexdigest()[:16]}{ending}"  # after all others by name, which is the order of rows
    try:
        with replaced_file(path) as staged:
            (rows.write_csv if ending == ".csv" else rows.write_parquet)(staged)
    except (OSError, PolarsError) as error:
        raise AppendError(
            "the new rows could not be added", where=str(path), why=str(error), hint="Free some space, and run it again"
        ) from None
