"""Each loop over sparse rows, compared with its definition in float64."""

import numpy as np
import pytest

from recall.training.als import sparse_kernels
from recall.training.als.sparse_kernels import STRIDE, Entries
from tests.training.als.rows import close, dense, entries, normal

PLAIN = np.zeros(100, dtype=np.uint8)


@pytest.fixture(params=[1, 5, 64])
def d(request):
    return request.param


def test_gather_matches_numpy(d):
    rng = np.random.default_rng(0)
    x, table = entries(rng, 30, 12), normal(rng, 40, d)
    features = rng.choice(40, 12, replace=False).astype(np.int32)
    out = np.full((30, d), np.nan, dtype=np.float32)
    sparse_kernels.gather(*x, PLAIN[:30], features, table, out)
    close(out, dense(x, 12) @ table[features].astype(np.float64))


def test_scatter_matches_numpy(d):
    rng = np.random.default_rng(1)
    x, rows, out = entries(rng, 30, 12), normal(rng, 30, d), normal(rng, 12, d)
    expected = out + dense(x, 12).T @ rows.astype(np.float64)
    sparse_kernels.scatter(*x, PLAIN[:30], rows, out)
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


def test_delta_encoding_reproduces_the_rows(d):
    rng = np.random.default_rng(7)
    x, table, rows = alike(rng, 200, 30), normal(rng, 30, d), normal(rng, 200, d)
    short, is_delta = sparse_kernels.delta_encode(x, 30)
    assert not is_delta[::STRIDE].any()
    assert len(short.indices) <= len(x.indices)
    out, total = np.empty((200, d), dtype=np.float32), np.zeros((30, d), dtype=np.float32)
    sparse_kernels.gather(*short, is_delta, np.arange(30, dtype=np.int32), table, out)
    close(out, dense(x, 30) @ table.astype(np.float64))
    expected = dense(x, 30).T @ rows.astype(np.float64)
    sparse_kernels.scatter(*short, is_delta, rows, total)
    np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-3)


def test_rows_with_shared_features_become_shorter():
    x = alike(np.random.default_rng(8), 200, 30)
    short, is_delta = sparse_kernels.delta_encode(x, 30)
    assert is_delta.any()
    assert len(short.indices) < len(x.indices)


@pytest.mark.parametrize("signs", [(1.0, -1.0), (0.0, 1.0)])
def test_pair_gradients_match_numpy(d, signs):
    rng = np.random.default_rng(2)
    pairs, owners = entries(rng, 20, 15), rng.permutation(20).astype(np.int32)
    left, right = (normal(rng, 20), normal(rng, 20, d)), (normal(rng, 15), normal(rng, 15, d))
    out = normal(rng, 20), normal(rng, 20, d)
    w = np.zeros((20, 15))
    w[owners] = dense(pairs, 15)
    error = signs[0] + signs[1] * (left[0][:, None] + right[0] + left[1] @ right[1].T.astype(np.float64))
    expected = out[0] + (w * error).sum(1), out[1] + (w * error) @ right[1]
    energy = sparse_kernels.pair_gradients(*pairs, owners, *signs, *left, *right, *out)
    assert energy == pytest.approx((w * error**2).sum(), rel=1e-4)
    close(out[0], expected[0])
    close(out[1], expected[1])


def test_nan_is_propagated():
    rng = np.random.default_rng(5)
    x, table, out = entries(rng, 30, 12), normal(rng, 12, 4), np.zeros((30, 4), dtype=np.float32)
    table[3, 2] = np.nan
    sparse_kernels.gather(*x, PLAIN[:30], np.arange(12, dtype=np.int32), table, out)
    assert (np.isnan(out[:, 2]) == (dense(x, 12)[:, 3] != 0)).all()
    assert not np.isnan(np.delete(out, 2, axis=1)).any()
