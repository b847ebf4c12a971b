"""Interactions sorted by user and time, split, beside the catalogue of users and items."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.config import ColumnSplit, RunConfig
from recall.data.age import decay
from recall.data.catalogue import extended, listed
from recall.data.columns import find_attributes, find_columns
from recall.data.offer import Offer, available
from recall.data.split import TRAIN, VALID, Parts, Places, carve, carve_last, column_parts, negative_parts, sorted_parts
from recall.data.tables import Tables, read_tables
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.boosts import Boosts, text_numbers
from recall.schema import NumericField, Schema, Side
from recall.values import numbers, refuse

Int64 = npt.NDArray[np.int64]

_HASHED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Dataset:
    """All that a run learns from and is judged on.

    Attributes:
        schema: the fields.
        events: one row for each interaction, sorted by user, then time, then place in the file: `user` Int32 and
            `item` Int32 (rows of the two tables below), `weight` Float32, `split` Int8 (REMEMBERED, TRAIN, VALID or TEST), then
            the context columns as they were read.
        users: row r is user r: the id column as text, then the columns that user fields read. Users of the users
            table come first, in its order; those met in interactions only follow, with their columns missing.
        items: the same for items, and after them the columns that items are only filtered by.
        context_columns: columns of `events` that user fields read.
        user_columns: columns of `users` that user fields read, the id aside.
        item_columns: columns of `items` that item fields read, the id aside.
        negatives: rows that the label column marks as shown and not taken, in the same order and with the same columns as
            `events`, and `before` Int64: how many of `events` come before the row. None of them is an event; no history,
            mask or popularity knows of them. None when no label column is named.
        available: bool [items], on offer by their date before training ended; None when no date column is named.
    """

    schema: Schema
    events: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    context_columns: tuple[str, ...]
    user_columns: tuple[str, ...]
    item_columns: tuple[str, ...]
    negatives: pl.DataFrame | None = None
    available: npt.NDArray[np.bool_] | None = None

    def select(self, split: int) -> npt.NDArray[np.int64]:
        """Positions in `events` of one part of the split, rising; int64 [m]."""
        return np.flatnonzero(self.events["split"].to_numpy() == split)

    @property
    def training(self) -> npt.NDArray[np.int64]:
        """Positions in `events` of the interactions that train; int64 [m]."""
        return self.select(TRAIN)

    @property
    def offer(self) -> Offer:
        """The items by what training knows of them."""
        met = self.events["item"].to_numpy()[self.events["split"].to_numpy() < VALID]
        shown = np.empty(0, dtype=np.int32)
        if self.negatives is not None:
            shown = self.negatives["item"].to_numpy()[self.negatives["split"].to_numpy() == TRAIN]
        return Offer.of(met, shown, self.available, len(self.items))

    @property
    def offered(self) -> npt.NDArray[np.bool_]:
        """bool [items], what training may count as a negative."""
        return self.offer.candidates

    def fingerprint(self) -> str:
        """SHA-256 over the names, types and values of all tables."""
        digest = hashlib.sha256()
        for frame in (self.events, self.users, self.items, *([] if self.negatives is None else [self.negatives])):
            for column in frame.iter_columns():
                digest.update(f"{column.name}\0{column.dtype}\0{len(column)}\0".encode())
                for part in column.to_frame().iter_slices(_HASHED_AT_ONCE):
                    _digest(digest, part.to_series())
        if self.available is not None:
            digest.update(np.packbits(self.available).tobytes())
        return digest.hexdigest()


def load_dataset(config: RunConfig, root: Path) -> Dataset:
    """Read, join, sort and split a run's tables.

    Args:
        config: names the tables, columns and fields.
        root: folder that relative paths start at.

    Raises:
        DataError: a table, column or value is not what the configuration says.
        ConfigError: a field can be read in two ways, or the split needs a column that is not named.
    """
    return dataset_of(config, read_tables(config.data, root))


def dataset_of(config: RunConfig, tables: Tables, known: int = 0) -> Dataset:
    """Join, sort and split a run's tables; errors as in `load_dataset`.

    Args:
        config: names the columns and fields.
        tables: what they are in.
        known: the first so many interactions may have been trained on before: `data.carve` takes none of them.
    """
    schema, data = config.schema_, config.data
    columns = find_columns(schema, tables)
    of_users, of_items = _numeric(schema, "user"), _numeric(schema, "item")
    named = [data.user_id, data.item_id, data.time, data.weight, data.label, *columns.context]
    named += [data.split.column] if isinstance(data.split, ColumnSplit) else []
    raw = tables.interactions.collect(name for name in named if name is not None)
    if raw.is_empty():
        raise DataError("there are no interactions", where=str(tables.interactions.path), mend="Give at least one row")

    where = tables.interactions.where
    listed_users = listed(tables.users, data.user_id, columns.users, of_users)
    users, user = extended(listed_users, raw[data.user_id], where(data.user_id))
    attributes = find_attributes(data, columns, tables)
    of_items |= text_numbers(config.index.boosts, attributes, tables.items.types if tables.items is not None else {})
    listed_items = listed(tables.items, data.item_id, (*columns.items, *attributes), of_items)
    items, item = extended(listed_items, raw[data.item_id], where(data.item_id))
    Boosts.of(config.index.boosts, items.columns, items.get_column, len(items), schema)  # refused now, or after the training
    times = Times.of(raw[data.time], where(data.time)) if data.time is not None else None
    named_split = data.split if isinstance(data.split, ColumnSplit) else None
    rows = _Rows(
        user,
        item,
        _weights(raw, data.weight, where),
        times,
        column_parts(raw[named_split.column], named_split, where(named_split.column)) if named_split is not None else None,
        [numbers(raw[name], where(name)) if name in of_users else raw[name] for name in columns.context],
    )
    taken = labels(raw[data.label], where(data.label)) if data.label is not None else None
    del raw
    order, rest, before = _apart(_order(user, times), taken)
    parts, rest_parts = _parts(rows, order, rest, before, len(users), config, known)
    if not (parts == TRAIN).any():
        raise ConfigError("the split leaves nothing to train on", where="data.split", mend="Test and validate on less")
    events = rows.take(order, parts)
    if data.half_life is not None:
        events = events.with_columns(pl.col("weight") * pl.Series(decay(user[order], parts, data.half_life)))
    negatives = rows.take(rest, rest_parts).with_columns(before=before) if data.label is not None else None
    since = None
    if data.available_from is not None:
        last = float(times.values.gather(order[parts == TRAIN]).to_numpy().max()) if times is not None else None
        since = available(tables.items, data.available_from, len(items), times, last)
    return Dataset(schema, events, users, items, columns.context, columns.users, columns.items, negatives, since)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The interactions as they lie in the file, read: n of everything; `parts` only where a column names them."""

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    weight: pl.Series
    times: Times | None
    parts: Parts | None
    context: list[pl.Series]

    def take(self, at: Int64, parts: Parts) -> pl.DataFrame:
        """The rows at positions `at` [m] with their parts [m], as the data set holds them."""
        return pl.DataFrame(
            [
                pl.Series("user", self.user[at]),
                pl.Series("item", self.item[at]),
                self.weight.gather(at).alias("weight"),
                pl.Series("split", parts),
                *(column.gather(at) for column in self.context),
            ]
        )


def _apart(order: Int64, taken: npt.NDArray[np.bool_] | None) -> tuple[Int64, Int64, Int64]:
    """Positions of what was taken and of what was not, each in order, and how many of the first come before each second."""
    if taken is None:
        nothing = np.empty(0, dtype=np.int64)
        return order, nothing, nothing
    sorted_taken = taken[order]
    return order[sorted_taken], order[~sorted_taken], np.cumsum(sorted_taken, dtype=np.int64)[~sorted_taken]


def _parts(
    rows: _Rows, order: Int64, rest: Int64, before: Int64, n_users: int, config: RunConfig, known: int
) -> tuple[Parts, Parts]:
    """The parts of what was taken, and of what was not; `known` as for `dataset_of`."""
    data = config.data
    if rows.parts is not None:
        parts, rest_parts = rows.parts[order], rows.parts[rest]
    else:
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows.user[order], minlength=n_users))])
        times, unit = (rows.times.values, rows.times.unit) if rows.times is not None else (None, 1)
        event_times, rest_times = (None, None) if times is None else (times.gather(order), times.gather(rest))
        parts = sorted_parts(starts, event_times, unit, data.split)
        places = Places(rows.user[rest], before, rest_times)
        rest_parts = negative_parts(places, starts, parts, event_times, unit, data.split)
    parts = carve_last(parts, data.carve_last, rows.user[order], order >= known)
    carved = carve(parts, data.carve, config.seed, order >= known)
    return carved, rest_parts if carved is parts else carve(rest_parts, data.carve, config.seed, rest >= known)


def _numeric(schema: Schema, side: Side) -> set[str]:
    """Columns that numeric fields of one side read."""
    return {
        schema.column(name) for name, field in schema.fields.items() if isinstance(field, NumericField) and field.side == side
    }


def _weights(raw: pl.DataFrame, column: str | None, where: Callable[[str], str]) -> pl.Series:
    if column is None:
        return pl.repeat(1.0, len(raw), dtype=pl.Float32, eager=True)
    weights = numbers(raw[column], where(column))
    missing = weights.null_count()
    if missing:
        raise DataError(
            f"{missing:,} of {len(raw):,} rows have no weight", where=where(column), mend="Write 1 for a plain interaction"
        )
    single = weights.cast(pl.Float32)
    mend = "Leave out rows that should not count, or name another weight column"
    refuse(raw[column], (single <= 0) | single.is_infinite(), where(column), "not positive, or too large", mend)
    return single


def labels(values: pl.Series, where: str) -> npt.NDArray[np.bool_]:
    """A column of 1 and 0 as truth values [n]. Raises DataError when a label is missing or another number."""
    parsed = numbers(values, where)
    if parsed.null_count():
        raise DataError(
            f"{parsed.null_count():,} of {len(parsed):,} rows have no label",
            where=where,
            mend="Write 1 for what was taken and 0 for what was shown and not taken, or leave the rows out",
        )
    refuse(values, ~parsed.is_in([0.0, 1.0]), where, "neither 0 nor 1")
    if not (parsed == 1.0).any():
        raise DataError("no row has label 1", where=where, mend="There must be something to learn from")
    return (parsed == 1.0).to_numpy()


def _order(user: npt.NDArray[np.int32], times: Times | None) -> npt.NDArray[np.int64]:
    """Positions of the interactions by user, time and place in the file; int64 [n]."""
    if times is None:
        return np.argsort(user, kind="stable")
    time = times.values.to_numpy()
    users, span = int(user.max()) + 1, int(time.max()) - int(time.min()) + 1
    if times.values.dtype.is_integer() and users * span < 1 << 63:  # one key sorts twice as fast as two
        return np.argsort(user.astype(np.int64) * span + (time - time.min()), kind="stable")
    return np.lexsort((time, user))


def _digest(digest: "hashlib._Hash", values: pl.Series) -> None:
    """Feed lengths, marks of missing values, and values themselves."""
    digest.update(np.packbits(values.is_null().to_numpy()).tobytes())
    if isinstance(values.dtype, pl.List):
        digest.update(values.list.len().fill_null(0).to_numpy().tobytes())
        _digest(digest, values.explode(empty_as_null=False, keep_nulls=False))
    elif values.dtype == pl.String:
        digest.update(values.str.len_bytes().fill_null(0).to_numpy().tobytes())
        digest.update("".join(values.drop_nulls().to_list()).encode())
    else:
        values = values.cast(pl.UInt8) if values.dtype == pl.Boolean else values.to_physical()
        digest.update(values.fill_null(0).to_numpy().tobytes())
