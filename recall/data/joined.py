"""Two tables as one: newer rows beside the older ones, or in their place."""

from collections.abc import Callable, Iterable

import polars as pl
from polars.datatypes import DataType

from recall.data.tables import Table
from recall.errors import DataError
from recall.features.canonical import canonical_ids
from recall.features.values import canonical_series

Turn = Callable[[pl.Expr], pl.Expr]


def followed(older: Table, newer: Table) -> Table:
    """The rows of one table and then those of another, in the columns that both have.

    Raises:
        DataError: a column holds bags in one of them and single values in the other.
    """
    frames = [_alike(one, other) for one, other in ((older, newer), (newer, older))]
    return _table(newer, pl.concat(frames, how="vertical_relaxed"))


def replaced(older: Table, newer: Table, key: str) -> Table:
    """As `followed`, but a row of the older table whose id the newer one has too is left out.

    Args:
        older: the rows as they were.
        newer: the rows that are new or have changed.
        key: the id column, which both tables have; its values become text.

    Raises:
        DataError: as `followed`, or one of them has no id column.
    """
    for table in (older, newer):
        if key not in table.types:
            raise DataError(f"there is no column {key!r}", where=str(table.path), mend="Every row needs its id")
    before, after = (
        _alike(one, other).with_columns(written_ids(newer, key)) for one, other in ((older, newer), (newer, older))
    )
    kept = before.join(after.select(key), on=key, how="anti", maintain_order="left")
    return _table(newer, pl.concat([kept, after], how="vertical_relaxed"))


def origin(older: Table, newer: Table, key: str | None, row: int) -> tuple[Table, int]:
    """The table that a row of `replaced` (of `followed` without a key) comes from, and its row there; both from 1."""
    there = older.frame.with_row_index("row")
    if key is not None:
        ids = older.frame.select(key), newer.frame.select(key)
        before, after = (one.select(written_ids(newer, key)) for one in ids)
        there = before.with_row_index("row").join(after, on=key, how="anti", maintain_order="left")
    kept = there.select("row").collect()["row"]
    return (older, int(kept[row - 1]) + 1) if row <= len(kept) else (newer, row - len(kept))


def _table(newer: Table, frame: pl.LazyFrame) -> Table:
    return Table(newer.path, frame, frame.collect_schema(), text=newer.text)


def _alike(table: Table, other: Table) -> pl.LazyFrame:
    """The columns that the other table has too, in types that can stand under each other."""
    return table.frame.select(alike(sorted(set(table.types) & set(other.types)), table, other))


def alike(columns: Iterable[str], table: Table, other: Table) -> list[pl.Expr]:
    """Columns of one table, in types that can stand under or over those of the other table, which has them too.

    Raises:
        DataError: a column holds bags in one of them and single values in the other.
    """
    return [_turn(name, table, other)(pl.col(name)) for name in columns]


def _turn(name: str, table: Table, other: Table) -> Turn:
    mine, theirs = table.types[name], other.types[name]
    if pl.Null in (mine, theirs):
        return _same  # nothing but missing values, which any type has
    if isinstance(mine, pl.List | pl.Array) != isinstance(theirs, pl.List | pl.Array):
        raise DataError(
            f"column {name!r} is of type {mine} here and {theirs} in {other.path}",
            where=str(table.path),
            mend="Write both tables in the same way",
        )
    return _same if mine == theirs or _kind(mine) == _kind(theirs) != "" else written


def _kind(dtype: DataType) -> str:
    """What two types have in common that polars can bring to one; empty when only their written form is comparable."""
    if isinstance(dtype, pl.List | pl.Array):
        return "list"
    return "number" if dtype.is_numeric() and not dtype.is_decimal() else ""


def _same(column: pl.Expr) -> pl.Expr:
    return column


def written(column: pl.Expr) -> pl.Expr:
    """The values of a column in their written form."""
    return column.map_batches(canonical_series, return_dtype=pl.String())


def written_ids(table: Table, key: str) -> pl.Expr:
    """A table's ids as text in canonical form, so that 17.0 in one table is 17 in another; or as written if it says so."""
    return pl.col(key).map_batches(canonical_series if key in table.text else canonical_ids, return_dtype=pl.String())
