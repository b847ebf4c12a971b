import numpy as np
import pytest

from recall.features.csr import FeatureLayout, SparseRows
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.training.masking import Roles
from recall.training.sgd import dropout

FIELDS = FeatureLayout.of_sizes([("a", 6), ("b", 8)])


def rows(n=4000):
    indices = np.column_stack([np.full(n, 2), np.full(n, 6 + 3), np.full(n, 6 + 4)]).astype(np.int32).reshape(-1)
    return SparseRows(np.arange(n + 1) * 3, indices, np.full(3 * n, 0.5, dtype=np.float32), 14)


def test_dropout_preserves_expected_sums():
    full = rows()
    thinned = dropout(full, 0.3, np.random.default_rng(0))
    assert np.array_equal(thinned.indices, full.indices)
    assert (thinned.weights == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert thinned.weights.mean() == pytest.approx(full.weights.mean(), abs=0.02)
    assert np.unique(thinned.weights).tolist() == pytest.approx([0.0, 0.5 / 0.7])


def test_a_new_share_of_rows_is_masked_each_time():
    full, rng = rows(), np.random.default_rng(0)
    roles = Roles(FIELDS, np.array([True, False]), np.ones(2, dtype=bool))
    # of masked rows .75 have an unknown id, and .25 have each field masked half of the time, as missing in half of the cases
    for _ in range(2):
        dropped = roles.partly_masked(full, 0.4, rng)
        assert (dropped.indices == UNKNOWN).sum() / 4000 == pytest.approx(0.4 * 0.875, abs=0.03)
        assert (dropped.indices == 6 + MISSING).sum() / 4000 == pytest.approx(0.4 * 0.0625, abs=0.02)
        assert (dropped.indices == 6 + UNKNOWN).sum() / 4000 == pytest.approx(0.4 * 0.0625, abs=0.02)
        assert not (dropped.indices == MISSING).any()
