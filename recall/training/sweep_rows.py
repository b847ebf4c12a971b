"""The rows that a sweep of the whole-catalogue solver sees: contexts and items as they are, and masked ones beside them.

Masked contexts that are there in every sweep are contexts like others. Those drawn for one sweep train the user side
alone, and masked items the item side alone: a step of one side sees the other as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recall.config import OpeningConfig
from recall.features.sparse import SparseRows
from recall.training.apart import FeaturesApart
from recall.training.forms.contract import Form
from recall.training.forms.fm import FMForm
from recall.training.kernels.contract import Entries, Float32, Kernels
from recall.training.newcomers import Masked, Newcomers
from recall.training.observed import Chunk, by_item, transposed
from recall.training.pairs import ObservedPairs
from recall.training.sparse import FeatureMatrix, squared_sums
from recall.training.weighing import Weights
from recall.training.workers import Workers

_FEW_CONTEXTS = 0.1  # of the features and pairs of all contexts: masked ones with no more are there in every sweep
_FEW_PAIRS = 0.25  # of all pairs: masked items with no more of them are there in every sweep


@dataclass(frozen=True, slots=True)
class ContextRows:
    """Some contexts.

    Attributes:
        matrix: their features.
        pairs: with the items; a row for each context.
        a: float32 [n], how they share the weight of all pairs.
    """

    matrix: FeatureMatrix
    pairs: Entries
    a: Float32


@dataclass(frozen=True, slots=True)
class ItemRows:
    """Items as they are, and masked ones.

    Attributes:
        matrix: their features.
        chunks: their pairs with the contexts that are there in every sweep.
        of_item: float32 [n], observed weight.
        alpha_b: float32 [n], weight of a row's pairs with all contexts.
        sees: float32 [n_item_features, 2], what each feature sees of the two.
    """

    matrix: FeatureMatrix
    chunks: tuple[Chunk, ...]
    of_item: Float32
    alpha_b: Float32
    sees: Float32

    def beside(self, other: "ItemRows") -> "ItemRows":
        """The rows of both."""
        n = len(self.of_item)
        return ItemRows(
            self.matrix.followed(other.matrix),
            tuple(chunk.beside(more, n) for chunk, more in zip(self.chunks, other.chunks, strict=True)),
            np.concatenate([self.of_item, other.of_item]),
            np.concatenate([self.alpha_b, other.alpha_b]),
            self.sees + other.sees,
        )


class SweepRows:
    """Holds what every sweep sees and draws the rest.

    Attributes:
        weights: of what was observed.
        contexts: those that are there in every sweep.
        items: matrix of the items as they are.
        users_apart, items_apart: the sides by feature, where each row of both has one feature; the second only with the
            first.
        apart_b: float32 [n], weight of all pairs of each row behind `items_apart`.
        user_sees, item_sees: float32 [n_features, 2], what each feature sees in every sweep: observed weight, and the
            weight of its rows' pairs with all rows of the other side.
    """

    def __init__(
        self, form: Form, pairs: ObservedPairs, config: OpeningConfig, kernels: Kernels, workers: Workers, seed: int
    ) -> None:
        self._form, self._kernels, self._workers = form, kernels, workers
        self.weights = weights = Weights.of(pairs, config)
        self._alpha, self._n_items = np.float32(weights.alpha), len(pairs.items)
        observed = Entries(pairs.indptr, pairs.observed, pairs.weights)
        self._users = self._items = None
        if config.drop and pairs.user_roles is not None and pairs.item_roles is not None:
            self._users = Newcomers(pairs.contexts, pairs.user_roles, config.drop, "user", seed)
            self._items = Newcomers(pairs.items, pairs.item_roles, config.drop, "item", seed)
        masked = [] if self._users is None else self._users.fixed(lambda one: self._few_contexts(one, pairs.contexts, observed))
        rows = _below(pairs.contexts, [one.rows for one in masked])
        together = observed.followed([one.pairs(observed, self._n_items) for one in masked])
        a = np.concatenate([weights.a, *(one.summed(weights.a) for one in masked)])
        of_context = np.concatenate([weights.of_context, *(one.summed(weights.of_context) for one in masked)])
        self._observed = observed
        self.user_sees = squared_sums(rows, np.stack([of_context, self._alpha * a], axis=1))
        alone = isinstance(form, FMForm) and (self._users is None or self._users.settled)
        self.users_apart = FeaturesApart.of(rows, together, self._n_items) if alone else None
        entries = np.diff(rows.indptr) + np.diff(together.indptr)
        split = form.split_users(rows)
        matrix = FeatureMatrix(split, form.user_groups, entries, kernels, workers, abridged=True)
        self.contexts = ContextRows(matrix, together, a)

        self.items = self._item_matrix(pairs.items)
        self._start_items(pairs.items, rows.n_features)

    def _few_contexts(self, masked: Masked, contexts: SparseRows, observed: Entries) -> bool:
        if len(masked.rows) == 1:
            return True
        if masked.rows.nnz > _FEW_CONTEXTS * contexts.nnz:
            return False
        return len(masked.pairs(observed, self._n_items).indices) <= _FEW_CONTEXTS * len(observed.indices)

    def of_users(self, sweep: int) -> tuple[list[ContextRows], Float32]:
        """The contexts of one sweep of the user side, and what its features see of them."""
        drawn = None if self._users is None else self._users.drawn(sweep)
        if drawn is None:
            return [self.contexts], self.user_sees
        pairs, a = drawn.pairs(self._observed, self._n_items), drawn.summed(self.weights.a)
        work = np.diff(drawn.rows.indptr) + np.diff(pairs.indptr)
        split = self._form.split_users(drawn.rows)
        matrix = FeatureMatrix(split, self._form.user_groups, work, self._kernels, self._workers, abridged=True)
        of_context = drawn.summed(self.weights.of_context)
        sees = squared_sums(drawn.rows, np.stack([of_context, self._alpha * a], axis=1))
        return [self.contexts, ContextRows(matrix, pairs, a)], self.user_sees + sees

    def of_items(self, sweep: int) -> ItemRows:
        """The items of one sweep of the item side."""
        drawn = None if self._items is None else self._items.drawn(sweep)
        return self._always if drawn is None else self._always.beside(self._masked_items(drawn))

    def _start_items(self, items: SparseRows, n_user_features: int) -> None:
        weights, pairs, n = self.weights, self.contexts.pairs, len(items)
        of_item, alpha_b = weights.of_item, self._alpha * weights.b
        sees = squared_sums(items, np.stack([of_item, alpha_b], axis=1))
        alone = self.users_apart is not None and (self._items is None or self._items.lonely) and FeaturesApart.fits(items)
        few = _FEW_PAIRS * len(pairs.indices)
        masked = []
        if self._items is not None:
            masked = self._items.fixed(lambda one: alone or (len(one.rows) == 1 and len(one.columns(pairs, n).indices) <= few))
        self.items_apart: FeaturesApart | None = None
        chunks: tuple[Chunk, ...] = ()
        self.apart_b = np.concatenate([alpha_b, *(self._alpha * one.summed(weights.b) for one in masked)])
        if alone and self.users_apart is not None:
            # user features are the partners of item features: phi is a row of the table
            turned = transposed(pairs, n).followed([transposed(one.columns(pairs, n), len(one.rows)) for one in masked])
            turned = turned._replace(indices=self.users_apart.feature_of[turned.indices])
            self.items_apart = FeaturesApart.of(_below(items, [one.rows for one in masked]), turned, n_user_features)
        else:
            chunks = self._chunks(pairs, n)
        self._always = ItemRows(self.items, chunks, of_item, alpha_b, sees)
        for one in masked:
            if self.items_apart is None:
                self._always = self._always.beside(self._masked_items(one))
        self.item_sees = sum((self._sees(one) for one in masked), sees)

    def _masked_items(self, masked: Masked) -> ItemRows:
        pairs = masked.columns(self.contexts.pairs, self._n_items)
        of_item, alpha_b = masked.summed(self.weights.of_item), self._alpha * masked.summed(self.weights.b)
        chunks = self._chunks(pairs, len(masked.rows))
        return ItemRows(self._item_matrix(masked.rows), chunks, of_item, alpha_b, self._sees(masked))

    def _sees(self, masked: Masked) -> Float32:
        values = [masked.summed(self.weights.of_item), self._alpha * masked.summed(self.weights.b)]
        return squared_sums(masked.rows, np.stack(values, axis=1))

    def _chunks(self, pairs: Entries, items: int) -> tuple[Chunk, ...]:
        return tuple(by_item(pairs, items, self.contexts.matrix.shards, self._form.dim))

    def _item_matrix(self, rows: SparseRows) -> FeatureMatrix:
        split = self._form.split_items(rows)
        return FeatureMatrix(split, self._form.item_groups, np.diff(rows.indptr), self._kernels, self._workers)


def _below(rows: SparseRows, others: Sequence[SparseRows]) -> SparseRows:
    return SparseRows.below([rows, *others]) if others else rows
