"""The scan with gains against sorting everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.index.bitmap import RowBitmap
from recall.index.topk import longest_of, scan

SIZE, DIM = 400, 9


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, SIZE + 20),
    st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    st.sampled_from([None, 0.0, 0.01, 0.2, 0.6, 1.0]),
    st.booleans(),
)
def test_the_best_by_product_and_gain(seed: int, n: int, weight: float, share: float | None, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (SIZE, DIM)).astype(np.float32) if tied else rng.normal(size=(SIZE, DIM)).astype(np.float32)
    query = rng.integers(-2, 3, DIM).astype(np.float32) if tied else rng.normal(size=DIM).astype(np.float32)
    gains = (weight * rng.integers(-3, 4, SIZE)).astype(np.float32)
    within = None if share is None else RowBitmap.of_mask(rng.random(SIZE) < share)
    excluded = rng.choice(SIZE, 30)
    found = scan(vectors, query, gains, n, excluded, within, longest_of(vectors))
    scores = np.einsum("ij,j->i", vectors, query) + gains
    eligible = np.setdiff1d(np.arange(SIZE) if within is None else within.rows, excluded)
    expected = eligible[np.lexsort((eligible, -scores[eligible]))][:n]
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_array_equal(found.scores, scores[expected])
    assert found.exact


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_when_nothing_is_eligible_nothing_is_found(share: float) -> None:
    rng = np.random.default_rng(1)
    within = RowBitmap.of_mask(rng.random(SIZE) < share)
    ones = np.ones((SIZE, DIM), dtype=np.float32)
    found = scan(ones, ones[0], ones[:, 0], 5, within.rows, within, 3.0)
    assert (len(found.rows), len(found.scores)) == (0, 0)
