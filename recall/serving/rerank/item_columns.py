"""Columns of items for rules, channels and boosts."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property, partial

import numpy as np
import polars as pl

from recall._arrays import Float32, Float64, Int64
from recall.bundle.reader import Bundle
from recall.errors import RequestError, did_you_mean
from recall.features.boosts import Boosts
from recall.serving.filters.column import microseconds_of
from recall.serving.rerank.base import Groups
from recall.serving.rerank.channels import Order
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot


class ItemColumns:
    """Columns of a bundle's items and of later segments. Thread-safe.

    Attributes:
        taste: components of item vectors that determine similarity, as an index of columns.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Read columns at their first use; results are cached by segment."""
        self._bundle = bundle
        self._schema = bundle.encoder.schema
        self.taste = bundle.tables.taste

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._bundle.item_types())

    def groups(self, catalogue: CatalogSnapshot, column: str, where: str) -> Groups:
        """Return the values of all rows of a catalogue in a column.

        Args:
            catalogue: of the bundle.
            column: its name.
            where: JSON pointer to the name.

        Raises:
            RequestError: Items do not have such a column.
        """
        self.check_column(column, where)
        separator, key = self._schema.separator(column), ("groups", column)
        first, *others = catalogue.segments
        groups = first.derived(key, lambda: Groups.of(first.content.item_column(column), separator))
        for one in others:
            groups = one.derived(key, partial(groups.extended, one.content.item_column(column), separator))
        return groups

    def popular(self, catalogue: CatalogSnapshot, where: str) -> tuple[Order, ...]:
        """Return the order of each segment by log(1 + training interactions).

        Args:
            catalogue: of the bundle.
            where: JSON pointer to the channel.

        Raises:
            RequestError: The bundle does not have the numbers of interactions.
        """
        return tuple(one.derived("popular", partial(self._by_counts, one, where)) for one in catalogue.segments)

    def latest(self, catalogue: CatalogSnapshot, column: str | None, where: str) -> tuple[Order, ...]:
        """Return the order of each segment for `LatestChannel`, newest first.

        Args:
            catalogue: of the bundle.
            column: its name; None for the order of the catalogue.
            where: JSON pointer to the name.

        Raises:
            RequestError: Items do not have such a column, or it has neither numbers nor times.
        """
        if column is None:
            return tuple(one.derived("latest", partial(_as_listed, one)) for one in catalogue.segments)
        self.check_column(column, where)
        first, *others = catalogue.segments
        order, read = first.derived(("latest", column), lambda: _newest(first.content.item_column(column), where))
        return order, *(one.derived(("later", column), partial(_read_newest, one, column, read)) for one in others)

    def boost_scores(self, catalogue: CatalogSnapshot, boosts: Mapping[str, float]) -> Float32 | None:
        """Return the sum of weighted boosts of every row.

        Args:
            catalogue: of the bundle.
            boosts: weights by name.

        Returns:
            float32 [size]; None if all weights are 0.

        Raises:
            RequestError: A boost is unknown, or its weight is out of bounds.
        """
        if not boosts:
            return None
        parts = [self._boosts(one) for one in catalogue.segments]
        weights = parts[0].weights(boosts)
        if not weights.any():
            return None
        added = [one.weighted_sum(weights) for one in parts]
        return added[0] if len(added) == 1 else np.concatenate(added)

    def boost_parts(self, catalogue: CatalogSnapshot, boosts: Mapping[str, float], row: int) -> dict[str, float]:
        """Return the part of each boost in the score of one row, by name.

        Args:
            catalogue: of the bundle.
            boosts: weights by name.
            row: in [0, size).
        """
        if not boosts:
            return {}
        segment = catalogue.segment_of(row)
        coordinates = self._boosts(segment)
        return coordinates.contributions(coordinates.weights(boosts), row - segment.first)

    def check_column(self, column: str, where: str) -> None:
        """Check that items have a column.

        Args:
            column: its name.
            where: JSON pointer, used in the error.

        Raises:
            RequestError: Items do not have such a column.
        """
        if column not in self.columns:
            raise RequestError("items have no such column", where=where, hint=did_you_mean(column, self.columns))

    def check_fields(self, names: Sequence[str]) -> None:
        """Check the columns that a request names for its answer.

        Raises:
            RequestError: Items do not have such a column.
        """
        if isinstance(names, str):
            raise RequestError("fields must be a list of columns, got a single string", where="/fields")
        for place, name in enumerate(names):
            self.check_column(name, f"/fields/{place}")

    def values(self, catalogue: CatalogSnapshot, rows: Int64, names: Sequence[str]) -> list[dict[str, object]]:
        """Return the values of rows by column, without missing ones.

        Args:
            catalogue: of the bundle.
            rows: int64 [m], each in [0, size).
            names: names of the columns; without names, the result is empty.

        Raises:
            BundleError: The items cannot be read.
        """
        if not names or not len(rows):
            return []
        table = catalogue.table(rows).select(list(dict.fromkeys(names)))
        return [{name: value for name, value in one.items() if value is not None} for one in table.iter_rows(named=True)]

    def check_boosts(self, catalogue: CatalogSnapshot, boosts: Mapping[str, float]) -> None:
        """Check the names and weights of boosts.

        Args:
            catalogue: of the bundle.
            boosts: weights by name.

        Raises:
            RequestError: A boost is unknown, or its weight is out of bounds.
        """
        if boosts:
            self._boosts(catalogue.segments[0]).weights(boosts)

    def _boosts(self, segment: Segment) -> Boosts:
        """Return the coordinates of a segment. Raises DataError if one is not a number."""
        names, read, types = self._bundle.manifest.boosts, segment.content.item_column, self._bundle.encoder.types.items
        return segment.derived("boosts", lambda: Boosts.of(names, self.columns, read, segment.size, self._schema, types))

    def _by_counts(self, segment: Segment, where: str) -> Order:
        counts = self._bundle.counts()
        if counts is None or not counts.any():
            raise RequestError(
                "this bundle does not have the numbers of interactions of its items",
                where=where,
                why="it was imported, or published by an older version",
                hint="Leave the channel 'popular' out, or export again",
            )
        if segment.content is not self._bundle:
            rows = self._bundle.item_ids.rows(segment.content.item_ids.ids(np.arange(segment.size)))
            counts = np.where(rows >= 0, counts[rows], np.int32(0))
        return Order.of(np.log1p(counts.astype(np.float64))).shifted(segment.first)


def _as_listed(segment: Segment) -> Order:
    """Return the rows of a segment in reverse order."""
    rows = np.arange(segment.first, segment.first + segment.size, dtype=np.float64)
    return Order.of(rows).shifted(segment.first)


def _read_newest(segment: Segment, column: str, read: Callable[[pl.Series], Float64]) -> Order:
    return Order.of(read(segment.content.item_column(column))).shifted(segment.first)


def _newest(values: pl.Series, where: str) -> tuple[Order, Callable[[pl.Series], Float64]]:
    """Return the order of a column, and a function that reads its values as numbers."""
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        return Order.of(_physical(values)), _physical
    texts = values.drop_nulls().unique() if values.dtype == pl.String else pl.Series([values.name])
    for parse in (float, microseconds_of):
        read = partial(_parsed, parse)
        if not np.isnan(read(texts)).any():
            return Order.of(read(values)), read
    raise RequestError(f"column {values.name!r} must have numbers, or times in ISO 8601", where=where)


def _physical(values: pl.Series) -> Float64:
    """Return numbers or times as float64, NaN for a missing value."""
    return values.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _parsed(parse: Callable[[str], float | Fraction], values: pl.Series) -> Float64:
    """Parse texts as numbers, NaN for text that cannot be parsed."""
    distinct = values.drop_nulls().unique()
    found = [_number(parse, text) for text in distinct.to_list()]
    read = values.replace_strict(distinct, pl.Series(found, dtype=pl.Float64), default=None, return_dtype=pl.Float64)
    return read.fill_null(float("nan")).to_numpy()


def _number(parse: Callable[[str], float | Fraction], text: str) -> float:
    try:
        return float(parse(text))
    except ValueError:
        return float("nan")
