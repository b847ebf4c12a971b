"""Write prepared data: a first pass collects the ids, a second one sorts the rows.

Memory holds the ids, one batch of rows and one shard, but never all interactions. Only settings that select interactions
by their number or order (`recall.data.selection.select`) need the numeric columns of all rows in memory.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from polars.datatypes import DataType

from recall._arrays import Bool, Float64, Int32, Int64
from recall._fsync import descriptor
from recall.config import ColumnSplit, DataConfig, RunConfig
from recall.data.column_types import Frames, find_types
from recall.data.entities import add_missing_ids, read_ids, refuse_missing_ids
from recall.data.files import files_of, unreadable_file
from recall.data.outcomes import Outcomes, RowWeights
from recall.data.prepared import (
    ITEM,
    SHARDS,
    TAKEN,
    TIME,
    USER,
    WEIGHT,
    PreparedManifest,
    PreparedTables,
    ReadAs,
    Side,
    seal,
    sha256,
)
from recall.data.selection import id_missing, select
from recall.data.sources import FieldColumns, find_attributes, find_columns
from recall.data.tables import MANIFEST, UNFINISHED, Table, Tables, exact
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.canonical import TEXT, ColumnForms, id_type, inferred
from recall.features.values import canonical_series, number_column

_BATCH_ROWS = 1 << 19  # rows that are read at once
_SHARD_ROWS = 1 << 21  # rows of a shard, by default
_MAX_ROW = int(np.iinfo(np.int32).max)
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
    columns = find_columns(config.schema_, tables)
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
    columns: FieldColumns,
    copied: tuple[str, ...],
    root: Path,
    folder: Path,
    shards: int | None,
) -> PreparedManifest:
    """Write all files of prepared data to an empty folder, see `prepare`."""
    data = config.data
    states_before = _file_states(data, root)
    if tables.users is not None:
        names = [data.user_id, *columns.users, *find_attributes(data, columns, tables, "user")]
        tables.users.collect(names).write_parquet(folder / "users.parquet")
    if tables.items is not None:
        dates = [data.available_from] if data.available_from is not None else []
        names = [data.item_id, *columns.items, *find_attributes(data, columns, tables), *dates]
        tables.items.collect(names).write_parquet(folder / "items.parquet")
    users = _Entities.of("user", data.user_id, data, tables)
    items = _Entities.of("item", data.item_id, data, tables)
    source = _InteractionSource(data, tables.interactions, users, items, copied)
    left_out: tuple[str, ...] = ()
    types: dict[str, dict[str, str]] = {}
    read_as: dict[str, ReadAs] = {}
    selected: _SelectedRows | None = None
    bounded = data.since is not None or data.until is not None
    if bounded or data.repeats == "merge" or data.min_user > 1 or data.min_item > 1:
        selected, left_out = source.select_rows()
        users, items = selected.users, selected.items
        types, read_as = _types_of_all_rows(config, columns, tables)
    for name, ids in (("user", users), ("item", items)):
        pl.DataFrame({"id": ids.texts}).write_parquet(folder / f"{name}_ids.parquet")
    _write_shards(folder, source, selected, users.counts, shards)
    sources = {name: sha256(root / name) for name in states_before}
    states_after = _file_states(data, root)
    changed = [name for name in {**states_before, **states_after} if states_before.get(name) != states_after.get(name)]
    if changed:
        raise _source_changed_error(str(root / changed[0]))
    return seal(data, folder, sources, left_out, types, read_as)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, mark it as unfinished, and remove files of an interrupted run."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / UNFINISHED
    with descriptor(folder) as folder_fd:  # the kernel frees the lock when the process dies
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"process {marker.read_text()}" if marker.exists() else ""
            hint = "Wait for it, or name another folder"
            raise DataError("another process prepares data here", where=str(folder), why=why, hint=hint) from None
        except OSError:
            pass  # the file system has no locks
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
    why, hint = "it is read several times", "Prepare the data again, when nothing writes the source files"
    return DataError("the source changed while the data was prepared", where=where, why=why, hint=hint)


def require_rows(count: int, what: str, where: str) -> None:
    """Check that rows of users or items fit in 32 bits.

    Args:
        count: number of users or items.
        what: users or items.
        where: location of the id column, for the error.

    Raises:
        DataError: There are more than 2,147,483,647.
    """
    if count > _MAX_ROW:
        hint = "Leave ids out that occur in few interactions, in the source files"
        raise DataError(f"{count:,} {what} are more than a row of 32 bits can number ({_MAX_ROW:,})", where=where, hint=hint)


@dataclass(frozen=True, slots=True)
class _Entities:
    """Users or items, numbered by row.

    Attributes:
        texts: String [n], ids in canonical form; the ids of the users or items table come first.
        listed: number of ids of that table.
        counts: int64 [n], number of interactions of each.
        rows: table of the ids as the interactions spell them, with the row of each.
    """

    texts: pl.Series
    listed: int
    counts: Int64
    rows: pl.DataFrame

    @staticmethod
    def of(side: Side, key: str, data: DataConfig, tables: Tables) -> "_Entities":
        """Collect the ids of one side, new ones in order of appearance."""
        table, interactions = tables.named.get(f"{side}s"), tables.interactions
        where = interactions.where(key)
        ids = interactions.select([key])
        found = _collect(
            ids.with_row_index(_ROW).group_by(key).agg(pl.col(_ROW).min(), count=pl.len()).sort(_ROW), interactions
        )
        if found.is_empty():
            raise DataError("there are no interactions", where=str(interactions.path), hint="Give at least one row")
        used_ids = exact(found.select(key))[key]
        id_texts = canonical_series(used_ids)
        if id_texts.to_frame().select(id_missing([key])).to_series().any():
            refuse_missing_ids(canonical_series(interactions.collect([key])[key]), where)  # all rows, which the error counts
        table_ids = None if table is None else table.collect([key])[key]
        for column, table_ in ((used_ids, interactions), (table_ids, table)):
            if (
                column is not None
                and table_ is not None
                and column.dtype.is_float()
                and inferred(canonical_series(column)) == "float64"
            ):
                hint = "Store them as text, or as whole numbers"
                raise DataError("ids are fractional numbers, which cannot be prepared", where=table_.where(key), hint=hint)
        type_ = TEXT if key in data.text else id_type([used_ids, *([] if table_ids is None else [table_ids])])
        forms = ColumnForms({key: type_})
        listed = (
            pl.Series(key, [], dtype=pl.String)
            if table_ids is None or table is None
            else read_ids(table_ids, table.where(key), forms)
        )
        require_rows(len(listed) + len(used_ids), f"{side}s", where)
        all_ids, rows = add_missing_ids(listed.to_frame(), forms.canonical(id_texts, where), where)
        counts = np.bincount(rows, weights=found["count"].to_numpy(), minlength=len(all_ids)).astype(np.int64)
        row_of_id = found.select(key).with_columns(pl.Series(USER if side == "user" else ITEM, rows))
        return _Entities(all_ids.to_series(0), len(listed), counts, row_of_id)

    def renumbered(self, rows: Int32) -> "tuple[_Entities, Int32]":
        """Renumber the ids after a selection, as if there were no other interactions.

        Args:
            rows: int32 [m], row of each selected interaction, in their order.

        Returns:
            The ids, and int32 [n], the new row of each old row, -1 for ids without interactions.
        """
        new_ids, first_use = np.unique(rows[rows >= self.listed], return_index=True)
        old_rows = np.concatenate([np.arange(self.listed), new_ids[np.argsort(first_use)]]).astype(np.int32)
        new_rows = np.full(len(self.texts), -1, dtype=np.int32)
        new_rows[old_rows] = np.arange(len(old_rows), dtype=np.int32)
        counts = np.bincount(new_rows[rows], minlength=len(old_rows)).astype(np.int64)
        return _Entities(self.texts.gather(old_rows), self.listed, counts, self.rows), new_rows


@dataclass(frozen=True, slots=True)
class _SelectedRows:
    """Interactions that the settings select, and their renumbered users and items.

    Attributes:
        rows: bool [n], whether each row of the source is selected.
        weights: float64 [n], weight of each row of the source.
        users: renumbered users.
        items: renumbered items.
        new_users: int32, new row of each old row of users, -1 for none.
        new_items: int32, new row of each old row of items, -1 for none.
    """

    rows: Bool
    weights: Float64
    users: _Entities
    items: _Entities
    new_users: Int32
    new_items: Int32


@dataclass(frozen=True, slots=True)
class _InteractionSource:
    """Reader of the interactions in batches, with rows instead of ids.

    Attributes:
        data: names the columns.
        table: the interactions.
        users: users by row.
        items: items by row.
        copied: context and split columns, which are copied unchanged.
    """

    data: DataConfig
    table: Table
    users: _Entities
    items: _Entities
    copied: tuple[str, ...]

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield batches of interactions with the columns of prepared data and `_ROW`."""
        data, where = self.data, self.table.where
        names = (*data.columns_of_rows, *self.copied)
        rows = self.table.select([data.user_id, data.item_id, *names]).with_row_index(_ROW)
        rows = rows.join(self.users.rows.lazy(), on=data.user_id, maintain_order="left")
        rows = rows.join(self.items.rows.lazy(), on=data.item_id, maintain_order="left")
        outcomes = self._outcomes()
        if outcomes is not None:
            keys = [name for name in outcomes.columns if name not in (TAKEN, _FACTOR)]
            rows = rows.join(outcomes.lazy(), on=keys, nulls_equal=True, maintain_order="left")
        units: set[int] = set()
        batches = rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True, lazy=True, engine="streaming")
        while True:
            try:
                batch = next(batches, None)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise unreadable_file(self.table.path, error) from None
            if batch is None:
                return
            columns = [batch[_ROW], batch[USER], batch[ITEM]]
            try:
                if data.time is not None:
                    times = Times.of(exact(batch.select(data.time))[data.time], where(data.time))
                    columns.append(times.values.alias(TIME))
                    units.add(times.unit)
                if data.weighed_by is not None:
                    factors = batch[_FACTOR].to_numpy() if data.events is not None else None
                    raw = batch if data.weight is None else exact(batch.select(data.weight))
                    columns.append(pl.Series(WEIGHT, RowWeights.of(raw, data.weight, where(data.weighed_by), factors).values))
            except DataError as error:
                raise self._error_of_all_rows(error) from None
            if len(units) > 1 and data.time is not None:
                hint = "Write all times in one way"
                mixed = DataError("some rows have dates and others numbers", where=where(data.time), hint=hint)
                raise self._error_of_all_rows(mixed)
            columns += [batch[TAKEN]] if data.has_negatives else []
            frame = pl.DataFrame([*columns, *(batch[name] for name in self.copied)])
            yield frame.with_columns(pl.col(TIME).cast(pl.Datetime("us"))) if units - {1} else frame

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
        data = self.data
        names = [data.label] if data.label is not None else []
        names += [rule.column for rule in (data.outcome, data.events) if rule is not None]
        keys = list(dict.fromkeys(names))
        if not keys:
            return None
        rows = self.table.select(keys).with_row_index(_ROW).group_by(keys).agg(pl.col(_ROW).min()).sort(_ROW)
        distinct = _collect(rows, self.table)
        try:
            outcomes = Outcomes.of(exact(distinct.select(keys)), data, self.table.where)
        except DataError as error:
            raise self._error_of_all_rows(error) from None
        frame = distinct.drop(_ROW)
        if outcomes.taken is not None:
            frame = frame.with_columns(pl.Series(TAKEN, outcomes.taken))
        return frame if outcomes.weight is None else frame.with_columns(pl.Series(_FACTOR, outcomes.weight))

    def select_rows(self) -> tuple[_SelectedRows, tuple[str, ...]]:
        """Apply the settings that select interactions; return the rows and messages."""
        data = self.data
        numbers = [_ROW, USER, ITEM, TIME, WEIGHT, TAKEN]
        parts = [batch.select(name for name in numbers if name in batch.columns) for batch in self.batches()]
        rows = pl.concat(parts, how="vertical_relaxed").sort(_ROW)
        del parts
        user, item = rows[USER].to_numpy(), rows[ITEM].to_numpy()
        weights = rows[WEIGHT].to_numpy() if WEIGHT in rows.columns else np.ones(len(rows))
        taken = rows[TAKEN].to_numpy() if TAKEN in rows.columns else None
        times = Times.of(rows[TIME], self.table.where(TIME)) if TIME in rows.columns else None
        selection = select(data, user, item, times, taken, weights, self.table.where)
        kept = np.ones(len(rows), dtype=np.bool_) if selection is None else selection.rows
        weights = weights if selection is None else selection.weights
        users, new_users = self.users.renumbered(user[kept])
        items, new_items = self.items.renumbered(item[kept])
        return _SelectedRows(kept, weights, users, items, new_users, new_items), () if selection is None else selection.notes

    def selected_batches(self, selected: _SelectedRows | None) -> Iterator[pl.DataFrame]:
        """Yield batches of the selected interactions, with the renumbered rows.

        Args:
            selected: the selection; None for all interactions.
        """
        for batch in self.batches():
            if selected is None:
                yield batch
                continue
            positions = batch[_ROW].to_numpy()
            is_selected = selected.rows[positions]
            remaining = batch.filter(is_selected)
            changed = [
                pl.Series(USER, selected.new_users[remaining[USER].to_numpy()]),
                pl.Series(ITEM, selected.new_items[remaining[ITEM].to_numpy()]),
            ]
            if self.data.weighed_by is not None or self.data.repeats == "merge":
                changed.append(pl.Series(WEIGHT, selected.weights[positions[is_selected]]))
            yield remaining.with_columns(changed)


def _write_shards(
    folder: Path, source: _InteractionSource, selected: _SelectedRows | None, counts: Int64, shards: int | None
) -> None:
    """Write the interactions, sorted by user, time and row of the source.

    Batches are first spooled to one folder for each shard, which is a range of users; then each shard is sorted in memory.

    Args:
        folder: folder of the prepared data.
        source: the interactions.
        selected: the selection; None for all interactions.
        counts: int64 [users], number of interactions of each user.
        shards: maximum number of shards.
    """
    ends = np.cumsum(counts)
    total = int(ends[-1])
    shards = max(1, -(-total // _SHARD_ROWS)) if shards is None else shards
    first_users = np.unique(np.searchsorted(ends, total * np.arange(shards) // shards, side="right"))  # the first user of each
    spool = folder / "spool"
    for number in range(len(first_users)):
        (spool / str(number)).mkdir(parents=True)
    times: set[DataType | None] = set()
    written = 0
    for batch_number, batch in enumerate(source.selected_batches(selected)):
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
        rows = rows.with_columns(pl.col(TIME).cast(pl.Float64)) if any(one == pl.Float64 for one in times) else rows
        shard = rows.sort(keys).drop(_ROW).collect()
        shard.write_parquet(folder / SHARDS / f"part-{number:05}.parquet", statistics=False)
        shutil.rmtree(spool / str(number))
    shutil.rmtree(spool)


def _types_of_all_rows(
    config: RunConfig, columns: FieldColumns, tables: Tables
) -> tuple[dict[str, dict[str, str]], dict[str, ReadAs]]:
    """Return the types by side, and how context columns are read, over all rows."""
    schema, data = config.schema_, config.data
    numeric = {f"user {name}" for name in schema.number_columns("user")}
    users = None if tables.users is None else tables.users.collect([data.user_id])
    items = None if tables.items is None else tables.items.collect([data.item_id])
    frames: Frames = (lambda name: tables.interactions.collect([name])[name], users, items)
    found, _ = find_types(schema, frames, columns.context, numeric)
    types = {
        side: {name: type_ for name, type_ in each.items() if name not in data.text} for side, each in found.state().items()
    }
    cuts, read_as = schema.separators("user"), {}
    for name in columns.context:
        is_number = f"user {name}" in numeric
        number = str(number_column(frames[0](name), tables.interactions.where(name)).dtype) if is_number else None
        read_as[name] = ReadAs.model_validate({"number": number, "separator": cuts.get(name)})
    return types, read_as


def _file_states(data: DataConfig, root: Path) -> dict[str, tuple[int, int]]:
    """Return the size and modification time of each source file."""
    paths = [root / one for one in (data.interactions, data.users, data.items) if one is not None]
    found = {os.path.relpath(path, root): path.stat() for one in paths for path in files_of(one)}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in found.items()}


def _collect(frame: pl.LazyFrame, table: Table) -> pl.DataFrame:
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable_file(table.path, error) from None
