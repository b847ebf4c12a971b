"""One list out of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from recall._arrays import Int32, Int64
from recall.serving.rerank.base import Scores

# Scores of one list made comparable with those of another.


def scaled(scores: Scores) -> npt.NDArray[np.float64]:
    """Scale scores to [0, 1], all to 1 if they are equal: floats [m] -> float64 [m]."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or values.max() == values.min():
        return np.ones(len(values))
    return np.asarray((values - values.min()) / (values.max() - values.min()), dtype=np.float64)


class Source(NamedTuple):
    """A channel that holds an item, and the item's rank there, from 1."""

    channel: str
    rank: int


@dataclass(frozen=True, slots=True, eq=False)
class ChannelResult:
    """The list of one channel.

    Attributes:
        name: of the channel.
        weight: of the channel.
        rows: int64 [m], distinct, best first.
        scores: floats [m], never rising.
    """

    name: str
    weight: float
    rows: Int64
    scores: Scores


@dataclass(frozen=True, slots=True, eq=False)
class FusedList:
    """The items of all channels.

    Attributes:
        names: of the channels.
        rows: int64 [m], distinct, best first; equal scores by rising row.
        scores: float64 [m].
        ranks: int32 [m, channels], the rank of each item in each channel from 1; 0 where it is not in it.
    """

    names: tuple[str, ...]
    rows: Int64
    scores: npt.NDArray[np.float64]
    ranks: Int32

    def sources(self, places: Int64) -> list[tuple[Source, ...]]:
        """Return the channels of the items at some places; -1 is an item in none."""
        ranks = np.append(self.ranks, np.zeros((1, len(self.names)), dtype=np.int32), axis=0)[places].tolist()  # -1 is last
        return [tuple(Source(name, rank) for name, rank in zip(self.names, row, strict=True) if rank) for row in ranks]

    def places(self, rows: Int64) -> Int64:
        """Where rows stand: int64 [m], -1 for those that are in no channel."""
        if not len(self.rows):
            return np.full(len(rows), -1, dtype=np.int64)
        order = np.argsort(self.rows)
        found = order[np.minimum(np.searchsorted(self.rows, rows, sorter=order), len(order) - 1)]
        return np.where(self.rows[found] == rows, found, -1)


def fuse(lists: Sequence[ChannelResult], by: Literal["reciprocal_rank", "weights"], k: float) -> FusedList:
    """Merge lists as `Channels` says, which has the formulas.

    Args:
        lists: of one request.
        by: how scores are made, as in `Channels`.
        k: of the reciprocal ranks, as in `Channels`.
    """
    rows, places = np.unique(np.concatenate([one.rows for one in lists]), return_inverse=True)
    scores = np.zeros(len(rows))
    ranks = np.zeros((len(rows), len(lists)), dtype=np.int32)
    first = 0
    for column, one in enumerate(lists):
        place = places[first : first + len(one.rows)]
        first += len(one.rows)
        ranks[place, column] = np.arange(1, len(one.rows) + 1)
        parts = 1.0 / (k + ranks[place, column]) if by == "reciprocal_rank" else scaled(one.scores)
        scores[place] += one.weight * parts
    order = np.lexsort((rows, -scores))
    return FusedList(tuple(one.name for one in lists), rows[order], scores[order], ranks[order])
