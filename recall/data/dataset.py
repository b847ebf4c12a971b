"""Load a run: interactions sorted by user and time, split; users and items."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from mmap import MADV_DONTNEED, mmap
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recall._arrays import Bool, Int32, Int64
from recall.config import ColumnSplit, DataConfig, ItemsSplit, RandomSplit, RunConfig, TimeSplit, UsersSplit
from recall.config.schema import Schema
from recall.data.columns import column_forms, find_columns, find_types
from recall.data.combine import move_columns
from recall.data.entities import Offer, add_missing_ids, available, read_entities
from recall.data.findings import Finding
from recall.data.outcomes import Outcomes, RowWeights, WeightRange, drop_left_out
from recall.data.prepared import WEIGHT, PreparedTables, is_prepared, open_prepared
from recall.data.selection import COUNTED, decay_shares, drop_incomplete_rows, select
from recall.data.split import (
    REMEMBERED,
    TRAIN,
    Parts,
    carve,
    carve_last,
    column_parts,
    hashed_parts,
    id_hashes,
    mark_given,
    order_by_user_and_time,
    parts_of_next,
    random_parts,
    separate_negatives,
    sorted_parts,
    time_parts,
)
from recall.data.tables import Tables, read_tables
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.boosts import Boosts, text_numbers
from recall.features.canonical import UNTYPED, CanonicalTypes
from recall.features.values import coded, number_column

_HASHED_AT_ONCE, _JOINED_AT_ONCE = 1 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """Interactions, users and items of a run, sorted and split.

    Attributes:
        schema: the fields.
        events: one row for each interaction, sorted by user, then time, then row of the file: `user` Int32 and
            `item` Int32 (rows of `users` and `items`), `weight` Float32 (relative to the mean weight of the training rows
            before `data.half_life`), `split` Int8 (GIVEN, REMEMBERED, TRAIN, VALID or TEST), then the context columns; text
            of few distinct values is an Enum, which takes a sixteenth of the memory.
        users: row r is user r: the id column as text, then the columns that user fields read. Users of the users
            table come first, in its order; users of interactions only follow, with null in the other columns.
        items: the same for items, and after them the columns that only filters read.
        context_columns: columns of `events` that user fields read.
        user_columns: columns of `users` that user fields read, the id aside.
        item_columns: columns of `items` that item fields read, the id aside.
        negatives: rows that were shown and not taken, in the same order and with the same columns as `events`, and `before`
            Int64: the number of `events` before the row. No history, mask or popularity includes them. None without a
            label, outcome or event that marks them.
        hold_out: "users" or "items" if the split holds out a share of them entirely, else "".
        weight_range: range of the weights of the training rows; None without a weight column.
        observation: smallest weight of a training row, in the unit of `events` and before any decay.
        types: canonical types of all columns, in whose form text is.
        assumptions: notes about columns of text that are read as other values than they spell.
        available: bool [items], on offer by their date before training ended; None without a date column.
        left_out: messages about the rows that settings left out.
        ordered: whether a time column orders the interactions of a user.
        whole: items of the complete data set, where this one is a part of it; else None.
        mapped: file that numbers of `events` are mapped from; None where they are in memory.
    """

    schema: Schema
    events: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    context_columns: tuple[str, ...]
    user_columns: tuple[str, ...]
    item_columns: tuple[str, ...]
    negatives: pl.DataFrame | None = None
    hold_out: Literal["", "users", "items"] = ""
    weight_range: WeightRange | None = None
    observation: float = 1.0
    types: CanonicalTypes = UNTYPED
    assumptions: tuple[Finding, ...] = ()
    available: Bool | None = None
    left_out: tuple[str, ...] = ()
    ordered: bool = True
    whole: Offer | None = None
    mapped: mmap | None = None

    def unload(self) -> None:
        """Take what is mapped out of memory, until it is read again."""
        if self.mapped is not None:
            self.mapped.madvise(MADV_DONTNEED)

    def select(self, split: int) -> Int64:
        """Return the ascending positions in `events` of a part of the split; int64 [m]."""
        return np.flatnonzero(self.events["split"].to_numpy() == split)

    @property
    def training(self) -> Int64:
        """Positions in `events` of the training interactions; int64 [m]."""
        return self.select(TRAIN)

    @property
    def offer(self) -> Offer:
        """Items with training interactions, and items that were shown only."""
        if self.whole is not None:
            return self.whole
        negatives = self.events.clear() if self.negatives is None else self.negatives
        interacted = self.events["item"].to_numpy()[np.isin(self.events["split"].to_numpy(), (REMEMBERED, TRAIN))]
        shown = negatives["item"].to_numpy()[negatives["split"].to_numpy() == TRAIN]
        return Offer.of(interacted, shown, self.available, len(self.items))

    @property
    def offered(self) -> Bool:
        """Items that training may use as negatives; bool [items]."""
        return self.offer.candidates

    def fingerprint(self) -> str:
        """Return the SHA-256 over the names, types and values of all tables."""
        digest = hashlib.sha256()
        for frame in (self.events, self.users, self.items, *([] if self.negatives is None else [self.negatives])):
            for column in frame.iter_columns():
                dtype = pl.String() if isinstance(column.dtype, pl.Enum) else column.dtype
                digest.update(f"{column.name}\0{dtype}\0{len(column)}\0".encode())
                for part in column.to_frame().iter_slices(_HASHED_AT_ONCE):
                    _digest(digest, part.to_series().cast(dtype))
        if self.available is not None:
            digest.update(np.packbits(self.available).tobytes())
        return digest.hexdigest()


def load_dataset(config: RunConfig, root: Path, types: CanonicalTypes | None = None) -> Dataset:
    """Read, join, sort and split the tables of a run.

    Args:
        config: names the tables, columns and fields.
        root: folder that relative paths start at.
        types: of the columns, as a bundle records them; default: found from the values.

    Raises:
        DataError: A table, column or value does not match the configuration.
        ConfigError: A field can be read in two ways, or the split needs a column that is not named.
    """
    return dataset_of(config, open_tables(config.data, root), types=types)


def open_tables(data: DataConfig, sources: Path | Mapping[str, object]) -> Tables:
    """Open the tables of a run, without reading them.

    Args:
        data: names the tables and columns.
        sources: folder of prepared data, or as for `read_tables`.

    Raises:
        RecallError: As `open_prepared`, or `read_tables` and `apply_settings`.
    """
    if isinstance(sources, Path) and is_prepared(sources):
        return open_prepared(data, sources)
    return apply_settings(data, read_tables(data, sources))


def apply_settings(data: DataConfig, tables: Tables) -> Tables:
    """Drop rows that the settings leave out, and move columns to users and items.

    Args:
        data: the settings.
        tables: the opened tables.

    Raises:
        DataError: A column is missing.
        ConfigError: A column to move is in its table already.
    """
    return move_columns(data, drop_unused_rows(data, tables))


def drop_unused_rows(data: DataConfig, tables: Tables) -> Tables:
    """Drop incomplete rows, and interactions that outcome or event leave out.

    Args:
        data: the settings.
        tables: the opened tables.

    Raises:
        DataError: A column is missing, or no row is left.
    """
    tables = drop_incomplete_rows(data, tables)
    return replace(tables, interactions=drop_left_out(data, tables.interactions))


def dataset_of(config: RunConfig, tables: Tables, known: int = 0, types: CanonicalTypes | None = None) -> Dataset:
    """Join, sort and split the tables of a run.

    Args:
        config: names the columns and fields.
        tables: tables from `open_tables`.
        known: number of leading interactions that may have been trained on before; `data.carve` never draws them.
        types: canonical types that a bundle records; None to find them from the values.

    Raises:
        DataError: A table, column or value does not match the configuration.
        ConfigError: A field can be read in two ways, the split lacks a column, or nothing is left to train on.
    """
    schema, data, where = config.schema_, config.data, tables.interactions.where
    columns = find_columns(schema, data, tables)
    user_numbers, item_numbers = schema.number_columns("user"), schema.number_columns("item")
    prepared, raw = tables if isinstance(tables, PreparedTables) else None, pl.DataFrame()
    if prepared is not None:
        prepared.verify_files()
        prepared.require_same_reading(schema, columns.context)
    else:
        raw = tables.interactions.collect([data.user_id, data.item_id, *data.columns_of_rows, *columns.context])
        if raw.is_empty():
            raise DataError("there are no interactions", where=str(tables.interactions.path), hint="Give at least one row")
    column: Callable[[str], pl.Series] = prepared.column if prepared is not None else raw.get_column
    item_types = tables.items.types if tables.items is not None else {}
    item_numbers |= text_numbers(config.index.boosts, columns.item_attributes, item_types)
    item_columns = (*columns.items, *columns.item_attributes)
    user_columns = (*columns.users, *columns.user_attributes)
    raw_users = None if tables.users is None else tables.users.collect([data.user_id, *user_columns])
    raw_items = None if tables.items is None else tables.items.collect([data.item_id, *item_columns])
    assumptions: tuple[Finding, ...] = ()
    if types is None:
        frames = (column if prepared is None else prepared.distinct, raw_users, raw_items)
        types, assumptions = find_types(
            schema, frames, columns.context, {"user": user_numbers, "item": item_numbers}, data.text
        )
        del frames
        types = types if prepared is None else prepared.with_recorded_types(types)
    user_forms, item_forms = column_forms(schema, types)
    listed_users = read_entities(tables.users, data.user_id, user_columns, user_numbers, user_forms, raw_users)
    listed_items = read_entities(tables.items, data.item_id, item_columns, item_numbers, item_forms, raw_items)
    del raw_users, raw_items
    if prepared is not None:
        users, user = prepared.add_missing_ids("user", listed_users, user_forms)
        items, item = prepared.add_missing_ids("item", listed_items, item_forms)
        times, taken, left_out = prepared.times(user), prepared.taken(), prepared.manifest.left_out
        weights = RowWeights(prepared.weights(), where(WEIGHT) if data.weighed_by else "")
    else:
        users, user = add_missing_ids(listed_users, user_forms.canonical(column(data.user_id), ""), where(data.user_id))
        items, item = add_missing_ids(listed_items, item_forms.canonical(column(data.item_id), ""), where(data.item_id))
        times = Times.of(column(data.time), where(data.time)) if data.time is not None else None
        outcomes = Outcomes.of(raw, data, where)
        taken, left_out = outcomes.taken, ()
        weights = RowWeights.of(raw, data.weight, where(data.weighed_by) if data.weighed_by else "", outcomes.weight)
    bags = {name for one, field in schema.fields.items() if field.kind == "bag" for name in schema.columns(one)}
    context = [
        number_column(column(name), where(name))
        if name in user_numbers
        else prepared.text(name, user_forms)
        if prepared is not None and name not in bags
        else user_forms.canonical(column(name), where(name))
        for name in columns.context
    ]
    context = context if prepared is None else [prepared.cast_to_recorded(values) for values in context]
    selection = None if prepared is not None else select(data, user, item, times, taken, weights.values, where)
    if selection is not None:  # after every row was read, so that errors name rows of the file
        kept, left_out = selection.rows, selection.notes
        raw, known = raw.filter(kept), int(kept[:known].sum())
        column = raw.get_column
        users, user = add_missing_ids(listed_users, user_forms.canonical(column(data.user_id), ""), where(data.user_id))
        items, item = add_missing_ids(listed_items, item_forms.canonical(column(data.item_id), ""), where(data.item_id))
        times = None if times is None else replace(times, values=times.values.filter(kept))
        taken = None if taken is None else taken[kept]
        weights = RowWeights(selection.weights[kept], weights.where and weights.where + COUNTED)
        context = [values.filter(kept) for values in context]
    context = [values if values.name in bags else coded(values) for values in context]
    Boosts.of(
        config.index.boosts, items.columns, items.get_column, len(items), schema, types.items
    )  # an invalid boost fails before training
    named_parts: Parts | None = None
    match data.split:
        case ColumnSplit(column=split_column):
            split_values = (
                column(split_column) if prepared is None else tables.interactions.collect([split_column])[split_column]
            )  # ids too, by row
            named_parts = column_parts(split_values, data.split, where(split_column))
        case UsersSplit():
            named_parts = hashed_parts(users[data.user_id], data.split, config.seed)[user]
        case ItemsSplit():
            named_parts = hashed_parts(items[data.item_id], data.split, config.seed)[item]
        case RandomSplit():
            hashes = id_hashes(users[data.user_id])[user], id_hashes(items[data.item_id])[item]
            named_parts = random_parts(*hashes, data.split, config.seed)
    rows = _Rows(user, item, times, named_parts, context)
    del raw, column, user, item, context, named_parts
    order, shown_positions, before = separate_negatives(
        order_by_user_and_time(rows.user, times) if prepared is None else None, taken, len(rows.user)
    )
    shown = rows.at(shown_positions)
    rows = rows if order is None else rows.at(order)
    new_rows = (True, True) if known == 0 or order is None else (order >= known, shown_positions >= known)
    parts, shown_parts = _parts(rows, shown, before, len(users), config, *new_rows)
    is_training = parts == TRAIN
    if not is_training.any():
        raise ConfigError("the split leaves nothing to train on", where="data.split", hint="Test and validate on less")
    training = np.flatnonzero(is_training) if order is None else order[is_training]
    file_weights, weight_range = weights.scaled(training), weights.range(training)
    weight = file_weights if order is None else file_weights.gather(order)
    observation = float(weight.filter(is_training).min())  # type: ignore[arg-type]
    if data.half_life is not None:
        weight = weight * pl.Series(decay_shares(rows.user, parts, data.half_life))
    is_available = None
    if data.available_from is not None:
        trained_times = None if rows.times is None else replace(rows.times, values=rows.times.values.filter(is_training))
        is_available = available(tables.items, data.available_from, len(items), trained_times)
        if isinstance(data.split, ItemsSplit):  # a held-out item represents one that did not exist, regardless of its date
            is_available &= hashed_parts(items[config.schema_.item_id], data.split, config.seed) == TRAIN
    del times, order, training, is_training
    events = rows.frame(parts, weight)
    negatives = (
        shown.frame(shown_parts, file_weights.gather(shown_positions)).with_columns(before=before)
        if data.has_negatives
        else None
    )
    return Dataset(
        schema,
        events,
        users,
        items,
        columns.context,
        columns.users,
        columns.items,
        negatives,
        data.split.by if isinstance(data.split, UsersSplit | ItemsSplit) else "",
        weight_range=weight_range,
        observation=observation,
        types=types,
        assumptions=assumptions,
        available=is_available,
        left_out=left_out,
        ordered=config.data.time is not None,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Columns of interactions in one order.

    Attributes:
        user: int32 [n].
        item: int32 [n].
        times: times [n], if there is a time column.
        parts: int8 [n], where a column or a hash decides the split; else None.
        context: context columns, each [n].
    """

    user: Int32
    item: Int32
    times: Times | None
    parts: Parts | None
    context: list[pl.Series]

    def at(self, positions: Int64) -> "_Rows":
        """Return the rows at the positions, int64 [m]."""
        times = None if self.times is None else replace(self.times, values=self.times.values.gather(positions))
        parts = None if self.parts is None else self.parts[positions]
        return _Rows(
            self.user[positions], self.item[positions], times, parts, [column.gather(positions) for column in self.context]
        )

    def frame(self, parts: Parts, weight: pl.Series) -> pl.DataFrame:
        """Return `Dataset.events` of these rows, given their parts and weights [n]."""
        user, item, split = pl.Series("user", self.user), pl.Series("item", self.item), pl.Series("split", parts)
        return pl.DataFrame([user, item, weight.alias("weight"), split, *self.context])


def _parts(
    rows: _Rows,
    shown: _Rows,
    before: Int64,
    n_users: int,
    config: RunConfig,
    new_rows: Bool | Literal[True],
    new_shown: Bool | Literal[True],
) -> tuple[Parts, Parts]:
    """Return the parts of interactions and negatives.

    Args:
        rows: interactions by user and time.
        shown: negatives by user and time.
        before: int64 [m], number of interactions before each negative.
        n_users: number of users.
        config: the run.
        new_rows: bool [n], interactions that may be moved to validation; True for all.
        new_shown: bool [m], negatives that may be.
    """
    data = config.data
    if rows.parts is not None and shown.parts is not None:
        parts, shown_parts = rows.parts, shown.parts
        if isinstance(data.split, UsersSplit) and rows.times is not None:
            parts = mark_given(parts, rows.user, data.split.given)
    else:
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows.user, minlength=n_users))])
        parts = sorted_parts(starts, rows.times, data.split)
        if isinstance(data.split, TimeSplit) and rows.times is not None and shown.times is not None:
            shown_parts = time_parts(shown.times, rows.times, data.split)
        else:
            shown_parts = parts_of_next(shown.user, before, starts, parts)
    parts = carve_last(parts, data.carve_last, rows.user, new_rows)
    carved = carve(parts, data.carve, config.seed, new_rows)
    return carved, shown_parts if carved is parts else carve(shown_parts, data.carve, config.seed, new_shown)


def _digest(digest: "hashlib._Hash", values: pl.Series) -> None:
    """Update a digest with null masks, lengths and values."""
    digest.update(np.packbits(values.is_null().to_numpy()).tobytes())
    if isinstance(values.dtype, pl.List):
        digest.update(values.list.len().fill_null(0).to_numpy().tobytes())
        _digest(digest, values.explode(empty_as_null=False, keep_nulls=False))
    elif values.dtype == pl.String:
        digest.update(values.str.len_bytes().fill_null(0).to_numpy().tobytes())
        for part in values.to_frame().iter_slices(_JOINED_AT_ONCE):  # Python's texts take several times the memory
            digest.update("".join(part.to_series().drop_nulls().to_list()).encode())
    else:
        values = values.cast(pl.UInt8) if values.dtype == pl.Boolean else values.to_physical()
        digest.update(values.fill_null(0).to_numpy().tobytes())
