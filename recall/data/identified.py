"""Leave out rows without an id, and repeated rows of users and items."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from recall.config import DataConfig
from recall.data.tables import Table, Tables
from recall.errors import DataError

_COUNTED = " (rows are counted without those that data.missing_ids leaves out)"


def identified(data: DataConfig, tables: Tables) -> Tables:
    """Apply `data.missing_ids` and `data.repeated_ids`.

    Args:
        data: names the columns.
        tables: as they were opened.

    Raises:
        DataError: An id column is missing, or no interaction has both ids.
    """
    ids = {"interactions": [data.user_id, data.item_id], "users": [data.user_id], "items": [data.item_id]}
    kept, notes = dict(tables.named), {}
    for name, table in tables.named.items():
        said = []
        if data.missing_ids == "left out":
            kept[name], missing = _with_ids(table, ids[name])
            said += [f"{missing:,} rows without {' or '.join(ids[name])} are left out"] if missing else []
        if data.repeated_ids == "last" and name != "interactions":
            again = int(kept[name].collect(ids[name]).to_series().is_duplicated().sum())
            kept[name] = replace(kept[name], frame=kept[name].frame.unique(ids[name], keep="last", maintain_order=True))
            said += [f"of {again:,} rows that share their {ids[name][0]} the last of each counts"] if again else []
        if said:
            notes[name] = "; ".join(said)
    return replace(tables, interactions=kept["interactions"], users=kept.get("users"), items=kept.get("items"), notes=notes)


def absent(ids: Sequence[str]) -> pl.Expr:
    """Return whether one of several id columns is missing, empty or blank.

    Args:
        ids: names of the columns.
    """
    columns = [pl.col(name) for name in ids]
    return pl.any_horizontal(*(one.is_null() | (one.cast(pl.String).str.strip_chars() == "") for one in columns))


def _with_ids(table: Table, ids: list[str]) -> tuple[Table, int]:
    """Return the rows that have the ids, and the number of others."""
    missing = table.collect(ids).select(absent(ids)).to_series()
    count = int(missing.sum())
    if not count:
        return table, 0
    if count == len(missing):
        hint = "Look at data.user_id and data.item_id"
        raise DataError(f"no row has a value in {' and '.join(ids)}", where=str(table.path), hint=hint)
    return replace(table, frame=table.frame.filter(~absent(ids)), note=_COUNTED), count
