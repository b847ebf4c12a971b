"""Sparse matrices for the whole-catalogue solver, cut into blocks of rows.

Every product over contexts is a map over blocks followed by a sum. A block's temporary results are small enough for
their memory to be reused, where products over the whole matrix would fault in hundreds of megabytes at every step.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall.features.sparse import SparseRows


def csr(indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer], values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A torch CSR matrix with int32 indices, which is what MKL multiplies without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        matrix: Tensor = torch.sparse_csr_tensor(
            torch.from_numpy(indptr.astype(np.int32)),
            torch.from_numpy(indices.astype(np.int32, copy=False)),
            values,
            size=shape,
            check_invariants=False,
        )
    return matrix


def with_values(pattern: Tensor, values: Tensor) -> Tensor:
    """The CSR matrix with the positions of `pattern` and other values [nnz]."""
    matrix: Tensor = torch.sparse_csr_tensor(
        pattern.crow_indices(), pattern.col_indices(), values, size=pattern.shape, check_invariants=False
    )
    return matrix


def sampled_products(pattern: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """<left[r], right[c]> at every position (r, c) of a CSR pattern: left [rows, d], right [columns, d] -> [nnz]."""
    zeros = with_values(pattern, left.new_zeros(pattern.values().shape))
    products: Tensor = torch.sparse.sampled_addmm(zeros, left, right.t(), beta=0.0).values()
    return products


def transposed(
    indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer], values: npt.NDArray[np.float32], columns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """CSR arrays of the transpose. A stable sort, so that equal input gives equal bits."""
    order = np.argsort(indices, kind="stable")
    rows = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
    counts = np.bincount(indices, minlength=columns)
    return np.concatenate([[0], np.cumsum(counts)]), rows[order], values[order]


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """A block of consecutive rows of a feature matrix X, with its transpose.

    Attributes:
        first, last: the rows are [first, last).
        x: CSR [last - first, n_features].
        xt: CSR [n_features, last - first].
    """

    first: int
    last: int
    x: Tensor
    xt: Tensor


class FeatureMatrix:
    """X of one side, [n, n_features], in blocks of rows. No row may hold a feature twice, or its square would be wrong."""

    def __init__(self, rows: SparseRows, block_rows: int) -> None:
        self.shape = (len(rows), rows.n_features)
        self.blocks: list[FeatureBlock] = []
        for first in range(0, len(rows), block_rows):
            last = min(first + block_rows, len(rows))
            start, stop = rows.indptr[first], rows.indptr[last]
            indptr, indices, weights = rows.indptr[first : last + 1] - start, rows.indices[start:stop], rows.weights[start:stop]
            t_indptr, t_indices, t_weights = transposed(indptr, indices, weights, rows.n_features)
            x = csr(indptr, indices, torch.from_numpy(weights), (last - first, rows.n_features))
            xt = csr(t_indptr, t_indices, torch.from_numpy(t_weights), (rows.n_features, last - first))
            self.blocks.append(FeatureBlock(first, last, x, xt))

    def __iter__(self) -> Iterator[FeatureBlock]:
        return iter(self.blocks)

    def times(self, table: Tensor) -> Tensor:
        """X table: [n_features, d] -> [n, d]."""
        result = table.new_empty(self.shape[0], table.shape[1])
        for block in self.blocks:
            torch.mm(block.x, table, out=result[block.first : block.last])
        return result

    def squared_times(self, table: Tensor) -> Tensor:
        """(X o X) table: [n_features, d] -> [n, d]."""
        return torch.cat([_squared(block.x) @ table for block in self.blocks])

    def transposed_times(self, rows: Tensor) -> Tensor:
        """X' rows: [n, d] -> [n_features, d]."""
        total = rows.new_zeros(self.shape[1], rows.shape[1])
        for block in self.blocks:
            total += block.xt @ rows[block.first : block.last]
        return total

    def squared_transposed_times(self, rows: Tensor) -> Tensor:
        """(X o X)' rows: [n, d] -> [n_features, d]."""
        total = rows.new_zeros(self.shape[1], rows.shape[1])
        for block in self.blocks:
            total += _squared(block.xt) @ rows[block.first : block.last]
        return total


def _squared(matrix: Tensor) -> Tensor:
    return with_values(matrix, matrix.values().square())
