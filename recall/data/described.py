"""What the interactions say of their users and items themselves, as in a log that repeats an item's title in every row."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.config import DataConfig
from recall.data.joined import alike, written_ids
from recall.data.tables import Table, Tables, Told
from recall.errors import ConfigError, DataError, nearest
from recall.features.canonical import canonical_ids
from recall.features.values import Distinct, canonical_series


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the rows of one user, or of one item, agree in a column.

    Attributes:
        value: int64 [groups], the row that holds the value of each; -1 where all of its rows lack one.
        other: number of rows with another value than that of their group.
        rows: number of rows with a value.
    """

    value: npt.NDArray[np.int64]
    other: int
    rows: int


def agreement(groups: Distinct, values: pl.Series) -> Agreement:
    """The most frequent value of each group, of equally frequent ones the last in order of rows.

    Args:
        groups: of n rows.
        values: [n]; null is no value.
    """
    known = np.flatnonzero(values.is_not_null().to_numpy())
    different = Distinct.of(values.gather(known))
    pair = groups.codes[known].astype(np.int64) * max(len(different.first), 1) + different.codes
    pairs, first_from_end, count = np.unique(pair[::-1], return_index=True, return_counts=True)
    last, group = len(known) - 1 - first_from_end, pairs // max(len(different.first), 1)
    order = np.lexsort((last, count, group))
    best = order[np.append(np.diff(group[order]) > 0, len(order) > 0)] if len(order) else order
    value = np.full(len(groups.first), -1, dtype=np.int64)
    value[group[best]] = known[last[best]]
    return Agreement(value, int(len(known) - count[best].sum()), len(known))


def described(data: DataConfig, tables: Tables, known: Tables | None = None) -> Tables:
    """The tables with `data.user_columns` and `data.item_columns` moved from the interactions to the users and items.

    Args:
        data: names the columns.
        tables: as they were opened.
        known: users and items of an earlier run, which have these columns; the interactions' values go over theirs.

    Raises:
        DataError: the interactions lack a column.
        ConfigError: the users or items table has such a column itself.
    """
    columns = (*data.user_columns, *data.item_columns)
    if not columns:
        return tables
    interactions = tables.interactions
    for name in columns:
        if name not in interactions.types:
            raise DataError(
                f"there is no column {name!r}",
                where=str(interactions.path),
                why="data.user_columns and data.item_columns name columns of the interactions",
                mend=nearest(name, interactions.columns),
            )
    moved: dict[str, Table | None] = {}
    told: list[Told] = []
    for side, key, named in (("user", data.user_id, data.user_columns), ("item", data.item_id, data.item_columns)):
        table = tables.named.get(f"{side}s")
        twice = [name for name in named if table is not None and name in table.types]
        if twice:
            raise ConfigError(
                f"column {twice[0]!r} is in the {side}s table already",
                where=f"data.{side}_columns",
                mend=f"Take it out of data.{side}_columns, or rename it in one of the tables",
            )
        before = known.named.get(f"{side}s") if known is not None else None
        values, counts = _told(interactions, key, named, f"{side}s")
        for newer in (_part(before, key, named), values):
            table = _over(table, newer, key)
        moved[side] = table
        told += counts
    frame = interactions.frame.drop(columns)
    left = replace(interactions, frame=frame, types=frame.collect_schema())
    return Tables(left, moved["user"], moved["item"], tuple(told))


def _part(table: Table | None, key: str, columns: tuple[str, ...]) -> Table | None:
    """Some columns of a table, as far as it has them; None where it has none of them."""
    there = [name for name in columns if table is not None and name in table.types]
    if table is None or not there:
        return None
    frame = table.frame.select(key, *there)
    return replace(table, frame=frame, types=frame.collect_schema())


def _told(interactions: Table, key: str, columns: tuple[str, ...], table: str) -> tuple[Table | None, list[Told]]:
    """What the interactions say of each user or item that they name, and how far their rows agree; None for no column."""
    if not columns:
        return None, []
    raw = interactions.collect([key, *columns])
    ids = canonical_series(raw[key]) if key in interactions.text else canonical_ids(raw[key])
    groups = Distinct.of(ids)
    agreed = {column: agreement(groups, raw[column]) for column in columns}
    values = [_gathered(raw[column], one.value) for column, one in agreed.items()]
    frame = pl.DataFrame([ids.gather(groups.first), *values]).filter(pl.col(key).is_not_null())
    counts = [Told(table, column, one.rows, one.other) for column, one in agreed.items()]
    return replace(interactions, frame=frame.lazy(), types=frame.schema), counts


def _gathered(values: pl.Series, at: npt.NDArray[np.int64]) -> pl.Series:
    """The values at rows `at` [m]; null for -1."""
    return values.gather(pl.Series(at).replace(-1, None))


def _over(table: Table | None, told: Table | None, key: str) -> Table | None:
    """A table with the values of another put over its own, and with the rows that only the other has after them."""
    if table is None or told is None:
        return table if told is None else told
    twice = [column for column in told.columns if column in table.types and column != key]
    older = table.frame.with_columns(written_ids(told, key), *alike(twice, table, told))
    newer = told.frame.with_columns(written_ids(told, key), *alike(twice, told, table)).rename(
        {column: f"{column} told" for column in twice}
    )
    joined = older.join(newer, on=key, how="full", coalesce=True, maintain_order="left_right")
    frame = joined.with_columns(pl.coalesce(f"{column} told", column).alias(column) for column in twice).drop(
        f"{column} told" for column in twice
    )
    return replace(table, frame=frame, types=frame.collect_schema())
