"""Factorization machine (Rendle 2010), split into user offset and inner product."""

import torch
from torch import Tensor
from typing_extensions import override

from recall.features.csr import FeatureLayout
from recall.models.serving.base import ServingModel
from recall.models.serving.fm import FMTables
from recall.models.torch.base import Model, SparseBatch


class FactorizationMachine(Model):
    """y(x) = w0 + sum_j w_j x_j + sum_{j<l} <v_j, v_l> x_j x_l.

    x is split into a user part and an item part. With k = 0 there are no pairs, and the model is a logistic or linear
    regression.

    Attributes:
        user_factors, item_factors: v, float [n_user_features, k] and [n_item_features, k].
    """

    def __init__(self, n_user_features: int, n_item_features: int, k: int) -> None:
        super().__init__(n_user_features, n_item_features, (k,))

    @property
    @override
    def dim(self) -> int:
        """k + 1."""
        return self.k + 1

    @override
    def resized(self, n_user_features: int, n_item_features: int) -> "FactorizationMachine":
        return type(self)(n_user_features, n_item_features, self.k)

    @override
    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """Compute the O(kn) form of the definition."""
        total = users.weighted_sum(self.user_factors) + items.weighted_sum(self.item_factors)
        squares = _squares(users, self.user_factors) + _squares(items, self.item_factors)
        first_order = users.weighted_sum(self.user_weights) + items.weighted_sum(self.item_weights)
        return self.bias + first_order + 0.5 * (total.square().sum(-1) - squares)

    @override
    def user_vectors(self, users: SparseBatch) -> Tensor:
        """[1 ; sum_u v_u x_u] for n rows -> [n, k + 1]."""
        total = users.weighted_sum(self.user_factors)
        return torch.cat([total.new_ones(len(total), 1), total], dim=1)

    @override
    def item_vectors(self, items: SparseBatch) -> Tensor:
        """Return [own first and second order ; sum_t v_t x_t]: [n, k + 1]."""
        total = items.weighted_sum(self.item_factors)
        own = items.weighted_sum(self.item_weights) + _pairs(items, self.item_factors, total)
        return torch.cat([own[:, None], total], dim=1)

    @override
    def user_offset(self, users: SparseBatch) -> Tensor:
        total = users.weighted_sum(self.user_factors)
        return self.bias + users.weighted_sum(self.user_weights) + _pairs(users, self.user_factors, total)

    @override
    def tables(self, users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        return FMTables(users, items, *self.arrays())


def _pairs(rows: SparseBatch, factors: Tensor, total: Tensor) -> Tensor:
    """Return sum_{j<l} <v_j, v_l> x_j x_l of every row, [n].

    `total` is the sum of v_j x_j of every row, [n, k].
    """
    if rows.single:  # ids alone: nothing to pair, and a whole catalogue of squares saved at every step
        return total.new_zeros(len(total))
    return 0.5 * (total.square().sum(-1) - _squares(rows, factors))


def _squares(rows: SparseBatch, factors: Tensor) -> Tensor:
    """sum_j x_j^2 |v_j|^2 for every row: [n]."""
    return rows.squared().weighted_sum(factors.square().sum(-1))
