"""The factorization machine (Rendle 2010), written so that its score splits into a user offset and one inner product."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recall.features.sparse import SparseRows


class SparseBatch(NamedTuple):
    """`SparseRows` as tensors: indptr int64 [n + 1], indices int64 [nnz], weights float [nnz]."""

    indptr: Tensor
    indices: Tensor
    weights: Tensor

    @classmethod
    def of(cls, rows: SparseRows, dtype: torch.dtype = torch.float32) -> "SparseBatch":
        """The same rows as tensors, weights in `dtype`."""
        return cls(
            torch.from_numpy(rows.indptr),
            torch.from_numpy(rows.indices.astype(np.int64)),
            torch.from_numpy(rows.weights).to(dtype),
        )

    def weighted_sum(self, table: Tensor) -> Tensor:
        """sum_j x_j table[j] for every row: table [n_features, d] -> [n, d]."""
        if table.shape[1] == 0:  # embedding_bag refuses a table without columns; k = 0 is a legal model
            return table.new_zeros(len(self.indptr) - 1, 0)
        return functional.embedding_bag(
            self.indices, table, self.indptr, mode="sum", per_sample_weights=self.weights, include_last_offset=True
        )


class FactorizationMachine(nn.Module):
    """y(x) = w0 + sum_j w_j x_j + sum_{j<l} <v_j, v_l> x_j x_l, with x split into a user part and an item part.

    The invariant that export and serving rest on holds for all rows, to float rounding:

        score(u, i) == user_offset(u) + (user_vectors(u) * item_vectors(i)).sum(-1)

    Attributes:
        user_factors, item_factors: v, float [n_user_features, k] and [n_item_features, k].
        user_weights, item_weights: w, float [n_user_features] and [n_item_features].
        bias: w0, float [].
    """

    def __init__(self, n_user_features: int, n_item_features: int, k: int) -> None:
        super().__init__()
        self.user_factors = nn.Parameter(torch.zeros(n_user_features, k))
        self.item_factors = nn.Parameter(torch.zeros(n_item_features, k))
        self.user_weights = nn.Parameter(torch.zeros(n_user_features))
        self.item_weights = nn.Parameter(torch.zeros(n_item_features))
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def k(self) -> int:
        """Number of factors."""
        return self.user_factors.shape[1]

    @torch.no_grad()
    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """Draw factors so that a vector has expected squared length scale^2; the rest is zero."""
        for factors in (self.user_factors, self.item_factors):
            factors.normal_(0.0, scale / max(self.k, 1) ** 0.5, generator=generator)
        for weights in (self.user_weights, self.item_weights, self.bias):
            weights.zero_()

    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """y of user row r beside item row r: n user rows, n item rows -> [n]. The O(kn) form over the whole of x."""
        total = users.weighted_sum(self.user_factors) + items.weighted_sum(self.item_factors)
        squares = _squares(users, self.user_factors) + _squares(items, self.item_factors)
        first_order = _first_order(users, self.user_weights) + _first_order(items, self.item_weights)
        return self.bias + first_order + 0.5 * (total.square().sum(-1) - squares)

    def forward(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """y of each user row against items of its own: n user rows, n * m item rows in their order -> [n, m]."""
        phi = self.user_vectors(users)
        psi = self.item_vectors(items).view(len(phi), -1, phi.shape[1])
        return self.user_offset(users)[:, None] + torch.einsum("nd,nmd->nm", phi, psi)

    def user_vectors(self, users: SparseBatch) -> Tensor:
        """[1 ; sum_u v_u x_u] for n rows -> [n, k + 1]."""
        total = users.weighted_sum(self.user_factors)
        return torch.cat([total.new_ones(len(total), 1), total], dim=1)

    def item_vectors(self, items: SparseBatch) -> Tensor:
        """[the item's own first and second order ; sum_t v_t x_t] for n rows -> [n, k + 1]."""
        total = items.weighted_sum(self.item_factors)
        own = _first_order(items, self.item_weights) + 0.5 * (total.square().sum(-1) - _squares(items, self.item_factors))
        return torch.cat([own[:, None], total], dim=1)

    def user_offset(self, users: SparseBatch) -> Tensor:
        """The terms that are the same for every item, for n rows -> [n]."""
        total = users.weighted_sum(self.user_factors)
        return (
            self.bias
            + _first_order(users, self.user_weights)
            + 0.5 * (total.square().sum(-1) - _squares(users, self.user_factors))
        )


def _first_order(rows: SparseBatch, weights: Tensor) -> Tensor:
    return rows.weighted_sum(weights[:, None])[:, 0]


def _squares(rows: SparseBatch, factors: Tensor) -> Tensor:
    """sum_j x_j^2 |v_j|^2 for every row: [n]."""
    return rows._replace(weights=rows.weights.square()).weighted_sum(factors.square().sum(-1, keepdim=True))[:, 0]
