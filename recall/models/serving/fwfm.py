"""A field-weighted factorization machine as tables and vectors, weights folded.

With P_a = sum_{u in a} v_u x_u over user field a, and Q_b over item field b, the term between the sides is

    sum_ab R_ab <P_a, Q_b> = sum_r < sum_a A_ar P_a , sum_b B_br Q_b >        for any R = A B'

so that vectors need one part of k numbers for each column of A and B, and as many columns as the rank of R:

    user_vector = [1 ; sum_a A_ar P_a for every r]
    item_vector = [first order + sum over pairs of features within the item ; sum_b B_br Q_b for every r]

A singular value decomposition of R gives A and B; dropping its smallest values gives shorter vectors, at an error that
is reported (Eckart and Young 1936: no shorter ones have a smaller error in R).
"""

from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64, Floats
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
class FwFMTables(FactorTables):
    """The parameters of a field-weighted factorization machine.

    Attributes:
        user_fields, item_fields: how the feature spaces are divided.
        user_factors, item_factors: v, float32 [n_user_features, k] and [n_item_features, k].
        user_weights, item_weights: w, float32 [n_user_features] and [n_item_features].
        bias: w0.
        field_weights: r of all pairs of fields, users first, symmetric, float32 [fields, fields].
        fold_users, fold_items: A and B, float32 [user fields, rank] and [item fields, rank].
    """

    field_weights: Float32
    fold_users: Float32
    fold_items: Float32

    @property
    @override
    def kind(self) -> Kind:
        return "fwfm"

    @property
    def rank(self) -> int:
        """Parts of k numbers in a vector."""
        return int(self.fold_users.shape[1])

    @property
    @override
    def dim(self) -> int:
        """rank k + 1."""
        return self.rank * self.k + 1

    @property
    def across(self) -> Float64:
        """The weights between fields that the vectors retain, A B', float64."""
        return np.asarray(self.fold_users.astype(np.float64) @ self.fold_items.T.astype(np.float64), dtype=np.float64)

    @property
    def lost(self) -> float:
        """The share of the field weights that folding dropped, by Frobenius norms."""
        size = float(np.linalg.norm(self._between))
        return float(np.linalg.norm(self._between - self.across)) / size if size else 0.0

    def folded(self, rank: int | None, tolerance: float) -> "FwFMTables":
        """Return the same model with shorter vectors.

        Args:
            rank: keep at most so many singular values of the weights between user and item fields; at least 1.
            tolerance: keep those above this share of the largest, which is always kept.
        """
        left, values, right = np.linalg.svd(self._between.astype(np.float64), full_matrices=False)
        kept = max(1, int((values > tolerance * values[0]).sum()))
        kept = kept if rank is None else min(kept, rank)
        fold_users, fold_items = left[:, :kept] * values[:kept], right[:kept].T
        return replace(self, fold_users=fold_users.astype(np.float32), fold_items=fold_items.astype(np.float32))

    @override
    def user_vectors(self, rows: SparseRows) -> Float32:
        """[1 ; sum_a A_ar P_a for every r] of n user rows: float32 [n, dim]."""
        return with_one(self.fold_users.T @ field_sums(rows, self.user_fields, self.user_factors))

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        """Return [own first and second order ; sum_b B_br Q_b for every r] of n rows."""
        squares, pairs = entry_norms(rows, self.item_factors.__getitem__), self._within_items

        def fill(part: SparseRows, target: Float32) -> None:
            sums = field_sums(part, self.item_fields, self.item_factors)
            target[:, 1:] = (self.fold_items.T @ sums).reshape(len(part), self.dim - 1)
            entries = self.item_weights[part.indices], squares(part)
            target[:, 0] = _own_part(part, self.item_fields, sums, entries, pairs)

        return filled(rows, self.dim, (len(self.item_fields) + self.rank) * self.k, fill)

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        sums = field_sums(rows, self.user_fields, self.user_factors)
        entries = self.user_weights[rows.indices], norms(self.user_factors[rows.indices])
        return self.bias + _own_part(rows, self.user_fields, sums, entries, self._within_users)

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        """Compute the scores of the folded model."""
        of_users, of_items = self.exact_sums(users, items)  # [n, user fields, k]
        entries = self.user_weights[users.indices].astype(np.float64), norms(self.user_factors[users.indices])
        offset = self.bias + _own_part(users, self.user_fields, of_users, entries, self._within_users)
        entries = self.item_weights[items.indices].astype(np.float64), norms(self.item_factors[items.indices])
        own = _own_part(items, self.item_fields, of_items, entries, self._within_items)
        spread = self.across.T @ of_users  # [n, item fields, k]
        return offset, own + spread.reshape(len(users), -1) @ of_items.reshape(len(items), -1).T

    @override
    def arrays(self) -> dict[str, Float32]:
        folds = {"field_weights": self.field_weights, "fold_users": self.fold_users, "fold_items": self.fold_items}
        return FactorTables.arrays(self) | folds

    @property
    def _within_users(self) -> Float32:
        return self.field_weights[: len(self.user_fields), : len(self.user_fields)]

    @property
    def _within_items(self) -> Float32:
        return self.field_weights[len(self.user_fields) :, len(self.user_fields) :]

    @property
    def _between(self) -> Float32:
        return self.field_weights[: len(self.user_fields), len(self.user_fields) :]


def _own_part(
    rows: SparseRows,
    fields: FeatureLayout,
    sums: Floats,
    entries: tuple[Floats, Float64],
    pairs: Float32,
) -> Float64:
    """Return first order and pairs within each row, in float64 against cancellation.

    Args:
        rows: n rows.
        fields: of their side.
        sums: of v_j x_j over each field, [n, fields, k].
        entries: w and |v|^2 of every entry, [nnz] each.
        pairs: r between these fields, [fields, fields].

    Returns:
        float64 [n].
    """
    weights, squares = entries
    values = rows.weights * weights - 0.5 * pairs.diagonal()[fields.of(rows.indices)] * squares_of(rows, squares)
    exact = sums.astype(np.float64)
    both = ((pairs.astype(np.float64) @ exact) * exact).sum(axis=(1, 2))
    return np.asarray(row_sums(rows, values) + 0.5 * both, dtype=np.float64)
