"""Gram matrices and their principal axes."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall.training.kernels.contract import Float32, Kernels
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


def principal_axes(gram: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Eigenvalues [d] and orthonormal eigenvectors [d, d], one in each column, of a symmetric matrix; both float32.

    A matrix with numbers that are not finite is left on its own axes, for the caller to report.
    """
    if not np.isfinite(gram).all():
        return torch.from_numpy(gram.diagonal().astype(np.float32)), torch.eye(len(gram))
    values, vectors = np.linalg.eigh(gram)
    return torch.from_numpy(values.clip(0).astype(np.float32)), torch.from_numpy(vectors.astype(np.float32))
