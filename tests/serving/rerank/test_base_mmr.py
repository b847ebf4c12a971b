"""Maximal marginal relevance, compared with its formula."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.serving.rerank.base import Candidates
from recall.serving.rerank.rules import Diversify
from tests.serving.rerank.worlds import World, cosine, worlds


def applied(world: World, rule: Diversify, wanted: int) -> Candidates:
    rows = np.array(world.ranking, dtype=np.int64)
    return rule.step(world, "").apply(Candidates(rows, world.item_scores[rows], complete=True), wanted)


@given(worlds(), st.floats(0, 1), st.integers(1, 70))
def test_each_position_maximises_marginal_relevance(world: World, relevance: float, pool: int) -> None:
    found = applied(world, Diversify(relevance, pool), 1000).rows.tolist()
    ranking = world.ranking
    assert sorted(found[:pool]) == sorted(ranking[:pool])
    assert found[pool:] == ranking[pool:]
    scores = {row: float(world.item_scores[row]) for row in ranking[:pool]}
    span = max(scores.values(), default=0) - min(scores.values(), default=0)

    def value(row: int, above: list[int]) -> float:
        score = (scores[row] - min(scores.values())) / span if span else 1.0
        return relevance * score - (1 - relevance) * max((cosine(world, row, one) for one in above), default=0.0)

    for place in range(min(pool, len(ranking))):
        above = found[:place]
        best = max(value(row, above) for row in found[place:pool])
        assert value(found[place], above) >= best - 1e-5


@given(worlds(), st.integers(1, 70), st.integers(1, 70))
def test_a_shorter_list_is_a_prefix_of_a_longer_one(world: World, pool: int, wanted: int) -> None:
    rule = Diversify(0.4, pool)
    some, everything = applied(world, rule, wanted), applied(world, rule, 1000)
    assert some.rows.tolist() == everything.rows.tolist()[: len(some)]
    assert len(some) >= min(wanted, len(everything))
    assert everything.complete
    assert not some.complete or len(some) == len(everything)


def test_an_item_similar_to_a_higher_one_moves_down() -> None:
    vectors = np.array(
        [[9, 1, 0], [-9, 1, 0], [0, 0, 1]], dtype=np.float32
    )  # the first component is not part of the similarity
    world = World(pl.DataFrame({"shop": ["a"] * 3}), np.array([3.0, 2.9, 2.0]), vectors, np.ones(3, dtype=bool))
    assert applied(world, Diversify(0.5), 3).rows.tolist() == [0, 2, 1]
    assert applied(world, Diversify(1.0), 3).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("missing", [1, 10])
def test_an_incomplete_pool_settles_nothing(missing: int) -> None:
    rows = np.arange(20 - missing)
    step = Diversify(0.5, 20).step(World(pl.DataFrame(), rows, np.ones((20, 3), dtype=np.float32), rows >= 0), "")
    found = step.apply(Candidates(rows, -rows.astype(float), complete=False), 5)
    assert (len(found), found.complete) == (0, False)
