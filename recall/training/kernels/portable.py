"""The inner loops from torch's own sparse products, several times slower than compiled ones."""

import warnings

import numpy as np
import torch
from torch import Tensor

from recall.training.kernels.contract import Entries, Float32, Int32


class PortableKernels:
    """Kernels that need nothing but torch, which uses its threads inside each call."""

    name = f"torch {torch.__version__}"
    threads = 1

    def gather(self, x: Entries, features: Int32, table: Float32, out: Float32) -> None:
        """See `Kernels.gather`."""
        used = torch.from_numpy(table)[torch.from_numpy(features).long()]
        torch.mm(_csr(x, len(features)), used, out=torch.from_numpy(out))

    def scatter(self, x: Entries, rows: Float32, out: Float32) -> None:
        """See `Kernels.scatter`."""
        total = torch.from_numpy(out)
        total += _csr(x, len(out)).t().to_sparse_csr() @ torch.from_numpy(rows)

    def fit(
        self,
        pairs: Entries,
        owners: Int32,
        signs: tuple[float, float],
        left: tuple[Float32, Float32],
        right: tuple[Float32, Float32],
        out: tuple[Float32, Float32],
    ) -> float:
        """See `Kernels.fit`."""
        rows = torch.from_numpy(owners).long()
        left_own, left_vectors = (torch.from_numpy(part)[rows] for part in left)
        right_own, right_vectors = (torch.from_numpy(part) for part in right)
        pattern = _csr(pairs, len(right_own))
        zeros = _with_values(pattern, torch.zeros_like(pattern.values()))
        scores: Tensor = torch.sparse.sampled_addmm(zeros, left_vectors, right_vectors.t(), beta=0.0).values()
        scores = scores + right_own[pattern.col_indices()] + left_own.repeat_interleave(pattern.crow_indices().diff())
        constant, slope = signs
        errors = constant + slope * scores
        pulls = _with_values(pattern, pattern.values() * errors)
        out_own, out_vectors = (torch.from_numpy(part) for part in out)
        out_own.index_add_(0, rows, (pulls @ right_own.new_ones(len(right_own), 1))[:, 0])
        out_vectors.index_add_(0, rows, pulls @ right_vectors)
        return float((pulls.values() * errors).double().sum())

    def shade(self, scale: Float32, base: Float32, spectrum: Float32, rows: Float32, out: Float32) -> None:
        """See `Kernels.shade`."""
        np.multiply(rows, spectrum, out=out)
        out += base
        out *= scale[:, None]

    def gram(self, weights: Float32, rows: Float32, border: Float32, out: Float32) -> None:
        """See `Kernels.gram`."""
        weighted = rows * weights[:, None]
        border += weighted.sum(axis=0)
        torch.from_numpy(out).addmm_(torch.from_numpy(weighted).t(), torch.from_numpy(rows))


def _csr(entries: Entries, columns: int) -> Tensor:
    """A torch CSR matrix with int32 indices, which is what MKL multiplies without a copy."""
    first, last = int(entries.indptr[0]), int(entries.indptr[-1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        matrix: Tensor = torch.sparse_csr_tensor(
            torch.from_numpy((entries.indptr - first).astype(np.int32)),
            torch.from_numpy(entries.indices[first:last]),
            torch.from_numpy(entries.weights[first:last]),
            size=(entries.n, columns),
            check_invariants=False,
        )
    return matrix


def _with_values(pattern: Tensor, values: Tensor) -> Tensor:
    matrix: Tensor = torch.sparse_csr_tensor(
        pattern.crow_indices(), pattern.col_indices(), values, size=pattern.shape, check_invariants=False
    )
    return matrix
