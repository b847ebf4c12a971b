"""Segments of a mutable catalogue: the published one, sealed ones, and the delta.

They work like a log-structured merge tree: changes go to the delta; a delta that is large enough is sealed, and a new one
begins. Adjacent sealed segments are merged without their dead rows, so that a search visits few segments; a large segment gets
an index. Live rows stay in the order of their last change, as in a version that is compacted from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recall._text_table import TextTable
from recall.index.base import ItemIndex
from recall.index.bitmap import RowBitmap
from recall.index.registry import index_beside
from recall.store.items.delta import Delta, EncodedItems
from recall.store.items.segment import MemoryItems, Segment

SEAL_AT = 4_096
"""Slots at which a delta is sealed: each batch copies its ids, and each search scans it."""
INDEX_AT = 8_192
"""Rows at which a sealed segment gets an index; with fewer, a scan is as fast."""
MAX_CHANGES = 1_000_000
"""Changed items above which a compaction is due in any case, as each process has them in memory."""
MAX_CHANGED_SHARE = 0.2
"""Changed items above which a compaction is due, as a share of the version's items."""
MIN_CHANGES = 1_000
"""Changed items up to which no compaction is due in any case."""
_RATIO = 4  # segments are merged unless each has at least this many times the live rows of all later ones
_IDS = 4_096  # ids converted to a series at once, during which no other thread runs


@dataclass(frozen=True, slots=True, eq=False)
class Tiers:
    """All segments of a catalogue at one sequence. Immutable.

    Attributes:
        published: the version's items.
        sealed: segments of older changes, oldest first.
        delta: the latest changes.
    """

    published: Segment
    sealed: tuple[Segment, ...]
    delta: Delta

    @classmethod
    def of(cls, published: Segment, sequence: int) -> "Tiers":
        """Return a version without later changes.

        Args:
            published: the version's items.
            sequence: sequence of the last change that the version contains.
        """
        return cls(published, (), Delta.empty(sequence, published.vectors.shape[1]))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments in the order of their rows; an empty delta is omitted."""
        older = (self.published, *self.sealed)
        return (*older, self.delta.segment(self._end)) if len(self.delta.item_ids) else older

    @property
    def rows(self) -> int:
        """Number of rows in addition to the version's, dead ones included."""
        return self._end - self.published.size + len(self.delta.item_ids)

    @property
    def count(self) -> int:
        """Number of items added or replaced since the version."""
        return sum(one.count for one in self.sealed) + self.delta.count

    @property
    def needs_compaction(self) -> bool:
        """Whether there are enough changes for a compaction."""
        limit = min(MAX_CHANGES, max(MIN_CHANGES, int(MAX_CHANGED_SHARE * self.published.size)))
        return max(self.rows, self.published.tombstones.count) > limit

    @property
    def _end(self) -> int:
        last = (self.published, *self.sealed)[-1]
        return last.first + last.size

    def with_changes(self, sequence: int, ids: Sequence[str], upserts: EncodedItems | None) -> "Tiers":
        """Return the segments after more changes; one thread at a time may call it.

        Args:
            sequence: sequence of the last change.
            ids: distinct ids of the changed items.
            upserts: the upserted items among them; None without upserts.
        """
        sealed = tuple(segment.with_tombstones(ids) for segment in self.sealed)
        delta = self.delta.with_changes(sequence, ids, upserts)
        if len(delta.item_ids) >= SEAL_AT:
            sealed = (*sealed, delta.segment(self._end))
            delta = Delta.empty(sequence, self.published.vectors.shape[1])
        return Tiers(self.published.with_tombstones(ids), sealed, delta)

    def merge_candidates(self) -> tuple[Segment, ...]:
        """Return adjacent sealed segments that should be merged; empty if none should."""
        first, later_rows = len(self.sealed), 0
        for number in reversed(range(len(self.sealed))):
            if self.sealed[number].count <= _RATIO * later_rows:
                first = number
            later_rows += self.sealed[number].count
        if first < len(self.sealed):
            return self.sealed[first:]
        return next(((segment,) for segment in self.sealed if _needs_rewrite(segment)), ())

    def with_merged(self, run: Sequence[Segment], merged: Segment | None) -> "Tiers | None":
        """Replace sealed segments by their merge; None if they are no longer present.

        Args:
            run: result of `merge_candidates`, possibly of earlier tiers.
            merged: result of `merge` for `run`; rows that got a tombstone since get one here, too.
        """
        contents = [segment.content for segment in self.sealed]
        if run[0].content not in contents:
            return None
        start = contents.index(run[0].content)
        end = start + len(run)
        if contents[start:end] != [segment.content for segment in run]:
            return None
        sealed, first = list(self.sealed[:start]), run[0].first
        if merged is not None:
            died = [now.tombstones.holds(old.live.rows) for old, now in zip(run, self.sealed[start:end], strict=True)]
            sealed.append(replace(merged, first=first, tombstones=RowBitmap.of_mask(np.concatenate(died))))
            first += merged.size
        for segment in self.sealed[end:]:  # other cached values may depend on earlier segments
            sealed.append(replace(segment, first=first, _derived={"longest": segment.longest}))
            first += segment.size
        return Tiers(self.published, tuple(sealed), self.delta)


def merge(run: Sequence[Segment], index: ItemIndex) -> Segment | None:
    """Merge adjacent segments into one without dead rows; None if no row is live.

    Args:
        run: at least one segment.
        index: the version's index; a large segment gets an exact index for the same queries.
    """
    if not any(segment.count for segment in run):
        return None
    ids = [
        pl.Series("item_id", one.content.item_ids.ids(rows), dtype=pl.String)
        for one in run
        for rows in np.split(one.live.rows, range(_IDS, one.count, _IDS))
    ]
    vectors = np.concatenate([one.vectors[one.live.rows] for one in run])
    table = pl.concat([one.items() for one in run if one.count], rechunk=True)
    items = MemoryItems(TextTable.of(pl.concat(ids)), vectors, table)
    own_index = index_beside(index, vectors) if len(vectors) >= INDEX_AT else None
    return Segment(run[0].first, items, RowBitmap.of_mask(np.zeros(len(vectors), dtype=bool)), own_index)


def _needs_rewrite(segment: Segment) -> bool:
    """Return whether a segment has mostly dead rows, or lacks an index."""
    return 2 * segment.count < segment.size or (segment.index is None and segment.count >= INDEX_AT)
