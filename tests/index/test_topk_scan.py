"""The exact top-k, compared with a full sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.index.bitmap import RowBitmap
from recall.index.topk import longest_of, products, scan, top_k

SIZE, DIM = 400, 9


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, SIZE + 20),
    st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    st.sampled_from([None, 0.0, 0.01, 0.2, 0.6, 1.0]),
    st.booleans(),
)
def test_the_best_by_inner_product_and_boost(seed: int, n: int, weight: float, share: float | None, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (SIZE, DIM)).astype(np.float32) if tied else rng.normal(size=(SIZE, DIM)).astype(np.float32)
    query = rng.integers(-2, 3, DIM).astype(np.float32) if tied else rng.normal(size=DIM).astype(np.float32)
    gains = (weight * rng.integers(-3, 4, SIZE)).astype(np.float32)
    within = None if share is None else RowBitmap.of_mask(rng.random(SIZE) < share)
    excluded = rng.choice(SIZE, 30)
    found = scan(vectors, query, n, longest_of(vectors), added=gains, within=within, excluded=excluded)
    scores = np.einsum("ij,j->i", vectors, query) + gains
    eligible = np.setdiff1d(np.arange(SIZE) if within is None else within.rows, excluded)
    expected = eligible[np.lexsort((eligible, -scores[eligible]))][:n]
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_array_equal(found.scores, scores[expected])
    assert found.exact


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, SIZE + 20),
    st.sampled_from([None, 0.0, 0.01, 0.2, 0.7, 1.0]),
    st.booleans(),
    st.sampled_from([1.0, 1e-30, 1e18, 3e19]),
)
def test_without_offsets_all_scores_are_sorted(seed: int, n: int, share: float | None, tied: bool, size: float) -> None:
    """With vectors whose products overflow float32, no valid result may be lost."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (SIZE, DIM)) if tied else rng.normal(size=(SIZE, DIM))
    vectors = (size * vectors).astype(np.float32)
    query = (size * (rng.integers(-2, 3, DIM) if tied else rng.normal(size=DIM))).astype(np.float32)
    within = None if share is None else RowBitmap.of_mask(rng.random(SIZE) < share)
    excluded = rng.choice(SIZE, 30)
    found = scan(vectors, query, n, longest_of(vectors), within=within, excluded=excluded)
    eligible = np.setdiff1d(np.arange(SIZE) if within is None else within.rows, excluded)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = products(vectors, query)
    expected = eligible[np.lexsort((eligible, -scores[eligible]))][:n]
    if not np.isnan(scores).any():
        np.testing.assert_array_equal(found.rows, expected)
        np.testing.assert_array_equal(found.scores, scores[expected])
    assert sorted(found.rows.tolist()) == sorted(set(found.rows.tolist()) & set(eligible.tolist()))
    assert len(found.rows) == min(n, len(eligible))


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0, 2.5]), max_size=30), st.integers(1, 35))
def test_exact_scores_are_sorted_unchanged(values: list[float], n: int) -> None:
    scores = np.array(values, dtype=np.float32)
    rows, best = top_k(scores, n)
    order = sorted((row for row in range(len(values)) if values[row] > -np.inf), key=lambda row: (-values[row], row))
    assert rows.tolist() == order[:n]
    assert best.tolist() == [values[row] for row in order[:n]]


@pytest.mark.parametrize("with_offsets", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_no_eligible_rows_give_an_empty_result(share: float, with_offsets: bool) -> None:
    rng = np.random.default_rng(1)
    within = RowBitmap.of_mask(rng.random(SIZE) < share)
    ones = np.ones((SIZE, DIM), dtype=np.float32)
    added = ones[:, 0] if with_offsets else None
    found = scan(ones, ones[0], 5, 3.0, added=added, within=within, excluded=within.rows)
    assert (len(found.rows), len(found.scores)) == (0, 0)
