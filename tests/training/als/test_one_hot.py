"""Row-wise conjugate gradients, compared with a direct solution in float64."""

import numpy as np
import pytest

from recall.training.als.one_hot import LeastSquares, solve_rows
from tests.training.als.rows import close, dense, entries, normal


@pytest.mark.parametrize("corner", [0.0, 3.0])
def test_solve_reaches_the_minimum(corner):
    rng = np.random.default_rng(6)
    n, m, d = 12, 15, 5
    pairs, owners = entries(rng, n, m), rng.permutation(n + 2)[:n].astype(np.int32)
    pairs = pairs._replace(weights=np.abs(pairs.weights) + np.float32(0.1))
    others = normal(rng, m), normal(rng, m, d)
    own = normal(rng, n + 2) if corner else np.zeros(n + 2, dtype=np.float32)
    table, share = normal(rng, n + 2, d), np.abs(normal(rng, n))
    own_penalty, penalty = np.abs(normal(rng, 2, n + 2)) + 1
    base, border, spectrum = normal(rng, d), normal(rng, d) * np.float32(0.3), np.abs(normal(rng, d)) + 1
    if not corner:
        border[:] = 0
    before = own.copy(), table.copy()
    problem = LeastSquares(
        owners, own, table, own_penalty, penalty, share, base, border, spectrum, np.ones(d, dtype=np.float32), corner
    )
    loss = solve_rows(*pairs, *problem, *others, 30)

    x = np.concatenate([np.ones((m, 1)), others[1]], axis=1)  # [1 ; partner]
    gram = np.diag(np.concatenate([[corner], spectrum])).astype(np.float64)
    gram[0, 1:] = gram[1:, 0] = border
    w, total = dense(pairs, m), 0.0
    for r, o in enumerate(owners):
        matrix = x.T @ (w[r][:, None] * x) + share[r] * gram + np.diag(np.append(own_penalty[o], np.full(d, penalty[o])))
        target = x.T @ (w[r] * (1 - others[0])) - share[r] * np.concatenate([[0.0], base])
        free = slice(0 if corner else 1, None)
        least = np.zeros(d + 1)
        least[free] = np.linalg.solve(matrix[free, free], target[free])
        close(np.concatenate([own[o : o + 1], table[o]]), least)
        total += (w[r] * (1 - others[0]) ** 2).sum() + least @ matrix @ least - 2 * least @ target
    assert loss == pytest.approx(total, rel=1e-4)
    untouched = np.setdiff1d(np.arange(n + 2), owners)
    assert (own[untouched] == before[0][untouched]).all()
    assert (table[untouched] == before[1][untouched]).all()
