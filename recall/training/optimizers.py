"""Row-sparse optimizers: SGD, Adagrad, Adam, FTRL.

A step touches only the rows that a batch used.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

# What a rule remembers of each row of a table.


class Memory:
    """Named tables of the same rows as the table that is optimised."""

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        self._tables = dict(tables)

    def read(self, name: str, rows: Tensor | None) -> Tensor:
        """Return rows of one table: a copy, or the table itself for all rows.

        Args:
            name: of the table.
            rows: None for all.
        """
        table = self._tables[name]
        return table if rows is None else table[rows]

    def write(self, name: str, rows: Tensor | None, values: Tensor) -> None:
        """Write rows back; a whole table was changed in place.

        Args:
            name: of the table.
            rows: None for all.
            values: of the rows.
        """
        table = self._tables[name]
        if rows is not None:
            table[rows] = values
        elif values is not table:
            table.copy_(values)

    def state(self) -> dict[str, Tensor]:
        """All tables by name."""
        return dict(self._tables)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of tables of the same names and shapes."""
        for name, table in self._tables.items():
            table.copy_(state[name])


class RowOptimiser(ABC):
    """Steps of one table, with what it remembers of each row."""

    def __init__(self, memory: Mapping[str, Tensor]) -> None:
        """`memory` has a table by name for each thing that is remembered of a row."""
        self._memory = Memory(memory)

    @abstractmethod
    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """Move rows of a table against their gradient.

        Args:
            table: [n, ...], changed in place.
            rows: int64 [m] without repeats; None for all rows in order, which costs no gathering.
            gradient: [m, ...].
            rate: the learning rate of this step.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer state by name."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        self._memory.restore(state)


def subtract(table: Tensor, rows: Tensor | None, change: Tensor) -> None:
    """Compute table[rows] -= change.

    Args:
        table: changed in place.
        rows: None for all.
        change: of the rows.
    """
    if rows is None:
        table.sub_(change)
    else:
        table.index_add_(0, rows, change, alpha=-1)


def zeros(table: Tensor) -> Tensor:
    """Return a table of zeros of the same shape."""
    return torch.zeros_like(table)


# Plain stochastic gradient descent.


class SGD(RowOptimiser):
    """Robbins and Monro 1951: every step is the gradient times the rate."""

    def __init__(self, table: Tensor) -> None:  # noqa: ARG002 - built as the others are, and remembers nothing
        super().__init__({})

    @override
    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        subtract(table, rows, rate * gradient)


# Adagrad: steps shrink with the sum of squared gradients.


class Adagrad(RowOptimiser):
    """Duchi, Hazan and Singer 2011."""

    def __init__(self, table: Tensor) -> None:
        super().__init__({"squares": zeros(table)})

    @override
    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        squares = self._memory.read("squares", rows).addcmul_(gradient, gradient)
        self._memory.write("squares", rows, squares)
        subtract(table, rows, gradient / (squares.sqrt() + 1e-10) * rate)


# Steps by running means of the gradient and of its square.

_MEAN, _SQUARES = 0.9, 0.999


class Adam(RowOptimiser):
    """Adam (Kingma and Ba 2015) with a step count for each row.

    So a rare row starts with the same step size as a common one.
    """

    def __init__(self, table: Tensor) -> None:
        steps = torch.zeros(len(table), dtype=torch.float64)  # 1 - 0.999^1 has three digits left in float32
        super().__init__({"mean": zeros(table), "squares": zeros(table), "steps": steps})

    @override
    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        memory = self._memory
        steps = memory.read("steps", rows).add_(1)
        mean = memory.read("mean", rows).lerp_(gradient, 1 - _MEAN)
        squares = memory.read("squares", rows).mul_(_SQUARES).addcmul_(gradient, gradient, value=1 - _SQUARES)
        for name, values in (("steps", steps), ("mean", mean), ("squares", squares)):
            memory.write(name, rows, values)
        shape = (-1, *[1] * (table.dim() - 1))
        size = (rate * (1 - _SQUARES**steps).sqrt() / (1 - _MEAN**steps)).to(table.dtype).view(shape)
        subtract(table, rows, mean / (squares.sqrt() + 1e-8) * size)


# Steps towards weights of which many are exactly zero.


class FTRL(RowOptimiser):
    """FTRL-Proximal (McMahan et al. 2013), as in Wide & Deep (Cheng et al. 2016).

    A weight is the minimiser of its past gradients, a pull towards its past values, and an L1 and an L2 term; where
    the gradients do not outweigh the L1 term it is exactly zero. Its own rate is alpha, and stays constant; beta is 1.
    """

    def __init__(self, table: Tensor, l1: float, l2: float, alpha: float) -> None:
        self._l1, self._l2, self._alpha = l1, l2, alpha
        super().__init__({"sums": zeros(table), "squares": zeros(table)})

    @override
    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
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
