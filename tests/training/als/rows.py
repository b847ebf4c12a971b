"""Random rows, and comparisons with definitions in float64."""

import numpy as np

from recall.training.als.sparse_kernels import Entries


def entries(rng, n, columns, longest=9):
    """Draw rows of 0 to `longest` entries within a longer array, so that indptr does not start at 0."""
    lengths = rng.integers(0, longest + 1, n + 3)
    indices = np.concatenate([rng.choice(columns, length, replace=False) for length in lengths]).astype(np.int32)
    whole = Entries(np.concatenate([[0], np.cumsum(lengths)]), indices, normal(rng, lengths.sum()))
    return whole.rows(3, n + 3)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def dense(x, columns):
    result = np.zeros((x.n, columns))
    for r in range(x.n):
        for e in range(x.indptr[r], x.indptr[r + 1]):
            result[r, x.indices[e]] += x.weights[e]
    return result


def close(left, right):
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)
