import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import DataError
from recall.features.csr import SparseRows, stable_order

N_FEATURES = 7


@st.composite
def sparse_rows(draw: st.DrawFn, longest: int = 9) -> SparseRows:
    rows = draw(
        st.lists(st.lists(st.tuples(st.integers(0, N_FEATURES - 1), st.floats(-4, 4, width=32)), max_size=longest), max_size=12)
    )
    entries = [entry for row in rows for entry in row]
    return SparseRows(
        np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
        np.array([feature for feature, _ in entries], dtype=np.int32),
        np.array([weight for _, weight in entries], dtype=np.float32),
        N_FEATURES,
    )


def dense(rows: SparseRows) -> np.ndarray:
    result = np.zeros((len(rows), rows.n_features))
    for row in range(len(rows)):
        for entry in range(rows.indptr[row], rows.indptr[row + 1]):
            result[row, rows.indices[entry]] += rows.weights[entry]
    return result


@given(sparse_rows())
def test_the_weighted_sum_is_a_matrix_product(rows: SparseRows) -> None:
    table = np.random.default_rng(0).standard_normal((N_FEATURES, 5)).astype(np.float32)
    result = rows.weighted_sum(table)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, dense(rows) @ table, rtol=1e-4, atol=1e-4)


def test_the_weighted_sum_handles_chunks_and_ragged_rows() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 12, 10_000)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    rows = SparseRows(
        indptr,
        rng.integers(0, N_FEATURES, indptr[-1]).astype(np.int32),
        rng.standard_normal(indptr[-1]).astype(np.float32),
        N_FEATURES,
    )
    table = rng.standard_normal((N_FEATURES, 3)).astype(np.float32)
    np.testing.assert_allclose(rows.weighted_sum(table), dense(rows) @ table, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_feature_out_of_range_is_refused(copies: int) -> None:
    rows = SparseRows(
        np.arange(copies + 1), np.full(copies, N_FEATURES, dtype=np.int32), np.ones(copies, dtype=np.float32), N_FEATURES + 1
    )
    with pytest.raises(IndexError):
        rows.weighted_sum(np.zeros((N_FEATURES, 2), dtype=np.float32))


@given(sparse_rows(), st.data())
def test_take_gathers_rows(rows: SparseRows, data: st.DataObject) -> None:
    positions = np.array(
        data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), max_size=5 * bool(len(rows)))), dtype=np.int64
    )
    np.testing.assert_array_equal(dense(rows.take(positions)), dense(rows)[positions])


@given(sparse_rows())
def test_matrices_are_joined_horizontally_and_vertically(rows: SparseRows) -> None:
    np.testing.assert_allclose(dense(SparseRows.hstack([rows, rows])), 2 * dense(rows))
    np.testing.assert_array_equal(dense(SparseRows.vstack([rows, rows])), np.concatenate([dense(rows), dense(rows)]))


@pytest.mark.parametrize("bound", [5, 1 << 16, (1 << 16) + 1, 1 << 31, 1 << 40])
def test_integers_are_sorted_stably_whatever_their_width(bound):
    rng = np.random.default_rng(bound)
    keys = np.concatenate([rng.integers(0, bound, 3000), rng.integers(max(0, bound - 7), bound, 3000), [0, bound - 1, 0]])
    assert np.array_equal(stable_order(keys, bound), np.argsort(keys, kind="stable"))
    narrow = keys.astype(np.int32) if bound <= 1 << 31 else keys
    assert np.array_equal(stable_order(narrow, bound), np.argsort(keys, kind="stable"))


def test_more_features_than_int32_can_number_are_refused() -> None:
    rows = SparseRows.one_hot(np.array([5], dtype=np.int32), 10)
    most = 2**31 - 1
    assert rows.shifted(most - 10, most).indices.tolist() == [most - 5]
    for build in (
        lambda: rows.shifted(most, most + 10),
        lambda: rows.shifted(5, most + 1),
        lambda: SparseRows.empty(1, most + 1),
    ):
        with pytest.raises(DataError, match=r"2,147,483,6\d\d features together"):
            build()
