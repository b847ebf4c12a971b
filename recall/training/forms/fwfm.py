"""The field-weighted factorization machine as linear maps, for field weights that are given."""

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Float64
from recall.features.fields import Fields
from recall.features.sparse import SparseRows
from recall.models.fwfm import FieldWeightedFM
from recall.training.forms.contract import (
    Form,
    apart_by_field,
    field_of,
    mixed,
)
from recall.training.kernels.contract import (
    Kernels,
)


class FwFMForm(Form):
    """A group for each field; a vector has a part for each item field, into which the user fields are weighed."""

    def __init__(self, model: FieldWeightedFM, users: Fields, items: Fields) -> None:
        self._model = model
        self._users, self._items = users, items
        self.user_groups, self.item_groups = len(users), len(items)
        self.dim = self.item_groups * model.k

    def user_table(self) -> Tensor:
        """See Form."""
        return self._model.user_factors.detach()

    def item_table(self) -> Tensor:
        """See Form."""
        return self._model.item_factors.detach()

    def set_user_table(self, table: Tensor) -> None:
        """See Form."""
        self._model.user_factors.copy_(table)

    def set_item_table(self, table: Tensor) -> None:
        """See Form."""
        self._model.item_factors.copy_(table)

    @property
    def across(self) -> Tensor:
        """The weights between user and item fields, float32 [user fields, item fields]."""
        return self._model.symmetric_weights().detach()[: self.user_groups, self.user_groups :]

    @property
    def among_items(self) -> Tensor:
        """The weights between item fields, symmetric, float32 [item fields, item fields]."""
        return self._model.symmetric_weights().detach()[self.user_groups :, self.user_groups :]

    def user_fields(self) -> Tensor:
        """The field of every user feature: int64 [n_user_features]."""
        return field_of(self._users)

    def set_across(self, weights: Tensor) -> None:
        """Write the weights between user and item fields, [user fields, item fields]."""
        self._model.replace_across(weights)

    def set_among_items(self, weights: Tensor) -> None:
        """Write the weights between item fields, symmetric, [item fields, item fields]."""
        self._model.field_weights[self.user_groups :, self.user_groups :] = weights

    def split_users(self, rows: SparseRows) -> SparseRows:
        """See Form."""
        return apart_by_field(rows, self._users)

    def split_items(self, rows: SparseRows) -> SparseRows:
        """See Form."""
        return apart_by_field(rows, self._items)

    def user_vectors(self, sums: Float32, kernels: Kernels) -> Float32:
        """See Form."""
        return mixed(sums, self.across, kernels).reshape(-1, self.dim)

    def user_sums(self, vectors: Float32, kernels: Kernels) -> Float32:
        """See Form."""
        return mixed(vectors.reshape(-1, self._model.k), self.across.t(), kernels)

    def user_diagonal(self, sees: Tensor, diagonal: Tensor) -> Tensor:
        """See Form."""
        of_field = torch.einsum("nbk,ab->nak", diagonal.view(2, self.item_groups, -1), self.across.square())
        return torch.einsum("fn,nfw->fw", sees, of_field[:, field_of(self._users)])

    def item_diagonal(self, sees: Tensor, diagonal: Tensor) -> Tensor:
        """See Form."""
        return torch.einsum("fn,nfw->fw", sees, diagonal[:, field_of(self._items)])

    def within(self, sums: Tensor) -> Tensor:
        """See Form."""
        return torch.einsum("nfk,fg->ngk", sums, self.among_items)

    def alone(self, table: Tensor) -> Tensor:
        """See Form."""
        return table * self.among_items.diagonal()[field_of(self._items), None]

    def axes(self, gram: Float64) -> Float64:
        """The principal axes of the parts of all item fields together; every field is turned alike."""
        k = self._model.k
        parts = gram.reshape(self.item_groups, k, self.item_groups, k)
        return np.kron(np.eye(self.item_groups), torch.linalg.eigh(torch.from_numpy(np.einsum("bkbl->kl", parts)))[1].numpy())

    def turn(self, axes: Tensor) -> None:
        """See Form."""
        k = self._model.k
        for factors in (self._model.user_factors, self._model.item_factors):
            factors.copy_(torch.mm(factors, axes[:k, :k].contiguous()))
