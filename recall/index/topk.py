"""The last step of every search: score candidates again in one fixed way, and put them in order.

Engines add up a product in an order that depends on the batch, on threads and on the instruction set, and break ties as
their heaps fall. What is returned is scored here instead, each row by itself, so that a query has one answer.
"""

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.base import Ranked
from recall.index.bitmap import RowBitmap

LANES = 8
"""faiss's kernels are several times faster when vectors fill whole registers of eight floats."""


def rank(vectors: Float32, query: Float32, candidates: Int64, excluded: Int64, n: int, *, exact: bool = False) -> Ranked:
    """The best n of the candidates that are not excluded, by falling score and then by row.

    Args:
        vectors: float32 [size, d].
        query: float32 [d].
        candidates: distinct rows; -1 stands for none.
        excluded: rows to leave out, rising.
        n: at most this many are returned.
        exact: what to say of the result.
    """
    rows = candidates[candidates >= 0]
    if len(excluded):
        places = np.minimum(np.searchsorted(excluded, rows), len(excluded) - 1)
        rows = rows[excluded[places] != rows]
    # imported here, for numba takes half a second
    from recall.index.cells.kernels import best_of

    found, scores = best_of(vectors, query, rows, n)
    return Ranked(found, scores, exact)


def pad(vectors: Float32) -> Float32:
    """The vectors followed by zeros up to a multiple of eight components, which changes no inner product: contiguous."""
    count, dim = vectors.shape
    padded = np.zeros((count, dim + -dim % LANES), dtype=np.float32)
    padded[:, :dim] = vectors
    return padded


def rounding(queries: Float32, longest: float) -> Float32:
    """How far apart two ways to add up one inner product may lie, for each query: [..., d] -> [...].

    Each lies within d u |q| |v| of the truth, u being half of float32's spacing at 1 (Higham 2002, section 3.1).

    Args:
        queries: float32 [..., d].
        longest: the largest Euclidean length of a vector.
    """
    spacing = float(np.finfo(np.float32).eps)
    lengths = np.linalg.norm(np.asarray(queries, dtype=np.float64), axis=-1)  # the square of a float32 may exceed float32
    with np.errstate(over="ignore"):  # then any two scores may lie within rounding of each other
        return np.asarray(queries.shape[-1] * spacing * longest * lengths).astype(np.float32)


def longest_of(vectors: Float32) -> float:
    """The largest Euclidean length of a vector."""
    return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64).max()))


# Exact search by a score that is an inner product and a number of each row.


def scan(
    vectors: Float32, query: Float32, added: Float32, n: int, excluded: Int64, within: RowBitmap | None, longest: float
) -> Ranked:
    """The n rows with the largest <query, vector> + added, by falling score and then by row; surely the best.

    Args:
        vectors: float32 [size, dim].
        query: float32 [dim], finite.
        added: float32 [size], finite.
        n: at least 1.
        excluded: rows that must not be returned, in any order and with repeats.
        within: the rows that may be returned; None for all.
        longest: the largest Euclidean length of a vector, or more.
    """
    few = within is not None and 4 * within.count <= within.size  # gathering costs about as much as four products
    rows = within.rows if few and within is not None else None
    found = vectors @ query + added if rows is None else vectors[rows] @ query + added[rows]
    if rows is None:
        found[excluded] = -np.inf
        if within is not None:
            found[~within.mask] = -np.inf
    elif len(excluded):
        found[np.isin(rows, excluded)] = -np.inf
    # products of one row may differ by how they are added up: whatever could be among the best is scored again
    width = min(n, len(found))
    least = np.partition(found, len(found) - width)[len(found) - width] if width else np.float32(0)
    slack = 2 * rounding(query, longest) + 4 * np.finfo(np.float32).eps * (abs(least) if np.isfinite(least) else 0)
    near = np.flatnonzero((found >= least - slack) & (found > -np.inf))
    chosen = near if rows is None else rows[near]
    scores = np.einsum("ij,j->i", vectors[chosen], query) + added[chosen]
    order = np.lexsort((chosen, -scores))[:n]
    return Ranked(chosen[order], scores[order], exact=True)
