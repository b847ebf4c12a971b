"""Sweeps of the square loss before another objective takes over.

The square loss over all pairs is solved in seconds and ends near what a softmax would come to after many passes; where
its lists are weak, on sparse data without features, a few passes of a softmax from there are enough.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from recall.models.torch.base import Model
from recall.training.loop import Learner


class Opened:
    """A learner whose first sweep is several sweeps of another learner of the same model."""

    def __init__(self, opening: Learner, sweeps: int, then: Learner) -> None:
        self._opening = opening
        self._sweeps = sweeps
        self._then = then
        self._opened = False

    @property
    def model(self) -> Model:
        """See Learner."""
        return self._then.model

    @property
    def note(self) -> str:
        """See Learner."""
        return f"{self._opening.note}, then {self._then.note}"

    def sweep(self) -> float:
        """All of the opening, or one sweep of what follows; returns the last sweep's loss."""
        if self._opened:
            return self._then.sweep()
        self._opened = True
        return [self._opening.sweep() for _ in range(self._sweeps)][-1]

    def state(self) -> dict[str, Tensor]:
        """See Learner."""
        return {**self._then.state(), "opened": torch.tensor(self._opened)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See Learner."""
        self._opened = bool(state["opened"])
        self._then.restore({name: value for name, value in state.items() if name != "opened"})
