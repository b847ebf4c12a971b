"""Sums over the entries of feature rows by field, single or in bulk."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from recall._arrays import Float32, Float64, Floats, Integers
from recall.features.csr import FeatureLayout, SparseRows

_CHUNK_ROWS = 1 << 16
_CHUNK_VALUES = 1 << 22  # tens of MB of temporary memory


def filled(rows: SparseRows, dim: int, width: int, fill: Callable[[SparseRows, Float32], None]) -> Float32:
    """Vectors of many rows, a chunk at a time on all cores.

    Args:
        rows: n of them.
        dim: length of a vector.
        width: numbers that `fill` holds for each row.
        fill: writes the vectors of some rows into float32 [rows, dim].

    Returns:
        float32 [n, dim].
    """
    vectors = np.empty((len(rows), dim), dtype=np.float32)
    chunk = max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // max(width, 1)))

    def work(first: int) -> None:
        fill(_part(rows, first, chunk), vectors[first : first + chunk])

    if len(rows) <= chunk:
        fill(rows, vectors)
        return vectors
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy releases the interpreter lock while it gathers and adds
        for _ in pool.map(work, range(0, len(rows), chunk)):
            pass
    return vectors


def field_sums(rows: SparseRows, fields: FeatureLayout, table: Float32) -> Float32:
    """Return sum_{j in f} x_j table[j] for every row and field.

    Args:
        rows: n rows.
        fields: of their side.
        table: float32 [n_features, ...].

    Returns:
        float32 [n, fields, ...].
    """
    shape = (len(rows), len(fields), *table.shape[1:])
    width = int(np.prod(table.shape[1:]))
    if len(rows) == 1:  # one request: fewer calls are all that matters
        apart = np.zeros((len(fields), rows.nnz), dtype=np.float32)
        apart[fields.of(rows.indices), np.arange(rows.nnz)] = rows.weights
        return np.asarray(apart @ table[rows.indices].reshape(rows.nnz, width), dtype=np.float32).reshape(shape)
    return fields.split(rows).weighted_sum(table.reshape(len(table), width)).reshape(shape)


def exact_field_sums(rows: SparseRows, fields: FeatureLayout, table: Float32) -> Float64:
    """Return `field_sums` in float64, entry by entry, as a reference.

    Args:
        rows: n rows.
        fields: of their side.
        table: float32 [n_features, ...].
    """
    sums = np.zeros((len(rows), len(fields), *table.shape[1:]))
    values = rows.weights.astype(np.float64).reshape(-1, *[1] * (table.ndim - 1)) * table[rows.indices]
    np.add.at(sums, (rows.owners, fields.of(rows.indices)), values)
    return sums


def row_sums(rows: SparseRows, values: Float64) -> Float64:
    """Return the sum of the values of each row's entries.

    Args:
        rows: n rows.
        values: float64 [nnz].

    Returns:
        float64 [n].
    """
    if len(rows) == 1:
        return np.asarray(values.sum(keepdims=True), dtype=np.float64)
    return np.bincount(rows.owners, weights=values, minlength=len(rows)).astype(np.float64, copy=False)


def norms(factors: Floats) -> Float64:
    """|v|^2 of every row in float64: float [m, k] -> [m]."""
    return np.asarray(np.einsum("ij,ij->i", factors, factors, dtype=np.float64), dtype=np.float64)


def entry_norms(rows: SparseRows, factors: Callable[[Integers], Float32]) -> Callable[[SparseRows], Float64]:
    """Return a function of a part of some rows that gives |v|^2 of each entry.

    It computes the norms of all features at once where the rows use most of them.

    Args:
        rows: all rows that there will be parts of.
        factors: v of some features, integer [m] -> float32 [m, k].

    Returns:
        Function of a part: float64 [nnz of the part].
    """
    if rows.nnz < rows.n_features:  # a single item, and a table that may hold millions of features
        return lambda part: norms(factors(part.indices))
    every = norms(factors(np.arange(rows.n_features)))
    return lambda part: every[part.indices]


def squares_of(rows: SparseRows, norms_of_entries: Float64) -> Float64:
    """Return x_j^2 |v_j|^2 of every entry.

    Args:
        rows: the entries.
        norms_of_entries: |v_j|^2 of every entry, float64 [nnz].
    """
    return np.square(rows.weights, dtype=np.float64) * norms_of_entries


def _part(rows: SparseRows, first: int, chunk: int) -> SparseRows:
    """Rows `first` to `first + chunk`, without copying their entries."""
    indptr = rows.indptr[first : first + chunk + 1]
    entries = slice(int(indptr[0]), int(indptr[-1]))
    return SparseRows(indptr - indptr[0], rows.indices[entries], rows.weights[entries], rows.n_features)
