"""The popularity factor over every kind of model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.models.serving.layout import Layout, entry_parts, field_parts, unwrapped
from recall.models.serving.popularity import PopularityFactor, PopularityTables
from tests.models.serving.test_base import every_kind, tables_of
from tests.models.torch.worlds import World, worlds


def with_factor(world: World, seed: int) -> PopularityTables:
    rng = np.random.default_rng(seed)
    sides = (world.user_fields, world.item_fields, world.item_fields)
    weights = (rng.normal(size=fields.n_features).astype(np.float32) for fields in sides)
    return PopularityTables(tables_of(world), PopularityFactor(*weights))


@every_kind
@given(st.data(), st.integers(0, 2**16))
def test_the_popularity_factor_adds_one_product_to_each_score(kind: str, data: st.DataObject, seed: int) -> None:
    world = data.draw(worlds(kind))
    tables = with_factor(world, seed)
    for rows, row in ((world.users, 0), (world.users, len(world.users) - 1)):
        one = rows.take(np.array([row]))
        component = float((one.weights * tables.factor.users[one.indices]).sum())
        assert tables.user_vectors(one)[0, -1] == pytest.approx(component, rel=1e-4, abs=1e-4)
        vector, offset = tables.user_parts(one)
        np.testing.assert_allclose(vector, tables.user_vectors(one), rtol=1e-4, atol=1e-4)
        assert offset == pytest.approx(tables.of.user_offset(one), rel=1e-4, abs=1e-4)
    exact = [
        np.array([float(rows.take(np.array([row])).weighted_sum(table[:, None])[0, 0]) for row in range(len(rows))])
        for rows, table in (
            (world.users, tables.factor.users),
            (world.items, tables.factor.items),
            (world.items, tables.factor.levels),
        )
    ]
    expected = tables.of.split(world.users, world.items)[1] * (1 + exact[2]) + np.outer(exact[0], exact[1])
    np.testing.assert_allclose(tables.split(world.users, world.items)[1], expected, atol=1e-4, rtol=1e-4)
    served = tables.user_vectors(world.users).astype(np.float64) @ tables.item_vectors(world.items).T
    np.testing.assert_allclose(served, expected, atol=1e-4 * (1 + np.abs(expected).max()), rtol=0)
    np.testing.assert_array_equal(tables.user_vectors(world.users)[:, :-1], tables.of.user_vectors(world.users))


@every_kind
@given(st.data())
def test_without_levels_no_other_component_changes(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    tables = with_factor(world, 3)
    factor = PopularityFactor(tables.factor.users, tables.factor.items, np.zeros_like(tables.factor.levels))
    plain = PopularityTables(tables.of, factor)
    np.testing.assert_array_equal(plain.item_vectors(world.items)[:, :-1], tables.of.item_vectors(world.items))


@every_kind
@given(st.data(), st.integers(0, 2**16))
def test_explanations_contain_the_popularity_factor(kind: str, data: st.DataObject, seed: int) -> None:
    world = data.draw(worlds(kind))
    tables = with_factor(world, seed)
    user, item = world.users.take(np.array([0])), world.items.take(np.array([0]))
    score = float(tables.split(user, item)[1][0, 0])
    parts = field_parts(tables, user, item, world.user_fields, world.item_fields)
    assert parts.total == pytest.approx(score, rel=1e-5, abs=1e-5)
    parts = entry_parts(tables, user, item)
    assert float(parts.across.sum() + parts.first.sum() + parts.second.sum()) == pytest.approx(score, rel=1e-5, abs=1e-5)


@every_kind
@given(st.data())
def test_the_popularity_factor_is_stored_and_read(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    tables = with_factor(world, 1)
    layout = Layout.of(tables)
    assert layout.popularity
    assert layout.cosine == ("cosine" in kind)
    shapes = layout.shapes(world.user_fields, world.item_fields)
    assert {name: array.shape for name, array in tables.arrays().items()} == shapes
    again = layout.tables(tables.arrays(), world.user_fields, world.item_fields)
    np.testing.assert_array_equal(again.item_vectors(world.items), tables.item_vectors(world.items))
    assert unwrapped(again).arrays().keys() == unwrapped(tables).arrays().keys()


@given(st.data())
def test_the_popularity_factor_does_not_affect_similarity(data: st.DataObject) -> None:
    world = data.draw(worlds("fm"))
    tables = with_factor(world, 2)
    assert tables.item_vectors(world.items)[:, tables.taste].shape[1] == tables.k
