"""What the whole-catalogue solver asks of a model.

On either side the entries of a row are summed apart by group, a group being a field or, for a model without fields, the
whole row: S[r, g] = sum over features j of group g of x_j v_j. From those sums [n, groups, width] come the vectors,

    phi_c = [1 ; user_vectors(S)]        psi_i = [w'x + 1/2 (<S, within(S)> - sum_j x_j^2 <v_j, alone(v)_j>) ; item_vectors(S)]

with user_vectors, item_vectors, within and alone linear, the last two symmetric. A side's change of its table therefore
moves phi by the same linear map, and psi by a Jacobian that the solver writes from them.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Float64
from recall.features.fields import Fields
from recall.features.sparse import SparseRows
from recall.training.kernels.contract import (
    Kernels,
)


class Form(ABC):
    """A model as linear maps.

    Attributes:
        user_groups, item_groups: groups that the entries of a row are summed in.
        dim: components of a vector beside the first.
        diagonal: whether `axes` make a Gram matrix one of components alone.
    """

    user_groups: int
    item_groups: int
    dim: int
    diagonal: bool = False

    @abstractmethod
    def user_table(self) -> Tensor:
        """The user factors that meet items, float32 [n_user_features, width], contiguous."""

    @abstractmethod
    def item_table(self) -> Tensor:
        """All item factors, float32 [n_item_features, width], contiguous."""

    @abstractmethod
    def set_user_table(self, table: Tensor) -> None:
        """Write what `user_table` gave, changed."""

    @abstractmethod
    def set_item_table(self, table: Tensor) -> None:
        """Write what `item_table` gave, changed."""

    def split_users(self, rows: SparseRows) -> SparseRows:
        """The rows apart by group: n rows -> n user_groups rows."""
        return rows

    def split_items(self, rows: SparseRows) -> SparseRows:
        """The rows apart by group: n rows -> n item_groups rows."""
        return rows

    def user_vectors(self, sums: Float32, kernels: Kernels) -> Float32:  # noqa: ARG002
        """[n user_groups, width] -> [n, dim]."""
        return sums.reshape(len(sums) // self.user_groups, self.dim)

    def user_sums(self, vectors: Float32, kernels: Kernels) -> Float32:  # noqa: ARG002
        """The transpose of `user_vectors`: [n, dim] -> [n user_groups, width]."""
        return vectors.reshape(len(vectors) * self.user_groups, self.dim // self.user_groups)

    def user_diagonal(self, sees: Tensor, diagonal: Tensor) -> Tensor:
        """About the diagonal of the user side's operator.

        Args:
            sees: what each feature sees, [n_user_features, 2].
            diagonal: curvature of the loss by a vector for what `sees` counts, [2, dim].

        Returns:
            [n_user_features, width].
        """
        return sees @ diagonal

    def item_vectors(self, sums: Tensor) -> Tensor:
        """[n, item_groups, width] -> [n, dim]."""
        return sums.reshape(len(sums), self.dim)

    def item_sums(self, vectors: Tensor) -> Tensor:
        """The transpose of `item_vectors`: [n, dim] -> [n, item_groups, width]."""
        return vectors.reshape(len(vectors), self.item_groups, self.dim // self.item_groups)

    def item_diagonal(self, sees: Tensor, diagonal: Tensor) -> Tensor:
        """For every feature, what it sees of the diagonals of its group: [n, 2] and [2, groups, width] -> [n, width]."""
        return sees @ diagonal[:, 0]

    def within(self, sums: Tensor) -> Tensor:
        """How the groups of an item meet: [n, item_groups, width] -> the same shape."""
        return sums

    def alone(self, table: Tensor) -> Tensor:
        """How a feature of an item would meet itself: [n_item_features, width] -> the same shape."""
        return table

    def axes(self, gram: Float64) -> Float64 | None:  # noqa: ARG002
        """An orthogonal matrix that the factors of both sides may be turned by, fit for a Gram matrix of either side.

        Args:
            gram: float64 [dim, dim].

        Returns:
            float64 [dim, dim], one axis in each column; None where the model is to stay as it is.
        """
        return None

    def turn(self, axes: Tensor) -> None:
        """Turn the factors of both sides by what `axes` gave, or its transpose: float32 [dim, dim]."""
        raise AssertionError(f"{type(self).__name__} gives no axes, and is not turned by {tuple(axes.shape)}")


def field_of(fields: Fields) -> Tensor:
    """The number of the field of every feature: int64 [n_features]."""
    return torch.from_numpy(fields.of(np.arange(fields.n_features)))


def apart_by_field(rows: SparseRows, fields: Fields) -> SparseRows:
    """Row r's entries of field f as row r len(fields) + f."""
    place = np.repeat(np.arange(len(rows)), np.diff(rows.indptr)) * len(fields) + fields.of(rows.indices)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(rows) * len(fields)))])
    order = np.argsort(place, kind="stable")
    return SparseRows(indptr, rows.indices[order], rows.weights[order], rows.n_features)


def mixed(rows: Float32, weights: Tensor, kernels: Kernels) -> Float32:
    """rows float32 [n a, k], weights [a, b] -> [n b, k]."""
    before, after = weights.shape
    out = np.empty((len(rows) // before * after, rows.shape[1]), dtype=np.float32)
    kernels.mix(weights.contiguous().numpy(), rows, out)
    return out
