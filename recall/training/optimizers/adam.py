"""Steps by running means of the gradient and of its square."""

from collections.abc import Mapping

import torch
from torch import Tensor

from recall.training.optimizers.memory import Memory, subtract, zeros

_MEAN, _SQUARES = 0.9, 0.999


class Adam:
    """Kingma and Ba 2015, with each row's own count of steps, so that a rare row starts as boldly as a common one."""

    def __init__(self, table: Tensor) -> None:
        steps = torch.zeros(len(table), dtype=torch.float64)  # 1 - 0.999^1 has three digits left in float32
        self._memory = Memory({"mean": zeros(table), "squares": zeros(table), "steps": steps})

    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """See RowOptimiser."""
        memory = self._memory
        steps = memory.read("steps", rows).add_(1)
        mean = memory.read("mean", rows).lerp_(gradient, 1 - _MEAN)
        squares = memory.read("squares", rows).mul_(_SQUARES).addcmul_(gradient, gradient, value=1 - _SQUARES)
        for name, values in (("steps", steps), ("mean", mean), ("squares", squares)):
            memory.write(name, rows, values)
        shape = (-1, *[1] * (table.dim() - 1))
        size = (rate * (1 - _SQUARES**steps).sqrt() / (1 - _MEAN**steps)).to(table.dtype).view(shape)
        subtract(table, rows, mean / (squares.sqrt() + 1e-8) * size)

    def state(self) -> dict[str, Tensor]:
        """See RowOptimiser."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See RowOptimiser."""
        self._memory.restore(state)
