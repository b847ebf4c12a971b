"""Each kernel, compared with its definition in float64."""

import numpy as np
import pytest

from recall.training.als import kernels
from recall.training.als.kernels import Entries, Rows
from recall.training.als.loops import STRIDE

ALONE = np.zeros(100, dtype=np.uint8)


@pytest.fixture(params=[1, 5, 64])
def d(request):
    return request.param


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


def test_gather_matches_numpy(d):
    rng = np.random.default_rng(0)
    x, table = entries(rng, 30, 12), normal(rng, 40, d)
    features = rng.choice(40, 12, replace=False).astype(np.int32)
    out = np.full((30, d), np.nan, dtype=np.float32)
    kernels.gather(x, ALONE[:30], features, table, out)
    close(out, dense(x, 12) @ table[features].astype(np.float64))


def test_scatter_matches_numpy(d):
    rng = np.random.default_rng(1)
    x, rows, out = entries(rng, 30, 12), normal(rng, 30, d), normal(rng, 12, d)
    expected = out + dense(x, 12).T @ rows.astype(np.float64)
    kernels.scatter(x, ALONE[:30], rows, out)
    close(out, expected)


def alike(rng, n, columns):
    """Draw rows that often share most entries with the previous row; some are empty."""
    rows = [rng.choice(columns, 8, replace=False)]
    for _ in range(n - 1):
        kept = rng.permutation(rows[-1])[: rng.choice([0, 5, 8])]
        rows.append(np.unique(np.concatenate([kept, rng.choice(columns, rng.integers(0, 3))])).astype(np.int64))
    lengths = [len(row) for row in rows]
    weights = rng.choice(np.float32([0.5, 1.0]), sum(lengths), p=[0.1, 0.9])
    return Entries(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(rows).astype(np.int32), weights)


def test_differences_reproduce_the_rows(d):
    rng = np.random.default_rng(7)
    x, table, rows = alike(rng, 200, 30), normal(rng, 30, d), normal(rng, 200, d)
    short, follows = kernels.differences(x, 30)
    assert not follows[::STRIDE].any()
    assert len(short.indices) <= len(x.indices)
    out, total = np.empty((200, d), dtype=np.float32), np.zeros((30, d), dtype=np.float32)
    kernels.gather(short, follows, np.arange(30, dtype=np.int32), table, out)
    close(out, dense(x, 30) @ table.astype(np.float64))
    expected = dense(x, 30).T @ rows.astype(np.float64)
    kernels.scatter(short, follows, rows, total)
    np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-3)


def test_rows_with_shared_features_become_shorter():
    x = alike(np.random.default_rng(8), 200, 30)
    short, follows = kernels.differences(x, 30)
    assert follows.any()
    assert len(short.indices) < len(x.indices)


@pytest.mark.parametrize("signs", [(1.0, -1.0), (0.0, 1.0)])
def test_fit_matches_numpy(d, signs):
    rng = np.random.default_rng(2)
    pairs, owners = entries(rng, 20, 15), rng.permutation(20).astype(np.int32)
    left, right = (normal(rng, 20), normal(rng, 20, d)), (normal(rng, 15), normal(rng, 15, d))
    out = normal(rng, 20), normal(rng, 20, d)
    w = np.zeros((20, 15))
    w[owners] = dense(pairs, 15)
    error = signs[0] + signs[1] * (left[0][:, None] + right[0] + left[1] @ right[1].T.astype(np.float64))
    expected = out[0] + (w * error).sum(1), out[1] + (w * error) @ right[1]
    energy = kernels.fit(pairs, owners, signs, left, right, out)
    assert energy == pytest.approx((w * error**2).sum(), rel=1e-4)
    close(out[0], expected[0])
    close(out[1], expected[1])


def test_shade_matches_numpy(d):
    rng = np.random.default_rng(3)
    scale, base, spectrum, rows = normal(rng, 8), normal(rng, d), normal(rng, d), normal(rng, 8, d)
    out = np.full((8, d), np.nan, dtype=np.float32)
    kernels.shade(scale, base, spectrum, rows, out)
    close(out, scale[:, None] * (base + spectrum * rows))


def test_gram_matches_numpy(d):
    rng = np.random.default_rng(4)
    weights, rows, border, out = normal(rng, 23), normal(rng, 23, d), normal(rng, d), normal(rng, d, d)
    expected = border + weights @ rows, out + rows.T @ (weights[:, None] * rows.astype(np.float64))
    kernels.gram(weights, rows, border, out)
    close(border, expected[0])
    close(np.tril(out), np.tril(expected[1]))


@pytest.mark.parametrize("corner", [None, 3.0])
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
    if corner is None:
        border[:] = 0
    before = own.copy(), table.copy()
    rows = Rows(owners, own, table, own_penalty, penalty, share, base, border, spectrum, np.ones(d, dtype=np.float32), corner)
    loss = kernels.solve(pairs, rows, others, 30)

    x = np.concatenate([np.ones((m, 1)), others[1]], axis=1)  # [1 ; partner]
    gram = np.diag(np.concatenate([[corner or 0.0], spectrum])).astype(np.float64)
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


def test_row_dots_match_numpy(d):
    rng = np.random.default_rng(10)
    left, right, out = normal(rng, 20, d), normal(rng, 20, d), np.empty(20, dtype=np.float32)
    kernels.row_dots(left, right, out)
    close(out, (left * right).sum(axis=1))


def test_conjugate_gradient_steps_match_a_reference(d):
    rng = np.random.default_rng(9)
    solution, residual, direction, product = (normal(rng, 20, d) for _ in range(4))
    diagonal = np.abs(normal(rng, 20, d)) + np.float32(0.5)
    assert kernels.dot(direction, product) == pytest.approx((direction.astype(np.float64) * product).sum(), abs=1e-3)
    expected = solution + 0.7 * direction, residual - 0.7 * product
    energy = kernels.advance(solution, residual, direction, product, diagonal, 0.7)
    close(solution, expected[0])
    close(residual, expected[1])
    assert energy == pytest.approx((expected[1] ** 2 / diagonal).sum(), rel=1e-4)
    turned = residual / diagonal + 0.3 * direction
    kernels.redirect(direction, residual, diagonal, 0.3)
    close(direction, turned)


def test_nan_is_propagated():
    rng = np.random.default_rng(5)
    x, table, out = entries(rng, 30, 12), normal(rng, 12, 4), np.zeros((30, 4), dtype=np.float32)
    table[3, 2] = np.nan
    kernels.gather(x, ALONE[:30], np.arange(12, dtype=np.int32), table, out)
    assert (np.isnan(out[:, 2]) == (dense(x, 12)[:, 3] != 0)).all()
    assert not np.isnan(np.delete(out, 2, axis=1)).any()
