"""The field-aware factorization machine as linear maps."""

import torch
from torch import Tensor
from torch.nn import functional

from recall.features.csr import SparseRows
from recall.features.layout import Fields
from recall.models.torch.ffm import FieldAwareFM
from recall.training.als.forms.base import Form, apart_by_field, field_of


class FFMForm(Form):
    """A group for each field; vectors have a part for each pair of a user field and an item field.

    User factors that meet user fields take no part in a ranking. They are set to zero.
    """

    def __init__(self, model: FieldAwareFM, users: Fields, items: Fields) -> None:
        self._model = model
        self._users, self._items = users, items
        self.user_groups, self.item_groups = len(users), len(items)
        self.dim = self.user_groups * self.item_groups * model.k
        own = functional.one_hot(self.user_groups + field_of(items), self.user_groups + self.item_groups)
        self._own = own.float()[:, :, None]  # 1 at the embedding with which a feature meets its own field
        with torch.no_grad():
            model.user_factors[:, : self.user_groups] = 0.0

    def user_table(self) -> Tensor:
        """See Form."""
        return self._model.user_factors.detach()[:, self.user_groups :].flatten(1).contiguous()

    def item_table(self) -> Tensor:
        """See Form."""
        return self._model.item_factors.detach().flatten(1)

    def set_user_table(self, table: Tensor) -> None:
        """See Form."""
        across = self._model.user_factors[:, self.user_groups :]
        across.copy_(table.view_as(across))

    def set_item_table(self, table: Tensor) -> None:
        """See Form."""
        self._model.item_factors.copy_(table.view_as(self._model.item_factors))

    def split_users(self, rows: SparseRows) -> SparseRows:
        """See Form."""
        return apart_by_field(rows, self._users)

    def split_items(self, rows: SparseRows) -> SparseRows:
        """See Form."""
        return apart_by_field(rows, self._items)

    def user_diagonal(self, sees: Tensor, diagonal: Tensor) -> Tensor:
        """See Form."""
        of_field = diagonal.view(2, self.user_groups, -1)
        return torch.einsum("fn,nfw->fw", sees, of_field[:, field_of(self._users)])

    def item_vectors(self, sums: Tensor) -> Tensor:
        """See Form."""
        return self._by_field(sums)[:, :, : self.user_groups].transpose(1, 2).flatten(1)

    def item_sums(self, vectors: Tensor) -> Tensor:
        """See Form."""
        across = vectors.view(len(vectors), self.user_groups, self.item_groups, self._model.k).transpose(1, 2)
        return functional.pad(across, (0, 0, 0, self.item_groups)).flatten(2)

    def item_diagonal(self, sees: Tensor, diagonal: Tensor) -> Tensor:
        """See Form."""
        return torch.einsum("fn,nfw->fw", sees, diagonal[:, field_of(self._items)])

    def within(self, sums: Tensor) -> Tensor:
        """See Form: field b meets field b' by what each has for the other."""
        met = self._by_field(sums)[:, :, self.user_groups :].transpose(1, 2)
        return functional.pad(met, (0, 0, self.user_groups, 0)).flatten(2)

    def alone(self, table: Tensor) -> Tensor:
        """See Form."""
        return (table.view(len(table), -1, self._model.k) * self._own).flatten(1)

    def _by_field(self, sums: Tensor) -> Tensor:
        return sums.view(len(sums), self.item_groups, -1, self._model.k)
