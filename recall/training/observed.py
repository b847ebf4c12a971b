"""Observed pairs in the two orders in which the whole-catalogue solver walks over them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from recall._arrays import Int32, Int64
from recall.features.sparse import stable_order
from recall.training.kernels.contract import (
    Entries,
)
from recall.training.sparse import Shard

_CHUNK_VALUES = 1 << 23  # vector components of the contexts that are held at a time, 32 MB
_RANGES = 16  # parts of a chunk that may be worked on at the same time; no two share an item


@dataclass(frozen=True, slots=True)
class ItemRange:
    """Pairs of some contexts and some items, item after item.

    Attributes:
        items: int32 [n], one for each row of `pairs`.
        pairs: indices are contexts, counted from the first one of the chunk.
    """

    items: Int32
    pairs: Entries


@dataclass(frozen=True, slots=True)
class Chunk:
    """The pairs of consecutive shards of contexts, item after item.

    Attributes:
        shards: of the contexts' feature matrix.
        ranges: all pairs; no two ranges share an item.
    """

    shards: tuple[Shard, ...]
    ranges: tuple[ItemRange, ...]

    def beside(self, other: "Chunk", items: int) -> "Chunk":
        """This chunk with the pairs of another one of the same contexts, whose items count from `items` on."""
        moved = tuple(replace(part, items=part.items + np.int32(items)) for part in other.ranges)
        return Chunk(self.shards, self.ranges + moved)

    @property
    def first(self) -> int:
        """The first context."""
        return self.shards[0].first

    @property
    def last(self) -> int:
        """One past the last context."""
        return self.shards[-1].last


def by_item(pairs: Entries, columns: int, shards: Sequence[Shard], k: int) -> Iterator[Chunk]:
    """The pairs in chunks whose context vectors of k components are held at once, each sorted by item, then context.

    Args:
        pairs: a row for each context; indices are items in [0, columns).
        columns: how many items there may be.
        shards: of the contexts' feature matrix; they and k alone decide on the chunks.
        k: see above.
    """
    rows = max(1, _CHUNK_VALUES // max(k, 1))
    taken: list[Shard] = []
    for shard in shards:
        if taken and shard.last - taken[0].first > rows:
            yield _chunk(pairs, columns, tuple(taken))
            taken = []
        taken.append(shard)
    if taken:
        yield _chunk(pairs, columns, tuple(taken))


def _chunk(pairs: Entries, columns: int, shards: tuple[Shard, ...]) -> Chunk:
    first, last = shards[0].first, shards[-1].last
    turned = transposed(pairs.rows(first, last), columns)
    items = np.flatnonzero(np.diff(turned.indptr)).astype(np.int32)
    indptr = np.append(turned.indptr[items], turned.indptr[-1])
    ranges = tuple(
        ItemRange(items[low:high], turned._replace(indptr=indptr[low : high + 1])) for low, high in shared_out(indptr, _RANGES)
    )
    return Chunk(shards, ranges)


def transposed(pairs: Entries, columns: int) -> Entries:
    """The same pairs as one row for each column, its entries in the order of the rows they come from."""
    start, stop = pairs.indptr[0], pairs.indptr[-1]
    order = stable_order(pairs.indices[start:stop], columns)
    rows = np.repeat(np.arange(pairs.n, dtype=np.int32), np.diff(pairs.indptr))
    counts = np.bincount(pairs.indices[start:stop], minlength=columns)
    return Entries(np.concatenate([[0], np.cumsum(counts)]), rows[order], pairs.weights[start:stop][order])


def shared_out(indptr: Int64, parts: int) -> list[tuple[int, int]]:
    """Ranges of rows with about equally many entries each, at most `parts` of them."""
    inner = np.searchsorted(indptr, indptr[0] + np.arange(1, parts) * ((indptr[-1] - indptr[0]) / parts))
    bounds = np.unique(np.concatenate([[0], inner, [len(indptr) - 1]]))
    return [(int(low), int(high)) for low, high in pairwise(bounds)]
