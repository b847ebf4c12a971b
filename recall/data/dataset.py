"""Load a run: interactions sorted by user and time, split; users and items."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recall._arrays import Bool, Int32, Int64
from recall.config import ColumnSplit, DataConfig, ItemsSplit, RandomSplit, RunConfig, UsersSplit
from recall.config.schema import Schema
from recall.data.column_types import Assumption, find_types, forms
from recall.data.entities import Offer, available, extended, listed
from recall.data.joined import described
from recall.data.outcomes import Outcomes, RowWeights, WeightRange, without_left_out
from recall.data.prepared import WEIGHT, PreparedTables, is_prepared, open_prepared
from recall.data.selection import COUNTED, decay, drop_incomplete_rows, select
from recall.data.sources import FieldColumns, find_attributes, find_columns
from recall.data.split import (
    REMEMBERED,
    TRAIN,
    Parts,
    Places,
    by_user_and_time,
    carve,
    carve_last,
    column_parts,
    hashed_parts,
    id_hashes,
    negative_parts,
    random_parts,
    sorted_parts,
    split_taken,
    with_given,
)
from recall.data.tables import Table, Tables, read_tables
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.boosts import Boosts, text_numbers
from recall.features.canonical import UNTYPED, CanonicalTypes
from recall.features.values import coded, number_column

_HASHED_AT_ONCE, _JOINED_AT_ONCE = 1 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """All that a run learns from and is judged on.

    Attributes:
        schema: the fields.
        events: one row for each interaction, sorted by user, then time, then place in the file: `user` Int32 and
            `item` Int32 (rows of the two tables below), `weight` Float32 (in units of the mean weight of the rows that train,
            before they decay by `data.half_life`), `split` Int8 (GIVEN, REMEMBERED, TRAIN, VALID or TEST), then the context
            columns as they were read; text of few values is an Enum, which takes a sixteenth of the memory.
        users: row r is user r: the id column as text, then the columns that user fields read. Users of the users
            table come first, in its order; those found in interactions only follow, with their columns missing.
        items: the same for items, and after them the columns that items are only filtered by.
        context_columns: columns of `events` that user fields read.
        user_columns: columns of `users` that user fields read, the id aside.
        item_columns: columns of `items` that item fields read, the id aside.
        negatives: rows that the label column marks as shown and not taken, in the same order and with the same columns as
            `events`, and `before` Int64: how many of `events` come before the row. They are not events: no history,
            mask or popularity includes them. None when no label column is named.
        hold_out: "users" or "items" when the split holds a share of them out entirely, else "".
        weight_range: how the weights of the rows that train were spread; None when no weight column is named.
        observation: the smallest weight of a row that trains, in the unit of `events` and before any decay.
        types: of all columns, in whose canonical form text is.
        assumptions: how text was read, where that is another value than what is written.
        available: bool [items], on offer by their date before training ended; None when no date column is named.
        left_out: what the settings that select interactions left out.
        ordered: whether a time column orders the interactions of a user.
        whole: the items of the whole, where the interactions are a part of it; None where they are all.
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
    assumptions: tuple[Assumption, ...] = ()
    available: Bool | None = None
    left_out: tuple[str, ...] = ()
    ordered: bool = True
    whole: Offer | None = None

    def select(self, split: int) -> Int64:
        """Return the positions in `events` of one part of the split, rising; int64 [m]."""
        return np.flatnonzero(self.events["split"].to_numpy() == split)

    @property
    def training(self) -> Int64:
        """Positions in `events` of the interactions that train; int64 [m]."""
        return self.select(TRAIN)

    @property
    def offer(self) -> Offer:
        """Items by whether they have training interactions."""
        if self.whole is not None:
            return self.whole
        interacted = self.events["item"].to_numpy()[np.isin(self.events["split"].to_numpy(), (REMEMBERED, TRAIN))]
        shown = np.empty(0, dtype=np.int32)
        if self.negatives is not None:
            shown = self.negatives["item"].to_numpy()[self.negatives["split"].to_numpy() == TRAIN]
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


def open_tables(data: DataConfig, root: Path) -> Tables:
    """Open the tables of a run, without reading them.

    Args:
        data: names the tables and columns.
        root: folder that relative paths start at, or of prepared data.

    Raises:
        RecallError: As `open_prepared`, or `read_tables` and `move_columns`.
    """
    return open_prepared(data, root) if is_prepared(root) else move_columns(data, read_tables(data, root))


def move_columns(data: DataConfig, tables: Tables) -> Tables:
    """Drop rows that are left out, and move columns that describe users or items.

    Args:
        data: names the columns.
        tables: as they were opened.

    Raises:
        DataError: A column is missing.
        ConfigError: A column to move is in its table already.
    """
    tables = drop_incomplete_rows(data, tables)
    return described(data, replace(tables, interactions=without_left_out(data, tables.interactions)))


def dataset_of(config: RunConfig, tables: Tables, known: int = 0, types: CanonicalTypes | None = None) -> Dataset:
    """Join, sort and split the tables of a run.

    Args:
        config: names the columns and fields.
        tables: as `open_tables` returns them.
        known: the first so many interactions may have been trained on before; `data.carve` never takes them.
        types: as for `load_dataset`.

    Raises:
        DataError: A table, column or value does not match the configuration.
        ConfigError: A field can be read in two ways, the split lacks a column, or nothing is left to train on.
    """
    schema, data = config.schema_, config.data
    columns = find_columns(schema, tables)
    of_users, of_items = schema.number_columns("user"), schema.number_columns("item")
    prepared = tables if isinstance(tables, PreparedTables) else None
    if prepared is not None:
        prepared.require_sound()
        prepared.require_read_alike(schema, columns.context)
    raw = pl.DataFrame() if prepared is not None else _raw(data, columns, tables.interactions)
    column: Callable[[str], pl.Series] = prepared.column if prepared is not None else raw.get_column
    where = tables.interactions.where
    attributes = find_attributes(data, columns, tables)
    of_items |= text_numbers(config.index.boosts, attributes, tables.items.types if tables.items is not None else {})
    item_columns = (*columns.items, *attributes)
    user_columns = (*columns.users, *find_attributes(data, columns, tables, "user"))
    raw_users = None if tables.users is None else tables.users.collect([data.user_id, *user_columns])
    raw_items = None if tables.items is None else tables.items.collect([data.item_id, *item_columns])
    assumptions: tuple[Assumption, ...] = ()
    if types is None:
        numeric = {*(f"user {name}" for name in of_users), *(f"item {name}" for name in of_items)}
        frames = (column if prepared is None else prepared.distinct, raw_users, raw_items)
        types, assumptions = find_types(schema, frames, columns.context, numeric, data.text)
        del frames
        types = types if prepared is None else prepared.overridden(types)
    user_forms, item_forms = forms(schema, types)
    listed_users = listed(tables.users, data.user_id, user_columns, of_users, user_forms, raw_users)
    listed_items = listed(tables.items, data.item_id, item_columns, of_items, item_forms, raw_items)
    del raw_users, raw_items
    if prepared is not None:
        users, user = prepared.extended("user", listed_users, user_forms)
        items, item = prepared.extended("item", listed_items, item_forms)
        times, taken, left_out = prepared.times(user), prepared.taken(), prepared.manifest.left_out
        weights = RowWeights(prepared.weights(), where(WEIGHT) if data.weighed_by else "")
    else:
        users, user = extended(listed_users, user_forms.canonical(column(data.user_id), ""), where(data.user_id))
        items, item = extended(listed_items, item_forms.canonical(column(data.item_id), ""), where(data.item_id))
        times = Times.of(column(data.time), where(data.time)) if data.time is not None else None
        outcomes = Outcomes.of(raw, data, where)
        taken, left_out = outcomes.taken, ()
        weights = RowWeights.of(raw, data.weight, where(data.weighed_by) if data.weighed_by else "", outcomes.weight)
    bags = {name for one, field in schema.fields.items() if field.kind == "bag" for name in schema.columns(one)}
    context = [
        number_column(column(name), where(name))
        if name in of_users
        else prepared.text(name, user_forms)
        if prepared is not None and name not in bags
        else user_forms.canonical(column(name), where(name))
        for name in columns.context
    ]
    context = context if prepared is None else [prepared.as_typed(values) for values in context]
    selection = None if prepared is not None else select(data, user, item, times, taken, weights.values, where)
    if selection is not None:  # after every row was read, so that errors name rows of the file
        kept, left_out = selection.rows, selection.notes
        raw, known = raw.filter(kept), int(kept[:known].sum())
        column = raw.get_column
        users, user = extended(listed_users, user_forms.canonical(column(data.user_id), ""), where(data.user_id))
        items, item = extended(listed_items, item_forms.canonical(column(data.item_id), ""), where(data.item_id))
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
        case ColumnSplit(column=named):
            each = column(named) if prepared is None else tables.interactions.collect([named])[named]  # ids too, by row
            named_parts = column_parts(each, data.split, where(named))
        case UsersSplit():
            named_parts = hashed_parts(users[data.user_id], data.split, config.seed)[user]
        case ItemsSplit():
            named_parts = hashed_parts(items[data.item_id], data.split, config.seed)[item]
        case RandomSplit():
            hashes = id_hashes(users[data.user_id])[user], id_hashes(items[data.item_id])[item]
            named_parts = random_parts(*hashes, data.split, config.seed)
    rows = _Rows(user, item, times, named_parts, context)
    del raw, column, user, item, context, named_parts
    order, rest, before = split_taken(by_user_and_time(rows.user, times) if prepared is None else None, taken, len(rows.user))
    shown = rows.at(rest)
    rows = rows if order is None else rows.at(order)
    among = None if known == 0 or order is None else (order >= known, rest >= known)
    parts, rest_parts = _parts(rows, shown, before, len(users), config, among)
    trains = parts == TRAIN
    if not trains.any():
        raise ConfigError("the split leaves nothing to train on", where="data.split", hint="Test and validate on less")
    training = np.flatnonzero(trains) if order is None else order[trains]
    of_file, spread = weights.scaled(training), weights.range(training)
    weight = of_file if order is None else of_file.gather(order)
    observation = float(weight.filter(trains).min())  # type: ignore[arg-type]
    if data.half_life is not None:
        weight = weight * pl.Series(decay(rows.user, parts, data.half_life))
    since = None
    if data.available_from is not None:
        last = float(rows.times.values.filter(trains).to_numpy().max()) if rows.times is not None else None
        since = available(tables.items, data.available_from, len(items), times, last)
        if isinstance(data.split, ItemsSplit):  # a held-out item represents one that did not exist, regardless of its date
            since &= hashed_parts(items[config.schema_.item_id], data.split, config.seed) == TRAIN
    del times, order, training, trains
    events = rows.frame(parts, weight)
    negatives = shown.frame(rest_parts, of_file.gather(rest)).with_columns(before=before) if data.has_negatives else None
    hold_out: Literal["", "users", "items"] = data.split.by if isinstance(data.split, UsersSplit | ItemsSplit) else ""
    return Dataset(
        schema,
        events,
        users,
        items,
        columns.context,
        columns.users,
        columns.items,
        negatives,
        hold_out,
        weight_range=spread,
        observation=observation,
        types=types,
        assumptions=assumptions,
        available=since,
        left_out=left_out,
        ordered=config.data.time is not None,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The interactions in some order; `parts` only where a column or a hash decides."""

    user: Int32
    item: Int32
    times: Times | None
    parts: Parts | None
    context: list[pl.Series]

    def at(self, places: Int64) -> "_Rows":
        """Return the rows at `places` [m]."""
        times = None if self.times is None else replace(self.times, values=self.times.values.gather(places))
        parts = None if self.parts is None else self.parts[places]
        return _Rows(self.user[places], self.item[places], times, parts, [column.gather(places) for column in self.context])

    def frame(self, parts: Parts, weight: pl.Series) -> pl.DataFrame:
        """Return the rows as a table, with their parts and weights [n]."""
        user, item, split = pl.Series("user", self.user), pl.Series("item", self.item), pl.Series("split", parts)
        return pl.DataFrame([user, item, weight.alias("weight"), split, *self.context])


def _parts(
    rows: _Rows, shown: _Rows, before: Int64, n_users: int, config: RunConfig, among: tuple[Bool, Bool] | None
) -> tuple[Parts, Parts]:
    """Return the parts of the rows taken, and of others; `among` may be carved."""
    data = config.data
    of_rows, of_shown = (None, None) if among is None else among
    if rows.parts is not None and shown.parts is not None:
        parts, shown_parts = rows.parts, shown.parts
        if isinstance(data.split, UsersSplit) and rows.times is not None:
            parts = with_given(parts, rows.user, data.split.given)
    else:
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows.user, minlength=n_users))])
        times, shown_times, unit = None, None, 1
        if rows.times is not None and shown.times is not None:
            times, shown_times, unit = rows.times.values, shown.times.values, rows.times.unit
        parts = sorted_parts(starts, times, unit, data.split)
        shown_parts = negative_parts(Places(shown.user, before, shown_times), starts, parts, times, unit, data.split)
    parts = carve_last(parts, data.carve_last, rows.user, of_rows)
    carved = carve(parts, data.carve, config.seed, of_rows)
    return carved, shown_parts if carved is parts else carve(shown_parts, data.carve, config.seed, of_shown)


def _raw(data: DataConfig, columns: FieldColumns, interactions: Table) -> pl.DataFrame:
    """Read the columns of the interactions that a run needs."""
    raw = interactions.collect([data.user_id, data.item_id, *data.columns_of_rows, *columns.context])
    if raw.is_empty():
        raise DataError("there are no interactions", where=str(interactions.path), hint="Give at least one row")
    return raw


def _digest(digest: "hashlib._Hash", values: pl.Series) -> None:
    """Feed lengths, masks of missing values, and values to a digest."""
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
