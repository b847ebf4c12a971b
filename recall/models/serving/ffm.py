"""A field-aware factorization machine as tables and vectors.

With S_ag = sum_{u in a} v_{u,g} x_u over user field a, and T_bg over item field b, for any field g:

    user_vector = [1 ; S_ab for every user field a and item field b]
    item_vector = [first order + sum over pairs of features within the item ; T_ba for every a and b]
"""

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64, Floats, Integers
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.base import FactorTables, Kind, with_one
from recall.models.serving.sums import (
    entry_norms,
    field_sums,
    filled,
    norms,
    row_sums,
    squares_of,
)


@dataclass(frozen=True, slots=True)
class FFMTables(FactorTables):
    """Parameters of a field-aware factorization machine; user fields come first.

    Attributes:
        user_fields, item_fields: how the feature spaces are divided.
        user_factors, item_factors: v, float32 [n_user_features, fields, k] and [n_item_features, fields, k].
        user_weights, item_weights: w, float32 [n_user_features] and [n_item_features].
        bias: w0.
    """

    @property
    @override
    def kind(self) -> Kind:
        return "ffm"

    @property
    @override
    def dim(self) -> int:
        """|user fields| |item fields| k + 1."""
        return len(self.user_fields) * len(self.item_fields) * self.k + 1

    @override
    def user_vectors(self, rows: SparseRows) -> Float32:
        """[1 ; S_ab for every a and b] of n user rows: float32 [n, dim]."""
        return with_one(field_sums(rows, self.user_fields, self.user_factors[:, len(self.user_fields) :]))

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        """Return [own first and second order ; T_ba for every a and b], float32 [n, dim]."""
        n_user, n_fields = len(self.user_fields), len(self.user_fields) + len(self.item_fields)
        squares = entry_norms(rows, lambda features: _towards_own(self.item_factors, features, self.item_fields, n_user))

        def fill(part: SparseRows, target: Float32) -> None:
            sums = field_sums(part, self.item_fields, self.item_factors)  # [n, item fields, fields, k]
            target[:, 1:] = sums[:, :, :n_user].swapaxes(1, 2).reshape(len(part), self.dim - 1)
            target[:, 0] = _own_part(part, sums[:, :, n_user:], self.item_weights[part.indices], squares(part))

        return filled(rows, self.dim, len(self.item_fields) * n_fields * self.k, fill)

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        sums = field_sums(rows, self.user_fields, self.user_factors[:, : len(self.user_fields)])
        squares = norms(_towards_own(self.user_factors, rows.indices, self.user_fields, 0))
        return self.bias + _own_part(rows, sums, self.user_weights[rows.indices], squares)

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        n_user = len(self.user_fields)
        of_users, of_items = self.exact_sums(users, items)  # [n, user fields, fields, k]
        squares = norms(_towards_own(self.user_factors, users.indices, self.user_fields, 0))
        offset = self.bias + _own_part(
            users, of_users[:, :, :n_user], self.user_weights[users.indices].astype(np.float64), squares
        )
        squares = norms(_towards_own(self.item_factors, items.indices, self.item_fields, n_user))
        own = _own_part(items, of_items[:, :, n_user:], self.item_weights[items.indices].astype(np.float64), squares)
        user_side = of_users[:, :, n_user:].reshape(len(users), -1)
        item_side = of_items[:, :, :n_user].swapaxes(1, 2).reshape(len(items), -1)
        return offset, own + user_side @ item_side.T


def _towards_own(factors: Float32, features: Integers, fields: FeatureLayout, first: int) -> Float32:
    """Return the embeddings of features [m] for their own field: [m, k].

    `first` is the number of the first field of their side.
    """
    return np.asarray(factors[features, first + fields.of(features)], dtype=np.float32)


def _own_part(rows: SparseRows, sums: Floats, weights: Floats, squares: Float64) -> Float64:
    """Return first order and pairs within each row, in float64 against cancellation.

    Args:
        rows: n rows.
        sums: of v_{j,g} x_j over each field f of their side, for each field g of it, [n, f, g, k].
        weights: w of every entry, [nnz].
        squares: |v_{j,f(j)}|^2 of every entry, [nnz].

    Returns:
        float64 [n].
    """
    exact = sums.astype(np.float64)
    both = (exact * exact.swapaxes(1, 2)).sum(axis=(1, 2, 3))
    values = rows.weights * weights - 0.5 * squares_of(rows, squares)
    return np.asarray(row_sums(rows, values) + 0.5 * both, dtype=np.float64)
