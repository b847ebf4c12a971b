"""Exact search by a score that is an inner product and a number of each row."""

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.ranking import Ranked, rounding
from recall.index.selection import Selection


def scan(
    vectors: Float32, query: Float32, added: Float32, n: int, excluded: Int64, within: Selection | None, longest: float
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
