"""What every rule offers."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class RowOptimiser(Protocol):
    """Steps of one table, with what it remembers of each row."""

    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """Move rows of a table against their gradient.

        Args:
            table: [n, ...], changed in place.
            rows: int64 [m] without repeats; None for all rows in order, which costs no gathering.
            gradient: [m, ...].
            rate: the learning rate of this step.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """What is remembered, by name."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        ...
