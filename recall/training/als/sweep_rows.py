"""The rows of a sweep: contexts and items as they are, plus masked ones.

Masked contexts train only the user side, and masked items only the item side: a step of one side sees the other as
it is. Only where both sides have one field each are merged masked contexts treated like others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32
from recall.config import OpeningConfig
from recall.features.csr import SparseRows
from recall.training.als.kernels import Entries, Kernels
from recall.training.als.newcomers import Masked, Newcomers
from recall.training.als.one_hot import OneHotSide
from recall.training.als.parameterization import FMParameterization, Parameterization
from recall.training.als.shards import Chunk, FeatureMatrix, Workers, by_item, squared_sums, transposed
from recall.training.als.weighing import Seen, Weights
from recall.training.pairs import ObservedPairs

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
class MaskedContexts(ContextRows):
    """Masked contexts.

    Attributes:
        rows: the same features as `matrix`.
    """

    rows: SparseRows


@dataclass(frozen=True, slots=True)
class ItemRows:
    """Items as they are, and masked ones.

    Attributes:
        matrix: their features.
        chunks: their pairs with the contexts that both sides see.
        of_item: float32 [n], observed weight.
        alpha_b: float32 [n], weight of a row's pairs with all contexts.
        sees: what each feature sees of the two.
    """

    matrix: FeatureMatrix
    chunks: tuple[Chunk, ...]
    of_item: Float32
    alpha_b: Float32
    sees: Seen

    def beside(self, other: "ItemRows") -> "ItemRows":
        """Return the rows of both."""
        n = len(self.of_item)
        return ItemRows(
            self.matrix.followed(other.matrix),
            tuple(chunk.beside(more, n) for chunk, more in zip(self.chunks, other.chunks, strict=True)),
            np.concatenate([self.of_item, other.of_item]),
            np.concatenate([self.alpha_b, other.alpha_b]),
            Seen(self.sees.plain + other.sees.plain, self.sees.masked + other.sees.masked),
        )


class SweepRows:
    """Holds what every sweep sees and draws the rest.

    Attributes:
        weights: of what was observed.
        contexts: those that both sides see.
        items: matrix of the items as they are.
        users_one_hot, items_one_hot: the sides by feature, where each row of both has one feature; the second only with the
            first.
        apart_b: float32 [n], weight of all pairs of each row behind `items_one_hot`.
        user_sees, item_sees: what each feature sees in every sweep.
    """

    def __init__(
        self, form: Parameterization, pairs: ObservedPairs, config: OpeningConfig, kernels: Kernels, workers: Workers, seed: int
    ) -> None:
        self._form, self._kernels, self._workers = form, kernels, workers
        self.weights = weights = Weights.of(pairs, config)
        self._alpha, self._n_items = np.float32(weights.alpha), len(pairs.items)
        observed = Entries(pairs.indptr, pairs.observed, pairs.weights)
        self._users = self._items = None
        self._ranks = ranks = pairs.ranks
        if config.drop and pairs.user_roles is not None and pairs.item_roles is not None:
            self._users = Newcomers(pairs.contexts, pairs.user_roles, config.drop, "user", seed, ranks)
            self._items = Newcomers(pairs.items, pairs.item_roles, config.drop, "item", seed)
        masked = [] if self._users is None else self._users.fixed(lambda one: self._few_contexts(one, pairs.contexts, observed))
        rows = _below(pairs.contexts, [one.rows for one in masked])
        self._observed = observed
        plain = squared_sums(pairs.contexts, np.stack([weights.of_context, self._alpha * weights.a], axis=1))
        ranks.add_up(plain)
        self.user_sees = Seen(plain, sum((self._shown(one) for one in masked), np.zeros_like(plain)))
        # a feature is solved for by itself only where all of its contexts are
        alone = ranks.count == 1 and isinstance(form, FMParameterization) and (self._users is None or self._users.settled)
        together = observed.followed([one.pairs(observed, self._n_items) for one in masked])
        self.users_one_hot = OneHotSide.of(rows, together, self._n_items) if alone else None
        a = np.concatenate([weights.a, *(one.summed(weights.a) for one in masked)])
        # every merged way of masking, by itself
        self.contexts, self.strangers = self._context_rows(rows, together, a), [self._masked_contexts(one) for one in masked]

        self.items = self.item_matrix(pairs.items)
        self._start_items(pairs.items, rows.n_features)

    def _few_contexts(self, masked: Masked, contexts: SparseRows, observed: Entries) -> bool:
        total = self._ranks.total
        if not self._ranks.any(len(masked.rows) > 1):
            return True
        if total(masked.rows.nnz) > _FEW_CONTEXTS * total(contexts.nnz):
            return False
        pairs = masked.pairs(observed, self._n_items)
        return total(len(pairs.indices)) <= _FEW_CONTEXTS * total(len(observed.indices))

    def _context_rows(self, rows: SparseRows, pairs: Entries, a: Float32) -> ContextRows:
        work = np.diff(rows.indptr) + np.diff(pairs.indptr)
        split = self._form.split_users(rows)
        matrix = FeatureMatrix(split, self._form.user_groups, work, self._kernels, self._workers, abridged=True)
        return ContextRows(matrix, pairs, a)

    def _masked_contexts(self, masked: Masked) -> MaskedContexts:
        pairs, a = masked.pairs(self._observed, self._n_items), masked.summed(self.weights.a)
        return MaskedContexts(self._context_rows(masked.rows, pairs, a).matrix, pairs, a, masked.rows)

    def of_users(self, sweep: int) -> tuple[list[MaskedContexts], Seen]:
        """Return the masked contexts of one sweep of the user side, and what features see."""
        drawn = None if self._users is None else self._users.drawn(sweep)
        if drawn is None:
            return [], self.user_sees
        return [self._masked_contexts(drawn)], self.user_sees.beside(self._shown(drawn))

    def _shown(self, masked: Masked) -> Float32:
        """Return what user features see of masked contexts, float32 [n_user_features, 2]."""
        values = [masked.summed(self.weights.of_context), self._alpha * masked.summed(self.weights.a)]
        shown = squared_sums(masked.rows, np.stack(values, axis=1))
        self._ranks.add_up(shown)
        return shown

    def of_items(self, sweep: int) -> tuple[ItemRows, ItemRows | None]:
        """Return the items of one sweep of the item side, and the masked ones."""
        drawn = None if self._items is None else self._items.drawn(sweep)
        masked = self._items_always_masked
        if drawn is not None:
            fresh = self._masked_items(drawn)
            masked = fresh if masked is None else masked.beside(fresh)
        return self._plain_items, masked

    def _start_items(self, items: SparseRows, n_user_features: int) -> None:
        weights, pairs, n = self.weights, self.contexts.pairs, len(items)
        of_item, alpha_b = weights.of_item, self._alpha * weights.b
        plain = squared_sums(items, np.stack([of_item, alpha_b], axis=1))
        sees = Seen(plain, np.zeros_like(plain))
        alone = self.users_one_hot is not None and (self._items is None or self._items.lonely) and OneHotSide.fits(items)
        total = self._ranks.total
        few = _FEW_PAIRS * total(len(pairs.indices))
        masked = []
        if self._items is not None:
            masked = self._items.fixed(
                lambda one: alone or (len(one.rows) == 1 and total(len(one.columns(pairs, n).indices)) <= few)
            )
        self.items_one_hot: OneHotSide | None = None
        chunks: tuple[Chunk, ...] = ()
        self.apart_b = np.concatenate([alpha_b, *(self._alpha * one.summed(weights.b) for one in masked)])
        if alone and self.users_one_hot is not None:
            # user features are the partners of item features: phi is a row of the table
            turned = transposed(pairs, n).followed([transposed(one.columns(pairs, n), len(one.rows)) for one in masked])
            turned = turned._replace(indices=self.users_one_hot.feature_of[turned.indices])
            self.items_one_hot = OneHotSide.of(_below(items, [one.rows for one in masked]), turned, n_user_features)
        else:
            chunks = self._chunks(pairs, n)
        self._plain_items = ItemRows(self.items, chunks, of_item, alpha_b, sees)
        always: ItemRows | None = None
        if self.items_one_hot is None:
            for one in masked:
                fresh = self._masked_items(one)
                always = fresh if always is None else always.beside(fresh)
        self._items_always_masked = always
        self.item_sees = sees
        for one in masked:
            self.item_sees = self.item_sees.beside(self._sees(one))

    def _masked_items(self, masked: Masked) -> ItemRows:
        pairs = masked.columns(self.contexts.pairs, self._n_items)
        of_item, alpha_b = masked.summed(self.weights.of_item), self._alpha * masked.summed(self.weights.b)
        chunks = self._chunks(pairs, len(masked.rows))
        shown = self._sees(masked)
        return ItemRows(self.item_matrix(masked.rows), chunks, of_item, alpha_b, Seen(np.zeros_like(shown), shown))

    def _sees(self, masked: Masked) -> Float32:
        values = [masked.summed(self.weights.of_item), self._alpha * masked.summed(self.weights.b)]
        return squared_sums(masked.rows, np.stack(values, axis=1))

    def _chunks(self, pairs: Entries, items: int) -> tuple[Chunk, ...]:
        return tuple(by_item(pairs, items, self.contexts.matrix.shards, self._form.dim))

    def user_matrix(self, rows: SparseRows) -> FeatureMatrix:
        """Return the feature matrix of some contexts."""
        split = self._form.split_users(rows)
        return FeatureMatrix(split, self._form.user_groups, np.diff(rows.indptr), self._kernels, self._workers)

    def item_matrix(self, rows: SparseRows) -> FeatureMatrix:
        """Return the feature matrix of some items."""
        split = self._form.split_items(rows)
        return FeatureMatrix(split, self._form.item_groups, np.diff(rows.indptr), self._kernels, self._workers)


def _below(rows: SparseRows, others: Sequence[SparseRows]) -> SparseRows:
    return SparseRows.vstack([rows, *others]) if others else rows
