"""Sums of embeddings (LightFM): an FM without pairs of features of one side."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recall.features.csr import SparseRows
from recall.models.serving.fm import SumTables
from recall.models.serving.layout import Layout, field_parts
from tests.models.torch.worlds import World, random_world, worlds


def sums_of(world: World) -> SumTables:
    arrays = world.model.tables(world.user_fields, world.item_fields).arrays()
    tables = Layout("sums", arrays["user_factors"].shape[1], None, cosine=False).tables(
        arrays, world.user_fields, world.item_fields
    )
    assert isinstance(tables, SumTables)
    return tables


def dense(rows: SparseRows) -> np.ndarray:
    x = np.zeros((len(rows), rows.n_features))
    x[np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices] = rows.weights
    return x


@given(st.data())
def test_the_score_equals_lightfms(data: st.DataObject) -> None:
    """Compute < sum of user embeddings, sum of item embeddings > + sums of biases (Kula 2015)."""
    world = data.draw(worlds("fm"))
    tables = sums_of(world)
    q, p = dense(world.users), dense(world.items)
    expected = (q @ tables.user_factors) @ (p @ tables.item_factors).T + tables.bias
    expected = expected + (q @ tables.user_weights)[:, None] + p @ tables.item_weights
    scale = max(1.0, float(np.abs(expected).max())) * max(1.0, float(np.abs(q).sum() + np.abs(p).sum()))
    served = tables.user_offset(world.users)[:, None] + tables.user_vectors(world.users) @ tables.item_vectors(world.items).T
    np.testing.assert_allclose(served, expected, atol=1e-5 * scale, rtol=0)
    np.testing.assert_allclose(tables.scores(world.users, world.items), expected, atol=1e-6 * scale, rtol=0)


def test_single_requests_have_no_pairs_within_a_side() -> None:
    world = random_world("fm", seed=5)
    tables = sums_of(world)
    for users in (world.users, *(world.users.take(np.array([row])) for row in range(len(world.users)))):
        vectors, offsets = tables.user_parts(users)
        np.testing.assert_allclose(vectors, tables.user_vectors(users), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(offsets, tables.user_offset(users), rtol=1e-12, atol=1e-12)


def test_an_explanation_adds_up_without_pairs_within_the_item() -> None:
    world = random_world("fm", seed=3)
    tables = sums_of(world)
    _, products = tables.split(world.users, world.items)
    user, item = world.users.take(np.array([1])), world.items.take(np.array([2]))
    parts = field_parts(tables, user, item, world.user_fields, world.item_fields)
    assert abs(parts.total - products[1, 2]) < 1e-9
    assert not parts.second.any()


def test_the_layout_stores_the_kind() -> None:
    tables = sums_of(random_world("fm", seed=4))
    assert Layout.of(tables).kind == tables.kind == "sums"
