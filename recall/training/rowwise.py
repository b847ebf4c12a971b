"""Stochastic gradient steps that touch only the rows a batch has used."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class RowOptimiser(Protocol):
    """Steps of one table, with what it remembers of each row."""

    def step(self, table: Tensor, rows: Tensor, gradient: Tensor) -> None:
        """Move `table[rows]` against its gradient: table [n, ...], rows int64 [m] without repeats, gradient [m, ...]."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What is remembered, by name."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        ...


class Adagrad:
    """Duchi, Hazan and Singer 2011: each number's steps shrink with the gradients it has met."""

    def __init__(self, table: Tensor, learning_rate: float) -> None:
        self._rate = learning_rate
        self._squares = torch.zeros_like(table)

    def step(self, table: Tensor, rows: Tensor, gradient: Tensor) -> None:
        """See RowOptimiser."""
        squares = self._squares[rows] + gradient.square()
        self._squares[rows] = squares
        table[rows] -= self._rate * gradient / (squares.sqrt() + 1e-10)

    def state(self) -> dict[str, Tensor]:
        """See RowOptimiser."""
        return {"squares": self._squares}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See RowOptimiser."""
        self._squares.copy_(state["squares"])


class Adam:
    """Kingma and Ba 2015, with each row's own count of steps, so that a rare row starts as boldly as a common one."""

    def __init__(self, table: Tensor, learning_rate: float) -> None:
        self._rate = learning_rate
        self._mean = torch.zeros_like(table)
        self._squares = torch.zeros_like(table)
        self._steps = torch.zeros(len(table), dtype=torch.float64)  # 1 - 0.999^1 has three digits left in float32

    def step(self, table: Tensor, rows: Tensor, gradient: Tensor) -> None:
        """See RowOptimiser."""
        steps = self._steps[rows] + 1
        mean = torch.lerp(self._mean[rows], gradient, 0.1)
        squares = torch.lerp(self._squares[rows], gradient.square(), 0.001)
        self._steps[rows], self._mean[rows], self._squares[rows] = steps, mean, squares
        shape = (-1, *[1] * (table.dim() - 1))
        mean_share, square_share = ((1 - decay**steps).to(table.dtype).view(shape) for decay in (0.9, 0.999))
        table[rows] -= self._rate * mean / mean_share / ((squares / square_share).sqrt() + 1e-8)

    def state(self) -> dict[str, Tensor]:
        """See RowOptimiser."""
        return {"mean": self._mean, "squares": self._squares, "steps": self._steps}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See RowOptimiser."""
        self._mean.copy_(state["mean"])
        self._squares.copy_(state["squares"])
        self._steps.copy_(state["steps"])
