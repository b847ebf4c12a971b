"""Conjugate gradients on a table of unknowns, without ever forming the matrix."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(operator: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, steps: int) -> Tensor:
    """Approximate A^-1 target for a symmetric positive definite A, from zero.

    Hestenes and Stiefel 1952, preconditioned by a diagonal.

    Args:
        operator: D -> A D, both shaped as target.
        target: [n, d].
        diagonal: the preconditioner's diagonal, positive, [n, d].
        steps: products with A; each shrinks the error further.

    Returns:
        [n, d].
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    scaled = residual / diagonal
    direction = scaled.clone()
    energy = torch.sum(residual * scaled)
    for _ in range(steps):
        if energy <= 0:  # solved already, as for a table without data
            break
        product = operator(direction)
        length = energy / torch.sum(direction * product)
        solution.add_(direction * length)
        residual.sub_(product * length)
        scaled = residual / diagonal
        following = torch.sum(residual * scaled)
        direction.mul_(following / energy).add_(scaled)
        energy = following
    return solution
