"""Steps that shrink with the gradients a number has met."""

from collections.abc import Mapping

from torch import Tensor

from recall.training.optimizers.memory import Memory, subtract, zeros


class Adagrad:
    """Duchi, Hazan and Singer 2011."""

    def __init__(self, table: Tensor) -> None:
        self._memory = Memory({"squares": zeros(table)})

    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """See RowOptimiser."""
        squares = self._memory.read("squares", rows).addcmul_(gradient, gradient)
        self._memory.write("squares", rows, squares)
        subtract(table, rows, gradient / (squares.sqrt() + 1e-10) * rate)

    def state(self) -> dict[str, Tensor]:
        """See RowOptimiser."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See RowOptimiser."""
        self._memory.restore(state)
