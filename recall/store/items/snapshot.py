"""Snapshot of the catalogue: a list of segments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge as merge_sorted
from itertools import islice
from typing import NamedTuple

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64
from recall._ids import check_id
from recall.bundle.reader import Bundle
from recall.errors import RequestError
from recall.index.base import Ranked
from recall.index.bitmap import Mask, RowBitmap
from recall.index.query import Predicate
from recall.index.topk import merge
from recall.store.items.segment import Segment

_NO_ROWS: Int64 = np.empty(0, dtype=np.int64)


class SegmentMasks(NamedTuple):
    """Rows of a catalogue.

    Attributes:
        masks: of each of its segments.
        predicate: a filter that all of these rows match, for engines that filter by themselves; None if there is none.
    """

    masks: tuple[RowBitmap, ...]
    predicate: Predicate | None = None

    def __and__(self, other: "SegmentMasks") -> "SegmentMasks":
        return SegmentMasks(tuple(one & two for one, two in zip(self.masks, other.masks, strict=True)), self.predicate)

    def __or__(self, other: "SegmentMasks") -> "SegmentMasks":
        return SegmentMasks(tuple(one | two for one, two in zip(self.masks, other.masks, strict=True)))

    def __sub__(self, other: "SegmentMasks") -> "SegmentMasks":
        return SegmentMasks(tuple(one - two for one, two in zip(self.masks, other.masks, strict=True)), self.predicate)

    @property
    def everything(self) -> bool:
        """Whether all rows are in."""
        return all(one.count == one.size for one in self.masks)


class Degraded(NamedTuple):
    """A part that an answer lacks, or has only in part.

    Attributes:
        part: of the service, in one word: "items" if later changes of items are not known.
        reason: why, in a sentence.
    """

    part: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CatalogSnapshot:
    """All items at one moment. Immutable, so a request is answered consistently.

    A row means something within one snapshot only.

    Attributes:
        bundle: what was published.
        segments: the published items, and, if there are any, those that were added or replaced since.
        sequence: the last live change that is in.
        error: what is wrong with the log of changes, in a sentence; empty if nothing is.
    """

    bundle: Bundle
    segments: tuple[Segment, ...]
    sequence: int
    error: str = ""

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """Degradations that answers from it report."""
        index = self.segments[0].index
        parts = (("items", self.error), ("index", "" if index is None else index.error))
        return tuple(Degraded(part, reason) for part, reason in parts if reason)

    @property
    def size(self) -> int:
        """Rows, those of replaced and deleted items included."""
        return self.segments[-1].first + self.segments[-1].size

    @property
    def longest(self) -> float:
        """The largest Euclidean length of a vector, or more."""
        return max(one.longest for one in self.segments)

    def segment_of(self, row: int) -> Segment:
        """Return the segment that holds a row in [0, size)."""
        return next(one for one in reversed(self.segments) if row >= one.first)

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the rows of items: int64 [m], -1 where the catalogue lacks one."""
        ids = self.bundle.encoder.item_ids(ids)
        rows = self.segments[0].rows(ids)
        for segment in self.segments[1:]:
            found = segment.rows(ids)
            rows = np.where(found >= 0, found + segment.first, rows)
        return rows

    def ids(self, rows: Int64) -> list[str]:
        """Return the ids of rows, each in [0, size)."""
        if len(self.segments) == 1:
            return self.bundle.item_ids.ids(rows)
        found = np.empty(len(rows), dtype=object)
        for segment, at in self._split(rows):
            found[at] = segment.content.item_ids.ids(rows[at] - segment.first)
        ids: list[str] = found.tolist()
        return ids

    def vectors(self, rows: Int64) -> Float32:
        """Return the vectors of rows, each in [0, size): float32 [m, dim]."""
        if len(self.segments) == 1:
            return np.asarray(self.bundle.item_vectors[rows])
        found = np.empty((len(rows), self.bundle.item_vectors.shape[1]), dtype=np.float32)
        for segment, at in self._split(rows):
            found[at] = segment.vectors[rows[at] - segment.first]
        return found

    def table(self, rows: Int64) -> pl.DataFrame:
        """Return the values of rows, each in [0, size): a table [m]. Raises BundleError."""
        parts = list(self._split(rows))
        if not parts:
            return self.bundle.some_items(rows)
        tables = [segment.content.some_items(rows[at] - segment.first) for segment, at in parts]
        if len(tables) == 1:
            return tables[0]
        order = np.argsort(np.concatenate([np.flatnonzero(at) for _, at in parts]))
        return pl.concat([one.select(tables[0].columns) for one in tables])[order]

    def items(self) -> pl.DataFrame:
        """Return the values of all live items, segment by segment. Raises BundleError."""
        tables = [one.items() for one in self.segments]
        return pl.concat([one.select(tables[0].columns) for one in tables])

    def ids_after(self, after: str | None, count: int) -> list[str]:
        """Return the first ids in order.

        Args:
            after: only ids after this one; None for all.
            count: ids wanted.
        """
        return list(islice(merge_sorted(*(one.ids_after(after, count) for one in self.segments)), count))

    def masks(self, rows: Int64) -> SegmentMasks:
        """Return some rows, int64 [m] each in [0, size), as masks."""
        return SegmentMasks(tuple(RowBitmap.of_rows(one.to_local(rows), one.size) for one in self.segments))

    def masks_of(self, mask: Mask) -> SegmentMasks:
        """Return the rows where a bool [size] is true, as masks."""
        return SegmentMasks(tuple(RowBitmap.of_mask(mask[one.first : one.first + one.size]) for one in self.segments))

    def mask(self, excluded: Int64, masks: SegmentMasks | None = None) -> Mask:
        """Return which rows a search may return: a new bool [size].

        Args:
            excluded: int64 [m], rows that must not be returned.
            masks: the rows that may be; None for all items.
        """
        parts = [one.live for one in self.segments]
        if masks is not None:
            parts = [one & two for one, two in zip(parts, masks.masks, strict=True)]
        rows = np.concatenate([one.mask for one in parts])
        rows[excluded] = False
        return rows

    def eligible(self, rows: Int64, excluded: Int64, masks: SegmentMasks | None = None) -> Mask:
        """Return whether a search may return some rows: bool [m].

        Args:
            rows: int64 [m], each in [0, size).
            excluded: int64 [e], rows that must not be returned.
            masks: the rows that may be; None for all items.
        """
        allowed = ~np.isin(rows, excluded)
        for number, segment in enumerate(self.segments):
            at = (rows >= segment.first) & (rows < segment.first + segment.size)
            local = rows[at] - segment.first
            allowed[at] &= ~segment.tombstones.holds(local)
            if masks is not None:
                allowed[at] &= masks.masks[number].holds(local)
        return allowed

    def search(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[SegmentMasks | None] | None = None,
        *,
        exact: bool = False,
    ) -> list[Ranked]:
        """Return the n best items of each query, as `ItemIndex.search_each` does.

        Args:
            queries: float32 [q, dim].
            n: at least 1.
            exclude: rows that must not be returned, one array for each query; None excludes nothing.
            within: the rows that may be returned, for each query; None for all items.
            exact: search exhaustively.
        """
        first = self.segments[0]
        scopes = [None] * len(queries) if within is None else within
        predicates = [None if scope is None else scope.predicate for scope in scopes]
        if len(self.segments) == 1 and not first.tombstones.count and first.index is not None:
            masks = [None if scope is None else scope.masks[0] for scope in scopes]
            return first.index.search_each(queries, n, exclude, masks, predicates, exact=exact)
        excluded = [_NO_ROWS] * len(queries) if exclude is None else exclude
        found = [
            segment.search(
                queries,
                n,
                [segment.to_local(rows) for rows in excluded],
                [None if scope is None else scope.masks[number] for scope in scopes],
                predicates,
                exact=exact,
            )
            for number, segment in enumerate(self.segments)
        ]
        if len(found) == 1:
            return found[0]
        return [self._merged(parts, n) for parts in zip(*found, strict=True)]

    def search_one(
        self, query: Float32, n: int, excluded: Int64, within: SegmentMasks | None = None, *, exact: bool = False
    ) -> Ranked:
        """Return the n best items of one query, as `search` does.

        Args:
            query: float32 [dim].
            n: at least 1.
            excluded: int64 [m], rows that must not be returned.
            within: the rows that may be returned; None for all items.
            exact: search exhaustively.
        """
        first = self.segments[0]
        if len(self.segments) > 1 or first.tombstones.count or first.index is None:
            return self.search(query[None], n, [excluded], [within], exact=exact)[0]
        mask, predicate = (None, None) if within is None else (within.masks[0], within.predicate)
        return first.index.search_one(query, n, excluded, mask, predicate, exact=exact)

    def top_k(self, query: Float32, n: int, added: Float32, excluded: Int64, masks: SegmentMasks | None = None) -> Ranked:
        """Return the n items with the largest product and offset, found by a scan.

        Args:
            query: float32 [dim].
            n: at least 1.
            added: float32 [size], what the score of each row gains.
            excluded: int64 [m], rows that must not be returned.
            masks: the rows that may be; None for all items.
        """
        parts = [
            segment.scan(
                query,
                segment.to_local(excluded),
                None if masks is None else masks.masks[number],
                n,
                added[segment.first : segment.first + segment.size],
            )
            for number, segment in enumerate(self.segments)
        ]
        return self._merged(parts, n)

    def scores(self, query: Float32) -> Float32:
        """Return the approximate product of a query with every row: float32 [size]."""
        return np.concatenate([one.vectors @ query for one in self.segments])

    def _merged(self, parts: Sequence[Ranked], n: int) -> Ranked:
        """Merge lists of the segments' own rows, one of each segment."""
        counted = (
            Ranked(part.rows + one.first, part.scores, part.exact) for part, one in zip(parts, self.segments, strict=True)
        )
        return merge(list(counted), n)

    def _split(self, rows: Int64) -> Iterator[tuple[Segment, Mask]]:
        """Yield the segments that hold some of the rows, with their places: bool [m]."""
        for segment in self.segments:
            at = (rows >= segment.first) & (rows < segment.first + segment.size)
            if at.any():
                yield segment, at


def row_of(catalogue: CatalogSnapshot, item_id: str) -> int:
    """Return the row of an item.

    Args:
        catalogue: as it is now.
        item_id: of the item.

    Raises:
        RequestError: The item is not in the catalogue.
    """
    check_id(item_id, "/item_id")
    row = int(catalogue.rows([item_id])[0])
    if row < 0:
        raise RequestError(f"item {item_id!r} is not in the catalogue", where="/item_id")
    return row
