"""What lies over a published catalogue: items that were added or replaced since, and rows that must not be seen.

An overlay never changes. Each batch of changes gives another, which shares with the one before all that stayed the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64, UInt8
from recall.index.base import Hits, Ranked
from recall.index.bitmap import Mask, RowBitmap
from recall.index.topk import rank, rounding

_FIRST = 64  # rows that room is made for at first
_KEPT = 64  # selections for which is kept what is left of them
_FEW = 256  # hidden rows that are excluded one by one: an index need not look up every row that it meets
_NONE: Int64 = np.empty(0, dtype=np.int64)


class GrowableArray:
    """Vectors one below the other, with room for more.

    Overlays share it, and each looks at as many rows as there were when it was made: rows are never written twice.
    """

    def __init__(self, dim: int) -> None:
        self._array = np.empty((_FIRST, dim), dtype=np.float32)
        self._used = 0

    def extended(self, seen: Float32, vectors: Float32) -> "tuple[GrowableArray, Float32]":
        """`seen`, the rows that one overlay has, and `vectors` below them; in place unless another overlay went on first."""
        count = len(seen) + len(vectors)
        room = self
        if len(seen) != self._used or count > len(self._array):
            room = GrowableArray(seen.shape[1])
            room._array = np.empty((max(2 * count, _FIRST), seen.shape[1]), dtype=np.float32)
            room._array[: len(seen)] = seen
        room._array[len(seen) : count] = vectors
        room._used = count
        return room, room._array[:count]


class EncodedItems(NamedTuple):
    """New items.

    Attributes:
        ids: at least one, each once.
        items: [len(ids)], with the columns of the catalogue.
        vectors: float32 [len(ids), dim], finite.
    """

    ids: Sequence[str]
    items: pl.DataFrame
    vectors: Float32


@dataclass(frozen=True, eq=False)
class DeltaSegment:
    """Changes up to a sequence. Its items stand in places 0 to m - 1; a place whose item was replaced or deleted is dead.

    Attributes:
        sequence: the last change that is in.
        size: rows of the catalogue that it lies over.
        ids: the id in each place.
        places: the place of each id that is alive, rising.
        vectors: float32 [m, dim].
        alive: bool [m].
        longest: no vector's Euclidean length exceeds it.
        hidden: rows of the catalogue that were replaced or deleted.
        refused: by id, why a change could not be made to fit this catalogue. Such an item is left out.
    """

    sequence: int
    size: int
    ids: tuple[str, ...]
    places: Mapping[str, int]
    vectors: Float32
    alive: Mask
    longest: float
    hidden: RowBitmap
    refused: Mapping[str, str]
    _parts: tuple[pl.DataFrame, ...]  # of `items`; each is more than twice as long as the next
    _room: GrowableArray
    _seen: dict[int, tuple[RowBitmap, RowBitmap, Int64]] = field(default_factory=dict)

    @classmethod
    def empty(cls, sequence: int, size: int, dim: int) -> "DeltaSegment":
        """No changes, over a catalogue that holds those up to a sequence."""
        room = GrowableArray(dim)
        nothing = RowBitmap(np.zeros(-(-size // 8), dtype=np.uint8), size, 0)
        none = np.empty(0, dtype=bool)
        return cls(sequence, size, (), {}, np.empty((0, dim), dtype=np.float32), none, 0.0, nothing, {}, (), room)

    @property
    def count(self) -> int:
        """Items that are alive."""
        return len(self.places)

    @cached_property
    def items(self) -> pl.DataFrame:
        """The values of all places [m], with the columns of the catalogue; without columns when m is 0."""
        return pl.concat(self._parts) if self._parts else pl.DataFrame()

    @cached_property
    def living(self) -> Int64:
        """Places that are alive, rising: int64 [count]."""
        return np.flatnonzero(self.alive)

    @cached_property
    def kept(self) -> RowBitmap:
        """Rows of the catalogue that are not hidden."""
        return ~self.hidden

    def seen(self, selection: RowBitmap | None) -> tuple[RowBitmap | None, Int64]:
        """What is left of a selection of rows, or of all, in the form that an index searches fastest.

        Returns:
            Rows to search within, None for all, and rows to exclude from those, int64. A selection of which little is hidden
            is given back as it is, so that what an index keeps for it stays useful from one overlay to the next.
        """
        if not self.hidden.count:
            return selection, _NONE
        if selection is None:
            return (None, self.hidden.rows) if self.hidden.count <= _FEW else (self.kept, _NONE)
        known = self._seen.get(id(selection))
        if known is None:
            if len(self._seen) >= _KEPT:
                self._seen.clear()
            # the selection is kept beside the result, so that its id stays its own
            known = self._seen[id(selection)] = (selection, *self._seen_of(selection))
        return known[1:]

    def _seen_of(self, selection: RowBitmap) -> tuple[RowBitmap, Int64]:
        common = selection & self.hidden
        return (selection, common.rows) if common.count <= _FEW else (selection - common, _NONE)

    def changed(
        self,
        sequence: int,
        ids: Sequence[str],
        rows: Int64,
        given: EncodedItems | None,
        refused: Mapping[str, str],
    ) -> "DeltaSegment":
        """The overlay after more changes. To be called by one thread at a time.

        Args:
            sequence: the last of them.
            ids: all that changed, each once.
            rows: int64 [len(ids)], their rows in the catalogue, -1 where it does not hold them.
            given: those that are not deleted, if any.
            refused: changes that do not fit, by id; they are among `ids`.
        """
        places, alive = dict(self.places), self.alive
        dead = [place for one in ids if (place := places.pop(one, None)) is not None]
        if dead:
            alive = alive.copy()
            alive[dead] = False
        names = self.ids
        vectors, longest, parts, room = self.vectors, self.longest, self._parts, self._room
        if given is not None:
            new, frame, added = given
            places |= zip(new, range(len(names), len(names) + len(new)), strict=True)
            names = (*names, *new)
            alive = np.concatenate([alive, np.ones(len(new), dtype=bool)])
            room, vectors = room.extended(vectors, added)
            longest = max(longest, float(np.sqrt(np.einsum("ij,ij->i", added, added, dtype=np.float64).max())))
            parts = _joined((*parts, frame))
        again = set(ids)
        wrong = {one: why for one, why in self.refused.items() if one not in again} | dict(refused)
        hidden = _with_rows(self.hidden, rows[rows >= 0])
        after = DeltaSegment(sequence, self.size, names, places, vectors, alive, longest, hidden, wrong, parts, room)
        return after._packed() if len(names) > 2 * len(places) + _FIRST else after

    def _packed(self) -> "DeltaSegment":
        """The same without dead places."""
        living = self.living
        room, vectors = GrowableArray(self.vectors.shape[1]).extended(self.vectors[:0], self.vectors[living])
        return replace(
            self,
            ids=tuple(self.places),
            places=dict(zip(self.places, range(self.count), strict=True)),
            vectors=vectors,
            alive=np.ones(self.count, dtype=bool),
            _parts=(self.items[living],) if self.count else (),
            _room=room,
            _seen={},
        )


def _joined(parts: tuple[pl.DataFrame, ...]) -> tuple[pl.DataFrame, ...]:
    """The same rows in few parts: joining as a binary counter carries, each row is copied a logarithmic number of times."""
    while len(parts) > 1 and len(parts[-2]) <= 2 * len(parts[-1]):
        parts = (*parts[:-2], pl.concat(parts[-2:], rechunk=True))
    return parts


def _with_rows(selection: RowBitmap, rows: Int64) -> RowBitmap:
    """A selection and more rows, at the cost of a copy of its bits."""
    fresh = rows[~selection.holds(rows)]
    if not len(fresh):
        return selection
    bits: UInt8 = selection.bits.copy()
    np.bitwise_or.at(bits, fresh >> 3, np.left_shift(1, fresh & 7).astype(np.uint8))
    return RowBitmap(bits, selection.size, selection.count + len(fresh))


# The best items of a catalogue and of what lies over it, as one list.

_FEW_CHANGES = 256  # items that are put in order without looking first which of them can be among the best


def best_given(overlay: DeltaSegment, query: Float32, n: int, excluded: Int64, within: RowBitmap | None) -> Ranked:
    """The best n of an overlay's items by a scan of all of them.

    Args:
        overlay: its places are the rows of the result.
        query: float32 [dim].
        n: at least 1.
        excluded: places that must not be returned.
        within: the places that may be; None for all.
    """
    places = overlay.living
    if within is not None:
        places = places[within.holds(places)]
    if len(places) > max(_FEW_CHANGES, n + len(excluded)):
        places = places[_promising(overlay, query, places, n + len(excluded))]
    return rank(overlay.vectors, query, places, np.unique(excluded), n, exact=True)


def _promising(overlay: DeltaSegment, query: Float32, places: Int64, width: int) -> Int64:
    """Positions among `places` of whatever can be among the best `width`, however its product is added up."""
    every = len(places) == len(overlay.vectors)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = (overlay.vectors @ query) if every else (overlay.vectors @ query)[places]
    if not np.isfinite(scores).all():
        return np.arange(len(places))
    least = np.partition(scores, len(scores) - width)[len(scores) - width]
    return np.flatnonzero(scores >= least - 2 * rounding(query, overlay.longest))


def merged(main: Hits, given: list[Ranked], size: int, n: int) -> Hits:
    """Two results as one: by falling score, then by row.

    Args:
        main: of the catalogue, [q, n].
        given: of the overlay, one for each query.
        size: rows of the catalogue, after which the overlay's places are counted.
        n: length of the lists.
    """
    rows = np.full((len(given), n), -1, dtype=np.int64)
    scores = np.full((len(given), n), -np.inf, dtype=np.float32)
    for query, one in enumerate(given):
        found = main.rows[query] >= 0
        both = np.concatenate([main.rows[query][found], one.rows + size])
        products = np.concatenate([main.scores[query][found], one.scores])
        order = np.lexsort((both, -products))[:n]
        rows[query, : len(order)] = both[order]
        scores[query, : len(order)] = products[order]
    return Hits(rows, scores, main.exact)
