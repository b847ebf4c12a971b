"""Find the columns of ids, and what to do with rows without ids and repeated ids."""

from collections.abc import Mapping
from typing import Literal

import polars as pl

from recall.data.column_names import id_column, instead_column
from recall.data.scaffold.fields import readable
from recall.data.selection import absent, refuse_lists
from recall.data.tables import Table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import canonical_column, id_type
from recall.features.values import canonical_series

_SHARED = 0.5  # share of the ids of the interactions that the id column of another table must contain. Chosen, not tuned.
_ONCE = 0.9  # share of the rows of a table that must have different ids. Chosen, not tuned.
_WIDE = 20  # columns of numbers from which on a table may have one for each item. Chosen, not tuned.
_OPTIONS = {"user": "--user-id (user_id=)", "item": "--item-id (item_id=)"}


def find_id(tables: Mapping[str, Table], side: Literal["user", "item"], wanted: str | None) -> tuple[str, str]:
    """Return the column of ids in the interactions, and why it is that.

    Args:
        tables: with the interactions.
        side: user or item.
        wanted: the column; None for one with a telling name.

    Raises:
        DataError: There is none.
    """
    interactions = tables["interactions"]
    usual = f"{side}_id"
    if (wanted or usual) in interactions.types:
        return wanted or usual, ""
    if wanted is None:
        by_name = id_column(interactions.columns, side)
        if by_name is not None:
            return by_name, f"the name says {side}"
        shared = _shared(interactions, tables.get(f"{side}s"))
        if shared is not None:
            return shared, f"it holds ids of the {side}s table"
        instead = instead_column(interactions.columns, side)
        if instead is not None:
            return instead, f"no name says {side}: each of these counts as one"
    column = wanted or usual
    numbers = [name for name, dtype in interactions.types.items() if _is_numeric(interactions, name)]
    if wanted is None and side == "item" and len(numbers) > _WIDE and len(numbers) > 0.8 * len(interactions.columns):
        raise DataError(
            "there is no column of items, and nearly all columns hold numbers: the table seems to have a column for each item",
            where=str(interactions.path),
            hint='Write one row for each interaction, such as with polars: frame.unpivot(index="user").drop_nulls()',
        )
    near = did_you_mean(column, interactions.columns)
    hint = f"{near}{'' if near.endswith('?') else '.'} Name the column with {_OPTIONS[side]}"
    raise DataError(f"there is no column {column!r}", where=str(interactions.path), hint=hint)


def _is_numeric(table: Table, name: str) -> bool:
    known = table.frame.select(name).head(1_000).collect()[name].drop_nulls()
    return len(known) > 0 and known.cast(pl.Float64, strict=False).null_count() == 0 if not known.dtype.is_nested() else False


def _shared(interactions: Table, other: Table | None) -> str | None:
    """Return the one column that another table has too, each value once."""
    if other is None:
        return None
    both = [name for name in interactions.columns if name in other.types]
    unique = [name for name in both if canonical_series(other.collect([name])[name]).is_unique().all()]
    return unique[0] if len(unique) == 1 else None


def own_id(table: Table, ids: pl.Series, column: str) -> str:
    """Return the id column of a users or items table, which may have its own name.

    Args:
        table: of users or items.
        ids: of the interactions, [n].
        column: the name that the interactions use.

    Raises:
        DataError: No column has the name that the interactions use, and not exactly one holds their ids.
    """
    if column in table.types:
        return column
    fitting = []
    for name, dtype in table.types.items():
        if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Boolean or not readable(table, name):
            continue
        values = table.collect([name])[name]
        type_ = id_type([ids, values])
        known = canonical_column(canonical_series(ids), type_).drop_nulls().unique()
        listed = canonical_column(canonical_series(values), type_).drop_nulls()
        each = listed.n_unique() >= _ONCE * len(values)
        if each and known.is_in(listed.implode()).mean() >= _SHARED:  # type: ignore[operator]
            fitting.append(name)
    named = id_column(fitting, "user") or id_column(fitting, "item")
    if len(fitting) == 1 or named is not None:
        return named or fitting[0]
    why = f"{' and '.join(map(repr, fitting))} hold ids of the interactions" if fitting else "and no column holds their ids"
    raise DataError(f"there is no column {column!r}", where=str(table.path), why=why, hint=did_you_mean(column, table.columns))


def row_settings(tables: Mapping[str, Table], user_id: str, item_id: str, own: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return settings for rows without ids, and for repeated ids.

    Args:
        tables: by name.
        user_id: column of the interactions.
        item_id: column of the interactions.
        own: id columns of the users and items tables.

    Returns:
        Value and reason by key of `[data]`.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, ids in {"interactions": [user_id, item_id], **{name: [column] for name, column in own.items()}}.items():
        refuse_lists(tables[name], ids)
        values = tables[name].collect(ids)
        missing = values.filter(absent(ids)).height
        if 0 < missing < values.height:
            why = f"{missing:,} of {values.height:,} {name} have no {' or no '.join(ids)}"
            found.setdefault("missing_ids", ("left out", why))
        known = values[ids[0]].drop_nulls()
        again = known.filter(known.is_duplicated())
        if name != "interactions" and len(again):
            found["repeated_ids"] = (
                "last",
                f"{again.n_unique():,} ids of the {name} are in several rows, such as {again[0]!r}",
            )
    return found
