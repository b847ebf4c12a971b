from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recall.features.sparse import SparseRows
from recall.vectors import FMTables

N_USER, N_ITEM = 6, 5


def random_tables(k: int, seed: int) -> FMTables:
    rng = np.random.default_rng(seed)
    return FMTables(
        rng.standard_normal((N_USER, k)).astype(np.float32),
        rng.standard_normal(N_USER).astype(np.float32),
        rng.standard_normal((N_ITEM, k)).astype(np.float32),
        rng.standard_normal(N_ITEM).astype(np.float32),
        float(np.float32(rng.standard_normal())),
    )


@st.composite
def rows_of(draw: st.DrawFn, n_features: int) -> SparseRows:
    """Rows of distinct features, empty ones among them."""
    value = st.floats(-3, 3, width=32)
    rows = draw(st.lists(st.dictionaries(st.integers(0, n_features - 1), value), min_size=1, max_size=4))
    return SparseRows(
        np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
        np.array([feature for row in rows for feature in row], dtype=np.int32),
        np.array([weight for row in rows for weight in row.values()], dtype=np.float32),
        n_features,
    )


def pairwise(tables: FMTables, users: SparseRows, u: int, items: SparseRows, i: int) -> float:
    """The definition: every single feature and every pair of features, one by one."""
    features = [
        (rows.weights[entry], factors[rows.indices[entry]].astype(float), weights[rows.indices[entry]])
        for rows, row, factors, weights in (
            (users, u, tables.user_factors, tables.user_weights),
            (items, i, tables.item_factors, tables.item_weights),
        )
        for entry in range(rows.indptr[row], rows.indptr[row + 1])
    ]
    first = sum(float(x) * float(w) for x, _, w in features)
    second = sum(float(x) * float(y) * float(v @ z) for (x, v, _), (y, z, _) in combinations(features, 2))
    return tables.bias + first + second


@given(st.integers(0, 4), st.integers(0, 99), rows_of(N_USER), rows_of(N_ITEM))
def test_the_split_reproduces_the_pairwise_definition(k: int, seed: int, users: SparseRows, items: SparseRows) -> None:
    tables = random_tables(k, seed)
    user_vectors, item_vectors = tables.user_vectors(users), tables.item_vectors(items)
    assert user_vectors.dtype == item_vectors.dtype == np.float32
    assert user_vectors.shape == (len(users), k + 1)
    assert item_vectors.shape == (len(items), k + 1)
    served = tables.user_offset(users)[:, None] + user_vectors @ item_vectors.T
    expected = np.array([[pairwise(tables, users, u, items, i) for i in range(len(items))] for u in range(len(users))])
    scale = max(1.0, float(np.abs(expected).max()), float(np.abs(tables.user_offset(users)).max()))
    np.testing.assert_allclose(served, expected, atol=2e-5 * scale, rtol=0)
    np.testing.assert_allclose(tables.scores(users, items), expected, atol=1e-9 * scale, rtol=0)


def test_item_vectors_of_many_rows_equal_those_of_each_part() -> None:
    tables = random_tables(3, 1)
    rng = np.random.default_rng(2)
    n = 70_000  # more than one chunk
    rows = SparseRows(
        np.arange(0, 2 * n + 1, 2, dtype=np.int64),
        rng.integers(0, N_ITEM, 2 * n).astype(np.int32),
        rng.standard_normal(2 * n).astype(np.float32),
        N_ITEM,
    )
    vectors = tables.item_vectors(rows)
    picked = np.array([0, 65_535, 65_536, n - 1])
    np.testing.assert_allclose(tables.item_vectors(rows.take(picked)), vectors[picked], rtol=1e-5, atol=1e-5)


def test_the_own_part_survives_cancellation() -> None:
    # one feature alone has no second-order part: |v x|^2 - x^2 |v|^2 is a difference of two large equal numbers
    factors = np.full((1, 8), 1000.0, dtype=np.float32)
    tables = FMTables(factors, np.ones(1, dtype=np.float32), factors, np.full(1, 0.5, dtype=np.float32), 0.0)
    row = SparseRows(np.array([0, 1]), np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.float32), 1)
    assert tables.item_vectors(row)[0, 0] == 0.5
    assert tables.user_offset(row)[0] == 1.0
