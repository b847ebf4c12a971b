"""Combine new interactions, users and items with those of earlier runs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from recall.config import DataConfig, RunConfig
from recall.data.columns import column_type
from recall.data.combine import append_rows, find_source_row, move_columns, upsert_rows
from recall.data.dataset import Dataset, dataset_of, drop_unused_rows
from recall.data.split import REMEMBERED
from recall.data.tables import Table, Tables, read_tables
from recall.data.times import Times
from recall.errors import DataError
from recall.features.canonical import CanonicalTypes, canonical_column
from recall.features.values import Distinct

_MIN_KNOWN, _MIN_ITEMS = 0.05, 10  # share of known items among those of new interactions, checked from 10 items on


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
            DataError: As `load_dataset`; names the row of the original file.
            ConfigError: As `load_dataset`.
        """
        try:
            return dataset_of(config, self.tables, self.known, types)
        except DataError as error:
            raise self._located(error, config.data) from None

    def _located(self, error: DataError, data: DataConfig) -> DataError:
        """Return an error about a row of a combined table for the row of its source file."""
        keys = {"interactions": None, "users": data.user_id, "items": data.item_id}
        for name, newer in self.after.named.items():
            older = self.before.named.get(name)
            if error.row is None or older is None or not error.where.startswith(str(newer.path)):
                continue
            table, row = find_source_row(older, newer, keys[name], error.row)
            return error.at(str(table.path) + error.where.removeprefix(str(newer.path)), row)
        return error


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
            if error.row is not None:
                table, row = find_source_row(older, newer, None, error.row)
                raise error.at(table.where(data.time), row) from None
            raise
    rows = pl.DataFrame({"code": Distinct.of(pl.DataFrame(columns)).codes}).with_row_index("row")
    is_old = pl.col("row") < known
    copies = rows.select(is_old.sum().over("code") > pl.int_range(pl.len()).over("code") - is_old.sum().over("code"))
    repeated = copies.to_series()[known:]
    if not repeated.any():
        items = columns[keys.index(data.item_id)]
        return newer, _unknown_items_note(items[known:], items[:known]), known
    equal_in = "every column" if data.time is None else "user, item and time"
    message = f"{repeated.sum():,} of {len(repeated):,} new interactions equal old ones in {equal_in}"
    remaining = replace(newer, frame=newer.frame.collect().filter(~repeated).lazy())
    return remaining, f"{message}: they are left out, so that none counts twice", known


def _unknown_items_note(items: pl.Series, known: pl.Series) -> str:
    """Return a warning if nearly all items of the new interactions are unknown, or "".

    Args:
        items: items of the new interactions, [n].
        known: items of the old interactions, [m].
    """
    distinct = items.unique()
    shared = int(distinct.is_in(known.unique().implode()).sum())
    if len(distinct) < _MIN_ITEMS or shared >= _MIN_KNOWN * len(distinct):
        return ""
    return (
        f"{shared:,} of the {len(distinct):,} items of the new interactions are in the old interactions: are they those of "
        "another data set, or written in another way?"
    )


def addition_tables_alone(data: DataConfig, new: Path, users: Table, items: Table) -> Tables:
    """Return the new interactions, with old and new users and items.

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


class RememberedUser(Protocol):
    """Stored interactions of one user, such as `recall.store.users.record.UserRecord`."""

    @property
    def history(self) -> Sequence[str]:
        """Items of the latest interactions, most recent first."""

    @property
    def seen(self) -> Sequence[str]:
        """Every different item interacted with, most recent first."""


def with_remembered(dataset: Dataset, users: Iterable[tuple[str, RememberedUser]]) -> Dataset:
    """Prepend the interactions that a bundle stores for each user.

    They are not trained or evaluated on, because their time and context are lost. But they are masked, they are part of
    histories, and they are exported with the users.

    Args:
        dataset: data set with all of these users; stored items that left the catalogue are skipped.
        users: id and record of each user.
    """
    schema = dataset.schema
    earlier = pl.DataFrame(
        [(user_id, _oldest_first(record)) for user_id, record in users],
        schema={schema.user_id: pl.String(), schema.item_id: pl.List(pl.String())},
        orient="row",
    ).explode(schema.item_id, empty_as_null=False, keep_nulls=False)
    types = dataset.events.schema
    user_rows, item_rows = (
        frame.select(key).with_row_index(name)
        for frame, key, name in ((dataset.users, schema.user_id, "user"), (dataset.items, schema.item_id, "item"))
    )
    joined = earlier.join(user_rows, on=schema.user_id, maintain_order="left")
    events = joined.join(item_rows, on=schema.item_id, maintain_order="left").select(
        pl.col("user").cast(types["user"]),
        pl.col("item").cast(types["item"]),
        pl.lit(1.0, dtype=types["weight"]).alias("weight"),
        pl.lit(REMEMBERED, dtype=types["split"]).alias("split"),
        *(pl.lit(None, dtype=types[name]).alias(name) for name in dataset.context_columns),
    )
    negatives = dataset.negatives
    if negatives is not None:
        prepended = pl.Series(np.cumsum(np.bincount(events["user"], minlength=len(dataset.users))))  # up to each user
        negatives = negatives.with_columns(before=pl.col("before") + prepended.gather(negatives["user"]))
    all_events = pl.concat([events, dataset.events]).sort("user", maintain_order=True)
    return replace(dataset, events=all_events, negatives=negatives)


def _oldest_first(record: RememberedUser) -> list[str]:
    recent = set(record.history)
    return [*reversed([item for item in record.seen if item not in recent]), *reversed(record.history)]
