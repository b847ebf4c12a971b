"""Exact top-k: select by approximate scores with a slack, then score exactly.

Engines sum a product in an order that depends on the batch, the threads and the instruction set, and break ties arbitrarily.
Their results are scored again here, each row by itself, and sorted by descending score and then by row, so that the answer to
a query is deterministic.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int64
from recall.index.base import Ranked
from recall.index.bitmap import Mask, RowBitmap

LANES = 8
"""Vectors are padded to a multiple of this: faiss's kernels are several times faster on whole registers of eight floats."""

_FEW = 256  # rows up to which all are scored exactly: an approximate selection would take longer
_NONE: Int64 = np.empty(0, dtype=np.int64)

Scores = npt.NDArray[np.floating[Any]]


def top_k(
    approximate: Float32,
    n: int,
    score: Callable[[Int64], Scores] | None = None,
    slack: float = 0.0,
    eligible: Mask | None = None,
) -> tuple[Int64, Scores]:
    """Return the n best positions and their exact scores.

    Args:
        approximate: float32 [m], approximate scores; overwritten where a position is not eligible.
        n: positions to return, at least 1.
        score: returns the exact scores of positions, int64 [c] -> floats [c]; None if `approximate` is exact already. Then
            a position with a score of -inf is never returned.
        slack: largest difference of two approximate scores whose order is wrong, besides the rounding of float32.
        eligible: bool [m], the positions that may be returned; all of them if None.

    Returns:
        Positions int64 [min(n, eligible)] by descending score and then by position, and their scores.
    """
    width = min(n, len(approximate))
    if eligible is not None:
        width = min(n, int(np.count_nonzero(eligible)))
        approximate[~eligible] = -np.inf
    if not width:
        return _NONE, np.empty(0, dtype=np.float32)
    least = np.partition(approximate, len(approximate) - width)[len(approximate) - width]
    if score is None:
        better = np.flatnonzero(approximate > least)
        # most positions may tie: sorting all of them would take a thousand times longer
        ties = np.flatnonzero(approximate == least)[: n - len(better)] if least > -np.inf else _NONE
        order = np.concatenate([better[np.lexsort((better, -approximate[better]))], ties])
        return order, approximate[order]
    with np.errstate(invalid="ignore"):  # the bound of an infinite score is NaN: then all positions are scored exactly
        bound = least - slack - 4 * np.finfo(np.float32).eps * abs(least)
    overflow = not np.isfinite(bound) or np.isnan(approximate.max())
    near = np.arange(len(approximate)) if overflow else np.flatnonzero(approximate >= bound)
    if eligible is not None:
        near = near[eligible[near]]
    scores = score(near)
    order = np.lexsort((near, -scores))[:n]
    return near[order], scores[order]


def scan(
    vectors: Float32,
    query: Float32,
    n: int,
    longest: float,
    *,
    added: Float32 | None = None,
    within: RowBitmap | None = None,
    excluded: Int64 = _NONE,
) -> Ranked:
    """Return the n rows with the largest inner product, or product plus offset.

    Args:
        vectors: float32 [size, dim].
        query: float32 [dim], finite.
        n: rows to return, at least 1.
        longest: upper bound of the vectors' Euclidean lengths.
        added: float32 [size], an offset of the score of each row; None for zeros.
        within: the rows that may be returned; all of them if None.
        excluded: int64 [m], rows that must not be returned, in any order, repeats allowed.

    Returns:
        The rows by descending score and then by row.
    """
    size = len(vectors)
    count = size if within is None else within.count
    if added is None and count <= max(_FEW, n + len(excluded)):
        every = np.arange(size) if within is None else within.rows
        return rank(vectors, query, every, np.unique(excluded), n, exact=True)
    # gathering a row costs about as much as four products
    rows = within.rows if within is not None and 4 * count <= size else None
    if rows is not None:
        some, offsets, eligible = vectors[rows], None if added is None else added[rows], ~np.isin(rows, excluded)
    else:
        some, offsets = vectors, added
        eligible = np.ones(size, dtype=bool) if within is None else within.mask
        eligible[excluded] = False

    def score(near: Int64) -> Float32:
        if offsets is None:
            return products(some[near], query)
        return np.asarray(np.einsum("ij,j->i", some[near], query) + offsets[near], dtype=np.float32)

    with np.errstate(over="ignore", invalid="ignore"):
        approximate = some @ query if offsets is None else some @ query + offsets
    places, scores = top_k(approximate, n, score, 2 * float(rounding(query, longest)), eligible)
    return Ranked(places if rows is None else rows[places], np.asarray(scores, dtype=np.float32), exact=True)


def rank(vectors: Float32, query: Float32, candidates: Int64, excluded: Int64, n: int, *, exact: bool = False) -> Ranked:
    """Score candidates exactly and return the best n that are not excluded.

    Args:
        vectors: float32 [size, d].
        query: float32 [d].
        candidates: int64 [m], distinct rows; -1 is padding.
        excluded: int64 [e], rows to leave out, sorted.
        n: maximum number of rows to return.
        exact: whether the result is marked as exact.

    Returns:
        The rows by descending score and then by row.
    """
    rows = candidates[candidates >= 0]
    if len(excluded):
        places = np.minimum(np.searchsorted(excluded, rows), len(excluded) - 1)
        rows = rows[excluded[places] != rows]
    from recall.index.cells.simd import best_of  # imported here: numba takes half a second

    found, scores = best_of(vectors, query, rows, n)
    return Ranked(found, scores, exact)


def products(vectors: Float32, query: Float32) -> Float32:
    """Return inner products, bit-identical to those of a search: float32 [m].

    Args:
        vectors: float32 [m, d].
        query: float32 [d].
    """
    ranked = rank(np.ascontiguousarray(vectors), query, np.arange(len(vectors)), _NONE, len(vectors))
    scores = np.empty(len(vectors), dtype=np.float32)
    scores[ranked.rows] = ranked.scores
    return scores


def merge(parts: Sequence[Ranked], n: int) -> Ranked:
    """Merge lists of distinct rows into one, by descending score and then by row.

    Args:
        parts: at least one, of at most n rows each.
        n: maximum length of the result.
    """
    if len(parts) == 1:
        return parts[0]
    rows, scores = np.concatenate([one.rows for one in parts]), np.concatenate([one.scores for one in parts])
    order = np.lexsort((rows, -scores))[:n]
    return Ranked(rows[order], scores[order], all(one.exact for one in parts))


def pad(vectors: Float32) -> Float32:
    """Append zeros up to a multiple of `LANES` components, which changes no product.

    Returns:
        float32 [size, dim rounded up], contiguous.
    """
    count, dim = vectors.shape
    padded = np.zeros((count, dim + -dim % LANES), dtype=np.float32)
    padded[:, :dim] = vectors
    return padded


def rounding(queries: Float32, longest: float) -> Float32:
    """Bound the difference between two orders of summation of an inner product.

    Each sum is within d u |q| |v| of the exact value, where u is half of float32's spacing at 1 (Higham 2002, section 3.1).

    Args:
        queries: float32 [..., d].
        longest: upper bound of the vectors' Euclidean lengths.

    Returns:
        A bound for each query: float32 [...].
    """
    spacing = float(np.finfo(np.float32).eps)
    lengths = np.linalg.norm(np.asarray(queries, dtype=np.float64), axis=-1)  # the square of a float32 may exceed float32
    with np.errstate(over="ignore"):  # then any two scores may be within rounding of each other
        return np.asarray(queries.shape[-1] * spacing * longest * lengths).astype(np.float32)


def longest_of(vectors: Float32) -> float:
    """Return the largest Euclidean length of a vector."""
    return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64).max()))
