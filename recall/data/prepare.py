"""Write prepared data: a first pass collects the ids, a second one sorts the rows.

Memory holds the ids, one batch of rows and one shard, but never all interactions. Only settings that select interactions
by their number or order (`recall.data.selection.select`) need the numeric columns of all rows in memory.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from polars.datatypes import DataType

from recall._arrays import Int32, Int64
from recall._file_system import descriptor, file_sha256, flock
from recall.config import ColumnSplit, DataConfig, RunConfig
from recall.data.columns import Frames, RunColumns, find_columns, find_types
from recall.data.entities import add_missing_ids, id_missing, read_entities, refuse_missing_ids
from recall.data.files import files_of, unreadable_file
from recall.data.outcomes import Outcomes, RowWeights
from recall.data.prepared import PreparedTables
from recall.data.prepared_manifest import (
    ITEM,
    SHARDS,
    TAKEN,
    TIME,
    USER,
    WEIGHT,
    PreparedManifest,
    ReadAs,
    write_manifest,
)
from recall.data.selection import Selection, select
from recall.data.tables import MANIFEST, UNFINISHED, Table, Tables, normalize
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.canonical import TEXT, ColumnForms, id_type, infer_type
from recall.features.values import canonical_series, number_column

_BATCH_ROWS = 1 << 19  # rows that are read at once
_SHARD_ROWS = 1 << 21  # rows of a shard, by default
_ROW, _FACTOR = "recall_row", "recall_factor"
_RESERVED = (USER, ITEM, TIME, WEIGHT, TAKEN, _ROW, _FACTOR)


def prepare(config: RunConfig, tables: Tables, root: Path, folder: Path, shards: int | None = None) -> PreparedManifest:
    """Write the tables of a run as prepared data.

    Args:
        config: names the columns and fields.
        tables: tables from `open_tables`.
        root: folder to which the paths of the configuration are relative.
        folder: output folder: new, empty, or with the files of an interrupted preparation, which are removed.
        shards: maximum number of shards; default: one for every two million interactions.

    Returns:
        The written manifest.

    Raises:
        DataError: A table, column or value does not match the configuration, there are too many ids, the source files change
            meanwhile, or the folder holds other files or is being written by another process.
        ConfigError: A field can be read in two ways, or a column has a name that the format needs.
    """
    if isinstance(tables, PreparedTables):
        raise DataError("the data is prepared already", where=str(root), hint="Name the folder of the source files")
    data = config.data
    columns = find_columns(config.schema_, data, tables)
    split = [data.split.column] if isinstance(data.split, ColumnSplit) else []
    copied = tuple(dict.fromkeys((*columns.context, *split)))
    for name in (data.user_id, data.item_id, *data.columns_of_rows, *copied):
        if name in _RESERVED:
            raise ConfigError(f"a column cannot be called {name!r} in prepared data", where="data", hint="Rename it")
    with _lock_folder(folder):
        return _write_folder(config, tables, columns, copied, root, folder, shards)


def _write_folder(
    config: RunConfig,
    tables: Tables,
    columns: RunColumns,
    copied: tuple[str, ...],
    root: Path,
    folder: Path,
    shards: int | None,
) -> PreparedManifest:
    """Write all files of prepared data to an empty folder, see `prepare`."""
    data = config.data
    states = _file_states(data, root)
    if tables.users is not None:
        names = [data.user_id, *columns.users, *columns.user_attributes]
        tables.users.collect(names).write_parquet(folder / "users.parquet")
    if tables.items is not None:
        dates = [data.available_from] if data.available_from is not None else []
        names = [data.item_id, *columns.items, *columns.item_attributes, *dates]
        tables.items.collect(names).write_parquet(folder / "items.parquet")
    users, items = (_Entities.of(side, key, data, tables) for side, key in ((USER, data.user_id), (ITEM, data.item_id)))
    source = _InteractionSource(data, tables.interactions, users, items, copied)
    left_out: tuple[str, ...] = ()
    types: dict[str, dict[str, str]] = {}
    read_as: dict[str, ReadAs] = {}
    bounded = data.since is not None or data.until is not None
    if bounded or data.repeats == "merge" or data.min_user > 1 or data.min_item > 1:
        source, left_out = source.select_rows()
        types, read_as = _types_of_all_rows(config, columns, tables)
    for name, ids in (("user", source.users), ("item", source.items)):
        pl.DataFrame({"id": ids.texts}).write_parquet(folder / f"{name}_ids.parquet")
    _write_shards(folder, source, shards)
    sources = {name: file_sha256(root / name) for name in states}
    changed = dict(states.items() ^ _file_states(data, root).items())
    if changed:
        raise _source_changed_error(str(root / min(changed)))
    return write_manifest(data, folder, sources, left_out, types, read_as)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, mark it as unfinished, and remove files of an interrupted run."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / UNFINISHED
    with descriptor(folder) as folder_fd:  # the kernel frees the lock when the process dies
        with suppress(OSError):  # the file system has no locks
            if not flock(folder_fd, fcntl.LOCK_EX):
                raise DataError(
                    "another process prepares data here",
                    where=str(folder),
                    why=f"process {marker.read_text()}" if marker.exists() else "",
                    hint="Wait for it, or name another folder",
                )
        if (folder / MANIFEST).exists():
            raise DataError("the folder holds prepared data", where=str(folder), hint="Remove it, or name another folder")
        if not marker.exists() and any(folder.iterdir()):
            raise DataError("the folder holds other files", where=str(folder), hint="Name a new folder")
        marker.write_text(str(os.getpid()))
        for path in list(folder.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path != marker:
                path.unlink()
        yield


def _source_changed_error(where: str) -> DataError:
    return DataError(
        "the source changed while the data was prepared",
        where=where,
        why="it is read several times",
        hint="Prepare the data again, when nothing writes the source files",
    )


@dataclass(frozen=True, slots=True)
class _Entities:
    """Users or items, numbered by row.

    Attributes:
        texts: String [n], ids in canonical form; the ids of the users or items table come first.
        listed: number of ids of that table.
        counts: int64 [n], number of interactions of each.
        rows: table of the ids as the interactions spell them, with the row of each, null if no selected interaction has the id.
    """

    texts: pl.Series
    listed: int
    counts: Int64
    rows: pl.DataFrame

    @staticmethod
    def of(row_column: str, key: str, data: DataConfig, tables: Tables) -> "_Entities":
        """Collect the ids of one side (`USER` or `ITEM`), new ones in order of appearance."""
        table, interactions = tables.users if row_column == USER else tables.items, tables.interactions
        where = interactions.where(key)
        first_rows = interactions.select([key]).with_row_index(_ROW).group_by(key).agg(pl.col(_ROW).min(), count=pl.len())
        try:
            distinct_ids = first_rows.sort(_ROW).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(interactions.path, error) from None
        if distinct_ids.is_empty():
            raise DataError("there are no interactions", where=str(interactions.path), hint="Give at least one row")
        ids = normalize(distinct_ids.select(key))[key]
        texts = canonical_series(ids)
        if texts.to_frame().select(id_missing([key])).to_series().any():
            refuse_missing_ids(canonical_series(interactions.column(key)), where)  # all rows, which the error counts
        columns = {where: ids} if table is None else {where: ids, table.where(key): table.column(key)}
        for place, column in columns.items():
            if column.dtype.is_float() and infer_type(canonical_series(column)) == "float64":
                raise DataError(
                    "ids are fractional numbers, which cannot be prepared",
                    where=place,
                    hint="Store them as text, or as whole numbers",
                )
        forms = ColumnForms({key: TEXT if key in data.text else id_type(columns.values())})
        known = read_entities(table, key, (), (), forms)
        all_ids, rows = add_missing_ids(known, forms.canonical(texts, where), where)
        counts = np.bincount(rows, weights=distinct_ids["count"].to_numpy(), minlength=len(all_ids)).astype(np.int64)
        return _Entities(all_ids.to_series(0), len(known), counts, distinct_ids.select(key, pl.Series(row_column, rows)))

    def renumbered(self, rows: Int32) -> "_Entities":
        """Renumber the ids after a selection, as if there were no other interactions.

        Args:
            rows: int32 [m], row of each selected interaction, in their order.
        """
        new_ids, first_use = np.unique(rows[rows >= self.listed], return_index=True)
        kept = np.concatenate([np.arange(self.listed), new_ids[np.argsort(first_use)]]).astype(np.int32)
        numbered = pl.Series(np.arange(len(kept), dtype=np.int32))
        new_rows = self.rows.with_columns(
            pl.nth(1).replace_strict(pl.Series(kept), numbered, default=None, return_dtype=pl.Int32)
        )
        counts = np.bincount(rows, minlength=len(self.texts))[kept]
        return _Entities(self.texts.gather(kept), self.listed, counts, new_rows)


@dataclass(frozen=True, slots=True)
class _InteractionSource:
    """Reader of the interactions in batches, with rows instead of ids.

    Attributes:
        data: names the columns.
        table: the interactions.
        users: users by row.
        items: items by row.
        copied: context and split columns, which are copied unchanged.
        selection: the selected interactions and their weights; None for all.
    """

    data: DataConfig
    table: Table
    users: _Entities
    items: _Entities
    copied: tuple[str, ...]
    selection: Selection | None = None

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield batches of selected interactions in the columns of prepared data."""
        data, where = self.data, self.table.where
        units: set[int] = set()
        try:
            rows = self.table.select([data.user_id, data.item_id, *data.columns_of_rows, *self.copied]).with_row_index(_ROW)
            for key, entities in ((data.user_id, self.users), (data.item_id, self.items)):
                rows = rows.join(entities.rows.lazy(), on=key, maintain_order="left")
            outcomes = self._outcomes()
            if outcomes is not None:
                keys = [name for name in outcomes.columns if name not in (TAKEN, _FACTOR)]
                rows = rows.join(outcomes.lazy(), on=keys, nulls_equal=True, maintain_order="left")
            for batch in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True, lazy=True, engine="streaming"):
                columns = [batch[_ROW], batch[USER], batch[ITEM]]
                if data.time is not None:
                    times = Times.of(normalize(batch.select(data.time))[data.time], where(data.time))
                    columns.append(times.values.alias(TIME))
                    units.add(times.unit)
                    if len(units) > 1:
                        raise DataError(
                            "some rows have dates and others numbers", where=where(data.time), hint="Write all times in one way"
                        )
                if data.weighed_by is not None:
                    factors = batch[_FACTOR].to_numpy() if data.events is not None else None
                    raw = batch if data.weight is None else normalize(batch.select(data.weight))
                    columns.append(pl.Series(WEIGHT, RowWeights.of(raw, data.weight, where(data.weighed_by), factors).values))
                columns += [batch[TAKEN]] if data.has_negatives else []
                frame = pl.DataFrame([*columns, *(batch[name] for name in self.copied)])
                frame = frame.with_columns(pl.col(TIME).cast(pl.Datetime("us"))) if units - {1} else frame
                if self.selection is not None:
                    rows_of_batch = batch[_ROW].to_numpy()
                    if data.weighed_by is not None or data.repeats == "merge":
                        frame = frame.with_columns(pl.Series(WEIGHT, self.selection.weights[rows_of_batch]))
                    frame = frame.filter(self.selection.rows[rows_of_batch])
                yield frame
        except DataError as error:
            raise self._error_of_all_rows(error) from None
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(self.table.path, error) from None

    def _error_of_all_rows(self, error: DataError) -> DataError:
        """Return the error of reading all rows at once, which counts the rows of all."""
        data, where = self.data, self.table.where
        raw = self.table.collect(data.columns_of_rows)
        try:
            if data.time is not None:
                Times.of(raw[data.time], where(data.time))
            factors = Outcomes.of(raw, data, where).weight
            RowWeights.of(raw, data.weight, where(data.weighed_by) if data.weighed_by else "", factors)
        except DataError as found:
            return found
        return error

    def _outcomes(self) -> pl.DataFrame | None:
        """Return outcome and weight of each distinct value of the outcome columns."""
        rules = [rule.column for rule in (self.data.outcome, self.data.events) if rule is not None]
        keys = list(dict.fromkeys([*([] if self.data.label is None else [self.data.label]), *rules]))
        if not keys:
            return None
        rows = self.table.select(keys).with_row_index(_ROW).group_by(keys).agg(pl.col(_ROW).min()).sort(_ROW)
        distinct = rows.collect(engine="streaming").select(keys)
        outcomes = Outcomes.of(normalize(distinct), self.data, self.table.where)
        columns = {TAKEN: outcomes.taken, _FACTOR: outcomes.weight}
        return distinct.with_columns(pl.Series(name, values) for name, values in columns.items() if values is not None)

    def select_rows(self) -> "tuple[_InteractionSource, tuple[str, ...]]":
        """Apply the settings that select interactions; return a source and messages."""
        names = [_ROW, USER, ITEM, TIME, WEIGHT, TAKEN]
        parts = [batch.select(name for name in names if name in batch.columns) for batch in self.batches()]
        rows = pl.concat(parts, how="vertical_relaxed").sort(_ROW)
        del parts
        user, item = rows[USER].to_numpy(), rows[ITEM].to_numpy()
        weights = rows[WEIGHT].to_numpy() if WEIGHT in rows.columns else np.ones(len(rows))
        taken = rows[TAKEN].to_numpy() if TAKEN in rows.columns else None
        times = Times.of(rows[TIME], self.table.where(TIME)) if TIME in rows.columns else None
        selection = select(self.data, user, item, times, taken, weights, self.table.where)
        if selection is None:
            return self, ()
        users, items = self.users.renumbered(user[selection.rows]), self.items.renumbered(item[selection.rows])
        return replace(self, users=users, items=items, selection=selection), selection.notes


def _write_shards(folder: Path, source: _InteractionSource, shards: int | None) -> None:
    """Write the interactions, sorted by user, time and row of the source.

    Batches are first spooled to one folder for each shard, which is a range of users; then each shard is sorted in memory.
    """
    ends = np.cumsum(source.users.counts)
    total = int(ends[-1])
    shards = max(1, -(-total // _SHARD_ROWS)) if shards is None else shards
    first_users = np.unique(np.searchsorted(ends, total * np.arange(shards) // shards, side="right"))  # the first user of each
    spool = folder / "spool"
    for number in range(len(first_users)):
        (spool / str(number)).mkdir(parents=True)
    times: set[DataType | None] = set()
    written = 0
    for batch_number, batch in enumerate(source.batches()):
        times.add(batch.schema.get(TIME))
        written += len(batch)
        of_shard = np.searchsorted(first_users, batch[USER].to_numpy(), side="right") - 1
        for number in np.unique(of_shard):
            batch.filter(of_shard == number).write_ipc(spool / str(number) / f"{batch_number:06}.arrow", compression="lz4")
    if written != total:
        raise _source_changed_error(str(source.table.path))
    (folder / SHARDS).mkdir()
    for number in range(len(first_users)):
        parts = [pl.scan_ipc(path) for path in sorted((spool / str(number)).iterdir())]
        keys = [USER, TIME, _ROW] if source.data.time is not None else [USER, _ROW]
        rows = pl.concat(parts, how="vertical_relaxed")
        rows = rows.with_columns(pl.col(TIME).cast(pl.Float64)) if pl.Float64 in times else rows
        shard = rows.sort(keys).drop(_ROW).collect()
        shard.write_parquet(folder / SHARDS / f"part-{number:05}.parquet", statistics=False)
        shutil.rmtree(spool / str(number))
    shutil.rmtree(spool)


def _types_of_all_rows(
    config: RunConfig, columns: RunColumns, tables: Tables
) -> tuple[dict[str, dict[str, str]], dict[str, ReadAs]]:
    """Return the types by side, and how context columns are read, over all rows."""
    schema, data, where = config.schema_, config.data, tables.interactions.where
    numbers, separators = schema.number_columns("user"), schema.separators("user")
    users = None if tables.users is None else tables.users.collect([data.user_id])
    items = None if tables.items is None else tables.items.collect([data.item_id])
    frames: Frames = (tables.interactions.column, users, items)
    all_types, _ = find_types(schema, frames, columns.context, {"user": numbers, "item": ()})
    types = {
        side: {name: type_ for name, type_ in each.items() if name not in data.text} for side, each in all_types.state().items()
    }
    number_types = {name: str(number_column(frames[0](name), where(name)).dtype) for name in columns.context if name in numbers}
    return types, {
        name: ReadAs.model_validate({"number": number_types.get(name), "separator": separators.get(name)})
        for name in columns.context
    }


def _file_states(data: DataConfig, root: Path) -> dict[str, tuple[int, int]]:
    """Return the size and modification time of each source file."""
    states = {os.path.relpath(path, root): path.stat() for name in data.files.values() for path in files_of(root / name)}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}
