"""Select and weigh interactions by time, repeats, k-core and recency.

`drop_unused_rows` drops those that lack an id or a time, and repeated rows of users and items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recall._arrays import Bool, Float32, Float64, Integers
from recall.config import DataConfig
from recall.data.entities import id_missing
from recall.data.findings import Finding
from recall.data.outcomes import drop_left_out
from recall.data.split import TRAIN, Parts, later_rows
from recall.data.tables import Table, Tables
from recall.data.times import UNITS, Times, unit_of_time
from recall.errors import ConfigError, DataError

COUNTED = " (rows are counted without those that data.since, .until, .min_user, .min_item and .repeats leave out)"


@dataclass(frozen=True, slots=True)
class Selection:
    """Interactions that a run keeps.

    Attributes:
        rows: bool [n], whether each row is kept.
        weights: float64 [n], positive; a merged row has the sum of the weights.
        notes: message for each setting that left out rows.
    """

    rows: Bool
    weights: Float64
    notes: tuple[str, ...]


def select(
    data: DataConfig,
    user: Integers,
    item: Integers,
    times: Times | None,
    taken: Bool | None,
    weights: Float64,
    where: Callable[[str], str],
) -> Selection | None:
    """Apply the settings that select interactions.

    In order: `data.since`, `.until`, `.repeats`, `.min_user` with `.min_item`.

    Args:
        data: the settings.
        user: integer [n], user of each row.
        item: integer [n], item of each row.
        times: times of the rows; None without a time column.
        taken: bool [n], False for negatives, which were shown and not taken; None if there are none.
        weights: float64 [n], positive.
        where: returns the location of a column, for errors.

    Returns:
        The selection; None if the settings keep everything.

    Raises:
        ConfigError: A bound needs a time column, or cannot be compared with the times.
        DataError: No interaction is left.
    """
    rows, notes = np.ones(len(user), dtype=np.bool_), []
    positives = np.ones(len(user), dtype=np.bool_) if taken is None else taken

    def leave_out(kept: Bool, why: str) -> None:
        nonlocal rows
        remaining = rows & kept
        if not (remaining & positives).any():
            raise DataError(f"{why} leaves out every interaction", where="data", hint="Choose wider limits")
        if remaining.sum() < rows.sum():
            users, items = (len(np.unique(side[rows])) - len(np.unique(side[remaining])) for side in (user, item))
            notes.append(
                f"{why} leaves out {rows.sum() - remaining.sum():,} of {len(rows):,} rows, {users:,} users and {items:,} items"
            )
        rows = remaining

    for name, bound in (("since", data.since), ("until", data.until)):
        if bound is not None:
            if times is None or data.time is None:
                raise ConfigError(f"data.{name} needs the time of each interaction", where="data", hint="Name it in data.time")
            is_later = times.values.to_numpy() >= _in_unit_of(bound, times, name, where(data.time))
            shown = bound if isinstance(bound, str) else f"{bound:.15g}"
            leave_out(is_later if name == "since" else ~is_later, f"data.{name} = {shown}")
    if data.repeats == "merge":
        pairs = pl.DataFrame({"user": user, "item": item, "weight": weights}).with_row_index("row").filter(rows & positives)
        if times is not None:
            pairs = pairs.with_columns(time=times.values.gather(pairs["row"])).sort("time", maintain_order=True)
        merged = pairs.group_by("user", "item", maintain_order=True).agg(pl.col("row").last(), pl.col("weight").sum())
        weights, kept = weights.copy(), ~positives
        weights[merged["row"]] = merged["weight"]
        kept[merged["row"]] = True
        leave_out(kept, 'data.repeats = "merge"')
    if data.min_user > 1 or data.min_item > 1:
        chosen = np.flatnonzero(rows & positives)
        core = chosen[k_core(user[chosen], item[chosen], data.min_user, data.min_item)]
        bounds = {"min_user": data.min_user, "min_item": data.min_item}
        leave_out(
            np.isin(user, user[core]) & np.isin(item, item[core]),
            " and ".join(f"data.{name} = {least}" for name, least in bounds.items() if least > 1),
        )
    return Selection(rows, weights, tuple(notes)) if notes or data.repeats == "merge" else None


def k_core(user: Integers, item: Integers, min_user: int, min_item: int) -> Bool:
    """Return the rows of the k-core: every user and item has enough partners.

    Users with fewer than `min_user` distinct items, and items with fewer than `min_item` distinct users, are removed
    repeatedly until none remains.

    Args:
        user: integer [n].
        item: integer [n].
        min_user: minimum number of distinct items of a user.
        min_item: minimum number of distinct users of an item.

    Returns:
        bool [n].
    """
    pairs = pl.DataFrame({"user": user, "item": item})
    enough = (pl.len().over("user") >= min_user) & (pl.len().over("item") >= min_item)
    remaining = pairs.unique()
    while len(fewer := remaining.filter(enough)) < len(remaining):
        remaining = fewer
    rows = np.zeros(len(user), dtype=np.bool_)
    rows[pairs.with_row_index("row").join(remaining, on=["user", "item"], how="semi")["row"]] = True
    return rows


def _in_unit_of(bound: float | str, times: Times, name: str, where: str) -> float:
    """Return a bound in the unit of the times."""
    if not isinstance(bound, str):
        return bound * times.unit
    moment = Times.of(pl.Series([bound]), f"data.{name}")
    if times.unit == moment.unit:
        return float(moment.values[0])
    unit = unit_of_time(times.values.to_numpy().astype(np.float64))
    if not unit:
        raise ConfigError(
            f"a date cannot be compared with the numbers of {where}",
            where=f"data.{name}",
            why="they are not unix times in seconds, milliseconds, microseconds or nanoseconds",
            hint="Give a number in the unit of the column",
        )
    return float(moment.values[0]) / moment.unit * UNITS[unit]


FLOOR = 1e-3
"""Smallest share of its weight that decay leaves an interaction. Chosen, not tuned."""


def decay_shares(user: Integers, parts: Parts, half_life: float) -> Float32:
    """Return the factor by which the weight of each interaction decays.

    The weight of a training interaction halves with every `half_life` later training interactions of its user; others do
    not decay.

    Args:
        user: integer [n], ascending; the interactions of a user are sorted by time.
        parts: int8 [n], part of the split of each interaction.
        half_life: number of interactions, positive.

    Returns:
        float32 [n], in [FLOOR, 1].
    """
    shares = np.ones(len(user), dtype=np.float32)
    training = np.flatnonzero(parts == TRAIN)
    shares[training] = np.maximum(np.exp2(-later_rows(user[training]) / half_life), FLOOR)
    return shares


_MAX_SHARE = 0.5  # share of the rows that have no ids above which it is a warning. Chosen, not tuned.
_COUNTED = " (rows are counted without those that data.missing_ids and data.missing_times leave out)"


def drop_unused_rows(data: DataConfig, tables: Tables) -> Tables:
    """Drop incomplete and repeated rows, and interactions that do not count.

    Applies `data.missing_ids`, `.missing_times` and `.repeated_ids`, then `.outcome` and `.events`.

    Args:
        data: the settings.
        tables: the opened tables.

    Raises:
        DataError: A column is missing, or no row is left.
    """
    ids = {"interactions": [data.user_id, data.item_id], "users": [data.user_id], "items": [data.item_id]}
    kept, findings = dict(tables.named), []
    for name, table in tables.named.items():
        messages, share = [], 0.0
        refuse_nested_ids(table, ids[name])
        needed = [*ids[name]] if data.missing_ids == "left out" else []
        needed += [data.time] if data.missing_times == "left out" and data.time is not None and name == "interactions" else []
        if needed:
            kept[name], missing, rows = _drop_missing(table, needed)
            messages += [f"{missing:,} of {rows:,} rows have no {' or no '.join(needed)} and are left out"] if missing else []
            share = missing / max(rows, 1)
        if data.repeated_ids != "error" and name != "interactions":
            repeated = int(kept[name].collect(ids[name]).to_series().is_duplicated().sum())
            once = kept[name].frame.unique(ids[name], keep=data.repeated_ids, maintain_order=True)
            kept[name] = replace(kept[name], frame=once)
            if repeated:
                messages.append(f"of {repeated:,} rows that share their {ids[name][0]} the {data.repeated_ids} of each counts")
        if messages:
            findings.append(Finding("warning" if share > _MAX_SHARE else "note", "; ".join(messages), table=name))
    interactions = drop_left_out(data, kept["interactions"])
    return Tables(interactions, kept.get("users"), kept.get("items"), tuple(findings))


def refuse_nested_ids(table: Table, ids: Sequence[str]) -> None:
    """Check that id columns hold one id in each row.

    Args:
        table: the table.
        ids: names of the id columns; missing columns are skipped here, and reported when they are read.

    Raises:
        DataError: A column holds lists or objects.
    """
    for name in ids:
        if name in table.types and table.types[name].is_nested():
            raise DataError(
                f"ids are of type {table.types[name]}",
                where=table.where(name),
                hint="Give one id in each row; data.formats has explode for lists of items",
            )


def _drop_missing(table: Table, ids: list[str]) -> tuple[Table, int, int]:
    """Return the rows with all ids, the number of rows without, and of all rows."""
    missing = table.collect(ids).select(id_missing(ids)).to_series()
    count = int(missing.sum())
    if not count:
        return table, 0, len(missing)
    if count == len(missing):
        raise DataError(
            f"no row has a value in {' and '.join(ids)}",
            where=str(table.path),
            hint="Look at data.user_id, data.item_id and data.time, which name these columns",
        )
    return replace(table, frame=table.frame.filter(~id_missing(ids)), note=_COUNTED), count, len(missing)
