"""Plain stochastic gradient descent."""

from collections.abc import Mapping

from torch import Tensor

from recall.training.optimizers.memory import subtract


class SGD:
    """Robbins and Monro 1951: every step is the gradient times the rate."""

    def __init__(self, table: Tensor) -> None:  # noqa: ARG002 - built as the others are, and remembers nothing
        return

    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """See RowOptimiser."""
        subtract(table, rows, rate * gradient)

    def state(self) -> dict[str, Tensor]:
        """See RowOptimiser."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See RowOptimiser."""
