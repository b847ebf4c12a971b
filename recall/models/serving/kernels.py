# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled loop over the features of one request, instead of a dozen numpy calls."""

import numpy as np
from numba import float32, int32

from recall._numba import compiled, read


@compiled(read(int32), read(float32), read(float32, 2), read(float32))
def parts(features, values, factors, weights):
    """Return the vector and the offset of one user row.

    Args:
        features: int32 [nnz].
        values: x of each, float32 [nnz].
        factors: v of all features, float32 [n_features, k].
        weights: w of all features, float32 [n_features].

    Returns:
        [1 ; sum_u v_u x_u] as float32 [k + 1], and in float64 sum_u w_u x_u and 1/2 (|sum_u v_u x_u|^2 - sum_u x_u^2 |v_u|^2).

    Raises:
        IndexError: A feature is outside the tables.
    """
    k = factors.shape[1]
    total, squares = np.zeros(k), np.zeros(k)
    first = 0.0
    for at in range(len(features)):
        feature, value = features[at], np.float64(values[at])
        if not 0 <= feature < len(factors):
            raise IndexError("a feature beyond the tables")
        first += value * weights[feature]
        for factor in range(k):
            part = value * factors[feature, factor]
            total[factor] += part
            squares[factor] += part * part
    vector = np.empty(k + 1, dtype=np.float32)
    vector[0] = 1.0
    pairs = 0.0
    for factor in range(k):
        vector[1 + factor] = total[factor]
        pairs += total[factor] * total[factor] - squares[factor]
    return vector, first, 0.5 * pairs
