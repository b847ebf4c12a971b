"""New interactions, users and items, with what was there before them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.config import DataConfig, RunConfig
from recall.data.column_types import typed
from recall.data.dataset import Dataset, dataset_of
from recall.data.joined import described, followed, origin, replaced
from recall.data.outcomes import without_left_out
from recall.data.split import REMEMBERED, Times
from recall.data.tables import Table, Tables, read_tables
from recall.errors import DataError, did_you_mean
from recall.features.canonical import CanonicalTypes, canonical_column
from recall.features.values import Distinct


def load_additions(config: RunConfig, new: Path, old: Path) -> Dataset:
    """Old and new interactions as one data set; of a user or item that both describe, the new description holds.

    The split is that of all interactions together. Where it takes a random share of them (`data.carve`), that share is
    taken of the new ones: the others may have been trained on.

    Args:
        config: names the tables and columns.
        new: folder of the new tables. Users and items need be there only as far as they are new or have changed.
        old: folder of the old tables.

    Raises:
        DataError, ConfigError: as `load_dataset`; or a column holds other things in the new tables than in the old.
    """
    additions = addition_tables(config.data, new, old)
    return additions.dataset(config)


@dataclass(frozen=True, slots=True)
class Additions:
    """Old and new tables as one.

    Attributes:
        tables: the joined ones.
        known: number of old interactions, which come first.
        given: number of new interactions, as their file has them.
        repeated: how many of these equal an old one and are left out.
        timed: whether the times were compared; without a time column, all other columns were.
        before, after: the tables that were joined.
    """

    tables: Tables
    known: int
    given: int
    repeated: int
    timed: bool
    before: Tables
    after: Tables

    def dataset(self, config: RunConfig, types: CanonicalTypes | None = None) -> Dataset:
        """The data set of these tables, with column types as for `load_dataset`.

        Raises:
            DataError: as `load_dataset`; it names the row of the file that was read.
            ConfigError: as `load_dataset`.
        """
        with self.located(config.data):
            return dataset_of(config, self.tables, self.known, types)

    @property
    def note(self) -> str:
        """What to say of interactions that are old and new at once; empty when there is none."""
        if not self.repeated:
            return ""
        what = "user, item and time" if self.timed else "every column"
        counted = f"{self.repeated:,} of {self.given:,} new interactions equal old ones in {what}"
        return f"{counted}: they are left out, none counts twice"

    @contextmanager
    def located(self, data: DataConfig) -> Iterator[None]:
        """Let errors that count rows of a joined table name the file and the row that was read."""
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
    """The tables that `load_additions` reads."""
    if new.resolve() == old.resolve():
        raise DataError("the new tables are the old ones", where=str(new), hint="Give the folder of what came since")
    before = _kept(data, read_tables(data, old))
    after = _read(data, new, before.users, before.items)
    known = before.interactions.frame.select(pl.len()).collect().item()
    added, given, repeated = _without_repeated(data, before.interactions, after.interactions, known)
    tables = replace(_joined(data, after, before.users, before.items), interactions=followed(before.interactions, added))
    return Additions(described(data, tables), known, given, repeated, data.time is not None, before, after)


def _without_repeated(data: DataConfig, older: Table, newer: Table, known: int) -> tuple[Table, int, int]:
    """The new interactions without those that the old table has too, how many there are, and how many are left out.

    Interactions are equal that have one user, item and time, and the same label or event where there are such columns.
    Without a time column all columns must be equal. A row that is in both tables several times is left out as often as
    the old table has it.
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
        return newer, len(fresh), 0
    frame = newer.frame.collect().filter(pl.Series(~again)).lazy()
    return replace(newer, frame=frame), len(fresh), int(again.sum())


def load_additions_alone(config: RunConfig, new: Path, users: Table, items: Table) -> Dataset:
    """New interactions over all users and items, where the old interactions are gone.

    Args:
        config: names the tables and columns.
        new: as in `load_additions`.
        users, items: as they were known before.

    Raises:
        DataError, ConfigError: as `load_additions`.
    """
    return dataset_of(config, addition_tables_alone(config.data, new, users, items))


def addition_tables_alone(data: DataConfig, new: Path, users: Table, items: Table) -> Tables:
    """The tables that `load_additions_alone` reads."""
    after = _read(data, new, users, items)
    joined = _joined(data, after, _without(users, data.user_columns), _without(items, data.item_columns))
    return described(data, joined, Tables(after.interactions, users, items))


def _read(data: DataConfig, folder: Path, users: Table | None, items: Table | None) -> Tables:
    """The tables in the folder of additions, where those of users and items may be left out if they were there before."""
    there = {
        name: path
        for name, path, known in (("users", data.users, users), ("items", data.items, items))
        if path is not None and (known is None or (folder / path).exists())
    }
    return _kept(data, read_tables(data.model_copy(update={"users": None, "items": None, **there}), folder))


def _kept(data: DataConfig, tables: Tables) -> Tables:
    return replace(tables, interactions=without_left_out(data, tables.interactions))


def _without(table: Table, columns: tuple[str, ...]) -> Table:
    """A table of an earlier run as its file had it: without what the interactions said."""
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


# What a bundle remembers of its users, put before the interactions that came since.


class Record(Protocol):
    """What is known of one user; `recall.store.users.record.UserRecord` is one."""

    @property
    def history(self) -> Sequence[str]:
        """Items of the latest interactions, most recent first."""
        ...

    @property
    def seen(self) -> Sequence[str]:
        """Every different item interacted with, most recent first."""
        ...


def with_remembered(dataset: Dataset, users: Iterable[tuple[str, Record]]) -> Dataset:
    """The same data with earlier interactions, each before all others of its user.

    They neither train nor are judged: when and in what context they were is forgotten. But they are masked, they are
    the history of what came since, and whoever writes the users writes them too.

    Args:
        dataset: its users include all that are remembered; an item that is in no catalogue any more is passed over.
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


def _moved(dataset: Dataset, user: npt.NDArray[np.integer]) -> pl.DataFrame | None:
    """The negatives, each after the earlier interactions of its user too; user integer [m], whose those are."""
    if dataset.negatives is None:
        return None
    earlier = np.cumsum(np.bincount(user, minlength=len(dataset.users)))
    return dataset.negatives.with_columns(before=pl.col("before") + pl.Series(earlier[dataset.negatives["user"].to_numpy()]))


def _oldest_first(record: Record) -> list[str]:
    recent = set(record.history)
    return [*reversed([item for item in record.seen if item not in recent]), *reversed(record.history)]


def _rows(frame: pl.DataFrame, id_column: str, name: str) -> pl.DataFrame:
    return frame.select(id_column).with_row_index(name)
