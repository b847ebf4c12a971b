"""Each model in the square loss: linear maps, and Jacobians elsewhere."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.torch.base import Model
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM
from recall.training.als import linear_algebra

# What the whole-catalogue solver asks of a model.
#
# On either side the entries of a row are summed apart by group, a group being a field or, for a model without fields, the
# whole row: S[r, g] = sum over features j of group g of x_j v_j. From those sums [n, groups, width] come the vectors,
#
#     phi_c = [1 ; user_vectors(S)]    psi_i = [w'x + 1/2 (<S, within(S)> - sum_j x_j^2 <v_j, alone(v)_j>) ; item_vectors(S)]
#
# with user_vectors, item_vectors, within and alone linear, the last two symmetric. A side's change of its table therefore
# moves phi by the same linear map, and psi by a Jacobian that the solver writes from them.


class Parameterization:
    """A model as linear maps; by default factors are the tables, and sums vectors.

    Attributes:
        user_groups, item_groups: groups that the entries of a row are summed in.
        dim: components of a vector beside the first.
        diagonal: whether `axes` make a Gram matrix one of components alone.
    """

    user_groups: int
    item_groups: int
    dim: int
    diagonal: bool = False
    _model: Model

    def user_table(self) -> Tensor:
        """Return the user factors that interact with items, float32 [n_features, width]."""
        return self._model.user_factors.detach()

    def item_table(self) -> Tensor:
        """All item factors, float32 [n_item_features, width], contiguous."""
        return self._model.item_factors.detach()

    def set_user_table(self, table: Tensor) -> None:
        """Write what `user_table` gave, changed."""
        self._model.user_factors.copy_(table)

    def set_item_table(self, table: Tensor) -> None:
        """Write what `item_table` gave, changed."""
        self._model.item_factors.copy_(table)

    def split_users(self, rows: SparseRows) -> SparseRows:
        """Split each row by group: n rows -> n user_groups rows."""
        return rows

    def split_items(self, rows: SparseRows) -> SparseRows:
        """Split each row by group: n rows -> n item_groups rows."""
        return rows

    def user_vectors(self, sums: Float32) -> Float32:
        """Map sums to vectors: [n user_groups, width] -> [n, dim].

        Args:
            sums: float32.
        """
        return sums.reshape(len(sums) // self.user_groups, self.dim)

    def user_sums(self, vectors: Float32) -> Float32:
        """Apply the transpose of `user_vectors`: [n, dim] -> [n user_groups, width].

        Args:
            vectors: float32.
        """
        return vectors.reshape(len(vectors) * self.user_groups, self.dim // self.user_groups)

    def user_diagonal(self, frequencies: Tensor, diagonal: Tensor) -> Tensor:
        """Return about the diagonal of the user side's operator.

        Args:
            frequencies: weights of each feature, [n_user_features, 2]; see `weighing.Frequencies`.
            diagonal: curvature of the loss by a vector, for one unit of either weight in `frequencies`, [2, dim].

        Returns:
            [n_user_features, width].
        """
        return frequencies @ diagonal

    def item_vectors(self, sums: Tensor) -> Tensor:
        """[n, item_groups, width] -> [n, dim]."""
        return sums.reshape(len(sums), self.dim)

    def item_sums(self, vectors: Tensor) -> Tensor:
        """Apply the transpose of `item_vectors`: [n, dim] -> [n, item_groups, width]."""
        return vectors.reshape(len(vectors), self.item_groups, self.dim // self.item_groups)

    def item_diagonal(self, frequencies: Tensor, diagonal: Tensor) -> Tensor:
        """Return the diagonals of each feature's group, weighted by its frequencies.

        Args:
            frequencies: [n, 2].
            diagonal: [2, groups, width].

        Returns:
            [n, width].
        """
        return frequencies @ diagonal[:, 0]

    def within(self, sums: Tensor) -> Tensor:
        """Combine the groups of an item: [n, item_groups, width] -> the same shape."""
        return sums

    def alone(self, table: Tensor) -> Tensor:
        """Return the product of each item feature with itself: same shape as the table."""
        return table

    def axes(self, gram: Float64) -> Float64 | None:  # noqa: ARG002
        """Return an orthogonal matrix that may rotate the factors of both sides.

        It is chosen for a Gram matrix of either side.

        Args:
            gram: float64 [dim, dim].

        Returns:
            float64 [dim, dim], one axis in each column; None where the model must not be rotated.
        """
        return None

    def rotate(self, axes: Tensor) -> None:
        """Rotate the factors of both sides by an orthogonal matrix, float32 [dim, dim]."""
        raise AssertionError(f"{type(self).__name__} gives no axes, and is not rotated by {tuple(axes.shape)}")


def field_of(fields: FeatureLayout) -> Tensor:
    """Return the field of every feature: int64 [n_features]."""
    return torch.from_numpy(fields.of(np.arange(fields.n_features)))


def mixed(rows: Float32, weights: Tensor) -> Float32:
    """Mix groups by weights: [n a, k] -> [n b, k].

    Args:
        rows: float32 [n a, k].
        weights: [a, b].
    """
    before, after = weights.shape
    out = np.empty((len(rows) // before * after, rows.shape[1]), dtype=np.float32)
    linear_algebra.mix_groups(weights.contiguous().numpy(), rows, out)
    return out


# The factorization machine as linear maps; with k = 0 only the item weights are left.


class FMParameterization(Parameterization):
    """All entries of a row are summed together, and the sum is the vector."""

    user_groups = item_groups = 1
    diagonal = True

    def __init__(self, model: FactorizationMachine) -> None:
        self._model = model
        self.dim = model.k

    @override
    def axes(self, gram: Float64) -> Float64:
        axes: Float64 = torch.linalg.eigh(torch.from_numpy(gram))[1].numpy()
        return axes

    @override
    def rotate(self, axes: Tensor) -> None:
        for factors in (self._model.user_factors, self._model.item_factors):
            factors.copy_(torch.mm(factors, axes))


class _ByField(Parameterization):
    """One group for each field."""

    def __init__(self, users: FeatureLayout, items: FeatureLayout) -> None:
        self._users, self._items = users, items
        self.user_groups, self.item_groups = len(users), len(items)

    @override
    def split_users(self, rows: SparseRows) -> SparseRows:
        return self._users.split(rows)

    @override
    def split_items(self, rows: SparseRows) -> SparseRows:
        return self._items.split(rows)

    @override
    def item_diagonal(self, frequencies: Tensor, diagonal: Tensor) -> Tensor:
        return torch.einsum("fn,nfw->fw", frequencies, diagonal[:, field_of(self._items)])


# The field-aware factorization machine as linear maps.


class FFMParameterization(_ByField):
    """One group for each field; vectors have a part for each user-item field pair.

    User factors for user fields do not affect a ranking. They are set to zero.
    """

    _model: FieldAwareFM

    def __init__(self, model: FieldAwareFM, users: FeatureLayout, items: FeatureLayout) -> None:
        super().__init__(users, items)
        self._model = model
        self.dim = self.user_groups * self.item_groups * model.k
        own = functional.one_hot(self.user_groups + field_of(items), self.user_groups + self.item_groups)
        self._own = own.float()[:, :, None]  # 1 at the embedding of a feature for its own field
        with torch.no_grad():
            model.user_factors[:, : self.user_groups] = 0.0

    @override
    def user_table(self) -> Tensor:
        return self._model.user_factors.detach()[:, self.user_groups :].flatten(1).contiguous()

    @override
    def item_table(self) -> Tensor:
        return self._model.item_factors.detach().flatten(1)

    @override
    def set_user_table(self, table: Tensor) -> None:
        across = self._model.user_factors[:, self.user_groups :]
        across.copy_(table.view_as(across))

    @override
    def set_item_table(self, table: Tensor) -> None:
        self._model.item_factors.copy_(table.view_as(self._model.item_factors))

    @override
    def user_diagonal(self, frequencies: Tensor, diagonal: Tensor) -> Tensor:
        of_field = diagonal.view(2, self.user_groups, -1)
        return torch.einsum("fn,nfw->fw", frequencies, of_field[:, field_of(self._users)])

    @override
    def item_vectors(self, sums: Tensor) -> Tensor:
        # a copy even of one item field, whose vectors are a view: kernels read rows that follow each other
        return self._by_field(sums)[:, :, : self.user_groups].transpose(1, 2).flatten(1).contiguous()

    @override
    def item_sums(self, vectors: Tensor) -> Tensor:
        across = vectors.view(len(vectors), self.user_groups, self.item_groups, self._model.k).transpose(1, 2)
        return functional.pad(across, (0, 0, 0, self.item_groups)).flatten(2)

    @override
    def within(self, sums: Tensor) -> Tensor:
        """Combine fields b and b' by the embeddings that each has for the other."""
        met = self._by_field(sums)[:, :, self.user_groups :].transpose(1, 2)
        return functional.pad(met, (0, 0, self.user_groups, 0)).flatten(2)

    @override
    def alone(self, table: Tensor) -> Tensor:
        return (table.view(len(table), -1, self._model.k) * self._own).flatten(1)

    def _by_field(self, sums: Tensor) -> Tensor:
        return sums.view(len(sums), self.item_groups, -1, self._model.k)


# The field-weighted factorization machine as linear maps, for field weights that are given.


class FwFMParameterization(_ByField):
    """One group for each field; vectors have a part for each item field.

    The user fields are weighted into it.
    """

    _model: FieldWeightedFM

    def __init__(self, model: FieldWeightedFM, users: FeatureLayout, items: FeatureLayout) -> None:
        super().__init__(users, items)
        self._model = model
        self.dim = self.item_groups * model.k

    @property
    def across(self) -> Tensor:
        """The weights between user and item fields, float32 [user fields, item fields]."""
        return self._model.symmetric_weights().detach()[: self.user_groups, self.user_groups :]

    @property
    def among_items(self) -> Tensor:
        """The weights between item fields, symmetric, float32 [item fields, item fields]."""
        return self._model.symmetric_weights().detach()[self.user_groups :, self.user_groups :]

    def user_fields(self) -> Tensor:
        """Return the field of every user feature: int64 [n_user_features]."""
        return field_of(self._users)

    def set_across(self, weights: Tensor) -> None:
        """Write the weights between user and item fields, [user fields, item fields]."""
        self._model.replace_across(weights)

    def set_among_items(self, weights: Tensor) -> None:
        """Write the weights between item fields, symmetric, [item fields, item fields]."""
        self._model.field_weights[self.user_groups :, self.user_groups :] = weights

    @override
    def user_vectors(self, sums: Float32) -> Float32:
        return mixed(sums, self.across).reshape(-1, self.dim)

    @override
    def user_sums(self, vectors: Float32) -> Float32:
        return mixed(vectors.reshape(-1, self._model.k), self.across.t())

    @override
    def user_diagonal(self, frequencies: Tensor, diagonal: Tensor) -> Tensor:
        of_field = torch.einsum("nbk,ab->nak", diagonal.view(2, self.item_groups, -1), self.across.square())
        return torch.einsum("fn,nfw->fw", frequencies, of_field[:, field_of(self._users)])

    @override
    def within(self, sums: Tensor) -> Tensor:
        return torch.einsum("nfk,fg->ngk", sums, self.among_items)

    @override
    def alone(self, table: Tensor) -> Tensor:
        return table * self.among_items.diagonal()[field_of(self._items), None]

    @override
    def axes(self, gram: Float64) -> Float64:
        """Return principal axes over the parts of all item fields; all are rotated alike."""
        k = self._model.k
        parts = gram.reshape(self.item_groups, k, self.item_groups, k)
        return np.kron(np.eye(self.item_groups), torch.linalg.eigh(torch.from_numpy(np.einsum("bkbl->kl", parts)))[1].numpy())

    @override
    def rotate(self, axes: Tensor) -> None:
        k = self._model.k
        for factors in (self._model.user_factors, self._model.item_factors):
            factors.copy_(torch.mm(factors, axes[:k, :k].contiguous()))


# The form of a model.


def parameterization_of(model: Model, users: FeatureLayout | None, items: FeatureLayout | None) -> Parameterization:
    """Return the parameterization of a model.

    Args:
        model: any of the family.
        users: the user fields; None for a model without fields.
        items: the item fields; None for a model without fields.

    Raises:
        TypeError: The kind of model is unknown, or its fields are missing.
    """
    if isinstance(model, FactorizationMachine):
        return FMParameterization(model)
    if users is not None and items is not None:
        if isinstance(model, FieldWeightedFM):
            return FwFMParameterization(model, users, items)
        if isinstance(model, FieldAwareFM):
            return FFMParameterization(model, users, items)
    raise TypeError(f"the square loss has no form for {type(model).__name__} with fields {users} and {items}")
