"""Extend a model by one factor that scores items by popularity.

    user_vector = [user vector of the model ; sum_u q_u x_u]
    item_vector = [(1 + sum_t l_t x_t) item vector of the model ; sum_t p_t x_t]

q is zero for every user feature of the training interactions, so that no score of a known user changes. Features that
represent an unknown id or an empty history have a positive q; the row of an item id has the logarithm of the item's
popularity. So one inner product weighs known features against popularity.
l is zero except for an unknown item id, where it levels new items of a model with item vectors of equal length.
"""

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import SparseRows
from recall.models.serving.base import ServingModel, WrappedModel
from recall.models.serving.sums import row_sums


@dataclass(frozen=True, slots=True)
class PopularityFactor:
    """Weights of the features on the additional factor.

    Attributes:
        users: q, float32 [n_user_features].
        items: p, float32 [n_item_features].
        levels: l, float32 [n_item_features].
    """

    users: Float32
    items: Float32
    levels: Float32

    def beside_users(self, vectors: Float32, rows: SparseRows) -> Float32:
        """Append the component of each user row: [n, dim] -> float32 [n, dim + 1].

        Args:
            vectors: float32 [n, dim], of the same rows.
            rows: n user rows.
        """
        return _beside(vectors, rows, self.users)

    def beside_items(self, vectors: Float32, rows: SparseRows) -> Float32:
        """Append the component of each item row: [n, dim] -> float32 [n, dim + 1].

        Args:
            vectors: float32 [n, dim], of the same rows.
            rows: n item rows.
        """
        scale = np.float32(1) + rows.weighted_sum(self.levels[:, None])
        return _beside(vectors * scale, rows, self.items)

    def applied(self, products: Float64, users: SparseRows, items: SparseRows) -> Float64:
        """Return inner products with the factor, float64 [n, m].

        Args:
            products: float64 [n, m], of the model itself.
            users: n user rows.
            items: m item rows.
        """
        return products * self.scales(items) + np.outer(_exact(users, self.users), _exact(items, self.items))

    def scales(self, items: SparseRows) -> Float64:
        """Return what multiplies the model's vector of each item, float64 [m].

        Args:
            items: m item rows.
        """
        return 1 + _exact(items, self.levels)


@dataclass(frozen=True, slots=True)
class PopularityTables(WrappedModel):
    """Another model with a popularity factor.

    Attributes:
        of: the other model.
        factor: the weights.
    """

    of: ServingModel
    factor: PopularityFactor

    @property
    @override
    def dim(self) -> int:
        """Dimension of the other model plus one."""
        return self.of.dim + 1

    @property
    @override
    def taste(self) -> slice:
        """Similarity by the other model: popularity does not make items similar."""
        return slice(self.of.taste.start, self.of.dim)

    @override
    def user_vectors(self, rows: SparseRows) -> Float32:
        return self.factor.beside_users(self.of.user_vectors(rows), rows)

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        return self.factor.beside_items(self.of.item_vectors(rows), rows)

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        return self.of.user_offset(rows)

    @override
    def user_parts(self, rows: SparseRows) -> tuple[Float32, Float64]:
        vectors, offset = self.of.user_parts(rows)
        return self.factor.beside_users(vectors, rows), offset

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        offset, products = self.of.split(users, items)
        return offset, self.factor.applied(products, users, items)

    @override
    def arrays(self) -> dict[str, Float32]:
        return {
            **self.of.arrays(),
            "user_popularity": self.factor.users,
            "item_popularity": self.factor.items,
            "item_levels": self.factor.levels,
        }


def _beside(vectors: Float32, rows: SparseRows, weights: Float32) -> Float32:
    return np.concatenate([vectors, rows.weighted_sum(weights[:, None])], axis=1)


def _exact(rows: SparseRows, weights: Float32) -> Float64:
    return row_sums(rows, rows.weights.astype(np.float64) * weights[rows.indices])
