"""Sums of embeddings (LightFM, Kula 2015) as tables and vectors.

    user_vector = [1 ; sum_u v_u x_u]
    item_vector = [sum_t w_t x_t ; sum_t v_t x_t]
    user_offset = w0 + sum_u w_u x_u

A factorization machine but for the pairs of features of one side, which the score does not have.
"""

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import SparseRows
from recall.models.serving.base import Attribution, Kind
from recall.models.serving.fm import FMTables
from recall.models.serving.sums import exact_field_sums, filled, row_sums


@dataclass(frozen=True, slots=True)
class SumTables(FMTables):
    """Parameters of a model that multiplies sums of embeddings; arrays as of FMTables."""

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
    def user_parts(self, rows: SparseRows) -> tuple[Float32, Float64]:
        if len(rows) != 1:
            return self.user_vectors(rows), self.user_offset(rows)
        vector, first, _ = self._parts(rows)
        return vector[None], np.array([self.bias + first])

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        of_users = exact_field_sums(users, self.user_fields, self.user_factors).sum(axis=1)  # [n, k]
        of_items = exact_field_sums(items, self.item_fields, self.item_factors).sum(axis=1)
        first = exact_field_sums(items, self.item_fields, self.item_weights).sum(axis=1)
        return self.user_offset(users), first + of_users @ of_items.T

    @override
    def explain(self, user: SparseRows, item: SparseRows) -> Attribution:
        """Attribute the score; an item has no second order of its own."""
        of_user = exact_field_sums(user, self.user_fields, self.user_factors)[0]  # [user fields, k]
        of_item = exact_field_sums(item, self.item_fields, self.item_factors)[0]
        first = exact_field_sums(item, self.item_fields, self.item_weights)[0]
        return Attribution(of_user @ of_item.T, first, np.zeros((len(first), len(first))))
