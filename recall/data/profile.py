"""Profile tables: sizes, long tail, time line, missing and different values."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import polars as pl

from recall._arrays import Float64, Int64
from recall.config import RunConfig
from recall.data.columns import find_columns
from recall.data.prepared import PreparedTables
from recall.data.tables import Table, Tables
from recall.data.times import UNITS, Times, unit_of_time, within_unit
from recall.errors import DataError, RecallError
from recall.features.canonical import flatten_lists
from recall.features.values import canonical_series

_EXAMPLES = 3  # values of a column that are shown
_PERIODS = 24  # of a time line, at most
_EVERY = {  # hours of a period: how it is called, and its name
    1: ("1h", "%Y-%m-%d %H:00"),
    24: ("1d", "%Y-%m-%d"),
    168: ("1w", "%Y-%m-%d"),
    672: ("1mo", "%Y-%m"),
    2016: ("1q", "%Y-%m"),
    8760: ("1y", "%Y"),
}


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of a table.

    Attributes:
        table: interactions, users or items.
        column: name of the column.
        type: type of the values as read.
        use: use in the run, such as a field; empty for none.
        rows: number of rows of the table.
        missing: number of rows without a value.
        different: number of distinct values.
        examples: the most frequent values.
    """

    table: str
    column: str
    type: str
    use: str
    rows: int
    missing: int
    different: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The tables of a run, summarised.

    Attributes:
        rows: number of rows of each table.
        per_user: int64 [users], number of interactions of each user, descending.
        per_item: int64 [items], number of interactions of each item, descending.
        first: the earliest time; empty without a time.
        last: the latest time.
        periods: number of interactions by period of time.
        columns: the columns of all tables.
    """

    rows: dict[str, int]
    per_user: Int64
    per_item: Int64
    first: str
    last: str
    periods: dict[str, int]
    columns: tuple[ColumnProfile, ...]


def profile(config: RunConfig, tables: Tables, say: Callable[[str], None] = lambda _: None) -> Profile:
    """Profile the tables of a run.

    Args:
        config: names the columns.
        tables: the opened tables.
        say: called with the name of each column.

    Raises:
        DataError: A table cannot be read, or lacks an id column, or the tables are prepared data, which lacks most columns.
    """
    data = config.data
    if isinstance(tables, PreparedTables):
        raise DataError("prepared data has no profile", where=str(tables.folder), hint="Name the folder of the source files")
    ids = tables.interactions.collect([data.user_id, data.item_id])
    per_user, per_item = (
        canonical_series(values).drop_nulls().value_counts()["count"].sort(descending=True).cast(pl.Int64).to_numpy()
        for values in ids
    )
    first, last, periods = _time_line(tables.interactions, data.time)
    columns = tuple(_profile_columns(config, tables, say))
    rows = {name: max((column.rows for column in columns if column.table == name), default=0) for name in tables.named}
    return Profile(rows, per_user, per_item, first, last, periods, columns)


def concentration(counts: Int64) -> tuple[Float64, Float64]:
    """Return which share of all interactions the most frequent users or items have.

    Args:
        counts: int64 [n], descending.

    Returns:
        Shares of the users or items, and of the interactions, float64 [m] in percent; at most 101 points.
    """
    sums = np.concatenate([[0], np.cumsum(counts)])
    at = np.unique(np.linspace(0, len(counts), min(len(counts), 100) + 1).round().astype(np.int64))
    return 100 * at / max(len(counts), 1), 100 * sums[at] / max(int(sums[-1]), 1)


def _time_line(table: Table, column: str | None) -> tuple[str, str, dict[str, int]]:
    """Return first and last time, and interactions by period.

    All are empty where no time can be read.
    """
    if column is None:
        return "", "", {}
    try:
        times = Times.of(table.column(column).drop_nulls(), "")
    except RecallError:
        return "", "", {}
    values = times.values.to_numpy().astype(np.float64)
    if not len(values):
        return "", "", {}
    unit = "microseconds" if times.unit > 1 else unit_of_time(values)
    if times.unit == 1 and unit:
        values = values[within_unit(values, UNITS[unit])]  # the check reports the others
    if not unit:  # positions rather than times
        counts, edges = np.histogram(values, bins=min(_PERIODS, len(np.unique(values))))
        counts_by_edge = {f"{edge:,.6g}": int(count) for edge, count in zip(edges, counts, strict=False)}
        return f"{values.min():,.15g}", f"{values.max():,.15g}", counts_by_edge
    moments = pl.from_epoch(pl.Series((values * (1e6 / UNITS[unit])).astype(np.int64)), time_unit="us")
    hours = np.ptp(values) / UNITS[unit] / 3600
    every, pattern = next((period for length, period in _EVERY.items() if hours / length < _PERIODS - 1), _EVERY[8760])
    starts = moments.dt.truncate(every).alias("start").to_frame()
    everyone = starts.select(pl.datetime_range(pl.col("start").min(), pl.col("start").max(), every))  # those without rows, too
    periods = everyone.join(starts.group_by("start").len("count"), on="start", how="left", maintain_order="left")
    periods = periods.select(pl.col("start").dt.to_string(pattern), pl.col("count").fill_null(0))
    first, last = moments.sort().gather([0, -1]).dt.to_string("%Y-%m-%d %H:%M:%S")
    return first, last, dict(periods.tail(_PERIODS).iter_rows())


def _profile_columns(config: RunConfig, tables: Tables, say: Callable[[str], None]) -> Iterator[ColumnProfile]:
    uses = _find_uses(config, tables)
    for name, table in tables.named.items():
        for column in table.columns:
            say(f"{name}.{column}")
            values = pl.Series(column, [], dtype=table.types[column])
            try:
                values = table.column(column)
            except RecallError:  # of a type that no field reads, or not in the configured format
                with suppress(pl.exceptions.PolarsError):
                    values = table.frame.select(column).collect()[column]
            yield _profile_column(name, values, uses.get((name, column), ""))


def _profile_column(table: str, values: pl.Series, use: str) -> ColumnProfile:
    parts = flatten_lists(values) if isinstance(values.dtype, pl.List) else values
    counted = parts.drop_nulls()
    if counted.dtype.is_nested() or counted.dtype == pl.Binary:
        counted = pl.Series(dtype=pl.String)  # these values cannot be counted
    counts = counted.alias("value").value_counts(sort=True)
    examples = tuple(map(str, counts.head(_EXAMPLES)["value"]))
    inner = str(parts.dtype).partition("(")[0].lower()
    type_ = f"list of {inner}" if isinstance(values.dtype, pl.List) else inner
    return ColumnProfile(table, values.name, type_, use, len(values), values.null_count(), len(counts), examples)


def _find_uses(config: RunConfig, tables: Tables) -> dict[tuple[str, str], str]:
    """Return the use of each column that a run reads, by table and column."""
    data, schema = config.data, config.schema_
    roles = {"time": data.time, "weight": data.weight, "label": data.label}
    roles |= {use: rule.column for use, rule in (("outcome", data.outcome), ("event", data.events)) if rule is not None}
    uses = {("interactions", column): use for use, column in roles.items() if column is not None}
    uses |= {(table, data.user_id): "id of the user" for table in ("interactions", "users")}
    uses |= {(table, data.item_id): "id of the item" for table in ("interactions", "items")}
    try:
        columns = find_columns(schema, data, tables)
    except RecallError:  # a finding of the check
        return uses
    uses |= {("items", name): "attribute for filters" for name in columns.item_attributes}
    uses |= {("users", name): "attribute, kept with each user" for name in columns.user_attributes}
    read = {"users": columns.users, "interactions": columns.context, "items": columns.items}
    for name, field in schema.column_fields.items():
        for table in ("items",) if field.side == "item" else ("users", "interactions"):
            if not set(read[table]).isdisjoint(field.columns(name)):
                uses |= {(table, column): f"field {name} ({field.kind})" for column in field.columns(name)}
    return uses
