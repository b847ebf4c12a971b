"""Orders of the whole catalogue that are the same for every request: by popularity, by time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float64, Int64
from recall.serving.rerank.base import Mask


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Rows with a score, best first.

    Attributes:
        rows: int64 [m], distinct.
        scores: float64 [m], never rising.
    """

    rows: Int64
    scores: Float64

    @classmethod
    def of(cls, scores: Float64) -> "Order":
        """The rows of float64 [items] by falling score, those without one (NaN) left out; equal ones by rising row."""
        rows = np.flatnonzero(~np.isnan(scores))
        order = rows[np.argsort(-scores[rows], kind="stable")]
        return cls(order, scores[order])

    def below(self, count: int) -> "Order":
        """The same rows, counted from `count`."""
        return Order(self.rows + count, self.scores)

    def first(self, count: int, eligible: Callable[[Int64], Mask]) -> tuple[Int64, Float64]:
        """The first eligible rows, `count` of them where there are so many, and their scores."""
        found, start, width = np.empty(0, dtype=np.int64), 0, 2 * count
        while len(found) < count and start < len(self.rows):
            part = self.rows[start : start + width]
            found = np.concatenate([found, start + np.flatnonzero(eligible(part))])
            start, width = start + width, 2 * width
        places = found[:count]
        return self.rows[places], self.scores[places]
