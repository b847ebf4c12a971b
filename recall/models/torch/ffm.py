"""Field-aware factorization machine: one embedding for each opposite field.

See Juan et al. 2016.
"""

import torch
from torch import Tensor
from typing_extensions import override

from recall.features.csr import FeatureLayout
from recall.models.serving.base import ServingModel
from recall.models.serving.ffm import FFMTables
from recall.models.torch.base import Model, SparseBatch


class FieldAwareFM(Model):
    """y(x) = w0 + sum_j w_j x_j + sum_{j<l} <v_{j, f(l)}, v_{l, f(j)}> x_j x_l.

    Fields are numbered users first, then items. Pairs within one side, and within one field, are part of the score as
    pairs across are. With S_ab the sum of v_{u,b} x_u over user field a, and T_ba that of v_{t,a} x_t over item field b,
    a vector has one part for each pair of a user field and an item field.

    Attributes:
        user_factors, item_factors: v, float [n_user_features, fields, k] and [n_item_features, fields, k].
        n_user_fields, n_item_fields: number of fields of each side.
    """

    def __init__(self, n_user_features: int, n_item_features: int, k: int, n_user_fields: int, n_item_fields: int) -> None:
        super().__init__(n_user_features, n_item_features, (n_user_fields + n_item_fields, k))
        self.n_user_fields, self.n_item_fields = n_user_fields, n_item_fields

    @property
    @override
    def dim(self) -> int:
        """n_user_fields n_item_fields k + 1."""
        return self.n_user_fields * self.n_item_fields * self.k + 1

    @override
    def resized(self, n_user_features: int, n_item_features: int) -> "FieldAwareFM":
        return type(self)(n_user_features, n_item_features, self.k, self.n_user_fields, self.n_item_fields)

    @override
    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """Sum over pairs of fields, not of features."""
        of_users = users.field_sums(self.user_factors, self.n_user_fields)
        of_items = items.field_sums(self.item_factors, self.n_item_fields)
        sums = torch.cat([of_users, of_items], dim=1)  # [n, fields, fields, k]
        squares = _squares(users, self._own_user_factors()) + _squares(items, self._own_item_factors())
        first_order = users.weighted_sum(self.user_weights) + items.weighted_sum(self.item_weights)
        return self.bias + first_order + _pairs(sums, squares)

    @override
    def user_vectors(self, users: SparseBatch) -> Tensor:
        """[1 ; S_ab for every user field a and item field b] for n rows -> [n, dim]."""
        across = users.field_sums(self.user_factors[:, self.n_user_fields :], self.n_user_fields)
        return torch.cat([across.new_ones(len(across), 1), across.flatten(1)], dim=1)

    @override
    def item_vectors(self, items: SparseBatch) -> Tensor:
        """Return [own first and second order ; T_ba for all fields a and b]: [n, dim]."""
        sums = items.field_sums(self.item_factors, self.n_item_fields)  # [n, item fields, fields, k]
        within, across = sums[:, :, self.n_user_fields :], sums[:, :, : self.n_user_fields]
        pairs = _pairs(within, _squares(items, self._own_item_factors()))
        own = items.weighted_sum(self.item_weights) + pairs
        return torch.cat([own[:, None], across.transpose(1, 2).flatten(1)], dim=1)

    @override
    def user_offset(self, users: SparseBatch) -> Tensor:
        within = users.field_sums(self._own_user_factors(), self.n_user_fields)
        pairs = _pairs(within, _squares(users, self._own_user_factors()))
        return self.bias + users.weighted_sum(self.user_weights) + pairs

    def _own_user_factors(self) -> Tensor:
        """Return the embeddings of user features for user fields."""
        return self.user_factors[:, : self.n_user_fields]

    def _own_item_factors(self) -> Tensor:
        """Return the embeddings of item features for item fields."""
        return self.item_factors[:, self.n_user_fields :]

    @override
    def tables(self, users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        return FFMTables(users, items, *self.arrays())


def _squares(rows: SparseBatch, factors: Tensor) -> Tensor:
    """Return sum_j x_j^2 |v_{j,f(j)}|^2 of every row, [n].

    `factors` are those for the fields of the rows' own side, [n_features, f, k].
    """
    norms = factors.square().sum(-1)  # [n_features, f]
    return rows.squared().field_sums(norms, norms.shape[1]).diagonal(dim1=1, dim2=2).sum(-1)


def _pairs(sums: Tensor, squares: Tensor) -> Tensor:
    """Return sum_{j<l} <v_{j,f(l)}, v_{l,f(j)}> x_j x_l within every row, [n].

    `sums` is [n, fields, fields, k], `squares` [n].
    """
    return 0.5 * ((sums * sums.transpose(1, 2)).sum((-1, -2, -3)) - squares)
