"""Vectors of unit length over any model, whose inner product is a cosine."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import SparseRows
from recall.models.serving.base import Attribution, ServingModel, WrappedModel

SMALLEST: Final = 1e-6
"""Vectors that are shorter are divided by this, and not by their length: zeros stay zeros, and rounding is not blown up."""


@dataclass(frozen=True, slots=True)
class CosineTables(WrappedModel):
    """Another model with vectors scaled to unit length, and without a user offset."""

    of: ServingModel

    @property
    @override
    def dim(self) -> int:
        """Of the other model."""
        return self.of.dim

    @override
    def user_vectors(self, rows: SparseRows) -> Float32:
        return _scaled(self.of.user_vectors(rows))

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        return _scaled(self.of.item_vectors(rows))

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        """0 for each of n rows."""
        return np.zeros(len(rows))

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        _, products = self.of.split(users, items)
        lengths = _lengths(self.of.user_vectors(users))[:, None] * _lengths(self.of.item_vectors(items))
        return np.zeros(len(users)), products / lengths

    @override
    def explain(self, user: SparseRows, item: SparseRows) -> Attribution:
        return self.of.explain(user, item) * (1 / self.lengths(user, item))

    def lengths(self, user: SparseRows, item: SparseRows) -> float:
        """Return the product of the lengths of both vectors, which divides the score.

        Args:
            user: one row.
            item: one row.
        """
        return float((_lengths(self.of.user_vectors(user)) * _lengths(self.of.item_vectors(item)))[0])

    @override
    def arrays(self) -> dict[str, Float32]:
        """Those of the other model."""
        return self.of.arrays()


def _scaled(vectors: Float32) -> Float32:
    """In place: the vectors are the caller's own."""
    vectors /= _lengths(vectors)[:, None].astype(np.float32)
    return vectors


def _lengths(vectors: Float32) -> Float64:
    """float32 [n, dim] -> float64 [n], none below SMALLEST."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return np.asarray(np.maximum(np.sqrt(squares), SMALLEST), dtype=np.float64)
