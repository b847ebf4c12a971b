"""Pins are at their positions, or give a warning."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.serving.rerank.base import Candidates
from recall.serving.rerank.rules import Pin
from tests.serving.rerank.worlds import World, defined, worlds


def plain(size: int, barred: tuple[int, ...] = ()) -> World:
    mask = ~np.isin(np.arange(size), barred)
    return World(pl.DataFrame(), -np.arange(size, dtype=float), np.ones((size, 3), dtype=np.float32), mask)


@given(st.data())
def test_results_settled_on_a_prefix_hold_for_the_full_ranking(data: st.DataObject) -> None:
    world = data.draw(worlds(30))
    ids = st.integers(0, len(world.mask) + 2).map(str)
    positions = st.dictionaries(ids, st.integers(1, 40), min_size=1, max_size=5).filter(
        lambda one: len(set(one.values())) == len(one)
    )
    rule = Pin(data.draw(positions))
    part = data.draw(st.integers(0, 30))
    ranking = world.ranking
    rows = np.array(ranking[:part], dtype=np.int64)
    complete = len(ranking) <= part
    found = rule.step(world, "").apply(Candidates(rows, world.item_scores[rows], complete=complete), 1000)
    expected = defined(world, rule, ranking)
    assert found.rows.tolist() == expected[: len(found)]
    assert len(found) >= min(part, len(expected)) - len(rule.items)
    assert found.complete == complete
    assert not complete or len(found) == len(expected)
    np.testing.assert_array_equal(found.scores, world.item_scores[found.rows])


def test_a_pin_beyond_the_end_is_last() -> None:
    world = plain(4)
    step = Pin({"0": 9, "1": 7}).step(world, "")
    found = step.apply(Candidates(np.arange(4), -np.arange(4.0), complete=True), 4)
    assert found.rows.tolist() == [2, 3, 1, 0]


def test_pins_without_effect_are_reported() -> None:
    step = Pin({"2": 1, "nobody": 2, "3": 4}).step(plain(5, barred=(3,)), "")
    assert step.warnings == (
        "1 pinned ids are not in the catalogue: 'nobody'",
        "1 pinned ids are filtered or seen and are not shown: '3'",
    )
    assert Pin({"2": 1}).step(plain(5), "").warnings == ()


def test_two_pins_at_one_position_are_refused() -> None:
    with pytest.raises(RequestError, match="position 2") as raised:
        Pin({"1": 2, "0": 2}).step(plain(5), "/rules/0")
    assert raised.value.where == "/rules/0/items"
