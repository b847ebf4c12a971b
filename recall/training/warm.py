"""Training that begins with parameters that were learnt before, and not with chance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall.features.sparse import Float32, Int64, SparseRows
from recall.models.contract import Model, Side, side_of
from recall.training.learner import Learner
from recall.training.pairs import ObservedPairs


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Where a model begins.

    Attributes:
        parameters: float32, by the names of the model's parameters and of their shapes.
        source: says where they come from, so that an interrupted run is not gone on with from another start.
        shares: for "user" and "item", float32 [n_features] in [0, 1]: how far each row may go from where it begins
            towards what the data say. None lets all go all the way.
    """

    parameters: Mapping[str, Tensor]
    source: str
    shares: Mapping[Side, Tensor] | None = None

    @staticmethod
    def of(arrays: Mapping[str, Float32], rows: Mapping[Side, Int64], source: str) -> "WarmStart":
        """Take rows of published tables.

        Args:
            arrays: by name; those whose names start with user_ or item_ have a row for each feature.
            rows: for "user" and "item", int64 [n_features]: the row of those tables that each feature begins with.
            source: the attribute.
        """
        parameters = {}
        for name, array in arrays.items():
            side = side_of(name)
            parameters[name] = torch.from_numpy(array.copy() if side is None else array[rows[side]])
        return WarmStart(parameters, source)

    @torch.no_grad()
    def give(self, model: Model) -> None:
        """Write the parameters into a model."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.parameters[name].view_as(parameter))


class Anchored:
    """A learner that leaves what the data do not speak of as it was at the start, and draws the rest back to its share.

    After every sweep a row stands at start + share * (swept - start). A row that no row of the data has stays where it
    began, whatever the learner's regularisation would draw it to.
    """

    def __init__(self, learner: Learner, start: WarmStart, pairs: ObservedPairs) -> None:
        self._learner = learner
        self._start = start.parameters
        self._shares: dict[Side, Tensor] = {"user": _present(pairs.contexts), "item": _present(pairs.items)}
        if start.shares is not None:
            self._shares = {side: share * start.shares[side] for side, share in self._shares.items()}

    @property
    def model(self) -> Model:
        """See Learner."""
        return self._learner.model

    def sweep(self) -> float:
        """See Learner."""
        loss = self._learner.sweep()
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                side = side_of(name)
                if side is not None:
                    start = self._start[name]
                    share = self._shares[side].view(-1, *[1] * (parameter.dim() - 1))
                    # a share of 1 leaves a row as it is, to the bit
                    parameter.copy_(torch.where(share == 1, parameter, torch.lerp(start, parameter, share)))
        return loss

    def state(self) -> dict[str, Tensor]:
        """See Learner."""
        return self._learner.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See Learner."""
        self._learner.restore(state)


def _present(rows: SparseRows) -> Tensor:
    """1 for the features that some row has, 0 for the others: float32 [n_features]."""
    return torch.from_numpy((np.bincount(rows.indices, minlength=rows.n_features) > 0).astype(np.float32))
