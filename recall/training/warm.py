"""Training that begins with parameters that were learnt before, and not with chance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Bool, Float32, Int64
from recall.features.sparse import (
    SparseRows,
)
from recall.models.contract import Model, Side, side_of
from recall.training.learner import Learner
from recall.training.pairs import ObservedPairs
from recall.training.roles import (
    Roles,
)
from recall.vocabulary import MISSING, UNKNOWN


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Where a model begins.

    Attributes:
        parameters: float32, by the names of the model's parameters and of their shapes.
        source: says where they come from and what they count, so that an interrupted run is not gone on with from
            another start.
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

    After every sweep a row stands at start + share * (swept - start). Scores do not change when all factors are turned by
    one orthogonal matrix, and a learner may turn them; so the start is first turned to where it is closest to the swept
    factors (Schoenemann 1966).
    """

    def __init__(self, learner: Learner, start: WarmStart, seen: ObservedPairs | None, masked: bool = False) -> None:
        """Wrap a learner whose model stands at the start.

        Args:
            learner: does the sweeps.
            start: where its model begins.
            seen: rows that the learner sees, where it draws features that none of them has to zero; None where it leaves
                such features alone.
            masked: those rows are also seen with values masked, which trains the rows for unknown and missing ones.
        """
        self._learner = learner
        self._start = start.parameters
        reached: dict[Side, Bool | None] = {"user": None, "item": None}
        if seen is not None:
            roles = (seen.user_roles, seen.item_roles) if masked else (None, None)
            reached = {"user": _reached(seen.contexts, roles[0]), "item": _reached(seen.items, roles[1])}
        self._shares: dict[Side, Tensor] = {side: _share(start, side, met) for side, met in reached.items()}

    @property
    def model(self) -> Model:
        """See Learner."""
        return self._learner.model

    @property
    def note(self) -> str:
        """See Learner."""
        return self._learner.note

    def sweep(self) -> float:
        """See Learner."""
        loss = self._learner.sweep()
        if any(bool((share < 1).any()) for share in self._shares.values()):
            self._draw_back()
        return loss

    def state(self) -> dict[str, Tensor]:
        """See Learner."""
        return self._learner.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See Learner."""
        self._learner.restore(state)

    @torch.no_grad()
    def _draw_back(self) -> None:
        tables = [(name, table, self._shares[side]) for name, table in self.model.named_parameters() if (side := side_of(name))]
        turn = self._turn({name: table for name, table, _ in tables if table.dim() > 1})
        for name, table, share in tables:
            start = self._start[name] @ turn if table.dim() > 1 else self._start[name]
            share = share.view(-1, *[1] * (table.dim() - 1))
            # a share of 1 leaves a row as it is, to the bit
            table.copy_(torch.where(share == 1, table, torch.lerp(start, table, share)))

    def _turn(self, factors: Mapping[str, Tensor]) -> Tensor:
        """The orthogonal matrix that brings the start closest to the factors: [k, k]."""
        k = self.model.k
        moment = torch.zeros(k, k, dtype=torch.float64)
        for name, table in factors.items():
            start = self._start[name].flatten(0, -2).double()  # of a field-aware model one row for each feature and field
            moment += start.t() @ table.flatten(0, -2).double()
        left, _, right = torch.linalg.svd(moment)
        turn: Tensor = left @ right
        return turn.float()


def _reached(rows: SparseRows, roles: Roles | None) -> Bool:
    """Features that some row has, and those that its masked copies may have: bool [n_features]."""
    met = np.bincount(rows.indices, minlength=rows.n_features) > 0
    if roles is not None:
        met[roles.fields.offsets + UNKNOWN] = met[roles.fields.offsets + MISSING] = True
    return met


def _share(start: WarmStart, side: Side, met: Bool | None) -> Tensor:
    """How far each feature of a side may go, those that are not met not at all: float32 [n_features]."""
    allowed = torch.ones(len(start.parameters[f"{side}_weights"])) if start.shares is None else start.shares[side]
    return allowed if met is None else torch.where(torch.from_numpy(met), allowed, 0.0)
