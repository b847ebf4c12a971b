"""Compare the values of columns that may hold ids."""

from collections.abc import Sequence

import polars as pl

from recall.data.conversions import respell
from recall.data.scaffold.fields import SAMPLE_ROWS
from recall.data.scaffold.text_values import decimal_mark
from recall.data.tables import Table

# Thresholds. Chosen, not tuned.
MIN_SHARED = 0.9  # share of the distinct ids of a column that another table must contain
MIN_DISTINCT = 5  # distinct values of an id column
SAMPLE_IDS = 2_000  # distinct ids that are compared
_MAX_DENSITY = 10  # largest integer id / number of ids; denser ids match any column of small integers
MIN_UNIQUE = 0.9  # distinct values of an id column in its own table, relative to the rows
_NUMBERED = r"^(\D*?)(\d+(?:[., '\x{2019}/-]\d+)*)([^\pL\d]*)$"  # digits within one text, such as show:1234 or 123.456-78
_MIN_NUMBERED = 0.95  # share of the ids that have digits within one text


def are_dense(digits: pl.Series) -> bool:
    """Return whether integer ids are so small that any integers may be among them.

    Args:
        digits: [n] of integers, or text with their digits.
    """
    return float(digits.cast(pl.Float64).max() or 0) < _MAX_DENSITY * len(digits)  # type: ignore[arg-type]


def id_digits(ids: pl.Series) -> pl.Series | None:
    """Return the digits of ids that differ in nothing else, or None.

    Those of "L 00123" are 123. A few ids without digits, such as that of a fee, remain.

    Args:
        ids: String [n], distinct and without nulls.
    """
    parts = ids.to_frame("id").with_columns(pl.col("id").str.extract_groups(_NUMBERED).struct.unnest())
    numbered = parts.filter(pl.col("2").is_not_null())
    if numbered.height < max(1, _MIN_NUMBERED * len(ids)) or numbered.select("1", "3").n_unique() > 1:
        return None
    digits = parts.select(pl.coalesce(respell(pl.col("2"), "digits"), "id")).to_series()
    return digits if digits.n_unique() == len(ids) else None


def id_candidates(table: Table, columns: Sequence[str], *, unique_ids: bool = False) -> dict[str, pl.Series]:
    """Return the distinct values, as text, of each column that may hold ids.

    Args:
        table: any of the three tables.
        columns: columns to consider.
        unique_ids: whether to return the columns of unique values, or those of repeated values.
    """
    names = [name for name in columns if name and (table.types[name] == pl.String or table.types[name].is_integer())]
    rows = table.frame.select(names) if len(names) == 1 else table.frame.select(names).head(SAMPLE_ROWS)
    frame = rows.collect().select(pl.all().cast(pl.String).str.strip_chars())
    candidates = {column.name: column.drop_nulls().unique(maintain_order=True) for column in frame}
    candidates = {
        name: ids
        for name, ids in candidates.items()
        if not decimal_mark(ids.head(SAMPLE_IDS)) and not ids.str.contains(r"^-?\d+\.\d+$").any()
    }
    unique = {name: len(ids) >= MIN_UNIQUE * len(frame) for name, ids in candidates.items()}
    return {name: ids for name, ids in candidates.items() if len(ids) >= MIN_DISTINCT and unique[name] == unique_ids}


def share_in(ids: pl.Series, values: pl.Series) -> float:
    """Return the share of ids that are among the values; 0 without ids.

    Args:
        ids: String [n].
        values: String [m].
    """
    return float(ids.is_in(values.implode()).mean() or 0)  # type: ignore[arg-type]


def share_of_digits(digits: pl.Series | None, others: pl.Series | None) -> float:
    """Return the share of digits of ids that others have; 0 for small numbers.

    Args:
        digits: String [n], as of `id_digits`.
        others: String [m], as of `id_digits`.
    """
    if digits is None or others is None or are_dense(others.cast(pl.Int64, strict=False).drop_nulls()):
        return 0.0
    return share_in(digits, others)


def find_links(table: Table, id_: str) -> list[str]:
    """Return the columns with lists of ids of the same table.

    Such as the friends of a user, or the items that are bought with an item.

    Args:
        table: the users or items.
        id_: their id column.
    """
    names = [name for name, dtype in table.types.items() if name != id_ and dtype in (pl.String, pl.List(pl.String))]
    frame = table.head(SAMPLE_ROWS).frame.select(pl.col(id_).cast(pl.String), *names).collect()
    if frame[id_].str.contains(r"^\d*$").all():  # any numbers are among those of ids
        return []
    found = []
    for column in frame.select(names):
        lists = column.str.split(",") if column.dtype == pl.String else column
        members = lists.explode(empty_as_null=False, keep_nulls=False).str.strip_chars().unique()
        if len(members) > MIN_DISTINCT and (lists.list.len() > 1).any() and share_in(members, frame[id_]) >= MIN_SHARED:
            found.append(column.name)
    return found
