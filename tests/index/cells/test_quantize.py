import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.index.cells.quantize import LANES, pack
from tests.hypotheses import examples
from tests.index.test_base import users_like_a_model, vectors_like_a_model


def decoded(codes) -> np.ndarray:
    """Return rotated vectors by row, in units of the magnitude."""
    parts = codes.codes.transpose(0, 2, 1).reshape(len(codes.rows), -1)
    numbers = np.ascontiguousarray(parts).view(np.uint8).astype(np.float64) - 128
    filled = codes.rows >= 0
    out = np.empty((filled.sum(), numbers.shape[1]))
    out[codes.rows[filled]] = numbers[filled] * codes.scales[filled, None]
    return out


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 12), st.integers(0, 100), st.sampled_from([1e-6, 1.0, 1e9]))
@settings(deadline=None, max_examples=examples(30))
def test_score_errors_are_within_their_limits(size: int, dim: int, cells: int, seed: int, magnitude: float) -> None:
    vectors = vectors_like_a_model(size, dim, seed) * np.float32(magnitude)
    users = users_like_a_model(40, dim, seed + 1)
    codes = pack(vectors, users, min(cells, size), seed, 1)
    assert sorted(codes.rows[codes.rows >= 0]) == list(range(size))
    assert (codes.scales[codes.rows < 0] == 0).all()
    turned = users.astype(np.float64) @ codes.basis
    exact = (vectors.astype(np.float64) / codes.magnitude) @ users.astype(np.float64).T
    scale = np.empty(size)
    scale[codes.rows[codes.rows >= 0]] = codes.scales[codes.rows >= 0]
    allowed = (codes.limits.rho + codes.limits.rounding) * scale[:, None] * np.linalg.norm(turned, axis=1)
    assert (np.abs(decoded(codes) @ turned.T - exact) <= allowed).all()


def test_cell_members_are_within_the_radius() -> None:
    vectors, users = vectors_like_a_model(900, 9, 0), users_like_a_model(50, 9, 1)
    codes = pack(vectors, users, 20, 2, 1)
    values = decoded(codes)
    there = np.linalg.inv(codes.basis[:, :9].astype(np.float64)).T
    turned = vectors.astype(np.float64) / codes.magnitude @ there
    np.testing.assert_allclose(values[:, :9], turned, atol=np.abs(turned).max() / 100)
    for cell in range(codes.cells):
        rows = codes.rows[LANES * codes.starts[cell] : LANES * codes.starts[cell + 1]]
        members = turned[rows[rows >= 0]]
        if len(members):
            distances = np.linalg.norm(members - members.mean(axis=0), axis=1)
            assert distances.max() <= codes.radii[cell]
            np.testing.assert_allclose(np.sqrt((distances**2).mean()), codes.spreads[cell], rtol=1e-4)
    assert (codes.radii[codes.cells :] == -np.inf).all()


def test_equal_seeds_pack_identically() -> None:
    vectors, users = vectors_like_a_model(500, 8, 0), users_like_a_model(50, 8, 1)
    one, other = (pack(vectors, users, 10, 4, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.rows, other.rows)


@pytest.mark.parametrize("users", [np.zeros((3, 6)), np.ones((1, 6)), np.eye(6)[:2]])
def test_low_variance_directions_do_no_harm(users: np.ndarray) -> None:
    codes = pack(vectors_like_a_model(200, 6, 0), users.astype(np.float32), 4, 0, 1)
    assert np.isfinite(codes.basis).all()
    assert np.isfinite(codes.limits.rounding)
