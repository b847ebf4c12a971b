"""A factorization machine as tables and vectors.

    user_vector = [1 ; sum_u v_u x_u]
    item_vector = [sum_t w_t x_t + 1/2 (|sum_t v_t x_t|^2 - sum_t x_t^2 |v_t|^2) ; sum_t v_t x_t]
    user_offset = w0 + sum_u w_u x_u + 1/2 (|sum_u v_u x_u|^2 - sum_u x_u^2 |v_u|^2)

Rendle 2010 gives the O(kn) form that makes the split possible.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64, Floats
from recall.features.csr import SparseRows
from recall.models.serving.base import FactorTables, Kind, ServingModel, with_one
from recall.models.serving.sums import entry_norms, exact_field_sums, filled, norms, row_sums, squares_of


@dataclass(frozen=True, slots=True)
class FMTables(FactorTables):
    """The parameters of a factorization machine; of a regression when k = 0.

    Attributes:
        user_fields, item_fields: how the feature spaces are divided, used only for explanations.
        user_factors, item_factors: v, float32 [n_user_features, k] and [n_item_features, k].
        user_weights, item_weights: w, float32 [n_user_features] and [n_item_features].
        bias: w0.
    """

    pairs_within: ClassVar[bool] = True
    """Whether features of one side have pairs."""

    @property
    @override
    def kind(self) -> Kind:
        return "fm" if self.k else "lr"

    @property
    @override
    def dim(self) -> int:
        """k + 1."""
        return self.k + 1

    @override
    def user_vectors(self, rows: SparseRows) -> Float32:
        """[1 ; sum_u v_u x_u] of n user rows: float32 [n, k + 1]."""
        return with_one(rows.weighted_sum(self.user_factors))

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        """Return [own first and second order ; sum_t v_t x_t], float32 [n, k + 1]."""
        squares = entry_norms(rows, self.item_factors.__getitem__)

        def fill(part: SparseRows, target: Float32) -> None:
            target[:, 1:] = part.weighted_sum(self.item_factors)
            target[:, 0] = _own_part(part, target[:, 1:], self.item_weights[part.indices], squares(part))

        return filled(rows, self.dim, self.k, fill)

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        # norms of these rows' features alone: a request names a dozen features of a table that may hold millions
        squares = norms(self.user_factors[rows.indices])
        total = rows.weighted_sum(self.user_factors)
        return self.bias + _own_part(rows, total, self.user_weights[rows.indices], squares)

    @override
    def user_parts(self, rows: SparseRows) -> tuple[Float32, Float64]:
        if len(rows) != 1:
            return ServingModel.user_parts(self, rows)
        from recall.models.serving.kernels import parts  # numba takes half a second to import

        tables = np.ascontiguousarray(self.user_factors), np.ascontiguousarray(self.user_weights)  # which they are
        vector, first, pairs = parts(rows.indices, rows.weights, *tables)
        return vector[None], np.array([self.bias + first + (pairs if self.pairs_within else 0.0)])

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        of_users, of_items = (sums.sum(axis=1) for sums in self.exact_sums(users, items))  # [n, k]
        squares = norms(self.user_factors[users.indices])
        offset = self.bias + _own_part(users, of_users, self.user_weights[users.indices].astype(np.float64), squares)
        own = _own_part(
            items, of_items, self.item_weights[items.indices].astype(np.float64), norms(self.item_factors[items.indices])
        )
        return offset, own + of_users @ of_items.T


def _own_part(rows: SparseRows, total: Floats, weights: Floats, squares: Float64) -> Float64:
    """Return first order and pairs within each row, in float64 against cancellation.

    Args:
        rows: n rows.
        total: sum of v_j x_j, [n, k].
        weights: w of every entry, [nnz].
        squares: |v|^2 of every entry, [nnz].

    Returns:
        float64 [n].
    """
    return row_sums(rows, rows.weights * weights - 0.5 * squares_of(rows, squares)) + 0.5 * norms(total)


# Sums of embeddings (LightFM, Kula 2015) as tables and vectors.
#
#     user_vector = [1 ; sum_u v_u x_u]
#     item_vector = [sum_t w_t x_t ; sum_t v_t x_t]
#     user_offset = w0 + sum_u w_u x_u
#
# A factorization machine without the pairs of features of one side.


@dataclass(frozen=True, slots=True)
class SumTables(FMTables):
    """Parameters of a model that multiplies sums of embeddings; arrays as of FMTables."""

    pairs_within: ClassVar[bool] = False

    @property
    @override
    def kind(self) -> Kind:
        return "sums"

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        """Return [first order of the item ; sum_t v_t x_t] of n rows: float32 [n, k + 1]."""

        def fill(part: SparseRows, target: Float32) -> None:
            target[:, 1:] = part.weighted_sum(self.item_factors)
            target[:, 0] = row_sums(part, part.weights.astype(np.float64) * self.item_weights[part.indices])

        return filled(rows, self.dim, self.k, fill)

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        return self.bias + row_sums(rows, rows.weights.astype(np.float64) * self.user_weights[rows.indices])

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        of_users, of_items = (sums.sum(axis=1) for sums in self.exact_sums(users, items))  # [n, k]
        first = exact_field_sums(items, self.item_fields, self.item_weights).sum(axis=1)
        return self.user_offset(users), first + of_users @ of_items.T
