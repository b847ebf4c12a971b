import numpy as np
import pytest

from recall.features.fields import Fields
from recall.features.sparse import SparseRows
from recall.training.dropping import Dropping
from recall.vocabulary import MISSING, UNKNOWN

FIELDS = Fields.of_sizes([("a", 6), ("b", 8)])


def rows(n=4000):
    indices = np.column_stack([np.full(n, 2), np.full(n, 6 + 3), np.full(n, 6 + 4)]).astype(np.int32).reshape(-1)
    return SparseRows(np.arange(n + 1) * 3, indices, np.full(3 * n, 0.5, dtype=np.float32), 14)


def test_dropout_keeps_the_mean_of_sums():
    full = rows()
    thinned = Dropping.of(FIELDS, full, dropout=0.3, unknown=0.0)(full, np.random.default_rng(0))
    assert np.array_equal(thinned.indices, full.indices)
    assert (thinned.weights == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert thinned.weights.mean() == pytest.approx(full.weights.mean(), abs=0.02)
    assert np.unique(thinned.weights).tolist() == pytest.approx([0.0, 0.5 / 0.7])


def test_a_share_of_rows_has_half_of_its_fields_unknown():
    full = rows()
    full.indices[1] = 6 + MISSING  # field b is missing somewhere, so that its missing row trains anyway
    dropped = Dropping.of(FIELDS, full, dropout=0.0, unknown=0.4)(full, np.random.default_rng(0))
    a, b = dropped.indices.reshape(-1, 3)[:, 0], dropped.indices.reshape(-1, 3)[1:, 1:]
    assert ((a == UNKNOWN) | (a == MISSING)).mean() == pytest.approx(0.2, abs=0.02)
    assert (a == MISSING).mean() == pytest.approx(0.1, abs=0.02)
    assert not (b == 6 + MISSING).any()
    assert ((b == 6 + UNKNOWN).all(axis=1) == (b == 6 + UNKNOWN).any(axis=1)).all()  # a field goes as a whole
    assert (b == 6 + UNKNOWN).mean() == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(dropped.weights, full.weights)


def test_nothing_to_drop_changes_nothing():
    full = rows(10)
    dropping = Dropping.of(FIELDS, full, dropout=0.0, unknown=0.0)
    assert dropping.idle
    same = dropping(full, np.random.default_rng(0))
    assert np.array_equal(same.indices, full.indices)
    assert np.array_equal(same.weights, full.weights)
