"""The catalogue at one moment: a bundle, its index, and what lies over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64
from recall._ids import check_id
from recall.bundle.reader import Bundle
from recall.errors import RequestError
from recall.index.base import Hits, ItemIndex
from recall.index.bitmap import Mask, RowBitmap
from recall.store.items.delta import DeltaSegment, best_given, merged

# Answers without all that belongs in them.


class Degraded(NamedTuple):
    """What an answer had to do without, or with less of.

    Attributes:
        part: of the service, in one word: "items" when later changes of items are not known.
        reason: why, in a sentence.
    """

    part: str
    reason: str


class SegmentMasks(NamedTuple):
    """Rows of a catalogue: among the bundle's, and among the overlay's places."""

    main: RowBitmap
    given: RowBitmap

    def __or__(self, other: "SegmentMasks") -> "SegmentMasks":
        return SegmentMasks(self.main | other.main, self.given | other.given)


@dataclass(frozen=True, slots=True, eq=False)
class CatalogSnapshot:
    """All items at one moment; it never changes. Whoever answers a request takes one and asks it everything.

    Rows below `bundle.manifest.sizes.items` are the bundle's, those from there on are the overlay's places. A row means
    something within one catalogue only.

    Attributes:
        bundle: what was published.
        index: over its vectors.
        overlay: what has changed since.
        error: what is wrong with the log of changes, in a sentence; empty when nothing is.
    """

    bundle: Bundle
    index: ItemIndex
    overlay: DeltaSegment
    error: str = ""

    @property
    def sequence(self) -> int:
        """The last live change that is in."""
        return self.overlay.sequence

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """What answers from it are to say of it."""
        return (Degraded("items", self.error),) if self.error else ()

    @property
    def size(self) -> int:
        """Rows, those included whose items were replaced or deleted."""
        return self.index.size + len(self.overlay.ids)

    def rows(self, ids: Sequence[str]) -> Int64:
        """Rows of items: int64 [m], -1 where the catalogue does not hold one."""
        ids = self.bundle.encoder.item_ids(ids)
        rows, overlay = self.bundle.item_ids.rows(ids), self.overlay
        if overlay.hidden.count:
            rows[(rows >= 0) & overlay.hidden.holds(rows)] = -1
        if overlay.places:
            places = np.fromiter((overlay.places.get(one, -1) for one in ids), dtype=np.int64, count=len(ids))
            rows = np.where(places >= 0, places + self.index.size, rows)
        return rows

    def ids(self, rows: Int64) -> list[str]:
        """Ids of rows, each in [0, size)."""
        if not self.overlay.ids:
            return self.bundle.item_ids.ids(rows)
        given = rows >= self.index.size
        if not given.any():
            return self.bundle.item_ids.ids(rows)
        found = np.empty(len(rows), dtype=object)
        found[~given] = self.bundle.item_ids.ids(rows[~given])
        found[given] = [self.overlay.ids[place] for place in (rows[given] - self.index.size).tolist()]
        ids: list[str] = found.tolist()
        return ids

    def vectors(self, rows: Int64) -> Float32:
        """Vectors of rows, each in [0, size): float32 [m, dim]."""
        given = rows >= self.index.size
        if not given.any():
            return np.asarray(self.bundle.item_vectors[rows])
        found = np.empty((len(rows), self.index.dim), dtype=np.float32)
        found[~given] = self.bundle.item_vectors[rows[~given]]
        found[given] = self.overlay.vectors[rows[given] - self.index.size]
        return found

    def table(self, rows: Int64) -> pl.DataFrame:
        """The values of rows, each in [0, size): a table [m]. Raises BundleError."""
        given = rows >= self.index.size
        if not given.any():
            return self.bundle.some_items(rows)
        items = self.overlay.items[rows[given] - self.index.size]
        if given.all():
            return items
        published = self.bundle.some_items(rows[~given])
        both = pl.concat([published, items.select(published.columns)])
        return both[np.argsort(np.argsort(given, kind="stable"))]

    def items(self) -> pl.DataFrame:
        """All items that there are: the bundle's in their order, then the overlay's. Raises BundleError."""
        items = self.bundle.items()
        if self.overlay.hidden.count:
            items = items[self.overlay.kept.rows]
        if self.overlay.places:
            items = pl.concat([items, self.overlay.items[self.overlay.living].select(items.columns)])
        return items

    def scope(self, rows: Int64) -> SegmentMasks:
        """Some rows, int64 [m], each in [0, size)."""
        size = self.index.size
        given = rows >= size
        return SegmentMasks(RowBitmap.of_rows(rows[~given], size), RowBitmap.of_rows(rows[given] - size, len(self.overlay.ids)))

    def mask(self, excluded: Int64, scope: SegmentMasks | None = None) -> Mask:
        """The rows that a search with these bounds may return: bool [size], made anew."""
        main, hidden = self.overlay.seen(None if scope is None else scope.main)
        below = np.ones(self.index.size, dtype=bool) if main is None else main.mask
        below[hidden] = False
        given = self.overlay.alive if scope is None else self.overlay.alive & scope.given.mask
        rows = np.concatenate([below, given])
        rows[excluded] = False
        return rows

    def search(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[SegmentMasks | None] | None = None,
        *,
        exact: bool = False,
    ) -> Hits:
        """As `ItemIndex.search`, over all rows but those that were replaced or deleted."""
        overlay, size = self.overlay, self.index.size
        scopes = within if within is not None else [None] * len(queries)
        main = [None if scope is None else scope.main for scope in scopes]
        if not overlay.hidden.count and not overlay.places:
            return self.index.search(queries, n, exclude, main, exact=exact)
        excluded = exclude if exclude is not None else [_NONE] * len(queries)
        below = [rows[rows < size] for rows in excluded]
        hits = self._search_main(queries, n, below, main, exact)
        if not overlay.places:
            return hits
        given = [
            best_given(overlay, query, n, rows[rows >= size] - size, None if scope is None else scope.given)
            for query, rows, scope in zip(queries, excluded, scopes, strict=True)
        ]
        return merged(hits, given, size, n)

    def _search_main(
        self, queries: Float32, n: int, excluded: list[Int64], within: list[RowBitmap | None], exact: bool
    ) -> Hits:
        """The index without what is hidden."""
        seen = [self.overlay.seen(selection) for selection in within]
        without = [np.concatenate(both) for both in zip(excluded, (hidden for _, hidden in seen), strict=True)]
        return self.index.search(queries, n, without, [selection for selection, _ in seen], exact=exact)


def row_of(catalogue: CatalogSnapshot, item_id: str) -> int:
    """The row of an item. Raises RequestError when the catalogue lacks it."""
    check_id(item_id, "/item_id")
    row = int(catalogue.rows([item_id])[0])
    if row < 0:
        raise RequestError(f"item {item_id!r} is not in the catalogue", where="/item_id")
    return row


_NONE: Int64 = np.empty(0, dtype=np.int64)
