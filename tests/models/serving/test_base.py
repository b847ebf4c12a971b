"""Contract tests of the serving tables of every model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recall._tensors import map_tensors, write_tensors
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.base import ServingModel
from recall.models.serving.ffm import FFMTables
from recall.models.serving.fm import FMTables
from recall.models.serving.fwfm import FwFMTables
from recall.models.serving.layout import Layout, field_parts
from recall.models.torch.base import SparseBatch
from tests.models.torch.worlds import KINDS, World, random_world, worlds

every_kind = pytest.mark.parametrize("kind", KINDS)


def tables_of(world: World) -> ServingModel:
    """Build the serving tables of a model, with truncated singular values where possible."""
    tables = world.model.tables(world.user_fields, world.item_fields)
    return tables.folded(None, 0.0) if isinstance(tables, FwFMTables) else tables


def model_scores(world: World) -> np.ndarray:
    users, items = world.batches()
    with torch.no_grad():
        return np.stack([world.model.score(users.take(torch.full((items.n,), row)), items).numpy() for row in range(users.n)])


def scale_of(world: World, tables: ServingModel) -> float:
    """Bound the largest intermediate number of a score, to which rounding is relative."""
    with torch.no_grad():
        sizes = [world.model.user_offset(world.batches()[0]).abs().max(), torch.ones(())]
    vectors = np.abs(tables.user_vectors(world.users)).sum(axis=1).max() * np.abs(tables.item_vectors(world.items)).max()
    return float(max(*sizes)) + float(vectors)


@every_kind
@given(st.data())
def test_served_scores_equal_model_scores(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    tables, expected = tables_of(world), model_scores(world)
    user_vectors, item_vectors = tables.user_vectors(world.users), tables.item_vectors(world.items)
    assert user_vectors.dtype == item_vectors.dtype == np.float32
    assert user_vectors.shape == item_vectors.shape == (len(world.users), tables.dim)
    served = tables.user_offset(world.users)[:, None] + user_vectors @ item_vectors.T
    scale = scale_of(world, tables)
    np.testing.assert_allclose(served, expected, atol=2e-5 * scale, rtol=0)
    exact = 1e-5 if "cosine" in kind or kind == "fwfm" else 1e-9  # lengths and truncations are computed in float32
    np.testing.assert_allclose(tables.scores(world.users, world.items), expected, atol=exact * scale, rtol=0)


@every_kind
@given(st.data())
def test_a_single_request_equals_one_of_a_batch(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    tables = tables_of(world)
    for row in range(len(world.users)):
        for one, many in ((tables.user_vectors, world.users), (tables.item_vectors, world.items)):
            np.testing.assert_allclose(one(many.take(np.array([row])))[0], one(many)[row], rtol=1e-4, atol=1e-4)
        alone = tables.user_offset(world.users.take(np.array([row])))
        np.testing.assert_allclose(alone[0], tables.user_offset(world.users)[row], rtol=1e-4, atol=1e-4)


@every_kind
@given(st.data())
def test_both_parts_of_a_user_are_computed_together(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    tables = tables_of(world)
    for users in (world.users, *(world.users.take(np.array([row])) for row in range(len(world.users)))):
        vectors, offsets = tables.user_parts(users)
        assert (vectors.dtype, offsets.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(vectors, tables.user_vectors(users), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(offsets, tables.user_offset(users), rtol=1e-4, atol=1e-4)


@every_kind
@given(st.data())
def test_an_explanation_sums_to_the_served_score(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    tables = tables_of(world)
    user, item = world.users.take(np.array([0])), world.items.take(np.array([0]))
    parts = field_parts(tables, user, item, world.user_fields, world.item_fields)
    n_user, n_item = len(world.user_fields), len(world.item_fields)
    assert (parts.across.shape, parts.first.shape, parts.second.shape) == ((n_user, n_item), (n_item,), (n_item, n_item))
    assert (np.tril(parts.second, -1) == 0).all()
    served = float(tables.user_vectors(user)[0].astype(float) @ tables.item_vectors(item)[0].astype(float))
    size = np.abs(parts.across).sum() + np.abs(parts.first).sum() + np.abs(parts.second).sum()
    assert parts.total == pytest.approx(served, abs=1e-4 * max(1.0, float(size)))


@every_kind
def test_a_part_of_an_explanation_is_the_contribution_of_its_fields(kind: str) -> None:
    """Removing a field from the item removes exactly its parts from the score."""
    world = random_world(kind, seed=11, n=1)
    tables = tables_of(world)
    whole = SparseRows.vstack([full_row(world.user_fields)]), SparseRows.vstack([full_row(world.item_fields)])
    parts = field_parts(tables, *whole, world.user_fields, world.item_fields)
    assert np.count_nonzero(parts.first) == len(world.item_fields)
    if "cosine" in kind:
        return  # an item with fewer features has a different length
    for field in range(len(world.item_fields)):
        less = full_row(world.item_fields, but=field)
        without = field_parts(tables, whole[0], less, world.user_fields, world.item_fields)
        brought = parts.across[:, field].sum() + parts.first[field]
        brought += parts.second[field].sum() + parts.second[:, field].sum() - parts.second[field, field]
        assert parts.total - without.total == pytest.approx(brought, abs=1e-9)


def full_row(fields: FeatureLayout, but: int | None = None) -> SparseRows:
    """Build a row with every feature, or with every feature except those of one field."""
    features = np.arange(fields.n_features, dtype=np.int32)
    weights = np.linspace(0.5, 1.5, len(features), dtype=np.float32)
    kept = fields.of(features) != but
    return SparseRows(np.array([0, kept.sum()]), features[kept], weights[kept], fields.n_features)


@every_kind
def test_tables_round_trip_through_arrays(kind: str, tmp_path) -> None:
    world = random_world(kind, seed=6)
    tables = tables_of(world)
    write_tensors(tmp_path / "tables", tables.arrays())
    layout = Layout.of(tables)
    assert (layout.kind, layout.cosine) == (kind.split()[-1], kind.startswith("cosine"))
    arrays = map_tensors(tmp_path / "tables", layout.shapes(world.user_fields, world.item_fields))
    again = layout.tables(arrays, world.user_fields, world.item_fields)
    assert type(again) is type(tables)
    assert (again.k, again.dim) == (tables.k, tables.dim)
    np.testing.assert_array_equal(again.item_vectors(world.items), tables.item_vectors(world.items))
    np.testing.assert_array_equal(again.user_vectors(world.users), tables.user_vectors(world.users))
    np.testing.assert_array_equal(again.user_offset(world.users), tables.user_offset(world.users))


@every_kind
def test_returned_vectors_are_not_shared(kind: str) -> None:
    world = random_world(kind, seed=8)
    tables = tables_of(world)
    expected = tables.user_vectors(world.users)
    tables.user_vectors(world.users)[:] = 7
    np.testing.assert_array_equal(tables.user_vectors(world.users), expected)


@pytest.mark.parametrize("kind", ["fm", "fwfm", "ffm"])
def test_item_vectors_are_independent_of_chunking(kind: str) -> None:
    world = random_world(kind, seed=1)
    tables, width = tables_of(world), world.item_fields.n_features
    rng = np.random.default_rng(2)
    n = 70_000  # more than one chunk
    rows = SparseRows(
        np.arange(0, 2 * n + 1, 2, dtype=np.int64),
        rng.integers(0, width, 2 * n).astype(np.int32),
        rng.standard_normal(2 * n).astype(np.float32),
        width,
    )
    vectors = tables.item_vectors(rows)
    picked = np.array([0, 65_535, 65_536, n - 1])
    np.testing.assert_allclose(tables.item_vectors(rows.take(picked)), vectors[picked], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["fm", "fwfm", "ffm"])
def test_the_item_bias_survives_cancellation(kind: str) -> None:
    # a single feature has no second-order part: |v x|^2 - x^2 |v|^2 cancels
    field = FeatureLayout.of_sizes([("only", 1)])
    large, ones, halves = np.full((1, 8), 1000.0, np.float32), np.ones(1, np.float32), np.full(1, 0.5, np.float32)
    aware = np.full((1, 2, 8), 1000.0, np.float32)
    tables = {
        "fm": FMTables(field, field, large, ones, large, halves, 0.0),
        "fwfm": FwFMTables(
            field, field, large, ones, large, halves, 0.0, np.full((2, 2), 3.0, np.float32), *([ones[:, None]] * 2)
        ),
        "ffm": FFMTables(field, field, aware, ones, aware, halves, 0.0),
    }[kind]
    row = SparseRows(np.array([0, 1]), np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.float32), 1)
    assert tables.item_vectors(row)[0, 0] == 0.5
    assert tables.user_offset(row)[0] == 1.0


@every_kind
def test_field_weights_of_float64_batches_are_distinguished(kind: str) -> None:
    """Field numbers of the tables and of batches are equal."""
    world = random_world(kind, seed=9)
    fields = SparseBatch.of(world.items, torch.float64, world.item_fields).fields
    assert fields is not None
    np.testing.assert_array_equal(fields.numpy(), world.item_fields.of(world.items.indices))
