"""Write prepared data: one pass over the interactions finds ids, another sorts.

Memory holds the ids, the rows that are read at one time, and one shard. Only the settings that select interactions by what
others there are (`recall.data.selection.select`) read the numbers of all rows.
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
from recall.data.entities import extended, ids_of, refuse_absent
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

_AT_ONCE = 1 << 19  # rows that are read at one time
_IN_A_SHARD = 1 << 21  # rows, by default
_LARGEST = int(np.iinfo(np.int32).max)
_ROW, _FACTOR = "recall_row", "recall_factor"
_OWN = (USER, ITEM, TIME, WEIGHT, TAKEN, _ROW, _FACTOR)


def prepare(config: RunConfig, tables: Tables, root: Path, folder: Path, shards: int | None = None) -> PreparedManifest:
    """Write the tables of a run as prepared data.

    Args:
        config: names the columns and fields.
        tables: as `open_tables` returns them.
        root: folder that the paths of the configuration start at.
        folder: to write to; new, empty, or with the rest of an interrupted preparation, which is removed.
        shards: at most so many; default: one for every two million interactions.

    Returns:
        The manifest that was written.

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
        if name in _OWN:
            raise ConfigError(f"a column cannot be called {name!r} in prepared data", where="data", hint="Rename it")
    with _claimed(folder):
        return _prepare(config, tables, columns, copied, root, folder, shards)


def _prepare(
    config: RunConfig,
    tables: Tables,
    columns: FieldColumns,
    copied: tuple[str, ...],
    root: Path,
    folder: Path,
    shards: int | None,
) -> PreparedManifest:
    """Write all files of a folder that is empty; as `prepare`."""
    data = config.data
    before = _states(data, root)
    if tables.users is not None:
        named = [data.user_id, *columns.users, *find_attributes(data, columns, tables, "user")]
        tables.users.collect(named).write_parquet(folder / "users.parquet")
    if tables.items is not None:
        dates = [data.available_from] if data.available_from is not None else []
        named = [data.item_id, *columns.items, *find_attributes(data, columns, tables), *dates]
        tables.items.collect(named).write_parquet(folder / "items.parquet")
    users = _Ids.of("user", data.user_id, data, tables)
    items = _Ids.of("item", data.item_id, data, tables)
    source = _Source(data, tables.interactions, users, items, copied)
    left_out: tuple[str, ...] = ()
    types: dict[str, dict[str, str]] = {}
    read_as: dict[str, ReadAs] = {}
    kept: _Kept | None = None
    bounded = data.since is not None or data.until is not None
    if bounded or data.repeats == "merge" or data.min_user > 1 or data.min_item > 1:
        kept, left_out = source.selected()
        users, items = kept.users, kept.items
        types, read_as = _types(config, columns, tables)
    for name, ids in (("user", users), ("item", items)):
        pl.DataFrame({"id": ids.texts}).write_parquet(folder / f"{name}_ids.parquet")
    _write_shards(folder, source, kept, users.counts, shards)
    sources = {name: sha256(root / name) for name in before}
    after = _states(data, root)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        raise _changed(str(root / changed[0]))
    return seal(data, folder, sources, left_out, types, read_as)


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Lock a folder, mark it unfinished, and remove what was left unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / UNFINISHED
    with descriptor(folder) as opened:  # the kernel frees the lock when the process dies
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"process {part.read_text()}" if part.exists() else ""
            hint = "Wait for it, or name another folder"
            raise DataError("another process prepares data here", where=str(folder), why=why, hint=hint) from None
        except OSError:
            pass  # the file system has no locks
        if (folder / MANIFEST).exists():
            raise DataError("the folder holds prepared data", where=str(folder), hint="Remove it, or name another folder")
        if not part.exists() and any(folder.iterdir()):
            raise DataError("the folder holds other files", where=str(folder), hint="Name a new folder")
        part.write_text(str(os.getpid()))
        for path in list(folder.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path != part:
                path.unlink()
        yield


def _changed(where: str) -> DataError:
    why, hint = "it is read several times", "Prepare the data again, when nothing writes the source files"
    return DataError("the source changed while the data was prepared", where=where, why=why, hint=hint)


def require_rows(count: int, what: str, where: str) -> None:
    """Check that rows of users or items fit in 32 bits.

    Args:
        count: of them.
        what: users or items.
        where: names the column in the error.

    Raises:
        DataError: There are more than 2,147,483,647.
    """
    if count > _LARGEST:
        hint = "Leave ids out that occur in few interactions, in the source files"
        raise DataError(f"{count:,} {what} are more than a row of 32 bits can number ({_LARGEST:,})", where=where, hint=hint)


@dataclass(frozen=True, slots=True)
class _Ids:
    """Users or items by row.

    Attributes:
        texts: String [n], ids in canonical form; those of the table come first.
        listed: number of ids of the table.
        counts: int64 [n], interactions of each.
        rows: the id as the interactions have it, and its row.
    """

    texts: pl.Series
    listed: int
    counts: Int64
    rows: pl.DataFrame

    @staticmethod
    def of(side: Side, key: str, data: DataConfig, tables: Tables) -> "_Ids":
        """Find the ids of one side, those of interactions in order of appearance."""
        table, interactions = tables.named.get(f"{side}s"), tables.interactions
        where = interactions.where(key)
        ids = interactions.select([key])
        found = _collected(
            ids.with_row_index(_ROW).group_by(key).agg(pl.col(_ROW).min(), count=pl.len()).sort(_ROW), interactions
        )
        if found.is_empty():
            raise DataError("there are no interactions", where=str(interactions.path), hint="Give at least one row")
        used = exact(found.select(key))[key]
        written = canonical_series(used)
        if written.to_frame().select(id_missing([key])).to_series().any():
            refuse_absent(canonical_series(interactions.collect([key])[key]), where)  # all rows, which the error counts
        own = None if table is None else table.collect([key])[key]
        for column, table_ in ((used, interactions), (own, table)):
            if (
                column is not None
                and table_ is not None
                and column.dtype.is_float()
                and inferred(canonical_series(column)) == "float64"
            ):
                hint = "Store them as text, or as whole numbers"
                raise DataError("ids are fractional numbers, which cannot be prepared", where=table_.where(key), hint=hint)
        type_ = TEXT if key in data.text else id_type([used, *([] if own is None else [own])])
        forms = ColumnForms({key: type_})
        listed = pl.Series(key, [], dtype=pl.String) if own is None or table is None else ids_of(own, table.where(key), forms)
        require_rows(len(listed) + len(used), f"{side}s", where)
        everyone, rows = extended(listed.to_frame(), forms.canonical(written, where), where)
        counts = np.bincount(rows, weights=found["count"].to_numpy(), minlength=len(everyone)).astype(np.int64)
        mapped = found.select(key).with_columns(pl.Series(USER if side == "user" else ITEM, rows))
        return _Ids(everyone.to_series(0), len(listed), counts, mapped)

    def kept(self, rows: Int32) -> "tuple[_Ids, Int32]":
        """Renumber the ids as if there were no other interactions.

        Args:
            rows: int32 [m], of the interactions that are kept, in their order.

        Returns:
            The ids, and the new row of each old one, -1 for those left out; int32 [n].
        """
        others, first = np.unique(rows[rows >= self.listed], return_index=True)
        old = np.concatenate([np.arange(self.listed), others[np.argsort(first)]]).astype(np.int32)
        new = np.full(len(self.texts), -1, dtype=np.int32)
        new[old] = np.arange(len(old), dtype=np.int32)
        counts = np.bincount(new[rows], minlength=len(old)).astype(np.int64)
        return _Ids(self.texts.gather(old), self.listed, counts, self.rows), new


@dataclass(frozen=True, slots=True)
class _Kept:
    """Interactions, users and items that the settings of a selection keep.

    Attributes:
        rows: bool [n], by place in the source.
        weights: float64 [n].
        users: numbered again.
        items: numbered again.
        new_users: int32, the new row of each old one.
        new_items: the same of items.
    """

    rows: Bool
    weights: Float64
    users: _Ids
    items: _Ids
    new_users: Int32
    new_items: Int32


@dataclass(frozen=True, slots=True)
class _Source:
    """The interactions as they are read."""

    data: DataConfig
    table: Table
    users: _Ids
    items: _Ids
    copied: tuple[str, ...]

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the interactions in columns of prepared data and `_ROW`."""
        data, where = self.data, self.table.where
        named = (*data.columns_of_rows, *self.copied)
        rows = self.table.select([data.user_id, data.item_id, *named]).with_row_index(_ROW)
        rows = rows.join(self.users.rows.lazy(), on=data.user_id, maintain_order="left")
        rows = rows.join(self.items.rows.lazy(), on=data.item_id, maintain_order="left")
        outcomes = self._outcomes()
        if outcomes is not None:
            keys = [name for name in outcomes.columns if name not in (TAKEN, _FACTOR)]
            rows = rows.join(outcomes.lazy(), on=keys, nulls_equal=True, maintain_order="left")
        units: set[int] = set()
        batches = rows.collect_batches(chunk_size=_AT_ONCE, maintain_order=True, lazy=True, engine="streaming")
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
                raise self._of_all_rows(error) from None
            if len(units) > 1 and data.time is not None:
                hint = "Write all times in one way"
                mixed = DataError("some rows have dates and others numbers", where=where(data.time), hint=hint)
                raise self._of_all_rows(mixed)
            columns += [batch[TAKEN]] if data.has_negatives else []
            frame = pl.DataFrame([*columns, *(batch[name] for name in self.copied)])
            yield frame.with_columns(pl.col(TIME).cast(pl.Datetime("us"))) if units - {1} else frame

    def _of_all_rows(self, error: DataError) -> DataError:
        """Return the error that reading all rows at once gives, which counts all."""
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
        """Return whether rows were taken, and factors, by the columns that say so."""
        data = self.data
        named = [data.label] if data.label is not None else []
        named += [rule.column for rule in (data.outcome, data.events) if rule is not None]
        keys = list(dict.fromkeys(named))
        if not keys:
            return None
        rows = self.table.select(keys).with_row_index(_ROW).group_by(keys).agg(pl.col(_ROW).min()).sort(_ROW)
        found = _collected(rows, self.table)
        try:
            outcomes = Outcomes.of(exact(found.select(keys)), data, self.table.where)
        except DataError as error:
            raise self._of_all_rows(error) from None
        frame = found.drop(_ROW)
        if outcomes.taken is not None:
            frame = frame.with_columns(pl.Series(TAKEN, outcomes.taken))
        return frame if outcomes.weight is None else frame.with_columns(pl.Series(_FACTOR, outcomes.weight))

    def selected(self) -> tuple[_Kept, tuple[str, ...]]:
        """Apply the settings that select interactions, to the numbers of all rows."""
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
        users, new_users = self.users.kept(user[kept])
        items, new_items = self.items.kept(item[kept])
        return _Kept(kept, weights, users, items, new_users, new_items), () if selection is None else selection.notes

    def kept_batches(self, kept: _Kept | None) -> Iterator[pl.DataFrame]:
        """Yield the interactions that are kept, in rows of kept users and items."""
        for batch in self.batches():
            if kept is None:
                yield batch
                continue
            places = batch[_ROW].to_numpy()
            mine = kept.rows[places]
            left = batch.filter(mine)
            changed = [
                pl.Series(USER, kept.new_users[left[USER].to_numpy()]),
                pl.Series(ITEM, kept.new_items[left[ITEM].to_numpy()]),
            ]
            if self.data.weighed_by is not None or self.data.repeats == "merge":
                changed.append(pl.Series(WEIGHT, kept.weights[places[mine]]))
            yield left.with_columns(changed)


def _write_shards(folder: Path, source: _Source, kept: _Kept | None, counts: Int64, shards: int | None) -> None:
    """Write the interactions, sorted by user, time and place in the source.

    Args:
        folder: of the prepared data.
        source: the interactions.
        kept: which of them; None for all.
        counts: int64 [users], interactions of each user.
        shards: at most so many.
    """
    ends = np.cumsum(counts)
    total = int(ends[-1])
    shards = max(1, -(-total // _IN_A_SHARD)) if shards is None else shards
    firsts = np.unique(np.searchsorted(ends, total * np.arange(shards) // shards, side="right"))  # the first user of each
    spool = folder / "spool"
    for number in range(len(firsts)):
        (spool / str(number)).mkdir(parents=True)
    times: set[DataType | None] = set()
    written = 0
    for batch_number, batch in enumerate(source.kept_batches(kept)):
        times.add(batch.schema.get(TIME))
        written += len(batch)
        of_shard = np.searchsorted(firsts, batch[USER].to_numpy(), side="right") - 1
        for number in np.unique(of_shard):
            batch.filter(of_shard == number).write_ipc(spool / str(number) / f"{batch_number:06}.arrow", compression="lz4")
    if written != total:
        raise _changed(str(source.table.path))
    (folder / SHARDS).mkdir()
    for number in range(len(firsts)):
        parts = [pl.scan_ipc(path) for path in sorted((spool / str(number)).iterdir())]
        keys = [USER, TIME, _ROW] if source.data.time is not None else [USER, _ROW]
        rows = pl.concat(parts, how="vertical_relaxed")
        rows = rows.with_columns(pl.col(TIME).cast(pl.Float64)) if any(one == pl.Float64 for one in times) else rows
        shard = rows.sort(keys).drop(_ROW).collect()
        shard.write_parquet(folder / SHARDS / f"part-{number:05}.parquet", statistics=False)
        shutil.rmtree(spool / str(number))
    shutil.rmtree(spool)


def _types(config: RunConfig, columns: FieldColumns, tables: Tables) -> tuple[dict[str, dict[str, str]], dict[str, ReadAs]]:
    """Return the types over all rows by side, and how context columns are read."""
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


def _states(data: DataConfig, root: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of change of each source file."""
    named = [root / one for one in (data.interactions, data.users, data.items) if one is not None]
    found = {os.path.relpath(path, root): path.stat() for one in named for path in files_of(one)}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in found.items()}


def _collected(frame: pl.LazyFrame, table: Table) -> pl.DataFrame:
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable_file(table.path, error) from None
