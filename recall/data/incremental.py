"""Combine new interactions, users and items with what was known before."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from recall._arrays import Integers
from recall.config import DataConfig, RunConfig
from recall.data.column_types import typed
from recall.data.dataset import Dataset, dataset_of
from recall.data.joined import described, followed, origin, replaced
from recall.data.outcomes import without_left_out
from recall.data.selection import drop_incomplete_rows
from recall.data.split import REMEMBERED
from recall.data.tables import Table, Tables, read_tables
from recall.data.times import Times
from recall.errors import DataError, did_you_mean
from recall.features.canonical import CanonicalTypes, canonical_column
from recall.features.values import Distinct

_FEW, _ENOUGH = 0.05, 10  # share of known items among those of new interactions; fewer items say nothing


def load_additions(config: RunConfig, new: Path, old: Path) -> Dataset:
    """Load old and new interactions as one data set.

    New descriptions of users and items replace old ones. The split is that of all interactions together; a random share of
    them (`data.carve`) is drawn from the new ones, because the old ones may have been trained on.

    Args:
        config: names the tables and columns.
        new: folder of the new tables. Users and items may be left out where they are neither new nor changed.
        old: folder of the old tables.

    Raises:
        DataError: As `load_dataset`; or a column changed its type between the tables.
        ConfigError: As `load_dataset`.
    """
    additions = addition_tables(config.data, new, old)
    return additions.dataset(config)


@dataclass(frozen=True, slots=True)
class Additions:
    """Old and new tables combined.

    Attributes:
        tables: the combined ones.
        known: number of old interactions, which come first.
        note: what to say of new interactions that equal old ones, which are dropped, or with items of which almost none is
            known; else empty.
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
        with self.located(config.data):
            return dataset_of(config, self.tables, self.known, types)

    @contextmanager
    def located(self, data: DataConfig) -> Iterator[None]:
        """Let errors that count rows of a combined table name the original file and row."""
        try:
            yield
        except DataError as error:
            raise self._located(error, data) from None

    def _located(self, error: DataError, data: DataConfig) -> DataError:
        keys = {"interactions": None, "users": data.user_id, "items": data.item_id}
        for name, newer in self.after.named.items():
            older = self.before.named.get(name)
            if error.row is None or older is None or not error.where.startswith(str(newer.path)):
                continue
            table, row = origin(older, newer, keys[name], error.row)
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
    before = _kept(data, read_tables(data, old))
    after = _read(data, new, before.users, before.items)
    known = before.interactions.frame.select(pl.len()).collect().item()
    added, note = without_repeated(data, before.interactions, after.interactions, known)
    tables = replace(_joined(data, after, before.users, before.items), interactions=followed(before.interactions, added))
    return Additions(described(data, tables), known, note, before, after)


def without_repeated(data: DataConfig, older: Table, newer: Table, known: int) -> tuple[Table, str]:
    """Drop new interactions that the old table has too.

    Interactions are equal that have one user, item and time, and the same label or event where there are such columns.
    Without a time column all columns must be equal. A row that both tables have several times is dropped as often as the
    old table has it.

    Args:
        data: names the columns.
        older: the old interactions.
        newer: the new ones.
        known: number of old ones.

    Returns:
        The new interactions that are left, and what to say of the others.

    Raises:
        DataError: A column is missing, or a time cannot be read.
    """
    both = followed(older, newer)
    facts = [data.label, data.events.column if data.events is not None else None]
    names = [data.user_id, data.item_id, data.time, *facts] if data.time is not None else both.columns
    keys = list(dict.fromkeys(name for name in names if name is not None))
    for name in keys:
        for table in (older, newer):
            if name not in table.types:
                raise DataError(f"there is no column {name!r}", where=str(table.path), hint=did_you_mean(name, table.columns))
    raw = both.collect(keys)
    columns = [
        canonical_column(raw[name], typed(raw[name], None, data.text), both.where(name), None).alias(name) for name in keys
    ]
    if data.time is not None:
        try:
            columns[keys.index(data.time)] = Times.of(raw[data.time], both.where(data.time)).values
        except DataError as error:
            if error.row is not None:
                table, row = origin(older, newer, None, error.row)
                raise error.at(table.where(data.time), row) from None
            raise
    codes = Distinct.of(pl.DataFrame(columns)).codes
    had = np.bincount(codes[:known], minlength=int(codes.max(initial=-1)) + 1)
    fresh = codes[known:]
    again = pl.Series(fresh).to_frame("code").select(pl.int_range(pl.len()).over("code")).to_series().to_numpy() < had[fresh]
    if not again.any():
        items = columns[keys.index(data.item_id)]
        return newer, _unknown_items_note(items[known:], items[:known])
    frame = newer.frame.collect().filter(pl.Series(~again)).lazy()
    what = "every column" if data.time is None else "user, item and time"
    counted = f"{int(again.sum()):,} of {len(fresh):,} new interactions equal old ones in {what}"
    return replace(newer, frame=frame), f"{counted}: they are left out, so that none counts twice"


def _unknown_items_note(items: pl.Series, known: pl.Series) -> str:
    """Warn when new interactions are with unknown items, perhaps of other data.

    Args:
        items: of the new interactions.
        known: items that were known before.
    """
    distinct = items.unique()
    shared = int(distinct.is_in(known.unique().implode()).sum())
    if len(distinct) < _ENOUGH or shared >= _FEW * len(distinct):
        return ""
    return (
        f"{shared:,} of the {len(distinct):,} items of the new interactions are in the old interactions: are they those of "
        "another data set, or written in another way?"
    )


def addition_tables_alone(data: DataConfig, new: Path, users: Table, items: Table) -> Tables:
    """Return new interactions over all users and items, without the old ones.

    Args:
        data: names the tables and columns.
        new: folder of the new tables.
        users: as they were known before.
        items: as they were known before.
    """
    after = _read(data, new, users, items)
    joined = _joined(data, after, _without(users, data.user_columns), _without(items, data.item_columns))
    return described(data, joined, Tables(after.interactions, users, items))


def _read(data: DataConfig, folder: Path, users: Table | None, items: Table | None) -> Tables:
    """Read the new tables; those of users and items may be missing if known before."""
    there = {
        name: path
        for name, path, known in (("users", data.users, users), ("items", data.items, items))
        if path is not None and (known is None or (folder / path).exists())
    }
    return _kept(data, read_tables(data.model_copy(update={"users": None, "items": None, **there}), folder))


def _kept(data: DataConfig, tables: Tables) -> Tables:
    tables = drop_incomplete_rows(data, tables)
    return replace(tables, interactions=without_left_out(data, tables.interactions))


def _without(table: Table, columns: tuple[str, ...]) -> Table:
    """Return a table of an earlier run without the columns moved from interactions."""
    there = [name for name in columns if name in table.types]
    if not there:
        return table
    frame = table.frame.drop(there)
    return replace(table, frame=frame, types=frame.collect_schema())


def _joined(data: DataConfig, after: Tables, users: Table | None, items: Table | None) -> Tables:
    return Tables(after.interactions, _updated(users, after.users, data.user_id), _updated(items, after.items, data.item_id))


def _updated(before: Table | None, after: Table | None, key: str) -> Table | None:
    if before is None or after is None:
        return after or before
    return replaced(before, after, key)


class RememberedUser(Protocol):
    """Stored interactions of one user, such as `recall.store.users.record.UserRecord`."""

    @property
    def history(self) -> Sequence[str]:
        """Items of the latest interactions, most recent first."""

    @property
    def seen(self) -> Sequence[str]:
        """Every different item interacted with, most recent first."""


def with_remembered(dataset: Dataset, users: Iterable[tuple[str, RememberedUser]]) -> Dataset:
    """Prepend the interactions that a bundle remembers, before others of their users.

    They neither train nor are evaluated, because their time and context are lost. But they are masked, they are part of
    histories, and they are exported with the users.

    Args:
        dataset: its users include all that are remembered; items that left the catalogue are skipped.
        users: ids and records.
    """
    schema = dataset.schema
    earlier = pl.DataFrame(
        [(user_id, _oldest_first(record)) for user_id, record in users],
        schema={schema.user_id: pl.String(), schema.item_id: pl.List(pl.String())},
        orient="row",
    ).explode(schema.item_id, empty_as_null=False, keep_nulls=False)
    types = dataset.events.schema
    events = (
        earlier.join(_rows(dataset.users, schema.user_id, "user"), on=schema.user_id, maintain_order="left")
        .join(_rows(dataset.items, schema.item_id, "item"), on=schema.item_id, maintain_order="left")
        .select(
            pl.col("user").cast(types["user"]),
            pl.col("item").cast(types["item"]),
            pl.lit(1.0, dtype=types["weight"]).alias("weight"),
            pl.lit(REMEMBERED, dtype=types["split"]).alias("split"),
            *(pl.lit(None, dtype=types[name]).alias(name) for name in dataset.context_columns),
        )
    )
    together = pl.concat([events, dataset.events]).sort("user", maintain_order=True)
    return replace(dataset, events=together, negatives=_moved(dataset, events["user"].to_numpy()))


def _moved(dataset: Dataset, user: Integers) -> pl.DataFrame | None:
    """Shift the negatives by the remembered interactions of their users.

    Args:
        dataset: with or without negatives.
        user: integer [m], of the remembered interactions.
    """
    if dataset.negatives is None:
        return None
    earlier = np.cumsum(np.bincount(user, minlength=len(dataset.users)))
    return dataset.negatives.with_columns(before=pl.col("before") + pl.Series(earlier[dataset.negatives["user"].to_numpy()]))


def _oldest_first(record: RememberedUser) -> list[str]:
    recent = set(record.history)
    return [*reversed([item for item in record.seen if item not in recent]), *reversed(record.history)]


def _rows(frame: pl.DataFrame, id_column: str, name: str) -> pl.DataFrame:
    return frame.select(id_column).with_row_index(name)
