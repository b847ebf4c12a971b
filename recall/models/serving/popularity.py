"""One more factor beside a model's, for what popularity says to unknown users.

    user_vector = [user vector of the model ; sum_u q_u x_u]
    item_vector = [item vector of the model ; sum_t p_t x_t]

q is zero for every user feature of the training interactions, so that no score of a known user changes. Features that
stand for an unknown id or for an empty history have a positive q; the row of an item id has the logarithm of the item's
popularity. Known features and what popularity says are so weighed against each other within one inner product.
"""

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import SparseRows
from recall.features.layout import FeatureLayout
from recall.models.serving.base import Attribution, Kind, ServingModel
from recall.models.serving.sums import exact_field_sums, row_sums


@dataclass(frozen=True, slots=True)
class PopularityFactor:
    """Weights of the features on the additional factor.

    Attributes:
        users: q, float32 [n_user_features].
        items: p, float32 [n_item_features].
    """

    users: Float32
    items: Float32

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
        return _beside(vectors, rows, self.items)

    def products(self, users: SparseRows, items: SparseRows) -> Float64:
        """Return what the factor adds to the score of each pair, float64 [n, m].

        Args:
            users: n user rows.
            items: m item rows.
        """
        return np.outer(_exact(users, self.users), _exact(items, self.items))


@dataclass(frozen=True, slots=True)
class PopularityTables(ServingModel):
    """Another model with a popularity factor.

    Attributes:
        of: the other model.
        user_fields, item_fields: how the feature spaces are divided, which only an explanation asks for.
        factor: the weights.
    """

    of: ServingModel
    user_fields: FeatureLayout
    item_fields: FeatureLayout
    factor: PopularityFactor

    @property
    @override
    def kind(self) -> Kind:
        """Of the other model."""
        return self.of.kind

    @property
    @override
    def k(self) -> int:
        """Of the other model."""
        return self.of.k

    @property
    @override
    def dim(self) -> int:
        """One more than that of the other model."""
        return self.of.dim + 1

    @property
    @override
    def taste(self) -> slice:
        """That of the other model: popularity does not make items alike."""
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
        return offset, products + self.factor.products(users, items)

    @override
    def explain(self, user: SparseRows, item: SparseRows) -> Attribution:
        parts = self.of.explain(user, item)
        of_user = exact_field_sums(user, self.user_fields, self.factor.users)[0]
        of_item = exact_field_sums(item, self.item_fields, self.factor.items)[0]
        return Attribution(parts.across + np.outer(of_user, of_item), parts.first, parts.second)

    @override
    def arrays(self) -> dict[str, Float32]:
        return {**self.of.arrays(), "user_popularity": self.factor.users, "item_popularity": self.factor.items}


def _beside(vectors: Float32, rows: SparseRows, weights: Float32) -> Float32:
    return np.concatenate([vectors, rows.weighted_sum(weights[:, None])], axis=1)


def _exact(rows: SparseRows, weights: Float32) -> Float64:
    return row_sums(rows, rows.weights.astype(np.float64) * weights[rows.indices])
