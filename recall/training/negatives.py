"""Items that a context was not observed with, drawn with a power of their popularity."""

import numpy as np
import numpy.typing as npt

from recall._arrays import Bool, Float64, Int64
from recall.errors import TrainingError
from recall.training.pairs import ObservedPairs


class Negatives:
    """Draws items with probability q_j proportional to (observed count of j)^popularity; 0 draws uniformly.

    Attributes:
        log_q: float64 [I], logarithm of each item's probability before any is refused.
    """

    def __init__(self, pairs: ObservedPairs, popularity: float) -> None:
        self._items = len(pairs.items)
        self._keys = np.sort(pairs.owners * self._items + pairs.observed)
        counts = np.bincount(pairs.observed, minlength=self._items).astype(np.float64)
        weights = np.maximum(counts, 1.0) ** popularity  # an item that nobody took may still be drawn
        self._cumulative = np.cumsum(weights)
        self.log_q: Float64 = np.log(weights) - np.log(self._cumulative[-1])
        full = np.flatnonzero(np.diff(pairs.indptr) >= self._items)
        if len(full):
            raise TrainingError(
                f"{len(full):,} contexts were observed with every one of the {self._items:,} items",
                where=f"context {full[0]}",
                why="there is no negative to draw for them",
                mend="Use objective 'square' or 'softmax', or leave these users out",
            )

    def begin(self, epoch: int) -> None:
        """Nothing changes from epoch to epoch."""

    def observed(self, contexts: npt.NDArray[np.integer], items: npt.NDArray[np.integer]) -> Bool:
        """Whether each context was observed with each item beside it; the shapes broadcast."""
        keys = contexts.astype(np.int64) * self._items + items
        return np.asarray(self._keys[np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)] == keys)

    def any(self, n: int, rng: np.random.Generator) -> Int64:
        """n draws from q, observed or not: int64 [n]."""
        drawn: Int64 = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        return drawn.clip(max=self._items - 1)

    def draw(self, contexts: Int64, n: int, rng: np.random.Generator) -> Int64:
        """n draws for each context, none observed with it: int64 [len(contexts), n].

        What was observed is drawn anew, so each draw follows q restricted to what was not.
        """
        owner = np.repeat(contexts, n)
        drawn = self.any(len(owner), rng)
        left = np.flatnonzero(self.observed(owner, drawn))
        while len(left):
            drawn[left] = self.any(len(left), rng)
            left = left[self.observed(owner[left], drawn[left])]
        return drawn.reshape(len(contexts), n)
