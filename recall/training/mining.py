"""Hard negatives: what the model itself puts on top, looked up in an index over its item vectors."""

import numpy as np
import torch

from recall._arrays import Int64
from recall.config import IndexConfig
from recall.index.contract import ItemIndex
from recall.index.opening import build_index
from recall.models.batch import SparseBatch
from recall.models.contract import Model
from recall.training.negatives import (
    Negatives,
)
from recall.training.pairs import ObservedPairs


class MinedNegatives:
    """A share of the negatives comes from the top of the model's own lists, as they were when an epoch began.

    Mined negatives are verified as the others are: what a context was observed with is passed over. A context whose
    whole list was observed gets ordinary draws instead.
    """

    def __init__(self, model: Model, pairs: ObservedPairs, others: Negatives, share: float, pool: int, seed: int) -> None:
        self._model = model
        self._pairs = pairs
        self._others = others
        self._share = share
        self._pool = min(pool, len(pairs.items))
        self._seed = seed
        self._catalogue = SparseBatch.of(pairs.items, fields=pairs.item_fields)
        self._index: ItemIndex | None = None

    @torch.no_grad()
    def begin(self, epoch: int) -> None:
        """Index the item vectors as they are now."""
        items = self._model.item_vectors(self._catalogue).numpy()
        sample = np.random.default_rng([self._seed, epoch]).integers(0, len(self._pairs.contexts), 1024)
        self._index = build_index(items, self._queries(sample), IndexConfig(n=self._pool), self._seed)

    def draw(self, contexts: Int64, n: int, rng: np.random.Generator) -> Int64:
        """int64 [len(contexts), n], none observed with its context."""
        mined = rng.binomial(n, self._share)
        ordinary = self._others.draw(contexts, n - mined, rng)
        return np.concatenate([self.mine(contexts, mined, rng), ordinary], axis=1) if mined else ordinary

    def mine(self, contexts: Int64, n: int, rng: np.random.Generator) -> Int64:
        """n draws for each context, uniform over those of its top list that it was not observed with: int64 [len, n]."""
        if self._index is None:
            raise RuntimeError("begin was not called: there is no index to mine")
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

    @torch.no_grad()
    def _queries(self, contexts: Int64) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        rows = SparseBatch.of(self._pairs.contexts.take(contexts), fields=self._pairs.user_fields)
        vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]] = self._model.user_vectors(rows).numpy()
        return vectors
