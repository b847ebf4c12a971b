"""Quotas and deduplication compared with their definition, and early results."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.serving.rerank.base import Candidates
from recall.serving.rerank.rules import Dedupe, Quota
from tests.serving.rerank.worlds import World, defined, worlds

ANY = st.one_of(
    st.builds(Quota, st.sampled_from(["shop", "tags"]), st.integers(1, 4)), st.builds(Dedupe, st.sampled_from(["shop", "tags"]))
)


@given(worlds(), ANY)
def test_a_quota_admits_items_by_its_definition(world: World, rule: Quota | Dedupe) -> None:
    rows = np.array(world.ranking, dtype=np.int64)
    found = rule.step(world, "").apply(Candidates(rows, world.item_scores[rows], complete=True), 1000)
    assert found.rows.tolist() == defined(world, rule, world.ranking)
    assert found.complete


@given(worlds(), ANY, st.integers(0, 60), st.integers(1, 30))
def test_results_settled_on_a_prefix_hold_for_the_full_ranking(
    world: World, rule: Quota | Dedupe, part: int, wanted: int
) -> None:
    rows = np.array(world.ranking[:part], dtype=np.int64)
    found = rule.step(world, "").apply(Candidates(rows, world.item_scores[rows], complete=False), wanted)
    expected = defined(world, rule, world.ranking)
    assert found.rows.tolist() == expected[: len(found)]
    assert len(found) >= min(wanted, len(defined(world, rule, world.ranking[:part])))
    assert not found.complete or len(found) == len(expected)


@pytest.mark.parametrize("rule", [Quota("shoppe", 1), Dedupe("shoppe")])
def test_a_missing_column_is_refused(rule: Quota | Dedupe) -> None:
    world = World(pl.DataFrame({"shop": ["a"]}), np.zeros(1), np.zeros((1, 3), dtype=np.float32), np.ones(1, dtype=bool))
    with pytest.raises(RequestError) as raised:
        rule.step(world, "/rules/3")
    assert raised.value.where == "/rules/3/column"
