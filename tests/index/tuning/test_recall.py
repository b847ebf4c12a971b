from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import IndexConfig
from recall.index.faiss_engine import Effort, IvfIndex
from recall.index.flat import ExactIndex
from recall.index.tuning.recall import bisect, calibrated, recalls_found
from tests.index.test_base import brute_force, users_like_a_model, vectors_like_a_model

model_vectors = cache(partial(vectors_like_a_model, 20_000, 25, 0))
model_queries = cache(partial(users_like_a_model, 120, 25, 1))


@pytest.fixture(scope="module")
def inverted() -> IvfIndex:
    return IvfIndex.build(model_vectors(), users_like_a_model(500, 25, 3), 128, seed=0)


def tuned(index: IvfIndex, vectors: np.ndarray, n: int, target: float) -> IvfIndex:
    found = calibrated(index, vectors, model_queries(), IndexConfig(n=n, target=target))
    assert isinstance(found, IvfIndex)
    return found


@pytest.mark.parametrize("target", [0.9, 0.99])
def test_no_more_lists_than_needed_are_probed(inverted: IvfIndex, target: float) -> None:
    index = tuned(inverted, model_vectors(), 50, target)
    assert recalls_found(index, model_vectors(), model_queries(), 50).mean() >= target
    fewer = index.with_effort(Effort(max(index.effort.nprobe * 7 // 10, 1), 0.0, 50))
    assert index.effort.nprobe == 1 or recalls_found(fewer, model_vectors(), model_queries(), 50).mean() < target


def test_other_users_have_similar_recall(inverted: IvfIndex) -> None:
    index = tuned(inverted, model_vectors(), 50, 0.95)
    others = recalls_found(index, model_vectors(), users_like_a_model(300, 25, 2), 50)
    assert others.shape == (300,)
    assert others.mean() > 0.92
    assert others.min() >= 0


def test_longer_lists_and_long_exclusions_reach_the_target_too(inverted: IvfIndex) -> None:
    index = tuned(inverted, model_vectors(), 20, 0.95)
    assert recalls_found(index, model_vectors(), model_queries(), 200).mean() > 0.93
    best = [brute_force(model_vectors(), query, 220) for query in model_queries()[:40]]
    hits = index.search(model_queries()[:40], 20, [rows[:200] for rows in best])
    found = [len(set(rows) & set(wanted[200:])) / 20 for rows, wanted in zip(hits.rows, best, strict=True)]
    assert np.mean(found) > 0.9


@given(st.integers(1, 300), st.data())
def test_the_smallest_search_parameter_is_found(most: int, data: st.DataObject) -> None:
    least, first = data.draw(st.integers(1, most + 5)), data.draw(st.integers(0, most - 1))
    asked: list[float] = []

    def enough(effort: float) -> bool:
        asked.append(effort)
        return effort >= least

    found = bisect(range(1, most + 1), enough, first)
    if least > most:
        assert found is None
    else:
        lowest = max(least, first + 1)
        assert lowest <= (found or 0) <= lowest * 33 / 32 + 1
    assert len(asked) <= 2 * np.log2(most + 2) + 3


def test_an_unreachable_target_returns_nothing() -> None:
    assert bisect(range(1, 101), lambda effort: None if effort > 10 else False) is None


def test_an_exact_index_is_recorded_as_exact() -> None:
    assert (recalls_found(ExactIndex.build(model_vectors()), model_vectors(), model_queries(), 100) == 1.0).all()


def test_a_list_may_be_as_long_as_the_catalogue() -> None:
    few = model_vectors()[:30]
    index = tuned(IvfIndex.build(few, model_queries(), 3, seed=0), few, 100, 0.99)
    assert recalls_found(index, few, model_queries(), 100).mean() >= 0.99


def test_the_search_parameter_grows_with_the_list_length() -> None:
    effort = Effort(nprobe=10, growth=0.5, n=100)
    assert [effort.at(results) for results in (1, 100, 400, 10_000)] == [10, 10, 20, 100]
