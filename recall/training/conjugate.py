"""Conjugate gradients on a table of unknowns, without ever forming the matrix."""

from collections.abc import Callable

import torch
from torch import Tensor

from recall._arrays import Float32
from recall.training.kernels.contract import (
    Kernels,
)
from recall.training.workers import Workers

_RANGES = 64  # of rows; the cut, and so the sum, is the same for any number of threads
_ROWS = 512  # or fewer ranges of at least this many rows


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    target: Tensor,
    diagonal: Tensor,
    steps: int,
    kernels: Kernels,
    workers: Workers,
) -> tuple[Tensor, float]:
    """Approximate A^-1 target for a symmetric positive definite A, from zero.

    Hestenes and Stiefel 1952, preconditioned by a diagonal.

    Args:
        operator: D -> A D, both shaped as target.
        target: [n, d]; is used up.
        diagonal: the preconditioner's diagonal, positive, [n, d].
        steps: products with A; each shrinks the error further.
        kernels: do the sums over tables.
        workers: share them.

    Returns:
        The solution D [n, d], and by how much it is lower than nothing on <D, A D> - 2 <D, target>.
    """
    solution, residual = torch.zeros_like(target), target
    direction, below = residual / diagonal, diagonal.contiguous().numpy()
    x, left, along = solution.numpy(), residual.numpy(), direction.numpy()
    size = max(_ROWS, -(-len(target) // _RANGES))
    parts = [slice(first, first + size) for first in range(0, len(target), size)]
    energy = sum(workers.map(lambda part: kernels.dot(left[part], along[part]), parts))
    decrease = 0.0
    for _ in range(steps):
        product = operator(direction).contiguous().numpy()

        def curved(part: slice, product: Float32 = product) -> float:
            return kernels.dot(along[part], product[part])

        curvature = sum(workers.map(curved, parts))
        if curvature == 0:  # solved already, as for a table without data; what is not a number goes on, to be reported
            break
        length = energy / curvature

        def advanced(part: slice, product: Float32 = product, length: float = length) -> float:
            return kernels.advance(x[part], left[part], along[part], product[part], below[part], length)

        decrease += length * energy
        following = sum(workers.map(advanced, parts))
        ratio = following / energy if energy else 0.0

        def redirected(part: slice, ratio: float = ratio) -> None:
            kernels.redirect(along[part], left[part], below[part], ratio)

        workers.run(redirected, parts)
        energy = following
    return solution, decrease
