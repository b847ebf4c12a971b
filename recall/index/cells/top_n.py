# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled selection of the n best, by bounds and by exact scores."""

import numpy as np
from numba import float32, int64

from recall._numba import compiled, read
from recall.index.cells.simd import LANES, lane_sums, prefetch

TABLE, REALS, ROWS = read(float32, 2), read(float32, 1), read(int64, 1)


@compiled()
def nth_largest(values, count, n):
    """Return the n-th largest of some values (Hoare 1961, Algorithm 65).

    Args:
        values: one-dimensional; the first `count` are left in another order.
        count: how many of them there are.
        n: from 1 to count.
    """
    low, high, wanted = 0, count - 1, n - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]


@compiled()
def keep(lower, upper, places, count, n, spare):
    """Drop what cannot be among the n best any more.

    Args:
        lower: float32 [size], lower bounds of scores.
        upper: float32 [size], upper bounds.
        places: int64 [size], what they are bounds of; all three are compacted in place.
        count: entries that are filled.
        n: length of the list.
        spare: float32 [size], overwritten.

    Returns:
        How many are left, and the n-th largest lower bound.
    """
    if count < n:
        return count, np.float32(-np.inf)
    spare[:count] = lower[:count]
    least = nth_largest(spare, count, n)
    kept = 0
    for at in range(count):
        if upper[at] >= least:
            lower[kept], upper[kept], places[kept] = lower[at], upper[at], places[at]
            kept += 1
    return kept, least


@compiled()
def score(vectors, row, query, sums):
    """Return an inner product, added up in one fixed order whatever the padding.

    Args:
        vectors: float32 [size, dim or more].
        row: in [0, size).
        query: float32 [dim].
        sums: float32 [LANES], overwritten.
    """
    dim = len(query)
    full = dim // LANES
    start = vectors.ctypes.data + 4 * row * vectors.shape[1]
    lane_sums(start, query.ctypes.data, full, sums.ctypes.data)
    for at in range(LANES * full, dim):
        sums[at - LANES * full] += vectors[row, at] * query[at]
    for step in (8, 4, 2, 1):
        for at in range(step):
            sums[at] += sums[at + step]
    return sums[0]


@compiled(TABLE, REALS, ROWS, int64)
def best_of(vectors, query, candidates, n):
    """Return the n best candidates by falling score and then by row: (rows, scores).

    Args:
        vectors: float32 [size, dim].
        query: float32 [dim].
        candidates: int64 [m], distinct.
        n: at most this many are returned.
    """
    keys = np.empty(len(candidates), dtype=np.int64)
    sums = np.empty(LANES, dtype=np.float32)
    one = np.empty(1, dtype=np.float32)
    as_bits = one.view(np.int32)
    width = 4 * vectors.shape[1]
    for at in range(len(candidates)):  # rows are scattered: they are fetched together, not one after the other
        start = vectors.ctypes.data + candidates[at] * width
        for line in range(0, width + 60, 64):
            prefetch(start + min(line, width - 4))
    for at in range(len(candidates)):
        one[0] = score(vectors, candidates[at], query, sums) + np.float32(0.0)  # so that -0 is 0
        bits = np.int64(as_bits[0])
        rising = bits if bits >= 0 else np.int64(-2147483648) - bits
        keys[at] = (-rising << 32) | candidates[at]
    keys.sort()
    count = min(n, len(keys))
    rows, scores = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
    for at in range(count):
        rows[at] = keys[at] & 0xFFFFFFFF
        rising = -(keys[at] >> 32)
        as_bits[0] = rising if rising >= 0 else np.int64(-2147483648) - rising
        scores[at] = one[0]
    return rows, scores
