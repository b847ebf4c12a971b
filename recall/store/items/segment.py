"""Segment: rows of a catalogue that were written together, and how to read them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64
from recall._cache import Cache
from recall.index.base import ItemIndex, Ranked
from recall.index.bitmap import RowBitmap
from recall.index.query import Predicate
from recall.index.topk import longest_of, scan

_NONE: Int64 = np.empty(0, dtype=np.int64)
_FEW = 256  # tombstones that are excluded one by one: an index need not look up every row that it passes
_MASKS = 64  # masks for which what remains of them is kept
Derived = TypeVar("Derived")


class Ids(Protocol):
    """External ids of the rows of a segment."""

    def __len__(self) -> int: ...

    def ids(self, rows: Int64) -> list[str]:
        """Return the ids of rows, each in [0, len)."""

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return rows of ids: int64 [m], -1 where an id is not in the segment."""

    def order(self) -> Int64:
        """Return all rows by rising id: int64 [len]."""

    def place(self, order: Int64, text: str) -> int:
        """Count the rows whose id does not come after a text.

        Args:
            order: rows by rising id.
            text: any text.
        """


class Items(Protocol):
    """Ids, vectors and columns of the items of a segment: a bundle, or a delta."""

    @property
    def item_ids(self) -> Ids:
        """Ids of the rows."""

    @property
    def item_vectors(self) -> Float32:
        """float32 [size, dim]."""

    def items(self) -> pl.DataFrame:
        """Return the values of all rows: a table [size]."""

    def item_column(self, name: str) -> pl.Series:
        """Return one column: [size]."""

    def some_items(self, rows: Int64) -> pl.DataFrame:
        """Return the values of rows: a table [m]."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive rows of a catalogue, immutable but for tombstones.

    Rows within it count from 0.

    Attributes:
        first: row of the catalogue at which it begins.
        content: ids, vectors and columns of the items.
        tombstones: rows that were replaced or deleted.
        index: over the vectors; None if the segment is small enough to be scanned.
    """

    first: int
    content: Items
    tombstones: RowBitmap
    index: ItemIndex | None = None
    _derived: dict[Hashable, Any] = field(default_factory=dict)  # shared by all states of the tombstones
    _left: Cache[RowBitmap, tuple[RowBitmap, Int64]] = field(default_factory=lambda: Cache(_MASKS), init=False)

    @property
    def size(self) -> int:
        """Rows, dead ones included."""
        return self.tombstones.size

    @property
    def count(self) -> int:
        """Live rows."""
        return self.size - self.tombstones.count

    @cached_property
    def live(self) -> RowBitmap:
        """Rows without a tombstone."""
        return ~self.tombstones

    @property
    def vectors(self) -> Float32:
        """float32 [size, dim]."""
        return self.content.item_vectors

    @property
    def longest(self) -> float:
        """The largest Euclidean length of a vector, or more."""
        return self.derived("longest", lambda: longest_of(self.vectors))

    def derived(self, key: Hashable, make: Callable[[], Derived]) -> Derived:
        """Return a value derived from the content, cached with it.

        Args:
            key: of the value.
            make: derives it; called twice if two threads ask for it at once.
        """
        if key not in self._derived:
            self._derived.setdefault(key, make())
        found: Derived = self._derived[key]
        return found

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the rows of ids: int64 [m], -1 where none is alive."""
        rows = self.content.item_ids.rows(ids)
        if self.tombstones.count:
            rows[(rows >= 0) & self.tombstones.holds(rows)] = -1
        return rows

    def without(self, ids: Sequence[str]) -> "Segment":
        """Return the segment with tombstones for ids; itself if it has none of them."""
        rows = self.content.item_ids.rows(ids)
        tombstones = self.tombstones.with_rows(rows[rows >= 0])
        return self if tombstones is self.tombstones else replace(self, tombstones=tombstones)

    def ids_after(self, after: str | None, count: int) -> list[str]:
        """Return the first ids of live rows in order.

        Args:
            after: only ids after this one; None for all.
            count: ids wanted.
        """
        ids = self.content.item_ids
        order = self.derived("order", ids.order)
        place = 0 if after is None else ids.place(order, after)
        found: list[str] = []
        while len(found) < count and place < len(order):
            rows = order[place : place + count]
            place += count
            found += ids.ids(rows[~self.tombstones.holds(rows)])
        return found[:count]

    def items(self) -> pl.DataFrame:
        """Return the values of all live rows: a table [count]."""
        items = self.content.items()
        return items[self.live.rows] if self.tombstones.count else items

    def local(self, rows: Int64) -> Int64:
        """Return the rows of the catalogue that are in the segment, from its first."""
        if not self.first and (not len(rows) or rows[rows.argmax()] < self.size):  # all of them, as nearly always
            return rows
        return rows[(rows >= self.first) & (rows < self.first + self.size)] - self.first

    def search(
        self,
        queries: Float32,
        n: int,
        excluded: Sequence[Int64],
        masks: Sequence[RowBitmap | None],
        predicates: Sequence[Predicate | None],
        *,
        exact: bool,
    ) -> list[Ranked]:
        """Return the n best live rows of each query.

        Args:
            queries: float32 [q, dim].
            n: at least 1.
            excluded: rows of the segment that must not be returned, int64 [m] for each query.
            masks: the rows that may be, for each query; None for all of them.
            predicates: the filter behind each mask, if there is one.
            exact: search exhaustively.
        """
        if self.index is None:
            return [self.scan(*each, n) for each in zip(queries, excluded, masks, strict=True)]
        left = [self.without_dead(mask) for mask in masks]
        without = [np.concatenate(both) for both in zip(excluded, (dead for _, dead in left), strict=True)]
        return self.index.search_each(queries, n, without, [mask for mask, _ in left], predicates, exact=exact)

    def scan(self, query: Float32, excluded: Int64, mask: RowBitmap | None, n: int, added: Float32 | None = None) -> Ranked:
        """Return the best live rows of one query by a scan.

        Args:
            query: float32 [dim].
            excluded: int64 [m], rows of the segment that must not be returned.
            mask: the rows that may be; None for all of them.
            n: rows wanted.
            added: float32 [size], an offset of each score; none if None.
        """
        within, dead = self.without_dead(mask)
        without = np.concatenate([excluded, dead])
        return scan(self.vectors, query, n, self.longest, added=added, within=within, excluded=without)

    def without_dead(self, mask: RowBitmap | None) -> tuple[RowBitmap | None, Int64]:
        """Take dead rows out of a mask, in the form that an index searches fastest.

        Args:
            mask: some rows, or None for all of them.

        Returns:
            Rows to search within, None for all, and rows to exclude from those, int64. A mask with few dead rows is
            returned as it is, so that what an index keeps for it serves until much has changed.
        """
        if not self.tombstones.count:
            return mask, _NONE
        if mask is None:
            return (None, self.tombstones.rows) if self.tombstones.count <= _FEW else (self.live, _NONE)
        found = self._left.get(mask)
        if found is None:
            dead = mask & self.tombstones
            found = (mask, dead.rows) if dead.count <= _FEW else (mask - dead, _NONE)
            self._left.put(mask, found)
        return found
