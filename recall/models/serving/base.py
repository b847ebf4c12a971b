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

from recall._arrays import Float32, Float64
from recall.features.csr import SparseRows

Kind = Literal["lr", "fm", "fwfm", "ffm", "sums"]


@dataclass(frozen=True, slots=True)
class Attribution:
    """How <user_vector, item_vector> of one user row and one item row comes about: all of it adds up to that number.

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

    @abstractmethod
    def user_vectors(self, rows: SparseRows) -> Float32:
        """n user rows -> a new float32 [n, dim]; the first component is what the item's own part counts."""

    @abstractmethod
    def item_vectors(self, rows: SparseRows) -> Float32:
        """n item rows -> a new float32 [n, dim], on all cores; the first component is the item's own part."""

    @abstractmethod
    def user_offset(self, rows: SparseRows) -> Float64:
        """The part of the score that is the same for every item: n user rows -> float64 [n]."""

    def user_parts(self, rows: SparseRows) -> tuple[Float32, Float64]:
        """`user_vectors` and `user_offset` of n user rows at once, up to rounding: what one request needs."""
        return self.user_vectors(rows), self.user_offset(rows)

    @abstractmethod
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        """What the vectors and offsets of n user rows and m item rows come to, in float64 and entry by entry.

        A reference, not a way to serve: memory is taken for every pair.

        Returns:
            The users' offsets, float64 [n], and the inner products of every pair, float64 [n, m].
        """

    def scores(self, users: SparseRows, items: SparseRows) -> Float64:
        """The model's score of every pair, as `split` has it: n user rows, m item rows -> float64 [n, m]."""
        offset, products = self.split(users, items)
        return np.asarray(offset[:, None] + products, dtype=np.float64)

    @abstractmethod
    def explain(self, user: SparseRows, item: SparseRows) -> Attribution:
        """The parts of one user row's and one item row's <user_vector, item_vector>, in float64."""

    @abstractmethod
    def arrays(self) -> dict[str, Float32]:
        """All parameters by name."""


def within(gram: Float64, squares: Float64) -> Float64:
    """Second order by pairs of fields, from products that count every pair twice and every feature with itself once.

    Args:
        gram: [fields, fields], symmetric.
        squares: what features with themselves come to, [fields].

    Returns:
        float64 [fields, fields], zero below the diagonal.
    """
    return np.asarray(np.triu(gram, 1) + np.diag((gram.diagonal() - squares) / 2), dtype=np.float64)
