"""Rules on a prefix of the ranking give the same result as on the whole, for any rules in any order."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.serving.rerank.base import apply_rules
from recall.serving.rerank.rules import Dedupe, Diversify, Pin, Quota
from tests.hypotheses import examples
from tests.serving.rerank.worlds import World, defined, rules, worlds


def whole(world: World, chosen: list) -> list[int]:
    ranking = world.ranking
    for rule in chosen:
        ranking = defined(world, rule, ranking)
    return ranking


@settings(max_examples=examples(300))
@given(st.data())
def test_a_prefix_of_the_ranking_is_sufficient(data: st.DataObject) -> None:
    world = data.draw(worlds())
    # values equal up to rounding may be ordered either way, so no rule follows marginal relevance on ties
    chosen = data.draw(st.lists(rules(world, with_diversity=False), max_size=4))
    n = data.draw(st.integers(1, 20))
    found = apply_rules(world.fetcher([]), [rule.step(world, "") for rule in chosen], n, len(world.item_scores))
    expected = whole(world, chosen)
    assert found.rows.tolist() == expected[:n]
    np.testing.assert_array_equal(found.scores, world.item_scores[found.rows])
    assert found.complete or len(expected) >= n


@settings(max_examples=examples(100))
@given(st.data())
def test_marginal_relevance_combines_with_other_rules(data: st.DataObject) -> None:
    world = data.draw(worlds())
    chosen = data.draw(st.lists(rules(world), min_size=1, max_size=3))
    # only scores count; similarities would be equal up to rounding
    chosen = [Diversify(1.0, rule.pool) if isinstance(rule, Diversify) else rule for rule in chosen]
    n = data.draw(st.integers(1, 20))
    found = apply_rules(world.fetcher([]), [rule.step(world, "") for rule in chosen], n, len(world.item_scores))
    assert found.rows.tolist() == whole(world, chosen)[:n]


def shops(size: int, of_one: int) -> World:
    """Build a world in which the best `of_one` items share one shop and each other item has its own."""
    names = ["a"] * of_one + [f"s{row}" for row in range(size - of_one)]
    frame = pl.DataFrame({"shop": names})
    return World(frame, -np.arange(size, dtype=float), np.ones((size, 3), dtype=np.float32), np.ones(size, dtype=bool))


def test_retrieval_widens_until_there_are_enough_items() -> None:
    world, widths = shops(5000, 1000), []
    found = apply_rules(world.fetcher(widths), [Quota("shop", 2).step(world, "")], 10, len(world.item_scores))
    assert found.rows.tolist() == [0, 1, *range(1000, 1008)]
    assert widths == [30, 120]  # in the second retrieval, the shop with a full quota is skipped


def test_retrieval_widens_for_later_rules() -> None:
    size, widths = 5000, []
    frame = pl.DataFrame({"shop": [f"s{row}" for row in range(size)], "town": [f"t{row // 1000}" for row in range(size)]})
    world = World(frame, -np.arange(size, dtype=float), np.ones((size, 3), dtype=np.float32), np.ones(size, dtype=bool))
    found = apply_rules(
        world.fetcher(widths), [Dedupe("shop").step(world, ""), Quota("town", 1).step(world, "")], 4, len(world.item_scores)
    )
    assert found.rows.tolist() == [0, 1000, 2000, 3000]
    assert len(widths) < 8
    assert sum(widths) < 3 * size


def test_retrieval_stops_when_no_more_items_exist() -> None:
    size = 5000
    frame = pl.DataFrame({"shop": [f"s{row % 3}" for row in range(size)]})
    world = World(frame, -np.arange(size, dtype=float), np.ones((size, 3), dtype=np.float32), np.ones(size, dtype=bool))
    widths: list[int] = []
    found = apply_rules(world.fetcher(widths), [Quota("shop", 2).step(world, "")], 100, len(world.item_scores))
    assert (found.rows.tolist(), found.complete, widths) == ([0, 1, 2, 3, 4, 5], True, [300])


def test_rules_that_drop_nothing_need_one_retrieval() -> None:
    world, widths = shops(500, 1), []
    steps = [Diversify(0.5, 50).step(world, ""), Pin({"400": 3, "7": 20}).step(world, "")]
    assert apply_rules(world.fetcher(widths), steps, 20, len(world.item_scores)).rows[[2, 19]].tolist() == [400, 7]
    assert widths == [50]


@pytest.mark.parametrize("n", [1, 3, 100])
def test_without_rules_the_ranking_is_unchanged(n: int) -> None:
    world = shops(30, 1)
    assert apply_rules(world.fetcher([]), [], n, len(world.item_scores)).rows.tolist() == world.ranking[:n]


def test_ten_quotas_never_request_more_rows_than_exist() -> None:
    world, widths = shops(400, 390), []
    steps = [Quota("shop", 1).step(world, "") for _ in range(10)]
    found = apply_rules(world.fetcher(widths), steps, 20, len(world.item_scores))
    assert found.rows.tolist() == [0, *range(390, 400)]
    assert found.complete
    assert max(widths) <= 401


def test_estimates_of_several_quotas_add_up() -> None:
    world, widths = shops(100_000, 1), []
    steps = [Quota("shop", 2).step(world, "") for _ in range(10)]
    found = apply_rules(world.fetcher(widths), steps, 1000, len(world.item_scores))
    assert found.rows.tolist() == list(range(1000))
    assert widths == [1000 + 10 * 2000]


def test_the_order_of_rules_matters() -> None:
    world = shops(10, 5)
    pin, dedupe = Pin({"4": 1}), Dedupe("shop")
    first = apply_rules(world.fetcher([]), [pin.step(world, ""), dedupe.step(world, "")], 3, len(world.item_scores))
    assert first.rows.tolist() == [4, 5, 6]  # the pinned item is now the best of its shop
    last = apply_rules(world.fetcher([]), [dedupe.step(world, ""), pin.step(world, "")], 3, len(world.item_scores))
    assert last.rows.tolist() == [4, 0, 5]
