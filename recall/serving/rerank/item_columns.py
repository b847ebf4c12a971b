"""What the items of a catalogue hold besides their vectors, as rules, channels and boosts look at it."""

from collections.abc import Callable
from fractions import Fraction
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import polars as pl

from recall._arrays import Float64
from recall.bundle.reader import Bundle
from recall.errors import RequestError, did_you_mean
from recall.features.boosts import Boosts
from recall.index.topk import longest_of
from recall.serving.filters.values import microseconds_of
from recall.serving.rerank.base import Groups
from recall.serving.rerank.channels import Order
from recall.store.items.delta import DeltaSegment
from recall.store.items.snapshot import CatalogSnapshot

Kept = TypeVar("Kept")


class ItemColumns:
    """Reads the columns of a bundle's items when they are first asked for, and keeps what was made of them.

    Threads share it: two that ask for the same at once make it twice, and either is kept. What belongs to an overlay is kept
    for the latest one.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Nothing is read yet."""
        self._bundle = bundle
        self._schema = bundle.encoder.schema
        self._kept: dict[tuple[str, str], Any] = {}
        self._over: tuple[DeltaSegment, dict[tuple[str, str], Any]] | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that items have."""
        return tuple(self._bundle.item_types())

    @cached_property
    def longest(self) -> float:
        """The largest length of a vector of the bundle."""
        return longest_of(self._bundle.item_vectors)

    def groups(self, catalogue: CatalogSnapshot, column: str, where: str) -> Groups:
        """What every row of a catalogue holds in a column. Raises RequestError at `where` when there is no such column."""
        self.check_column(column, where)
        separator = self._schema.separator(column)
        groups = self._base(("groups", column), lambda: Groups.of(self._bundle.item_column(column), separator))
        overlay = catalogue.overlay
        if not overlay.ids:
            return groups
        return self._given(overlay, ("groups", column), lambda: groups.extended(overlay.items[column], separator))

    def popular(self, catalogue: CatalogSnapshot, where: str) -> tuple[Order, ...]:
        """The bundle's rows and the overlay's by log(1 + training interactions), in parts.

        Raises:
            RequestError: the bundle knows of none.
        """
        order = self._base(("popular", ""), lambda: self._by_counts(where))
        overlay = catalogue.overlay
        if not overlay.ids:
            return (order,)
        return order, self._given(overlay, ("popular", ""), lambda: self._given_by_counts(overlay))

    def latest(self, catalogue: CatalogSnapshot, column: str | None, where: str) -> tuple[Order, ...]:
        """The bundle's rows and the overlay's from the newest, in parts; see `LatestChannel`.

        Raises:
            RequestError: there is no such column, or it holds neither numbers nor times.
        """
        size, overlay = self._bundle.manifest.sizes.items, catalogue.overlay
        if column is None:
            order = self._base(("latest", ""), lambda: Order.of(np.arange(size, dtype=np.float64)))
            places = np.arange(size, size + len(overlay.ids), dtype=np.float64)
            return (order, Order.of(places).below(size)) if overlay.ids else (order,)
        self.check_column(column, where)
        order, read = self._base(("latest", column), lambda: _newest(self._bundle.item_column(column), where))
        if not overlay.ids:
            return (order,)
        return order, self._given(overlay, ("latest", column), lambda: Order.of(read(overlay.items[column])).below(size))

    def boosts(self, catalogue: CatalogSnapshot) -> tuple[Boosts, Boosts]:
        """The coordinates of the bundle's items, and of the overlay's. Raises DataError when a column holds no numbers."""
        size, overlay, names = self._bundle.manifest.sizes.items, catalogue.overlay, self._bundle.manifest.boosts

        def of(read: Callable[[str], pl.Series], count: int) -> Boosts:
            return Boosts.of(names, self.columns, read, count, self._schema, self._bundle.encoder.types.items)

        base = self._base(("boosts", ""), lambda: of(self._bundle.item_column, size))
        if not overlay.ids:
            return base, Boosts(base.names, base.values[:, :0])
        return base, self._given(overlay, ("boosts", ""), lambda: of(overlay.items.get_column, len(overlay.ids)))

    def check_column(self, column: str, where: str) -> None:
        """Raise RequestError at `where` when items have no such column."""
        if column not in self.columns:
            raise RequestError("items have no such column", where=where, hint=did_you_mean(column, self.columns))

    def _by_counts(self, where: str) -> Order:
        counts = self._bundle.counts()
        if counts is None or not counts.any():
            raise RequestError(
                "this bundle does not know how often its items were met",
                where=where,
                why="it was imported, or published by an older version",
                hint="Leave the channel 'popular' out, or export again",
            )
        return Order.of(np.log1p(counts.astype(np.float64)))

    def _given_by_counts(self, overlay: DeltaSegment) -> Order:
        counts, rows = self._bundle.counts(), self._bundle.item_ids.rows(overlay.ids)
        assert counts is not None  # or the order of the bundle's own items would have been refused
        met = np.where(rows >= 0, counts[rows], 0).astype(np.float64)
        return Order.of(np.log1p(met)).below(self._bundle.manifest.sizes.items)

    def _base(self, key: tuple[str, str], make: Callable[[], Kept]) -> Kept:
        if key not in self._kept:
            self._kept.setdefault(key, make())
        kept: Kept = self._kept[key]
        return kept

    def _given(self, overlay: DeltaSegment, key: tuple[str, str], make: Callable[[], Kept]) -> Kept:
        latest = self._over
        if latest is None or latest[0] is not overlay:
            latest = self._over = (overlay, {})
        if key not in latest[1]:
            latest[1].setdefault(key, make())
        kept: Kept = latest[1][key]
        return kept


def _newest(values: pl.Series, where: str) -> tuple[Order, Callable[[pl.Series], Float64]]:
    """The order of a column, and what reads further values of it. Raises RequestError at `where`."""
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        return Order.of(_physical(values)), _physical
    texts = values.drop_nulls().unique() if values.dtype == pl.String else pl.Series([values.name])
    for parse in (float, microseconds_of):
        read = partial(_parsed, parse)
        if not np.isnan(read(texts)).any():
            return Order.of(read(values)), read
    raise RequestError(f"column {values.name!r} holds neither numbers nor times", where=where, hint="Times are ISO 8601")


def _physical(values: pl.Series) -> Float64:
    """Numbers or times as float64, NaN where there is none."""
    return values.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _parsed(parse: Callable[[str], float | Fraction], values: pl.Series) -> Float64:
    """Texts as what they say, NaN where they say nothing of it."""
    distinct = values.drop_nulls().unique()
    found = [_number(parse, text) for text in distinct.to_list()]
    read = values.replace_strict(distinct, pl.Series(found, dtype=pl.Float64), default=None, return_dtype=pl.Float64)
    return read.fill_null(float("nan")).to_numpy()


def _number(parse: Callable[[str], float | Fraction], text: str) -> float:
    try:
        return float(parse(text))
    except ValueError:
        return float("nan")
