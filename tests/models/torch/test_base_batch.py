import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recall.features.csr import FeatureLayout, SparseRows
from recall.models.torch.base import SparseBatch
from tests.models.torch.worlds import fields_of, rows_of


@st.composite
def sides(draw: st.DrawFn) -> tuple[FeatureLayout, SparseRows]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    fields = fields_of(rng, "user")
    return fields, rows_of(rng, fields, draw(st.integers(1, 5)))


def table_of(fields: FeatureLayout, *shape: int) -> torch.Tensor:
    return torch.randn(fields.n_features, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def dense(rows: SparseRows) -> torch.Tensor:
    x = torch.zeros(len(rows), rows.n_features, dtype=torch.float64)
    for row in range(len(rows)):
        part = slice(int(rows.indptr[row]), int(rows.indptr[row + 1]))
        x[row, rows.indices[part].astype(np.int64)] = torch.from_numpy(rows.weights[part]).double()
    return x


@given(sides())
def test_a_weighted_sum_is_a_product_with_the_table(side: tuple[FeatureLayout, SparseRows]) -> None:
    fields, rows = side
    batch = SparseBatch.of(rows, torch.float64)
    for shape in ((), (3,), (2, 3), (0,), (2, 0)):
        table = table_of(fields, *shape)
        expected = torch.tensordot(dense(rows), table, dims=1)
        torch.testing.assert_close(batch.weighted_sum(table), expected)


@given(sides())
def test_field_sums_add_up_to_the_weighted_sum(side: tuple[FeatureLayout, SparseRows]) -> None:
    fields, rows = side
    batch, table, x = SparseBatch.of(rows, torch.float64, fields), table_of(fields, 2), dense(rows)
    sums = batch.field_sums(table, len(fields))
    for field in range(len(fields)):
        mine = torch.from_numpy(fields.of(np.arange(fields.n_features)) == field)
        torch.testing.assert_close(sums[:, field], x[:, mine] @ table[mine])


@given(sides(), st.data())
def test_rows_are_taken_in_any_order(side: tuple[FeatureLayout, SparseRows], data: st.DataObject) -> None:
    fields, rows = side
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    batch = SparseBatch.of(rows, torch.float64, fields)
    taken, expected = batch.take(torch.tensor(chosen)), SparseBatch.of(rows.take(np.array(chosen)), torch.float64, fields)
    assert all(torch.equal(one, other) for one, other in zip(taken, expected, strict=True))
    assert SparseBatch.of(rows).take(torch.tensor(chosen)).fields is None


@given(sides())
def test_a_local_batch_reads_equal_rows_of_a_smaller_table(side: tuple[FeatureLayout, SparseRows]) -> None:
    fields, rows = side
    local, features = SparseBatch.local(rows, torch.float64, fields)
    assert (features.diff() > 0).all()
    table = table_of(fields, 3)
    whole = SparseBatch.of(rows, torch.float64, fields)
    torch.testing.assert_close(local.weighted_sum(table[features]), whole.weighted_sum(table))
    assert torch.equal(local.fields, whole.fields)


def test_splitting_by_field_needs_fields() -> None:
    rows = SparseRows.one_hot(np.zeros(2, dtype=np.int32), 1)
    with pytest.raises(ValueError, match="made with fields"):
        SparseBatch.of(rows).by_field(1)
