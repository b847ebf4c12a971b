"""New interactions, users and items, with what was there before them."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from recall.config import DataConfig, RunConfig
from recall.data.dataset import Dataset, dataset_of
from recall.data.described import described
from recall.data.joined import followed, replaced
from recall.data.outcomes import without_left_out
from recall.data.tables import Table, Tables, read_tables
from recall.errors import DataError


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
    return dataset_of(config, *addition_tables(config.data, new, old))


def addition_tables(data: DataConfig, new: Path, old: Path) -> tuple[Tables, int]:
    """The tables that `load_additions` reads, and how many of their interactions are old."""
    if new.resolve() == old.resolve():
        raise DataError("the new tables are the old ones", where=str(new), mend="Give the folder of what came since")
    before = _kept(data, read_tables(data, old))
    after = _read(data, new, before.users, before.items)
    joined = _joined(data, after, before.users, before.items)
    tables = replace(joined, interactions=followed(before.interactions, after.interactions))
    known = before.interactions.frame.select(pl.len()).collect().item()
    return described(data, tables), known


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
