"""Segment: consecutive rows of the catalogue, immutable except for tombstones."""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64
from recall._cache import Cache
from recall._text_table import TextTable
from recall.bundle.reader import Bundle
from recall.index.base import ItemIndex, Ranked
from recall.index.bitmap import RowBitmap
from recall.index.query import Predicate
from recall.index.topk import longest_of, scan

_NO_ROWS: Int64 = np.empty(0, dtype=np.int64)
_MAX_EXCLUDED = 256  # with more tombstones, an index searches within a mask instead of excluding single rows
_MAX_CACHED_MASKS = 64
Derived = TypeVar("Derived")


@dataclass(frozen=True, slots=True, eq=False)
class SlotIds:
    """Ids of the slots of a delta.

    Attributes:
        names: id of each slot, dead ones included.
        slots: live slot of each id.
    """

    names: tuple[str, ...]
    slots: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, rows: Int64) -> list[str]:
        """Return the ids of slots, each in [0, len)."""
        return [self.names[row] for row in rows.tolist()]

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the slots of ids: int64 [m], -1 for an id without a live slot."""
        return np.fromiter((self.slots.get(item_id, -1) for item_id in ids), dtype=np.int64, count=len(ids))

    def argsort(self) -> Int64:
        """Return all slots sorted by id: int64 [len]."""
        return np.array(sorted(range(len(self.names)), key=self.names.__getitem__), dtype=np.int64)

    def count_up_to(self, order: Int64, text: str) -> int:
        """Return the number of slots with an id <= a text.

        Args:
            order: int64 [len], slots sorted by id.
            text: any text.
        """
        return bisect_right(order, text, key=self.names.__getitem__)


Ids = TextTable | SlotIds
"""External ids of the rows of a segment."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryItems:
    """Items with all of their columns in memory.

    Attributes:
        item_ids: ids of the rows.
        item_vectors: float32 [size, dim].
        table: values of the rows, [size].
    """

    item_ids: Ids
    item_vectors: Float32
    table: pl.DataFrame

    def items(self) -> pl.DataFrame:
        """Return the values of all rows: a table [size]."""
        return self.table

    def item_column(self, name: str) -> pl.Series:
        """Return one column: [size]."""
        return self.table[name]

    def some_items(self, rows: Int64) -> pl.DataFrame:
        """Return the values of rows: a table [m]."""
        return self.table[rows]


Items = Bundle | MemoryItems
"""Ids, vectors and columns of the items of a segment."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive rows of the catalogue, numbered from 0 within the segment.

    Attributes:
        first: the catalogue's row of row 0.
        content: ids, vectors and columns of the items.
        tombstones: rows of items that were replaced or deleted.
        index: index over the vectors; None if the segment is small enough to be scanned.
    """

    first: int
    content: Items
    tombstones: RowBitmap
    index: ItemIndex | None = None
    _derived: dict[Hashable, Any] = field(default_factory=dict)  # shared by copies with other tombstones
    _excluded_dead: Cache[RowBitmap, tuple[RowBitmap, Int64]] = field(
        default_factory=lambda: Cache(_MAX_CACHED_MASKS), init=False
    )

    @property
    def size(self) -> int:
        """Number of rows, dead ones included."""
        return self.tombstones.size

    @property
    def count(self) -> int:
        """Number of live rows."""
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
        """Upper bound of the vectors' Euclidean lengths."""
        return self.derived("longest", lambda: longest_of(self.vectors))

    def derived(self, key: Hashable, make: Callable[[], Derived]) -> Derived:
        """Return a cached value that depends on the content only.

        Args:
            key: key in the cache.
            make: computes the value; called twice if two threads need it at once.
        """
        if key not in self._derived:
            self._derived.setdefault(key, make())
        found: Derived = self._derived[key]
        return found

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the live rows of ids: int64 [m], -1 for an id without one."""
        rows = self.content.item_ids.rows(ids)
        if self.tombstones.count:
            rows[(rows >= 0) & self.tombstones.holds(rows)] = -1
        return rows

    def with_tombstones(self, ids: Sequence[str]) -> "Segment":
        """Return the segment with tombstones for ids; itself if none is in it."""
        rows = self.content.item_ids.rows(ids)
        tombstones = self.tombstones.with_rows(rows[rows >= 0])
        return self if tombstones is self.tombstones else replace(self, tombstones=tombstones)

    def ids_after(self, after: str | None, count: int) -> list[str]:
        """Return the first ids of live rows, sorted.

        Args:
            after: exclusive lower bound; None for none.
            count: maximum number of ids.
        """
        ids = self.content.item_ids
        order = self.derived("argsort", ids.argsort)
        start = 0 if after is None else ids.count_up_to(order, after)
        found: list[str] = []
        while len(found) < count and start < len(order):
            rows = order[start : start + count]
            start += count
            found += ids.ids(rows[~self.tombstones.holds(rows)])
        return found[:count]

    def items(self) -> pl.DataFrame:
        """Return the values of all live rows: a table [count]."""
        items = self.content.items()
        return items[self.live.rows] if self.tombstones.count else items

    def to_local(self, rows: Int64) -> Int64:
        """Convert rows of the catalogue to rows of the segment; drop all others."""
        if not self.first and (not len(rows) or rows[rows.argmax()] < self.size):  # the usual case: no copy
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
            masks: rows that may be returned, for each query; None for all rows.
            predicates: filter behind each mask, or None, for engines that filter by themselves.
            exact: search exhaustively.
        """
        if self.index is None:
            return [self.scan(*each, n) for each in zip(queries, excluded, masks, strict=True)]
        left = [self.exclude_dead(mask) for mask in masks]
        without = [np.concatenate(both) for both in zip(excluded, (dead for _, dead in left), strict=True)]
        return self.index.search_each(queries, n, without, [mask for mask, _ in left], predicates, exact=exact)

    def scan(self, query: Float32, excluded: Int64, mask: RowBitmap | None, n: int, added: Float32 | None = None) -> Ranked:
        """Return the best live rows of one query by a scan.

        Args:
            query: float32 [dim].
            excluded: int64 [m], rows of the segment that must not be returned.
            mask: rows that may be returned; None for all rows.
            n: number of rows wanted.
            added: float32 [size], added to the scores; None for zeros.
        """
        within, dead = self.exclude_dead(mask)
        without = np.concatenate([excluded, dead])
        return scan(self.vectors, query, n, self.longest, added=added, within=within, excluded=without)

    def exclude_dead(self, mask: RowBitmap | None) -> tuple[RowBitmap | None, Int64]:
        """Remove dead rows from a mask, in the form that an index searches fastest.

        Args:
            mask: rows to search; None for all rows.

        Returns:
            Rows to search (None for all), and rows to exclude from them, int64 [e]. A mask with few dead rows is returned
            unchanged, so that an index's cache for it stays valid.
        """
        if not self.tombstones.count:
            return mask, _NO_ROWS
        if mask is None:
            return (None, self.tombstones.rows) if self.tombstones.count <= _MAX_EXCLUDED else (self.live, _NO_ROWS)
        found = self._excluded_dead.get(mask)
        if found is None:
            dead = mask & self.tombstones
            found = (mask, dead.rows) if dead.count <= _MAX_EXCLUDED else (mask - dead, _NO_ROWS)
            self._excluded_dead.put(mask, found)
        return found
