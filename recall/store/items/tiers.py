"""Segments of a changing catalogue: published, sealed, and the delta.

As in a log-structured merge tree: changes go to the delta. A delta that has grown is sealed, and a new one begins. Adjacent
sealed segments are merged without their dead rows, so that a search has few of them; a large one has an index. The order
of live rows stays that of their last change, which is the order that a version published now would have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64
from recall._text_table import TextTable
from recall.index.base import ItemIndex
from recall.index.bitmap import RowBitmap
from recall.index.registry import index_beside
from recall.store.items.delta import Delta, EncodedItems
from recall.store.items.segment import Segment

SEAL_AT = 4_096
"""Slots from which on a delta is sealed: each batch copies its ids, and each search scans it."""
INDEX_AT = 8_192
"""Rows from which on a sealed segment has an index; below, a scan takes as long."""
MAX_CHANGES = 1_000_000
"""Changed items above which a whole compaction is due, as each process holds them in memory, and"""
MAX_CHANGED_SHARE = 0.2
"""the share of the version's items, but"""
MIN_CHANGES = 1_000
"""no fewer."""
_RATIO = 4  # a sealed segment has at least so many times the live rows of the later ones together, or they are merged
_IDS = 4_096  # made to a series at once, which no other thread can interrupt


@dataclass(frozen=True, slots=True, eq=False)
class SealedItems:
    """Items of merged segments.

    Attributes:
        item_ids: ids of the rows.
        item_vectors: float32 [m, dim].
        table: values of the rows [m].
    """

    item_ids: TextTable
    item_vectors: Float32
    table: pl.DataFrame

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "SealedItems":
        """Copy the live rows of segments, at least one row in all."""
        rows = [one.live.rows for one in segments]
        parts = [
            (one, some[first : first + _IDS])
            for one, some in zip(segments, rows, strict=True)
            for first in range(0, len(some), _IDS)
        ]
        ids = pl.concat([pl.Series("item_id", one.content.item_ids.ids(some), dtype=pl.String) for one, some in parts])
        vectors = np.concatenate([one.vectors[some] for one, some in parts])
        return cls(TextTable.of(ids), vectors, pl.concat([one.items() for one in segments if one.count], rechunk=True))

    def items(self) -> pl.DataFrame:
        """Return the values of all rows [m]."""
        return self.table

    def item_column(self, name: str) -> pl.Series:
        """Return one column: [m]."""
        return self.table[name]

    def some_items(self, rows: Int64) -> pl.DataFrame:
        """Return the values of rows."""
        return self.table[rows]


@dataclass(frozen=True, slots=True, eq=False)
class Tiers:
    """A version's items and the changes up to a sequence. Immutable.

    Attributes:
        published: the version's rows.
        sealed: segments of changes, the oldest first.
        delta: the latest changes.
    """

    published: Segment
    sealed: tuple[Segment, ...]
    delta: Delta

    @classmethod
    def of(cls, published: Segment, sequence: int) -> "Tiers":
        """Return a version without later changes.

        Args:
            published: the version's rows.
            sequence: the last change that they hold.
        """
        return cls(published, (), Delta.empty(sequence, published.vectors.shape[1]))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that hold a row, in the order of their rows."""
        older = (self.published, *self.sealed)
        return (*older, self.delta.segment(self._end)) if len(self.delta.item_ids) else older

    @property
    def rows(self) -> int:
        """Rows beyond the version's, dead ones included."""
        return self._end - self.published.size + len(self.delta.item_ids)

    @property
    def count(self) -> int:
        """Items that were added or replaced since the version."""
        return sum(one.count for one in self.sealed) + self.delta.count

    @property
    def needs_compaction(self) -> bool:
        """Whether so much has changed that a compaction is due."""
        most = min(MAX_CHANGES, max(MIN_CHANGES, int(MAX_CHANGED_SHARE * self.published.size)))
        return max(self.rows, self.published.tombstones.count) > most

    @property
    def _end(self) -> int:
        last = (self.published, *self.sealed)[-1]
        return last.first + last.size

    def with_changes(
        self, sequence: int, ids: Sequence[str], given: EncodedItems | None, refused: Mapping[str, str]
    ) -> "Tiers":
        """Return the segments after more changes; one thread at a time may call it.

        Args:
            sequence: of the last of them.
            ids: all that changed, each once.
            given: those that are not deleted, if any.
            refused: changes that do not fit, by id; they are among `ids`.
        """
        sealed = tuple(one.without(ids) for one in self.sealed)
        delta = self.delta.with_changes(sequence, ids, given, refused)
        if len(delta.item_ids) >= SEAL_AT:
            sealed = (*sealed, delta.segment(self._end))
            delta = Delta.empty(sequence, self.published.vectors.shape[1], delta.refused)
        return Tiers(self.published.without(ids), sealed, delta)

    def merge_candidates(self) -> tuple[Segment, ...]:
        """Return adjacent sealed segments to merge; none if there are few enough."""
        first, later = len(self.sealed), 0
        for at in reversed(range(len(self.sealed))):
            if self.sealed[at].count <= _RATIO * later:
                first = at
            later += self.sealed[at].count
        if first < len(self.sealed):
            return self.sealed[first:]
        return next(((one,) for one in self.sealed if _wasteful(one)), ())

    def with_merged(self, run: Sequence[Segment], merged: Segment | None) -> "Tiers | None":
        """Replace adjacent segments by one; None if they are no longer among these.

        Args:
            run: as `due` returned them, maybe of earlier tiers.
            merged: of `merge`.
        """
        contents = [one.content for one in self.sealed]
        if run[0].content not in contents:
            return None
        at = contents.index(run[0].content)
        rest = at + len(run)
        if contents[at:rest] != [one.content for one in run]:
            return None
        sealed, first = list(self.sealed[:at]), run[0].first
        if merged is not None:
            died = [now.tombstones.holds(old.live.rows) for old, now in zip(run, self.sealed[at:rest], strict=True)]
            sealed.append(replace(merged, first=first, tombstones=RowBitmap.of_mask(np.concatenate(died))))
            first += merged.size
        for one in self.sealed[rest:]:  # what was derived from the rows of the segments before is derived again
            sealed.append(replace(one, first=first, _derived={"longest": one.longest}))
            first += one.size
        return Tiers(self.published, tuple(sealed), self.delta)


def merge(run: Sequence[Segment], index: ItemIndex) -> Segment | None:
    """Return adjacent segments as one, without dead rows; None if no row is left.

    Args:
        run: at least one.
        index: of the version, which answers the same queries.
    """
    if not any(one.count for one in run):
        return None
    items = SealedItems.of(run)
    vectors = items.item_vectors
    own = index_beside(index, vectors) if len(vectors) >= INDEX_AT else None
    return Segment(run[0].first, items, RowBitmap.of_mask(np.zeros(len(vectors), dtype=bool)), own)


def _wasteful(segment: Segment) -> bool:
    """Return whether a segment is searched much faster once it is copied."""
    return 2 * segment.count < segment.size or (segment.index is None and segment.count >= INDEX_AT)
