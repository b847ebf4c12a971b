"""The factorization machine as linear maps; with k = 0 only the item weights are left."""

import torch
from torch import Tensor

from recall._arrays import Float64
from recall.models.fm import FactorizationMachine
from recall.training.forms.contract import (
    Form,
)


class FMForm(Form):
    """All entries of a row are summed together, and the sum is the vector."""

    user_groups = item_groups = 1
    diagonal = True

    def __init__(self, model: FactorizationMachine) -> None:
        self._model = model
        self.dim = model.k

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

    def axes(self, gram: Float64) -> Float64:
        """The principal axes of the Gram matrix."""
        axes: Float64 = torch.linalg.eigh(torch.from_numpy(gram))[1].numpy()
        return axes

    def turn(self, axes: Tensor) -> None:
        """See Form."""
        for factors in (self._model.user_factors, self._model.item_factors):
            factors.copy_(torch.mm(factors, axes))
