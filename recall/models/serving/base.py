"""Parameters of a model as a bundle stores them, and scores from them.

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

from recall._arrays import Bool, Float32, Float64, Floats
from recall.config.schema import Record
from recall.errors import ExportError
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.sums import exact_field_sums

Kind = Literal["lr", "fm", "fwfm", "ffm", "sums"]


class ServingModel(ABC):
    """The parameters of a model, and its three functions."""

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """Name of the model in the configuration."""

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
        """Components that determine similarity: all except the item's own part."""
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


def with_one(sums: Floats) -> Float32:
    """Return the vectors [1 ; sums] of n rows.

    Args:
        sums: float [n, ...].

    Returns:
        float32 [n, 1 + size of a row of `sums`].
    """
    vectors = np.ones((len(sums), 1 + int(np.prod(sums.shape[1:]))), dtype=np.float32)
    vectors[:, 1:] = sums.reshape(len(sums), vectors.shape[1] - 1)
    return vectors


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


TOP = 10
"""Length of the lists that are compared."""


class Parity(Record):
    """Proof that serving equals the model, by comparing scores."""

    reference: Literal["model", "tables"]
    """The trained model itself, or, after a rebuild, its tables in float64."""
    users: int
    items: int
    largest_error: float
    """Largest difference, relative to the user's largest score, or to 1 where that is smaller."""
    tolerance: float
    top_k: int
    top_k_agreement: int
    """Users whose list of top_k among those items is that of the model, except for ties within the tolerance."""


def check_parity(
    user_vectors: Float32,
    user_offset: Float64,
    item_vectors: Float32,
    scores: Float64,
    tolerance: float,
    reference: Literal["model", "tables"] = "model",
) -> Parity:
    """Compare the served scores with those of a reference.

    Args:
        user_vectors: float32 [u, dim], as a request is given.
        user_offset: float64 [u].
        item_vectors: float32 [i, dim], as the index holds them.
        scores: float64 [u, i], the reference's own score of every pair.
        tolerance: largest relative error allowed.
        reference: the model, or its tables.

    Raises:
        ExportError: a score is not finite, an error exceeds the tolerance, or a list differs by more than ties.
    """
    served = (user_vectors @ item_vectors.T).astype(np.float64)
    if not (np.isfinite(served).all() and np.isfinite(scores).all()):
        raise ExportError("a score is not finite", where="proof", hint="Check the training metrics: the model diverged")
    errors = relative_errors(served + user_offset[:, None], scores)
    user, item = np.unravel_index(int(errors.argmax()), errors.shape)
    if errors[user, item] > tolerance:
        raise ExportError(
            f"a served score of {served[user, item] + user_offset[user]:.9g} is {scores[user, item]:.9g} in the model",
            where=f"proof, user {user} and item {item} of the sample",
            why=f"relative error {errors[user, item]:.3g}, allowed {tolerance:.3g}",
            hint="Nothing was published. Scores so large that float32 cannot hold them call for more regularisation",
        )
    top = min(TOP, scores.shape[1])
    agree = _lists_agree(served, scores, top, tolerance * _scale(scores))
    if not agree.all():
        raise ExportError(
            f"the best {top} items differ for {int((~agree).sum())} of {len(agree)} users",
            where=f"proof, user {int(agree.argmin())} of the sample",
            hint="Nothing was published",
        )
    users, items = scores.shape
    return Parity(
        reference=reference,
        users=users,
        items=items,
        largest_error=float(errors.max()),
        tolerance=tolerance,
        top_k=top,
        top_k_agreement=int(agree.sum()),
    )


def relative_errors(found: Float64, scores: Float64) -> Float64:
    """Return score differences relative to the user's largest score, at least 1.

    Args:
        found: [u, i].
        scores: [u, i].
    """
    return np.asarray(np.abs(found - scores) / _scale(scores)[:, None], dtype=np.float64)


def _scale(scores: Float64) -> Float64:
    return np.asarray(np.maximum(1.0, np.abs(scores).max(axis=1)), dtype=np.float64)


def _lists_agree(served: Float64, scores: Float64, top: int, slack: Float64) -> Bool:
    """Return whether served items score as the model's own choices, within `slack`."""
    ours = np.take_along_axis(scores, np.argsort(-served, axis=1, kind="stable")[:, :top], axis=1)
    theirs = -np.sort(-scores, axis=1)[:, :top]
    return np.asarray((np.abs(ours - theirs) <= 2 * slack[:, None]).all(axis=1))
