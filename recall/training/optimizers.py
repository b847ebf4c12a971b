"""Row-sparse optimizers: SGD, Adagrad, Adam, FTRL.

A step touches only the rows that a batch used.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

State = dict[str, Tensor]


class RowOptimiser(ABC):
    """Steps of one table, with a state for each of its rows."""

    names: ClassVar[tuple[str, ...]] = ()
    """Names of the tables of the state, of the shape of the table; zero at first."""

    def __init__(self, table: Tensor) -> None:
        self._state: State = {name: torch.zeros_like(table) for name in self.names}

    def step(self, table: Tensor, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """Move rows of a table against their gradient.

        Args:
            table: [n, ...], changed in place.
            rows: int64 [m] without repeats; None for all rows in order, which costs no gathering.
            gradient: [m, ...].
            rate: the learning rate of this step.
        """
        if rows is None:
            self._update(table, self._state, gradient, rate)
            return
        weights, state = table[rows], {name: values[rows] for name, values in self._state.items()}
        self._update(weights, state, gradient, rate)
        table[rows] = weights
        for name, values in state.items():
            self._state[name][rows] = values

    @abstractmethod
    def _update(self, weights: Tensor, state: State, gradient: Tensor, rate: float) -> None:
        """Change rows and their state in place; arguments as of `step`."""

    def state(self) -> State:
        """Return the optimizer state by name."""
        return dict(self._state)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of tables of the same names and shapes."""
        for name, values in self._state.items():
            values.copy_(state[name])


class SGD(RowOptimiser):
    """Robbins and Monro 1951: every step is the gradient times the rate."""

    @override
    def _update(self, weights: Tensor, state: State, gradient: Tensor, rate: float) -> None:
        weights.sub_(rate * gradient)


class Adagrad(RowOptimiser):
    """Duchi, Hazan and Singer 2011: steps shrink with the sum of squared gradients."""

    names = ("squares",)

    @override
    def _update(self, weights: Tensor, state: State, gradient: Tensor, rate: float) -> None:
        squares = state["squares"].addcmul_(gradient, gradient)
        weights.sub_(gradient / (squares.sqrt() + 1e-10) * rate)


_MEAN, _SQUARES = 0.9, 0.999


class Adam(RowOptimiser):
    """Adam (Kingma and Ba 2015) with a step count for each row.

    So a rare row starts with the same step size as a common one.
    """

    names = ("mean", "squares")

    def __init__(self, table: Tensor) -> None:
        super().__init__(table)
        self._state["steps"] = torch.zeros(len(table), dtype=torch.float64)  # 1 - 0.999^1 has three digits left in float32

    @override
    def _update(self, weights: Tensor, state: State, gradient: Tensor, rate: float) -> None:
        steps = state["steps"].add_(1)
        mean = state["mean"].lerp_(gradient, 1 - _MEAN)
        squares = state["squares"].mul_(_SQUARES).addcmul_(gradient, gradient, value=1 - _SQUARES)
        size = rate * (1 - _SQUARES**steps).sqrt() / (1 - _MEAN**steps)
        weights.sub_(mean / (squares.sqrt() + 1e-8) * size.to(weights.dtype).view(-1, *[1] * (weights.dim() - 1)))


class FTRL(RowOptimiser):
    """FTRL-Proximal (McMahan et al. 2013), as in Wide & Deep (Cheng et al. 2016).

    A weight is the minimiser of its past gradients, a pull towards its past values, and an L1 and an L2 term; where
    the gradients do not outweigh the L1 term it is exactly zero. Its own rate is alpha, and stays constant; beta is 1.
    """

    names = ("sums", "squares")

    def __init__(self, table: Tensor, l1: float, l2: float, alpha: float) -> None:
        super().__init__(table)
        self._l1, self._l2, self._alpha = l1, l2, alpha

    @override
    def _update(self, weights: Tensor, state: State, gradient: Tensor, rate: float) -> None:
        sums, squares = state["sums"], state["squares"]
        before = squares.sqrt()
        roots = squares.add_(gradient.square()).sqrt()
        sums.add_(gradient).sub_((roots - before) / self._alpha * weights)
        moved = (sums.sign() * self._l1 - sums) / ((1 + roots) / self._alpha + self._l2)
        weights.copy_(torch.where(sums.abs() <= self._l1, 0.0, moved))
