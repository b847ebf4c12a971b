"""Conjugate gradients on a table of unknowns, without ever forming the matrix."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Float32
from recall.training.als.kernels import Kernels
from recall.training.als.shards import Workers

_RANGES = 64  # of rows; the cut, and so the sum, is the same for any number of threads
_ROWS = 2048  # or fewer ranges of at least this many rows


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


# Gram matrices of many rows.

_PIECE = 2048  # rows multiplied at a time: the cut, and so the sum, is the same for any number of threads


def bordered_gram(weights: Float32, rows: Float32, kernels: Kernels, workers: Workers) -> npt.NDArray[np.float64]:
    """Return [1 ; rows]' diag(weights) [1 ; rows], float64 [d + 1, d + 1].

    Args:
        weights: float32 [n].
        rows: float32 [n, d].
        kernels: do the sums.
        workers: share them.
    """
    d = rows.shape[1]

    def piece(first: int) -> tuple[Float32, Float32]:
        border, square = np.zeros(d, dtype=np.float32), np.zeros((d, d), dtype=np.float32)
        kernels.gram(weights[first : first + _PIECE], rows[first : first + _PIECE], border, square)
        return border, square

    gram = np.zeros((d + 1, d + 1))
    for border, square in workers.map(piece, range(0, len(rows), _PIECE)):
        gram[1:, 0] += border
        gram[1:, 1:] += square
    gram[0, 0] = weights.sum(dtype=np.float64)
    below = np.tril(gram)
    return below + np.tril(gram, -1).T
