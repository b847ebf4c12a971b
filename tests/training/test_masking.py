import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.features.csr import FeatureLayout, SparseRows
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.training.masking import NEWCOMER, PARTIAL, Roles, merged, uniform

FIELDS = FeatureLayout.of_sizes([("id", 6), ("tags", 8), ("last", 5)])
TAGS, LAST = 6, 14
ROLES = Roles(FIELDS, np.array([True, False, False]), np.array([True, True, True]))


def rows(n=400):
    """Create rows with an id, two tags of weight .5 and one value of a third field."""
    indices = np.column_stack([np.full(n, 2), np.full(n, TAGS + 3), np.full(n, TAGS + 4), np.full(n, LAST + 2)])
    weights = np.tile(np.array([1, 0.5, 0.5, 1], dtype=np.float32), n)
    return SparseRows(np.arange(n + 1) * 4, indices.astype(np.int32).reshape(-1), weights, FIELDS.n_features)


def entries(masked, row):
    part = slice(masked.indptr[row], masked.indptr[row + 1])
    return dict(zip(masked.indices[part].tolist(), masked.weights[part].tolist(), strict=True))


def test_every_kind_of_masking():
    patterns = np.array([NEWCOMER, PARTIAL, PARTIAL], dtype=np.int8)
    tossed = np.full((3, 3), 0.9)
    tossed[2] = [0.4, 0.4, 0.1]
    masked = ROLES.masked(rows(3), patterns, tossed)
    assert entries(masked, 0) == {UNKNOWN: 1.0, TAGS + 3: 0.5, TAGS + 4: 0.5, LAST + 2: 1.0}
    assert entries(masked, 1) == entries(rows(1), 0)
    assert entries(masked, 2) == {UNKNOWN: 1.0, TAGS + UNKNOWN: 1.0, LAST + MISSING: 1.0}


def test_a_missing_row_trained_by_the_data_is_not_masked_in():
    roles = Roles(FIELDS, ROLES.ids, np.array([True, False, True]))
    tossed = np.full((1, 3), 0.1)
    masked = roles.masked(rows(1), np.array([PARTIAL], dtype=np.int8), tossed)
    assert TAGS + UNKNOWN in entries(masked, 0)


@given(st.integers(0, 2**31), st.integers(0, 50), st.lists(st.integers(1, 400), max_size=3))
def test_draws_are_independent_of_the_distribution_of_rows(seed, sweep, cuts):
    every = np.arange(1000)
    parts = np.split(every, np.sort(cuts))
    assert np.array_equal(uniform(every, seed, sweep), np.concatenate([uniform(part, seed, sweep) for part in parts]))


def test_draws_are_uniform_and_differ_between_sweeps():
    first, second = (uniform(np.arange(100_000), 5, sweep) for sweep in (0, 1))
    for drawn in (first, second):
        assert drawn.min() >= 0
        assert drawn.max() < 1
        assert np.histogram(drawn, 10, (0, 1))[0] == pytest.approx(np.full(10, 10_000), rel=0.05)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_equal_rows_are_merged_in_order_of_appearance():
    indices = np.array([1, 2, 0, 1, 2, 1, 1, 2], dtype=np.int32)
    weights = np.array([1, 1, 1, 1, 1, 0.5, 1, 1], dtype=np.float32)
    found, code = merged(SparseRows(np.array([0, 2, 3, 5, 6, 8, 8]), indices, weights, 4))
    assert code.tolist() == [0, 1, 0, 2, 0, 3]
    assert [entries(found, row) for row in range(4)] == [{1: 1.0, 2: 1.0}, {0: 1.0}, {1: 0.5}, {}]
