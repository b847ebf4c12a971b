"""Snapshot of the catalogue: its segments at one moment, searched as one."""

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
    """Set of rows of a catalogue, as one bitmap for each segment.

    Attributes:
        masks: bitmaps in the order of the segments.
        predicate: filter that all of these rows match, for engines that evaluate filters themselves; None without a filter.
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
        """Whether the set has all rows."""
        return all(one.count == one.size for one in self.masks)


class Degraded(NamedTuple):
    """Degradation of an answer.

    Attributes:
        part: part of the service that is degraded, in one word: "items" if later changes of items are not known.
        reason: why, in a sentence.
    """

    part: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CatalogSnapshot:
    """All items at one moment. Immutable, so that a request is answered consistently.

    Rows number the items of all segments; the row of an item differs between snapshots.

    Attributes:
        bundle: the published bundle.
        segments: the bundle's items, then segments of items added or replaced since.
        sequence: sequence of the last live change that the snapshot reflects.
        error: why later changes may be missing, in a sentence; empty if none are.
    """

    bundle: Bundle
    segments: tuple[Segment, ...]
    sequence: int
    error: str = ""

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """Degradations of answers from this snapshot."""
        index = self.segments[0].index
        parts = (("items", self.error), ("index", "" if index is None else index.error))
        return tuple(Degraded(part, reason) for part, reason in parts if reason)

    @property
    def size(self) -> int:
        """Number of rows, including those of replaced and deleted items."""
        return self.segments[-1].first + self.segments[-1].size

    @property
    def longest(self) -> float:
        """Upper bound of the vectors' Euclidean lengths."""
        return max(one.longest for one in self.segments)

    def segment_of(self, row: int) -> Segment:
        """Return the segment of a row in [0, size)."""
        return next(one for one in reversed(self.segments) if row >= one.first)

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the rows of items: int64 [m], -1 for an id that is not in the catalogue."""
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
        """Return the first ids of live items, sorted.

        Args:
            after: exclusive lower bound; None for none.
            count: maximum number of ids.
        """
        return list(islice(merge_sorted(*(one.ids_after(after, count) for one in self.segments)), count))

    def masks(self, rows: Int64) -> SegmentMasks:
        """Return the set of some rows, int64 [m], each in [0, size)."""
        return SegmentMasks(tuple(RowBitmap.of_rows(one.to_local(rows), one.size) for one in self.segments))

    def masks_of(self, mask: Mask) -> SegmentMasks:
        """Return the set of rows where a bool [size] is true."""
        return SegmentMasks(tuple(RowBitmap.of_mask(mask[one.first : one.first + one.size]) for one in self.segments))

    def mask(self, excluded: Int64, masks: SegmentMasks | None = None) -> Mask:
        """Return which rows a search may return: a new bool [size].

        Args:
            excluded: int64 [m], rows that must not be returned.
            masks: rows that may be returned; None for all.
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
            masks: rows that may be returned; None for all.
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
        """Return the n best live items of each query.

        Args:
            queries: float32 [q, dim].
            n: at least 1.
            exclude: rows that must not be returned, an int64 array for each query; None excludes nothing.
            within: rows that may be returned, for each query; None for all.
            exact: search exhaustively.
        """
        scopes = [None] * len(queries) if within is None else within
        predicates = [None if scope is None else scope.predicate for scope in scopes]
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
        return [self._merged(parts, n) for parts in zip(*found, strict=True)]

    def search_one(
        self, query: Float32, n: int, excluded: Int64, within: SegmentMasks | None = None, *, exact: bool = False
    ) -> Ranked:
        """Return the n best live items of one query, with less overhead than `search`.

        Args:
            query: float32 [dim].
            n: at least 1.
            excluded: int64 [m], rows that must not be returned.
            within: rows that may be returned; None for all.
            exact: search exhaustively.
        """
        first = self.segments[0]
        if len(self.segments) > 1 or first.tombstones.count or first.index is None:
            return self.search(query[None], n, [excluded], [within], exact=exact)[0]
        mask, predicate = (None, None) if within is None else (within.masks[0], within.predicate)
        return first.index.search_one(query, n, excluded, mask, predicate, exact=exact)

    def top_k(self, query: Float32, n: int, added: Float32, excluded: Int64, masks: SegmentMasks | None = None) -> Ranked:
        """Return the n live items with the largest score and addend, by a scan.

        Args:
            query: float32 [dim].
            n: at least 1.
            added: float32 [size], addend of the score of each row.
            excluded: int64 [m], rows that must not be returned.
            masks: rows that may be returned; None for all.
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
        """Return the inner products of a query and all rows, rounded: float32 [size]."""
        return np.concatenate([one.vectors @ query for one in self.segments])

    def _merged(self, parts: Sequence[Ranked], n: int) -> Ranked:
        """Merge the best rows of each segment, which are numbered within it."""
        renumbered = [
            Ranked(part.rows + segment.first, part.scores, part.exact)
            for part, segment in zip(parts, self.segments, strict=True)
        ]
        return merge(renumbered, n)

    def _split(self, rows: Int64) -> Iterator[tuple[Segment, Mask]]:
        """Yield each segment with some of the rows, and a mask of these: bool [m]."""
        for segment in self.segments:
            at = (rows >= segment.first) & (rows < segment.first + segment.size)
            if at.any():
                yield segment, at


def row_of(catalogue: CatalogSnapshot, item_id: str) -> int:
    """Return the row of an item.

    Args:
        catalogue: snapshot of the catalogue.
        item_id: id of the item.

    Raises:
        RequestError: The item is not in the catalogue.
    """
    check_id(item_id, "/item_id")
    row = int(catalogue.rows([item_id])[0])
    if row < 0:
        raise RequestError(f"item {item_id!r} is not in the catalogue", where="/item_id")
    return row
