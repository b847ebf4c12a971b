"""What a bundle stores of a model, and what serving computes with it.

With x split into a user part U and an item part I, every model of the family is

    score(U, I) = user_offset(U) + <user_vector(U), item_vector(I)>

The same functions live on the models, where torch computes them; a proof at every export holds the two together.
A feature occurs at most once in a row: x_t is one number.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.sums import exact_field_sums

Kind = Literal["lr", "fm", "fwfm", "ffm", "sums"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """Contributions of fields that sum to <user_vector, item_vector> of two rows.

    Attributes:
        across: second order between a user field and an item field, float64 [user fields, item fields].
        first: first order of an item field, float64 [item fields].
        second: second order of two item fields, float64 [item fields, item fields], zero below the diagonal; on it are
            the pairs within one field.
    """

    across: Float64
    first: Float64
    second: Float64

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(self.across.sum() + self.first.sum() + self.second.sum())

    def __mul__(self, factor: float) -> "Attribution":
        return Attribution(self.across * factor, self.first * factor, self.second * factor)


class ServingModel(ABC):
    """The parameters of a model, and its three functions."""

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What the configuration calls the model."""

    @property
    @abstractmethod
    def k(self) -> int:
        """Number of factors of one embedding."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of a user or item vector."""

    @property
    def taste(self) -> slice:
        """Components that tell which items are alike: all but an item's own part."""
        return slice(1, self.dim)

    @abstractmethod
    def user_vectors(self, rows: SparseRows) -> Float32:
        """Return the vectors of n user rows, a new float32 [n, dim].

        The first component multiplies the item's own part.
        """

    @abstractmethod
    def item_vectors(self, rows: SparseRows) -> Float32:
        """Return the vectors of n item rows, a new float32 [n, dim], on all cores.

        The first component is the item's own part.
        """

    @abstractmethod
    def user_offset(self, rows: SparseRows) -> Float64:
        """Return the part of the score that all items share: n user rows -> float64 [n]."""

    def user_parts(self, rows: SparseRows) -> tuple[Float32, Float64]:
        """Return `user_vectors` and `user_offset` at once, up to rounding."""
        return self.user_vectors(rows), self.user_offset(rows)

    @abstractmethod
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        """Compute offsets and inner products in float64, entry by entry.

        A reference, not a way to serve: memory is proportional to the number of pairs.

        Args:
            users: n user rows.
            items: m item rows.

        Returns:
            The users' offsets, float64 [n], and the inner products of every pair, float64 [n, m].
        """

    def scores(self, users: SparseRows, items: SparseRows) -> Float64:
        """Return the score of every pair by `split`, float64 [n, m].

        Args:
            users: n user rows.
            items: m item rows.
        """
        offset, products = self.split(users, items)
        return np.asarray(offset[:, None] + products, dtype=np.float64)

    @abstractmethod
    def explain(self, user: SparseRows, item: SparseRows) -> Attribution:
        """Attribute the inner product of one user row and one item row, in float64.

        Args:
            user: one row.
            item: one row.
        """

    @abstractmethod
    def arrays(self) -> dict[str, Float32]:
        """All parameters by name."""


@dataclass(frozen=True, slots=True)
class FactorTables(ServingModel):
    """Parameters that every kind of factorization machine has; user fields come first.

    Attributes:
        user_fields, item_fields: how the feature spaces are divided.
        user_factors, item_factors: v, float32 [n_user_features, ..., k] and [n_item_features, ..., k].
        user_weights, item_weights: w, float32 [n_user_features] and [n_item_features].
        bias: w0.
    """

    user_fields: FeatureLayout
    item_fields: FeatureLayout
    user_factors: Float32
    user_weights: Float32
    item_factors: Float32
    item_weights: Float32
    bias: float

    @property
    @override
    def k(self) -> int:
        """Number of factors of one embedding."""
        return int(self.user_factors.shape[-1])

    def exact_sums(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        """Add up embeddings by field, in float64.

        Args:
            users: n user rows.
            items: m item rows.

        Returns:
            float64 [n, user fields, ..., k] and [m, item fields, ..., k].
        """
        of_users = exact_field_sums(users, self.user_fields, self.user_factors)
        return of_users, exact_field_sums(items, self.item_fields, self.item_factors)

    @override
    def arrays(self) -> dict[str, Float32]:
        return {
            "user_factors": self.user_factors,
            "user_weights": self.user_weights,
            "item_factors": self.item_factors,
            "item_weights": self.item_weights,
            "bias": np.array([self.bias], dtype=np.float32),
        }


class WrappedModel(ServingModel):
    """A model made from another model, with its kind and number of factors.

    Attributes:
        of: the other model.
    """

    __slots__ = ()
    of: ServingModel

    @property
    @override
    def kind(self) -> Kind:
        return self.of.kind

    @property
    @override
    def k(self) -> int:
        return self.of.k


def within(gram: Float64, squares: Float64) -> Float64:
    """Return the second order by pairs of fields, from a symmetric product.

    Args:
        gram: [fields, fields], which counts every pair twice and every feature with itself once.
        squares: the products of features with themselves, [fields].

    Returns:
        float64 [fields, fields], zero below the diagonal.
    """
    return np.asarray(np.triu(gram, 1) + np.diag((gram.diagonal() - squares) / 2), dtype=np.float64)
