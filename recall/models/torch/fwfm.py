"""Field-weighted factorization machine: one weight for each pair of fields.

See Pan et al. 2018.
"""

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from recall.features.csr import FeatureLayout
from recall.models.serving.base import ServingModel
from recall.models.serving.fwfm import FwFMTables
from recall.models.torch.base import Model, SparseBatch, array


class FieldWeightedFM(Model):
    """y(x) = w0 + sum_j w_j x_j + sum_{j<l} r_{f(j) f(l)} <v_j, v_l> x_j x_l.

    Fields are numbered users first, then items. Pairs within one field, as of two tags of one bag, have a weight too.
    With P_a the sum of v_j x_j over a user field and Q_b over an item field, the vectors are spread over item fields:
    the served ones are shorter (see `recall.models.serving.fwfm`).

    Attributes:
        user_factors, item_factors: v, float [n_user_features, k] and [n_item_features, k].
        field_weights: r, float [fields, fields]; the upper triangle and the diagonal are used.
        n_user_fields, n_item_fields: number of fields of each side.
    """

    def __init__(self, n_user_features: int, n_item_features: int, k: int, n_user_fields: int, n_item_fields: int) -> None:
        super().__init__(n_user_features, n_item_features, (k,))
        self.n_user_fields, self.n_item_fields = n_user_fields, n_item_fields
        n_fields = n_user_fields + n_item_fields
        self.field_weights = nn.Parameter(torch.ones(n_fields, n_fields).triu())

    @property
    @override
    def dim(self) -> int:
        """n_item_fields k + 1."""
        return self.n_item_fields * self.k + 1

    @override
    def resized(self, n_user_features: int, n_item_features: int) -> "FieldWeightedFM":
        return type(self)(n_user_features, n_item_features, self.k, self.n_user_fields, self.n_item_fields)

    @torch.no_grad()
    @override
    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """Set every pair of fields to weight 1, as in a factorization machine."""
        super().initialise(scale, generator)
        self.field_weights.copy_(torch.ones_like(self.field_weights).triu())

    def symmetric_weights(self) -> Tensor:
        """r with r_fg == r_gf: [fields, fields]."""
        return self.field_weights.triu() + self.field_weights.triu(1).t()

    @override
    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """Sum over pairs of fields, not of features."""
        of_users, user_squares = _sums(users, self.user_factors, self.n_user_fields)
        of_items, item_squares = _sums(items, self.item_factors, self.n_item_fields)
        sums, squares = torch.cat([of_users, of_items], dim=1), torch.cat([user_squares, item_squares], dim=1)
        first_order = users.weighted_sum(self.user_weights) + items.weighted_sum(self.item_weights)
        return self.bias + first_order + _pairs(sums, squares, self.symmetric_weights())

    @override
    def user_vectors(self, users: SparseBatch) -> Tensor:
        """[1 ; sum_a r_ab P_a for every item field b] for n rows -> [n, dim]."""
        sums = users.field_sums(self.user_factors, self.n_user_fields)
        across = self.symmetric_weights()[: self.n_user_fields, self.n_user_fields :]
        spread = torch.einsum("nak,ab->nbk", sums, across)
        return torch.cat([sums.new_ones(len(sums), 1), spread.flatten(1)], dim=1)

    @override
    def item_vectors(self, items: SparseBatch) -> Tensor:
        """Return [own first and second order ; Q_b for every item field b]: [n, dim]."""
        sums, squares = _sums(items, self.item_factors, self.n_item_fields)
        within = self.symmetric_weights()[self.n_user_fields :, self.n_user_fields :]
        own = items.weighted_sum(self.item_weights) + _pairs(sums, squares, within)
        return torch.cat([own[:, None], sums.flatten(1)], dim=1)

    @override
    def user_offset(self, users: SparseBatch) -> Tensor:
        sums, squares = _sums(users, self.user_factors, self.n_user_fields)
        within = self.symmetric_weights()[: self.n_user_fields, : self.n_user_fields]
        return self.bias + users.weighted_sum(self.user_weights) + _pairs(sums, squares, within)

    @override
    def tables(self, users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        """Return the parameters, not folded."""
        weights = self.symmetric_weights()
        return FwFMTables(
            users,
            items,
            *self.arrays(),
            array(weights),
            array(weights[: len(users), len(users) :]),
            np.eye(len(items), dtype=np.float32),
        )

    @torch.no_grad()
    def replace_across(self, weights: Tensor) -> None:
        """Set the weights between user and item fields, such as to a truncated SVD.

        Args:
            weights: [user fields, item fields].
        """
        self.field_weights[: self.n_user_fields, self.n_user_fields :] = weights


def _sums(rows: SparseBatch, factors: Tensor, n_fields: int) -> tuple[Tensor, Tensor]:
    """Return sum_j v_j x_j and sum_j x_j^2 |v_j|^2 of every row and field.

    Returns:
        [n, n_fields, k] and [n, n_fields].
    """
    apart = rows.by_field(n_fields)
    sums = apart.weighted_sum(factors).view(rows.n, n_fields, factors.shape[1])
    squares = apart.squared().weighted_sum(factors.square().sum(-1)).view(rows.n, n_fields)
    return sums, squares


def _pairs(sums: Tensor, squares: Tensor, weights: Tensor) -> Tensor:
    """sum_{j<l} r <v_j, v_l> x_j x_l within every row.

    Args:
        sums: of v_j x_j, [n, fields, k].
        squares: sum of x_j^2 |v_j|^2, [n, fields].
        weights: r, symmetric, [fields, fields].

    Returns:
        [n].
    """
    every = (torch.einsum("nfk,fg->ngk", sums, weights) * sums).sum((-1, -2))
    return 0.5 * (every - squares @ weights.diagonal())
