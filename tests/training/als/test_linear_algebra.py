"""Each loop over dense tables, compared with its definition in float64."""

import numpy as np
import pytest

from recall.training.als import linear_algebra
from tests.training.als.rows import close, normal


@pytest.fixture(params=[1, 5, 64])
def d(request):
    return request.param


def test_diagonal_map_matches_numpy(d):
    rng = np.random.default_rng(3)
    scale, base, spectrum, rows = normal(rng, 8), normal(rng, d), normal(rng, d), normal(rng, 8, d)
    out = np.full((8, d), np.nan, dtype=np.float32)
    linear_algebra.diagonal_map(scale, base, spectrum, rows, out)
    close(out, scale[:, None] * (base + spectrum * rows))


def test_gram_matches_numpy(d):
    rng = np.random.default_rng(4)
    weights, rows, border, out = normal(rng, 23), normal(rng, 23, d), normal(rng, d), normal(rng, d, d)
    expected = border + weights @ rows, out + rows.T @ (weights[:, None] * rows.astype(np.float64))
    linear_algebra.add_gram(weights, rows, border, out)
    close(border, expected[0])
    close(np.tril(out), np.tril(expected[1]))


def test_row_dots_match_numpy(d):
    rng = np.random.default_rng(10)
    left, right, out = normal(rng, 20, d), normal(rng, 20, d), np.empty(20, dtype=np.float32)
    linear_algebra.row_dots(left, right, out)
    close(out, (left * right).sum(axis=1))


def test_conjugate_gradient_steps_match_a_reference(d):
    rng = np.random.default_rng(9)
    solution, residual, direction, product = (normal(rng, 20, d) for _ in range(4))
    diagonal = np.abs(normal(rng, 20, d)) + np.float32(0.5)
    assert linear_algebra.table_dot(direction, product) == pytest.approx(
        (direction.astype(np.float64) * product).sum(), abs=1e-3
    )
    expected = solution + 0.7 * direction, residual - 0.7 * product
    energy = linear_algebra.cg_step(solution, residual, direction, product, diagonal, 0.7)
    close(solution, expected[0])
    close(residual, expected[1])
    assert energy == pytest.approx((expected[1] ** 2 / diagonal).sum(), rel=1e-4)
    turned = residual / diagonal + 0.3 * direction
    linear_algebra.cg_direction(direction, residual, diagonal, 0.3)
    close(direction, turned)
