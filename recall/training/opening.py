"""Sweeps of the square loss before another objective takes over.

The square loss over all pairs is solved in seconds and ends near what a softmax would come to after many passes; where
its lists are weak, on sparse data without features, a few passes of a softmax from there are enough.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from recall.models.contract import Model
from recall.training.learner import Learner


class Opened:
    """A learner whose first sweeps are those of another learner of the same model."""

    def __init__(self, opening: Learner, sweeps: int, then: Learner) -> None:
        self._opening = opening
        self._sweeps = sweeps
        self._then = then
        self._made = 0

    @property
    def model(self) -> Model:
        """See Learner."""
        return self._then.model

    def sweep(self) -> float:
        """One sweep of the learner whose turn it is; returns that one's loss."""
        self._made += 1
        return self._opening.sweep() if self._made <= self._sweeps else self._then.sweep()

    def state(self) -> dict[str, Tensor]:
        """See Learner."""
        return {**self._then.state(), "opened": torch.tensor(self._made)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See Learner."""
        self._made = int(state["opened"])
        self._then.restore({name: value for name, value in state.items() if name != "opened"})
