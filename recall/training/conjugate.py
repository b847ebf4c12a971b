"""Conjugate gradients on a table of unknowns, without ever forming the matrix."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, steps: int, apart: bool = False
) -> tuple[Tensor, float]:
    """Approximate A^-1 target for a symmetric positive definite A, from zero.

    Hestenes and Stiefel 1952, preconditioned by a diagonal.

    Args:
        operator: D -> A D, both shaped as target.
        target: [n, d].
        diagonal: the preconditioner's diagonal, positive, [n, d].
        steps: products with A; each shrinks the error further.
        apart: A maps every row of D to that row alone. Each row is then a system with steps of its own length, which
            is solved in far fewer of them.

    Returns:
        The solution D [n, d], and by how much it is lower than nothing on <D, A D> - 2 <D, target>.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    scaled = residual / diagonal
    direction = scaled.clone()
    energy = _products(residual, scaled, apart)
    decrease = 0.0
    for _ in range(steps):
        product = operator(direction)
        length = _ratio(energy, _products(direction, product, apart))
        solution.addcmul_(direction, length)
        decrease += float((length * energy).double().sum())
        residual.addcmul_(product, length, value=-1)
        torch.div(residual, diagonal, out=scaled)
        following = _products(residual, scaled, apart)
        direction.mul_(_ratio(following, energy)).add_(scaled)
        energy = following
    return solution, decrease


def _products(left: Tensor, right: Tensor, apart: bool) -> Tensor:
    """Inner products float32 [n, 1] of rows, or [1, 1] of the whole: summed in an order that no number of threads changes."""
    rows = (left * right).sum(dim=1, keepdim=True)
    return rows if apart else torch.from_numpy(rows.double().numpy().sum(keepdims=True)).float()


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 where a system is solved already, as for a row without data; what is not finite stays so."""
    return torch.where(below == 0, torch.zeros_like(above), above / below)
