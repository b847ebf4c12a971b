"""A factorization machine as tables and vectors: what is left of the model when it serves, in numpy alone.

With x split into a user part U and an item part I (Rendle 2010 gives the O(kn) form that makes the split possible):

    score(U, I) = user_offset(U) + <user_vector(U), item_vector(I)>
    user_vector = [1 ; sum_u v_u x_u]
    item_vector = [sum_t w_t x_t + 1/2 (|sum_t v_t x_t|^2 - sum_t x_t^2 |v_t|^2) ; sum_t v_t x_t]
    user_offset = w0 + sum_u w_u x_u + 1/2 (|sum_u v_u x_u|^2 - sum_u x_u^2 |v_u|^2)

The same functions live on the model, where torch computes them; a proof at every export holds the two together.
A feature occurs at most once in a row: x_t is one number.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall.features.sparse import Float32, SparseRows

Float64 = npt.NDArray[np.float64]

_CHUNK = 1 << 16  # rows at once: tens of MB of temporary memory


@dataclass(frozen=True, slots=True)
class FMTables:
    """The parameters of a factorization machine, and its three functions.

    Attributes:
        user_factors: v of the user features, float32 [n_user_features, k].
        user_weights: w of the user features, float32 [n_user_features].
        item_factors: float32 [n_item_features, k].
        item_weights: float32 [n_item_features].
        bias: w0.
    """

    user_factors: Float32
    user_weights: Float32
    item_factors: Float32
    item_weights: Float32
    bias: float

    def arrays(self) -> dict[str, Float32]:
        """All parameters by name; those of user_ and item_ have a row for each feature, bias is float32 [1]."""
        return {
            "user_factors": self.user_factors,
            "user_weights": self.user_weights,
            "item_factors": self.item_factors,
            "item_weights": self.item_weights,
            "bias": np.array([self.bias], dtype=np.float32),
        }

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.user_factors.shape[1])

    @property
    def dim(self) -> int:
        """Length of a user or item vector, k + 1."""
        return self.k + 1

    def user_vectors(self, rows: SparseRows) -> Float32:
        """[1 ; sum_u v_u x_u] of n user rows: float32 [n, k + 1]."""
        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        vectors[:, 0] = 1.0
        vectors[:, 1:] = rows.weighted_sum(self.user_factors)
        return vectors

    def item_vectors(self, rows: SparseRows) -> Float32:
        """[the item's own first and second order ; sum_t v_t x_t] of n item rows: float32 [n, k + 1]."""
        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        norms = np.einsum("ij,ij->i", self.item_factors, self.item_factors, dtype=np.float64)

        def fill(first: int) -> None:
            part = _part(rows, first)
            target = vectors[first : first + len(part)]
            target[:, 1:] = part.weighted_sum(self.item_factors)
            target[:, 0] = _own_part(part, target[:, 1:], self.item_weights[part.indices], norms[part.indices])

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter while it gathers and adds
            for _ in pool.map(fill, range(0, len(rows), _CHUNK)):
                pass
        return vectors

    def user_offset(self, rows: SparseRows) -> Float64:
        """The part of the score that is the same for every item, of n user rows: float64 [n]."""
        # norms of these rows' features alone: a request names a dozen features of a table that may hold millions
        factors = self.user_factors[rows.indices]
        norms = np.einsum("ij,ij->i", factors, factors, dtype=np.float64)
        total = rows.weighted_sum(self.user_factors)
        return self.bias + _own_part(rows, total, self.user_weights[rows.indices], norms)

    def scores(self, users: SparseRows, items: SparseRows) -> Float64:
        """The model's score of every pair, without the split and in float64: a reference, not a way to serve.

        Args:
            users: n user rows.
            items: m item rows.

        Returns:
            float64 [n, m].
        """
        user_total, user_first, user_squares = _orders(users, self.user_factors, self.user_weights)
        item_total, item_first, item_squares = _orders(items, self.item_factors, self.item_weights)
        result = np.empty((len(users), len(items)))
        for row in range(len(users)):
            total = np.square(user_total[row] + item_total).sum(axis=1)
            result[row] = user_first[row] + item_first + 0.5 * (total - user_squares[row] - item_squares)
        return self.bias + result


def _own_part(rows: SparseRows, total: Float32, weights: Float32, norms: Float64) -> Float64:
    """sum_t w_t x_t + 1/2 (|total|^2 - sum_t x_t^2 norm_t), in float64, for it is a difference of squares: [n]."""
    values = rows.weights * weights - 0.5 * np.square(rows.weights, dtype=np.float64) * norms
    if len(rows) == 1:
        single = values.sum()
    else:
        single = np.bincount(np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), weights=values, minlength=len(rows))
    return np.asarray(single + 0.5 * np.einsum("ij,ij->i", total, total, dtype=np.float64), dtype=np.float64)


def _orders(rows: SparseRows, factors: Float32, weights: Float32) -> tuple[Float64, Float64, Float64]:
    """sum v x [n, k], sum w x [n] and sum x^2 |v|^2 [n], in float64."""
    total, first, squares = np.zeros((len(rows), factors.shape[1])), np.zeros(len(rows)), np.zeros(len(rows))
    for row in range(len(rows)):
        entries = slice(int(rows.indptr[row]), int(rows.indptr[row + 1]))
        x = rows.weights[entries].astype(np.float64)
        parts = factors[rows.indices[entries]] * x[:, None]
        total[row] = parts.sum(axis=0)
        first[row] = x @ weights[rows.indices[entries]]
        squares[row] = np.square(parts).sum()
    return total, first, squares


def _part(rows: SparseRows, first: int) -> SparseRows:
    """Rows `first` to `first + _CHUNK`, without copying their entries."""
    indptr = rows.indptr[first : first + _CHUNK + 1]
    entries = slice(int(indptr[0]), int(indptr[-1]))
    return SparseRows(indptr - indptr[0], rows.indices[entries], rows.weights[entries], rows.n_features)
