"""Gram matrices of many rows."""

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32
from recall.training.kernels.contract import (
    Kernels,
)
from recall.training.workers import Workers

_PIECE = 2048  # rows multiplied at a time: the cut, and so the sum, is the same for any number of threads


def bordered_gram(weights: Float32, rows: Float32, kernels: Kernels, workers: Workers) -> npt.NDArray[np.float64]:
    """[1 ; rows]' diag(weights) [1 ; rows]: [n] and [n, d] -> float64 [d + 1, d + 1]."""
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
