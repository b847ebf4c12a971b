"""All users, or all items: those that a table lists, and those met in interactions only."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.data.tables import Table
from recall.errors import DataError
from recall.values import Distinct, canonical_series, examples, numbers


def listed(table: Table | None, id_column: str, columns: tuple[str, ...], numeric: Collection[str]) -> pl.DataFrame:
    """The rows of a users or items table.

    Args:
        table: None when the configuration names none, which gives no rows.
        id_column: its ids become text.
        columns: further columns to read.
        numeric: names of columns that become numbers.

    Raises:
        DataError: an id is missing or there twice, or a column is not there or holds no numbers.
    """
    if table is None:
        return pl.DataFrame(schema={id_column: pl.String()})
    raw = table.collect([id_column, *columns])
    ids = canonical_series(raw[id_column])
    _refuse_missing(ids, table.where(id_column))
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        raise DataError(
            f"{repeated.n_unique():,} ids are in more than one row, such as {examples(repeated)}",
            where=table.where(id_column),
            why="one row describes one id",
            mend="Keep one row for each id",
        )
    values = [numbers(raw[name], table.where(name)) if name in numeric else raw[name] for name in columns]
    return pl.DataFrame([ids, *values])


def extended(frame: pl.DataFrame, met: pl.Series, where: str) -> tuple[pl.DataFrame, npt.NDArray[np.int32]]:
    """Add the ids that only interactions hold, with all else missing, in order of appearance.

    Args:
        frame: from `listed`; its first column is the id.
        met: [n] ids of the interactions.
        where: names the column of `met` in an error.

    Returns:
        The rows of `frame` and the new ones after them, and int32 [n] the row of each interaction.

    Raises:
        DataError: an interaction has no id.
    """
    distinct = Distinct.of(met)
    ids = canonical_series(met.gather(distinct.first)).alias(frame.columns[0])
    if ids.null_count():
        _refuse_missing(ids.gather(distinct.codes), where)
    everyone = pl.concat([frame.to_series(0), ids]).unique(maintain_order=True)
    rows = everyone.to_frame().with_columns(row=np.arange(len(everyone), dtype=np.int32))
    row = ids.to_frame().join(rows, on=ids.name, how="left", maintain_order="left").to_series(1).to_numpy()
    return pl.concat([frame, everyone[len(frame) :].to_frame()], how="diagonal"), row[distinct.codes]


def _refuse_missing(ids: pl.Series, where: str) -> None:
    if ids.null_count():
        raise DataError(
            f"{ids.null_count():,} of {len(ids):,} rows have no id",
            where=where,
            mend="Fill the ids in, or leave the rows out",
            row=int(ids.is_null().arg_max() or 0) + 1,
        )
