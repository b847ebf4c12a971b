"""Contributions of feature pairs sum to those of field pairs and to the served inner product."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.base import ServingModel
from recall.models.serving.fm import FMTables
from recall.models.serving.layout import entry_parts, field_parts
from tests.models.serving.test_base import scale_of, tables_of
from tests.models.serving.test_fm_lightfm import sums_of
from tests.models.torch.worlds import KINDS, World, random_world, worlds


def tables_for(kind: str, world: World) -> ServingModel:
    return sums_of(world) if kind == "sums" else tables_of(world)


def by_field(fields: FeatureLayout, row: SparseRows) -> np.ndarray:
    """Return [entries, fields]: 1 if an entry belongs to a field."""
    places = np.zeros((row.nnz, len(fields)))
    places[np.arange(row.nnz), fields.of(row.indices)] = 1
    return places


@pytest.mark.parametrize("kind", [*KINDS, "sums"])
@given(st.data())
def test_contributions_add_up_by_field_and_in_total(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds("fm" if kind == "sums" else kind))
    tables = tables_for(kind, world)
    user, item = world.users.take(np.array([0])), world.items.take(np.array([len(world.items) - 1]))
    parts = entry_parts(tables, user, item)
    expected = field_parts(tables, user, item, world.user_fields, world.item_fields)
    assert parts.across.shape == (user.nnz, item.nnz)
    of_user, of_item = by_field(world.user_fields, user), by_field(world.item_fields, item)
    scale = scale_of(world, tables)
    np.testing.assert_allclose(of_user.T @ parts.across @ of_item, expected.across, atol=1e-6 * scale)
    np.testing.assert_allclose(of_item.T @ parts.first, expected.first, atol=1e-6 * scale)
    second = of_item.T @ parts.second @ of_item
    np.testing.assert_allclose(second + np.tril(second, -1).T - np.tril(second, -1), expected.second, atol=1e-6 * scale)
    total = parts.across.sum() + parts.first.sum() + parts.second.sum()
    served = float((tables.user_vectors(user) @ tables.item_vectors(item).T)[0, 0])
    assert total == pytest.approx(served, abs=2e-5 * scale)


def test_a_pair_of_an_fm_contributes_its_inner_product() -> None:
    world = random_world("fm", 3)
    tables = tables_for("fm", world)
    arrays = tables.arrays()
    user = next(row for at in range(len(world.users)) if (row := world.users.take(np.array([at]))).nnz)
    item = next(row for at in range(len(world.items)) if (row := world.items.take(np.array([at]))).nnz > 1)
    parts = entry_parts(tables, user, item)
    u, t, o = user.indices[0], item.indices[0], item.indices[1]
    v, w = arrays["user_factors"], arrays["item_factors"]
    assert parts.across[0, 0] == pytest.approx(float(v[u] @ w[t] * user.weights[0] * item.weights[0]), rel=1e-4)
    assert parts.second[0, 1] == pytest.approx(float(w[t] @ w[o] * item.weights[0] * item.weights[1]), rel=1e-4)
    assert parts.first[0] == pytest.approx(float(arrays["item_weights"][t] * item.weights[0]), rel=1e-4)
    assert np.tril(parts.second).sum() == 0


def test_pairs_are_processed_in_chunks() -> None:
    fields = FeatureLayout.of_sizes([("many", 40)])
    rng = np.random.default_rng(0)
    row = SparseRows(np.array([0, 40]), np.arange(40, dtype=np.int32), rng.normal(size=40).astype(np.float32), 40)
    v, w = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=40).astype(np.float32)
    tables = FMTables(fields, fields, v, w, v, w, 0.0)
    parts = entry_parts(tables, row, row)
    x = row.weights[:, None] * v
    np.testing.assert_allclose(parts.second, np.triu(x @ x.T, 1), atol=1e-4)
