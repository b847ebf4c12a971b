"""Collect all users or items, and which items were on offer during training."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recall._arrays import Bool, Int32, Integers
from recall.data.tables import Table
from recall.data.times import Times
from recall.errors import DataError
from recall.features.canonical import ColumnForms
from recall.features.values import Distinct, canonical_series, examples, number_column

_MAX_ROWS = int(np.iinfo(np.int32).max)


def read_entities(
    table: Table | None,
    id_column: str,
    columns: tuple[str, ...],
    numeric: Collection[str],
    forms: ColumnForms,
    raw: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Read the rows of a users or items table, with unique ids.

    Args:
        table: the table; None, if the configuration names none, gives no rows.
        id_column: id column, which becomes text.
        columns: further columns to read.
        numeric: names of columns that become numbers, each in a type that loses no digit.
        forms: canonical types of text columns.
        raw: columns of the table, if they have been read already.

    Raises:
        DataError: An id is missing or repeated, or a column is missing or holds other values.
    """
    if table is None:
        return pl.DataFrame(schema={id_column: pl.String()})
    raw = table.collect([id_column, *columns]) if raw is None else raw
    ids = read_ids(raw[id_column], table.where(id_column), forms)
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        raise DataError(
            f"{repeated.n_unique():,} ids are in more than one row, such as {examples(repeated)}",
            where=table.where(id_column),
            why="one row describes one id",
            hint="Keep one row for each id",
        )
    reads = {name: number_column if name in numeric else forms.canonical for name in columns}
    return pl.DataFrame([ids, *(read(raw[name], table.where(name)) for name, read in reads.items())])


def read_ids(values: pl.Series, where: str, forms: ColumnForms) -> pl.Series:
    """Return ids as text in canonical form, String [n].

    Args:
        values: [n], the id column.
        where: names the column in an error.
        forms: canonical types by column.

    Raises:
        DataError: An id is missing, empty, or blank.
    """
    ids = forms.canonical(canonical_series(values), where)
    refuse_missing_ids(ids, where)
    return ids


def add_missing_ids(frame: pl.DataFrame, used: pl.Series, where: str) -> tuple[pl.DataFrame, Int32]:
    """Append the ids that occur in interactions only, in order of appearance.

    Args:
        frame: rows from `read_entities`; the first column is the id.
        used: ids of the interactions, [n].
        where: location of that column, for errors.

    Returns:
        `frame` with a row for each new id, with null in the other columns; and int32 [n], the row of each interaction.

    Raises:
        DataError: An interaction has no id, or there are too many ids.
    """
    distinct = Distinct.of(used)
    ids = canonical_series(used.gather(distinct.first)).alias(frame.columns[0])
    if ids.to_frame().select(id_missing([ids.name])).to_series().any():
        refuse_missing_ids(ids.gather(distinct.codes), where)
    all_ids = pl.concat([frame.to_series(0), ids]).unique(maintain_order=True)
    require_numbered(len(all_ids), where)
    rows = all_ids.to_frame().with_columns(row=np.arange(len(all_ids), dtype=np.int32))
    row = ids.to_frame().join(rows, on=ids.name, how="left", maintain_order="left").to_series(1).to_numpy()
    return pl.concat([frame, all_ids[len(frame) :].to_frame()], how="diagonal"), row[distinct.codes]


def require_numbered(count: int, where: str) -> None:
    """Check that rows of users or items fit in 32 bits.

    Args:
        count: number of users or items.
        where: location of the id column, for the error.

    Raises:
        DataError: There are more than 2,147,483,647.
    """
    if count > _MAX_ROWS:
        raise DataError(
            f"{count:,} ids are more than a row of 32 bits can number ({_MAX_ROWS:,})",
            where=where,
            hint="Leave ids out that occur in few interactions, in the source files",
        )


def id_missing(ids: Sequence[str]) -> pl.Expr:
    """Return whether any of several ids of a row is null, empty or blank.

    Args:
        ids: names of the columns.
    """
    return pl.any_horizontal(pl.col(name).is_null() | (pl.col(name).cast(pl.String).str.strip_chars() == "") for name in ids)


def refuse_missing_ids(ids: pl.Series, where: str, hint: str = "Fill the ids in, or leave the rows out") -> None:
    """Check that no id is missing, empty or blank.

    Args:
        ids: String [n].
        where: names the column in the error.
        hint: how to correct it.

    Raises:
        DataError: An id is absent; names the first five rows.
    """
    absent = ids.to_frame().select(id_missing([ids.name])).to_series()
    count = int(absent.sum())
    if count:
        rows = (np.flatnonzero(absent.to_numpy())[:5] + 1).tolist()
        shown = ", ".join(f"{row:,}" for row in rows) + (", ..." if count > len(rows) else "")
        raise DataError(
            f"{count:,} of {len(ids):,} rows have no id{f', rows {shown}' if count > 1 else ''}",
            where=where,
            why="an id that is missing, empty or blank names nothing",
            hint=hint,
            row=rows[0],
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """Items that were on offer during training: interacted with, or shown only.

    Only these are drawn as negatives, because an item that was not on offer could not be taken.

    Attributes:
        interacted: bool [items], items with interactions in training or before it.
        shown: bool [items], items on offer without interactions: shown according to the label column, or available before
            the last training interaction according to `data.available_from`. Disjoint from `interacted`.
    """

    interacted: Bool
    shown: Bool

    @staticmethod
    def of(interacted: Integers, shown: Integers, available: Bool | None, n: int) -> "Offer":
        """Classify the items of a catalogue.

        Args:
            interacted: row of the item of each interaction, in any order.
            shown: row of the item of each negative.
            available: bool [n], items on offer by their date; None without a date column.
            n: size of the catalogue.
        """
        taken, shown_or_available = np.bincount(interacted, minlength=n) > 0, np.bincount(shown, minlength=n) > 0
        if available is not None:
            shown_or_available |= available
        return Offer(taken, shown_or_available & ~taken)

    @property
    def candidates(self) -> Bool:
        """Items that may be drawn as negatives; bool [items]."""
        return self.interacted | self.shown

    def counts(self) -> Mapping[str, int]:
        """Count the items of each class."""
        return {
            "trained on": int(self.interacted.sum()),
            "on offer but never taken": int(self.shown.sum()),
            "without interactions": int((~self.candidates).sum()),
        }


def available(table: Table | None, column: str, n: int, times: Times | None) -> Bool:
    """Return the items that were on offer before the last training interaction.

    Args:
        table: the items table, whose rows are the first of the catalogue.
        column: column with the time from which each item is on offer; null for unknown.
        n: size of the catalogue.
        times: times of the training interactions: dates if the column holds dates, numbers if it holds numbers.

    Returns:
        bool [n], False for items of unknown time.

    Raises:
        DataError: The column is missing, or its times cannot be compared with those of the interactions.
    """
    if table is None or times is None:
        raise DataError(
            "dates of availability need a table of items, and times of the interactions to compare with",
            where="data.available_from",
            hint="Set data.items and data.time as well",
        )
    raw = table.column(column)
    has_date = np.flatnonzero(raw.is_not_null().to_numpy())
    result = np.zeros(n, dtype=np.bool_)
    if len(has_date):
        since = Times.of(raw.gather(has_date), table.where(column))
        if since.unit != times.unit:
            found_kind, expected_kind = ("dates", "numbers") if times.unit == 1 else ("numbers", "dates")
            raise DataError(
                f"the column holds {found_kind}, and data.time holds {expected_kind}",
                where=table.where(column),
                why="the two are compared with each other",
                hint="Write both as dates, or both as numbers in the same unit",
            )
        result[has_date] = since.values.to_numpy() <= times.values.max()
    return result
