"""Exact top-k: approximate scores, a slack for ties, exact scores of what remains.

Engines add up a product in an order that depends on the batch, on threads and on the instruction set, and break ties as
their heaps fall. Results are scored here instead, each row by itself, and ordered by falling score and then by row, so that
a query has one answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int64
from recall.index.base import Ranked
from recall.index.bitmap import Mask, RowBitmap

LANES = 8
"""faiss's kernels are several times faster when vectors fill whole registers of eight floats."""

_FEW = 256  # rows that are all scored exactly, which takes less time than finding out which of them need to be
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
        approximate: float32 [m], scores as they are cheapest to compute; overwritten where a position is not eligible.
        n: positions to return, at least 1.
        score: returns the exact scores of positions, int64 [c] -> floats [c]; None if `approximate` is exact already. Then
            a score of -inf is never returned.
        slack: two approximate scores that are in the wrong order differ by at most this much, rounding of their own aside.
        eligible: bool [m], the positions that may be returned; all of them if None.

    Returns:
        Positions int64 [min(n, eligible)] by falling score and then by position, and their scores.
    """
    width = len(approximate) if eligible is None else int(np.count_nonzero(eligible))
    if eligible is not None:
        approximate[~eligible] = -np.inf
    width = min(n, width)
    if not width:
        return _NONE, np.empty(0, dtype=np.float32)
    least = np.partition(approximate, len(approximate) - width)[len(approximate) - width]
    if score is None:
        better = np.flatnonzero(approximate > least)
        # most positions may score the same: sorting all of those would take a thousand times longer
        ties = np.flatnonzero(approximate == least)[: n - len(better)] if least > -np.inf else _NONE
        order = np.concatenate([better[np.lexsort((better, -approximate[better]))], ties])
        return order, approximate[order]
    with np.errstate(invalid="ignore"):  # the bound of an infinite score is NaN: then all positions are near
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
        longest: the largest Euclidean length of a vector, or more.
        added: float32 [size], an offset of the score of each row; none if None.
        within: the rows that may be returned; all of them if None.
        excluded: int64 [m], rows that must not be returned, in any order, repeats allowed.

    Returns:
        The rows by falling score and then by row.
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
        excluded: int64 [e], rows to leave out, rising.
        n: rows to return at most.
        exact: whether the result is marked as exact.

    Returns:
        The rows by falling score and then by row.
    """
    rows = candidates[candidates >= 0]
    if len(excluded):
        places = np.minimum(np.searchsorted(excluded, rows), len(excluded) - 1)
        rows = rows[excluded[places] != rows]
    # imported here, for numba takes half a second
    from recall.index.cells.simd import best_of

    found, scores = best_of(vectors, query, rows, n)
    return Ranked(found, scores, exact)


def products(vectors: Float32, query: Float32) -> Float32:
    """Return inner products, added up as every search does: float32 [m].

    Args:
        vectors: float32 [m, d].
        query: float32 [d].
    """
    ranked = rank(np.ascontiguousarray(vectors), query, np.arange(len(vectors)), _NONE, len(vectors))
    scores = np.empty(len(vectors), dtype=np.float32)
    scores[ranked.rows] = ranked.scores
    return scores


def merge(parts: Sequence[Ranked], n: int) -> Ranked:
    """Merge lists of distinct rows into one, in the order of a search.

    Args:
        parts: at least one; none has more than n rows.
        n: length of the result at most.
    """
    if len(parts) == 1:
        return parts[0]
    rows, scores = np.concatenate([one.rows for one in parts]), np.concatenate([one.scores for one in parts])
    order = np.lexsort((rows, -scores))[:n]
    return Ranked(rows[order], scores[order], all(one.exact for one in parts))


def pad(vectors: Float32) -> Float32:
    """Append zeros up to a multiple of eight components, which changes no product.

    Returns:
        float32 [size, dim rounded up], contiguous.
    """
    count, dim = vectors.shape
    padded = np.zeros((count, dim + -dim % LANES), dtype=np.float32)
    padded[:, :dim] = vectors
    return padded


def rounding(queries: Float32, longest: float) -> Float32:
    """Bound the difference between two ways to add up one inner product.

    Each is within d u |q| |v| of the truth, u being half of float32's spacing at 1 (Higham 2002, section 3.1).

    Args:
        queries: float32 [..., d].
        longest: the largest Euclidean length of a vector.

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
