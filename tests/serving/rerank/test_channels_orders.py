"""Orders of a catalogue return their first eligible rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recall.serving.rerank.channels import Order


@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.integers(1, 50), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_the_first_eligible_rows_are_returned(seed: int, size: int, count: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, 1.0, 2.5, np.nan], size)
    mask = rng.random(size + 7) < share
    order = Order.of(scores).shifted(7)
    expected = sorted(np.flatnonzero(~np.isnan(scores)).tolist(), key=lambda row: (-scores[row], row))
    assert order.rows.tolist() == [row + 7 for row in expected]
    rows, found = order.first(count, lambda rows: mask[rows])
    chosen = [row + 7 for row in expected if mask[row + 7]][:count]
    assert rows.tolist() == chosen
    assert found.tolist() == [scores[row - 7] for row in chosen]
