"""Steps towards weights of which many are exactly zero."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recall.training.optimizers.memory import Memory, zeros


class FTRL:
    """FTRL-Proximal (McMahan et al. 2013), as Wide & Deep trains its linear part (Cheng et al. 2016).

    A weight is the minimiser of its past gradients, a pull towards its past values, and an L1 and an L2 term; where
    the gradients do not outweigh the L1 term it is exactly zero. Its own rate is alpha, and stays as it is; beta is 1.
    """

    def __init__(self, table: Tensor, l1: float, l2: float, alpha: float) -> None:
        self._l1, self._l2, self._alpha = l1, l2, alpha
        self._memory = Memory({"sums": zeros(table), "squares": zeros(table)})

    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:  # noqa: ARG002 - the sums would not add up under another rate
        """See RowOptimiser."""
        before = self._memory.read("squares", rows)
        squares = before + gradient.square()
        weights = table if rows is None else table[rows]
        sums = self._memory.read("sums", rows) + gradient - (squares.sqrt() - before.sqrt()) / self._alpha * weights
        self._memory.write("squares", rows, squares)
        self._memory.write("sums", rows, sums)
        curvature = (1 + squares.sqrt()) / self._alpha + self._l2
        moved = torch.where(sums.abs() <= self._l1, torch.zeros_like(sums), (sums.sign() * self._l1 - sums) / curvature)
        if rows is None:
            table.copy_(moved)
        else:
            table[rows] = moved

    def state(self) -> dict[str, Tensor]:
        """See RowOptimiser."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See RowOptimiser."""
        self._memory.restore(state)
