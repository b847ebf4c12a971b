import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.index.cells import kernels, simd
from recall.index.cells.quantize import pack
from tests.hypotheses import examples

floats = st.floats(-100, 100, width=32)


@given(st.lists(floats, min_size=1, max_size=80), st.data())
@settings(deadline=None)
def test_the_nth_largest_is_found(values: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(values)))
    given_ = np.array(values, dtype=np.float32)
    assert simd.nth_largest(given_.copy(), len(values), n) == np.sort(given_)[::-1][n - 1]


@given(st.lists(st.tuples(floats, st.floats(0, 10, width=32)), min_size=1, max_size=60), st.integers(1, 70))
@settings(deadline=None)
def test_possible_top_items_are_kept(bounds: list[tuple[float, float]], n: int) -> None:
    lower = np.array([one for one, _ in bounds], dtype=np.float32)
    upper = lower + np.array([width for _, width in bounds], dtype=np.float32)
    places, spare = np.arange(len(bounds)), np.empty(len(bounds), dtype=np.float32)
    kept, least = simd.keep(lower.copy(), upper.copy(), places, len(bounds), n, spare)
    if len(bounds) < n:
        assert (kept, least) == (len(bounds), -np.inf)
    else:
        assert least == np.sort(lower)[::-1][n - 1]
        assert set(places[:kept]) == set(np.flatnonzero(upper >= least))


@given(st.integers(1, 40), st.integers(0, 1000), st.sampled_from([1e-20, 1.0, 1e20]))
@settings(deadline=None, max_examples=examples(40))
def test_a_quantised_query_is_within_its_stated_error(dim: int, seed: int, magnitude: float) -> None:
    rng = np.random.default_rng(seed)
    groups = -(-dim // 4)
    basis = np.zeros((dim, 4 * groups), dtype=np.float32)
    basis[:, :dim] = rng.standard_normal((dim, dim))
    query = (rng.standard_normal(dim) * magnitude).astype(np.float32)
    words = np.zeros(2 * groups, dtype=np.int32)
    shift, factor, error = kernels.encode(query, basis, words)
    parts = words.view(np.int8).reshape(groups, 2, 4).astype(np.int64)
    assert np.abs(parts[:, 0]).max() <= 63
    assert np.abs(parts[:, 1]).max() <= 32
    whole = (64 * parts[:, 0] + parts[:, 1]).reshape(-1)
    turned = query.astype(np.float64) @ basis
    turned /= np.linalg.norm(turned)
    assert shift == 128 * whole.sum()
    np.testing.assert_allclose(np.linalg.norm(turned - whole * float(factor)), error, rtol=1e-3, atol=1e-6)
    assert error < 1e-3 * np.sqrt(dim)


def test_a_zero_query_quantises_to_zero() -> None:
    words = np.ones(2, dtype=np.int32)
    assert kernels.encode(np.zeros(3, np.float32), np.eye(3, 4, dtype=np.float32), words) == (0, 0, 0)
    assert not words.any()


@pytest.mark.parametrize("dim", [1, 15, 16, 17, 65, 129])
def test_zero_padding_keeps_scores_bit_identical(dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors, query = rng.standard_normal((50, dim)).astype(np.float32), rng.standard_normal(dim).astype(np.float32)
    rows, scores = simd.best_of(vectors, query, np.arange(50), 50)
    np.testing.assert_allclose(scores, vectors[rows] @ query, rtol=1e-4, atol=1e-4)
    for width in (dim + 1, dim + 7, dim + 40):
        wider, longer = np.zeros((50, width), np.float32), np.zeros(width, np.float32)
        wider[:, :dim], longer[:dim] = vectors, query
        again, same = simd.best_of(wider, longer, np.arange(50), 50)
        np.testing.assert_array_equal(again, rows)
        np.testing.assert_array_equal(same, scores)


def test_results_are_sorted_with_ties_by_row() -> None:
    vectors = np.array([[1], [3], [-0.0], [3], [-2], [0.0], [-2]], dtype=np.float32)
    rows, scores = simd.best_of(vectors, np.ones(1, np.float32), np.array([6, 5, 4, 3, 2, 1, 0]), 10)
    assert rows.tolist() == [1, 3, 0, 2, 5, 4, 6]
    assert scores.tolist() == [3, 3, 1, 0, 0, -2, -2]
    assert simd.best_of(vectors, np.ones(1, np.float32), np.array([4, 0]), 1)[0].tolist() == [0]


@pytest.mark.parametrize("chunk", [2, 16, 256])
def test_a_batch_is_processed_for_any_buffer_size(chunk: int) -> None:
    """A query whose buffer overflows is searched separately and four times slower; only very many ties cause that."""
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 24)).astype(np.float32) for rows in (20_000, 40))
    codes = pack(vectors, queries, 64, 0, 1)
    limits = tuple(np.float32(one) for one in (codes.limits.rho, codes.limits.reach, codes.limits.rounding))
    nothing, ends = np.empty(0, dtype=np.int64), np.zeros(len(queries) + 1, dtype=np.int64)
    packed = (codes.basis, codes.codes, codes.scales, codes.rows, vectors)
    rows, scores, done = kernels.search_together(queries, 100, *packed, nothing, ends, limits, chunk)
    assert done.all()
    expected = -np.sort(-(queries @ vectors.T), axis=1)[:, :100]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.einsum("qd,qnd->qn", queries, vectors[rows]), expected, rtol=1e-5, atol=1e-5)
