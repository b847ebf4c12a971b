"""Load a run: interactions sorted by user and time, split; users and items."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from mmap import MADV_DONTNEED, mmap
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recall._arrays import Bool, Int32, Int64
from recall.config import ColumnSplit, DataConfig, ItemsSplit, RandomSplit, RunConfig, UsersSplit
from recall.config.schema import Schema
from recall.data.columns import column_forms, find_columns, find_types
from recall.data.combine import move_columns
from recall.data.entities import Offer, add_missing_ids, available, read_entities
from recall.data.findings import Finding
from recall.data.outcomes import Outcomes, RowWeights, WeightRange
from recall.data.prepared import PreparedTables, is_prepared, open_prepared
from recall.data.prepared_manifest import WEIGHT
from recall.data.selection import COUNTED, decay_shares, drop_unused_rows, select
from recall.data.split import (
    REMEMBERED,
    TRAIN,
    column_parts,
    hashed_parts,
    id_hashes,
    order_by_user_and_time,
    random_parts,
    separate_negatives,
    split_rows,
)
from recall.data.tables import Tables, read_tables
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.boosts import Boosts, numeric_text_columns
from recall.features.canonical import UNTYPED, CanonicalTypes, flatten_lists
from recall.features.values import number_column, to_enum

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
        types: canonical types of all columns; text has the form of its type.
        assumptions: notes about columns of text that are read as other values than they spell.
        available: bool [items], on offer by their date before training ended; None without a date column.
        left_out: messages about the rows that settings left out.
        ordered: whether a time column orders the interactions of a user.
        complete_offer: offer of the complete data set if this one is a part of it; else None.
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
    complete_offer: Offer | None = None
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
        if self.complete_offer is not None:
            return self.complete_offer
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
                    _digest(digest, part.to_series())
        if self.available is not None:
            digest.update(np.packbits(self.available).tobytes())
        return digest.hexdigest()


def load_dataset(config: RunConfig, root: Path, types: CanonicalTypes | None = None) -> Dataset:
    """Read, join, sort and split the tables of a run.

    Args:
        config: names the tables, columns and fields.
        root: folder that relative paths start at.
        types: canonical types that a bundle records; None to find them from the values.

    Raises:
        DataError: A table, column or value does not match the configuration.
        ConfigError: A field can be read in two ways, or the split needs a column that is not named.
    """
    return dataset_of(config, open_tables(config.data, root), types=types)


def open_tables(data: DataConfig, sources: Path | Mapping[str, object]) -> Tables:
    """Open the tables of a run, without reading them.

    Rows that the settings leave out are dropped, and columns move to users and items.

    Args:
        data: names the tables and columns.
        sources: folder of prepared data, or as for `read_tables`.

    Raises:
        RecallError: As `open_prepared`, or `read_tables`, `drop_unused_rows` and `move_columns`.
    """
    if isinstance(sources, Path) and is_prepared(sources):
        return open_prepared(data, sources)
    return move_columns(data, drop_unused_rows(data, read_tables(data, sources)))


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
    item_types = tables.items.types if tables.items is not None else {}
    numbers = {
        "user": schema.number_columns("user"),
        "item": schema.number_columns("item") | numeric_text_columns(config.index.boosts, columns.item_attributes, item_types),
    }
    prepared, raw = tables if isinstance(tables, PreparedTables) else None, pl.DataFrame()
    if prepared is not None:
        prepared.verify_files()
        prepared.require_same_reading(schema, columns.context)
    else:
        raw = tables.interactions.collect([data.user_id, data.item_id, *data.columns_of_rows, *columns.context])
        if raw.is_empty():
            raise DataError("there are no interactions", where=str(tables.interactions.path), hint="Give at least one row")
    column: Callable[[str], pl.Series] = prepared.column if prepared is not None else raw.get_column
    item_columns = (*columns.items, *columns.item_attributes)
    user_columns = (*columns.users, *columns.user_attributes)
    raw_users = None if tables.users is None else tables.users.collect([data.user_id, *user_columns])
    raw_items = None if tables.items is None else tables.items.collect([data.item_id, *item_columns])
    assumptions: tuple[Finding, ...] = ()
    if types is None:
        values = column if prepared is None else prepared.distinct
        types, assumptions = find_types(schema, (values, raw_users, raw_items), columns.context, numbers, data.text)
        types = types if prepared is None else prepared.with_recorded_types(types)
    user_forms, item_forms = column_forms(schema, types)
    listed_users = read_entities(tables.users, data.user_id, user_columns, numbers["user"], user_forms, raw_users)
    listed_items = read_entities(tables.items, data.item_id, item_columns, numbers["item"], item_forms, raw_items)
    del raw_users, raw_items

    def number_ids(raw: pl.DataFrame) -> tuple[tuple[pl.DataFrame, Int32], tuple[pl.DataFrame, Int32]]:
        return (
            add_missing_ids(listed_users, user_forms.canonical(raw[data.user_id], ""), where(data.user_id)),
            add_missing_ids(listed_items, item_forms.canonical(raw[data.item_id], ""), where(data.item_id)),
        )

    if prepared is not None:
        users, user = prepared.add_missing_ids("user", listed_users, user_forms)
        items, item = prepared.add_missing_ids("item", listed_items, item_forms)
        times, taken, left_out = prepared.times(user), prepared.taken(), prepared.manifest.left_out
        weights = RowWeights(prepared.weights(), where(WEIGHT) if data.weighed_by else "")
    else:
        (users, user), (items, item) = number_ids(raw)
        times = Times.of(column(data.time), where(data.time)) if data.time is not None else None
        outcomes = Outcomes.of(raw, data, where)
        taken, left_out = outcomes.taken, ()
        weights = RowWeights.of(raw, data.weight, where(data.weighed_by) if data.weighed_by else "", outcomes.weight)
    bags = {column for name, field in schema.fields.items() if field.kind == "bag" for column in schema.columns(name)}
    context = [
        number_column(column(name), where(name))
        if name in numbers["user"]
        else prepared.text(name, user_forms)
        if prepared is not None and name not in bags
        else user_forms.canonical(column(name), where(name))
        for name in columns.context
    ]
    context = context if prepared is None else [prepared.cast_to_recorded(values) for values in context]
    selection = None if prepared is not None else select(data, user, item, times, taken, weights.values, where)
    if selection is not None:  # after every row was read, so that errors name rows of the file
        kept, left_out = np.flatnonzero(selection.rows), selection.notes
        raw, known = raw[kept], int(selection.rows[:known].sum())
        column = raw.get_column
        (users, user), (items, item) = number_ids(raw)
        times, taken = None if times is None else times.at(kept), None if taken is None else taken[kept]
        weights = RowWeights(selection.weights[kept], weights.where and weights.where + COUNTED)
        context = [values.gather(kept) for values in context]
    Boosts.of(
        config.index.boosts, items.columns, items.get_column, len(items), schema, types.items
    )  # an invalid boost fails before training
    rows = pl.DataFrame(
        [
            pl.Series("user", user),
            pl.Series("item", item),
            *_named_parts(config, tables, users[data.user_id], user, items[data.item_id], item, column),
            *(values if values.name in bags else to_enum(values) for values in context),
        ]
    )
    del raw, column, user, item, context
    order, shown_positions, before = separate_negatives(
        order_by_user_and_time(rows["user"].to_numpy(), times) if prepared is None else None, taken, len(rows)
    )
    shown, shown_times = rows[shown_positions], None if times is None else times.at(shown_positions)
    if order is not None:
        rows, times = rows[order], None if times is None else times.at(order)
    new_rows = (True, True) if known == 0 or order is None else (order >= known, shown_positions >= known)
    parts, shown_parts = split_rows(config, rows, times, shown, shown_times, before, len(users), *new_rows)
    is_training = parts == TRAIN
    if not is_training.any():
        raise ConfigError("the split leaves nothing to train on", where="data.split", hint="Test and validate on less")
    training = np.flatnonzero(is_training) if order is None else order[is_training]
    file_weights, weight_range = weights.scaled(training), weights.range(training)
    weight = file_weights if order is None else file_weights.gather(order)
    observation = float(weight.filter(is_training).min())  # type: ignore[arg-type]
    if data.half_life is not None:
        weight = weight * pl.Series(decay_shares(rows["user"].to_numpy(), parts, data.half_life))
    is_available = None
    if data.available_from is not None:
        trained_times = None if times is None else times.at(np.flatnonzero(is_training))
        is_available = available(tables.items, data.available_from, len(items), trained_times)
        if isinstance(data.split, ItemsSplit):  # a held-out item represents one that did not exist, regardless of its date
            is_available &= hashed_parts(items[data.item_id], data.split, config.seed) == TRAIN
    del times, order, training, is_training
    event_columns = ["user", "item", "weight", "split", *columns.context]
    shown = shown.with_columns(weight=file_weights.gather(shown_positions), split=shown_parts)
    return Dataset(
        schema,
        rows.with_columns(weight=weight, split=parts).select(event_columns),
        users,
        items,
        columns.context,
        columns.users,
        columns.items,
        shown.select(*event_columns, before=pl.Series(before)) if data.has_negatives else None,
        data.split.by if isinstance(data.split, UsersSplit | ItemsSplit) else "",
        weight_range=weight_range,
        observation=observation,
        types=types,
        assumptions=assumptions,
        available=is_available,
        left_out=left_out,
        ordered=data.time is not None,
    )


def _named_parts(
    config: RunConfig,
    tables: Tables,
    user_ids: pl.Series,
    user: Int32,
    item_ids: pl.Series,
    item: Int32,
    column: Callable[[str], pl.Series],
) -> list[pl.Series]:
    """Return the part of each row as `split`, where a column or a hash decides it."""
    rule, where = config.data.split, tables.interactions.where
    match rule:
        case ColumnSplit(column=name):
            # of prepared data the column as it was copied, also where it is an id
            values = tables.interactions.column(name) if isinstance(tables, PreparedTables) else column(name)
            parts = column_parts(values, rule, where(name))
        case UsersSplit():
            parts = hashed_parts(user_ids, rule, config.seed)[user]
        case ItemsSplit():
            parts = hashed_parts(item_ids, rule, config.seed)[item]
        case RandomSplit():
            parts = random_parts(id_hashes(user_ids)[user], id_hashes(item_ids)[item], rule, config.seed)
        case _:
            return []
    return [pl.Series("split", parts)]


def _digest(digest: "hashlib._Hash", values: pl.Series) -> None:
    """Update a digest with null masks, lengths and values."""
    digest.update(np.packbits(values.is_null().to_numpy()).tobytes())
    if isinstance(values.dtype, pl.List):
        digest.update(values.list.len().fill_null(0).to_numpy().tobytes())
        _digest(digest, flatten_lists(values))
    elif values.dtype == pl.String or isinstance(values.dtype, pl.Enum):
        parts = [part.to_series() for part in values.to_frame().iter_slices(_JOINED_AT_ONCE)]
        for part in parts:  # Enums as text take 16 times the memory, and Python's texts several times that
            digest.update(part.cast(pl.String).str.len_bytes().fill_null(0).to_numpy().tobytes())
        for part in parts:
            digest.update("".join(part.cast(pl.String).drop_nulls().to_list()).encode())
    else:
        values = values.cast(pl.UInt8) if values.dtype == pl.Boolean else values.to_physical()
        digest.update(values.fill_null(0).to_numpy().tobytes())
