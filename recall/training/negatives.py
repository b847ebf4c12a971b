"""Negative sampling: items not observed with a context, by popularity."""

import numpy as np
import numpy.typing as npt

from recall._arrays import Bool, Float32, Float64, Int64
from recall.config import IndexConfig
from recall.errors import TrainingError
from recall.features.csr import ranges, take_lists
from recall.index.base import ItemIndex
from recall.index.registry import build_index
from recall.models.torch.base import Model
from recall.training.objectives.base import BatchPart
from recall.training.pairs import ObservedPairs


class Negatives:
    """Draws items with probability q_j ~ (observed count of j)^popularity.

    Attributes:
        log_q: float64 [I], logarithm of each item's probability before any is rejected.
    """

    def __init__(self, pairs: ObservedPairs, popularity: float) -> None:
        self._items = len(pairs.items)
        self._pairs = pairs
        self._keys: Int64 | None = None  # of all pairs, rising; not every objective asks for them
        counts = pairs.item_counts().astype(np.float64)
        weights = np.maximum(counts, 1.0) ** popularity  # an item without interactions may still be drawn
        self._cumulative = np.cumsum(weights)
        self.log_q: Float64 = np.log(weights) - np.log(self._cumulative[-1])
        full = np.flatnonzero(np.diff(pairs.indptr) >= self._items)
        if len(full):
            raise TrainingError(
                f"{len(full):,} contexts were observed with every one of the {self._items:,} items",
                where=f"context {full[0]}",
                why="every item is a positive for them, so none can be drawn as a negative",
                hint="Use objective 'square' or 'softmax', or leave these users out",
            )

    def observed(self, contexts: npt.NDArray[np.integer], items: npt.NDArray[np.integer]) -> Bool:
        """Return whether each context was observed with each item; shapes broadcast.

        Args:
            contexts: integer.
            items: integer.
        """
        if self._keys is None:
            self._keys = np.sort(self._pairs.owners * self._items + self._pairs.observed)
        keys = contexts.astype(np.int64) * self._items + items
        return np.asarray(self._keys[np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)] == keys)

    def hits(self, contexts: Int64, items: Int64) -> Int64:
        """Find the pairs of some contexts and some items that were observed.

        It looks up the observed items of each context, rather than each context with each item.

        Args:
            contexts: int64 [B].
            items: int64 [m]; an item may occur several times.

        Returns:
            int64 [h, 2], places of a context and of an item.
        """
        pairs = self._pairs
        ends, source = take_lists(pairs.indptr, contexts)
        owner, observed = np.repeat(np.arange(len(contexts)), np.diff(ends)), pairs.observed[source]
        order = np.argsort(items, kind="stable")
        rising = items[order]
        first = np.searchsorted(rising, observed)
        times = np.searchsorted(rising, observed, side="right") - first
        return np.stack([np.repeat(owner, times), order[ranges(first, times)]], axis=1)

    def any(self, n: int, rng: np.random.Generator) -> Int64:
        """Draw from q, observed or not: int64 [n].

        Args:
            n: number of draws.
            rng: random generator.
        """
        drawn: Int64 = np.searchsorted(self._cumulative, rng.random(n) * self._cumulative[-1], side="right")
        return drawn.clip(max=self._items - 1)

    def draw(self, contexts: Int64, n: int, rng: np.random.Generator, part: BatchPart | None = None) -> Int64:
        """Draw items not observed with each context: int64 [len(contexts), n].

        Observed items are drawn again, so each draw follows q restricted to unobserved ones.

        Args:
            contexts: int64 [m].
            n: draws for each.
            rng: random generator.
            part: positions of the contexts in the batch, on one of several ranks.
        """
        if part is not None:
            return self._draw_part(contexts, n, rng, part)
        owner = np.repeat(contexts, n)
        drawn = self.any(len(owner), rng)
        left = np.flatnonzero(self.observed(owner, drawn))
        while len(left):
            drawn[left] = self.any(len(left), rng)
            left = left[self.observed(owner[left], drawn[left])]
        return drawn.reshape(len(contexts), n)

    def _draw_part(self, contexts: Int64, n: int, rng: np.random.Generator, part: BatchPart) -> Int64:
        """Return the rank's rows of the result of `draw` for the whole batch."""
        drawn = self.any(part.size * n, rng).reshape(part.size, n)
        while True:
            rejected = self.observed(contexts[:, None], part.rows(drawn))
            left = np.nonzero(part.whole(rejected.astype(np.uint8)))
            if not len(left[0]):
                return np.asarray(part.rows(drawn))
            drawn[left] = self.any(len(left[0]), rng)


# Hard negatives: what the model itself puts on top, looked up in an index over its item vectors.


class MinedNegatives:
    """Hard negatives: a share comes from the top of the model's own lists.

    The lists are those at the beginning of an epoch. Observed items are skipped, as in other draws.
    A context that has observed its whole list gets ordinary draws instead.
    """

    def __init__(self, model: Model, pairs: ObservedPairs, others: Negatives, share: float, pool: int, seed: int) -> None:
        self._model = model
        self._pairs = pairs
        self._others = others
        self._share = share
        self._pool = min(pool, len(pairs.items))
        self._seed = seed
        self._index: ItemIndex | None = None

    def begin(self, epoch: int) -> None:
        """Index the current item vectors."""
        items = self._model.embed("item", self._pairs.items, self._pairs.item_fields)
        sample = np.random.default_rng([self._seed, epoch]).integers(0, len(self._pairs.contexts), 1024)
        self._index = build_index(items, self._queries(sample), IndexConfig(n=self._pool), self._seed)

    def draw(self, contexts: Int64, n: int, rng: np.random.Generator, part: BatchPart | None = None) -> Int64:  # noqa: ARG002
        """Draw items not observed with each context, int64 [len(contexts), n].

        Args:
            contexts: int64 [m].
            n: draws for each.
            rng: random generator.
            part: None; one process mines.
        """
        mined = rng.binomial(n, self._share)
        ordinary = self._others.draw(contexts, n - mined, rng)
        return np.concatenate([self.mine(contexts, mined, rng), ordinary], axis=1) if mined else ordinary

    def mine(self, contexts: Int64, n: int, rng: np.random.Generator) -> Int64:
        """Draw uniformly from the unobserved items of top lists: int64 [len(contexts), n].

        Args:
            contexts: int64 [m].
            n: draws for each.
            rng: random generator.
        """
        assert self._index is not None, "begin was not called"
        distinct, owner = np.unique(contexts, return_inverse=True)
        lists = self._index.search(self._queries(distinct), self._pool).rows
        fit = (lists >= 0) & ~self._others.observed(distinct[:, None], np.maximum(lists, 0))
        counts = fit.sum(axis=1)
        ordered = np.take_along_axis(lists, np.argsort(~fit, axis=1, kind="stable"), axis=1)  # those that fit come first
        place = (rng.random((len(contexts), n)) * counts[owner][:, None]).astype(np.int64)
        drawn: Int64 = np.take_along_axis(ordered[owner], place, axis=1)
        none = np.flatnonzero(counts[owner] == 0)
        if len(none):
            drawn[none] = self._others.draw(contexts[none], n, rng)
        return drawn

    def _queries(self, contexts: Int64) -> Float32:
        return self._model.embed("user", self._pairs.contexts.take(contexts), self._pairs.user_fields)
