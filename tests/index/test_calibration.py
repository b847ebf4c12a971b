import numpy as np
import pytest

from recall.index.calibration import calibrate, certify
from recall.index.exact import ExactIndex
from recall.index.ivf import Effort, IvfIndex, lists_for
from tests.index.test_contract import brute_force, users_like_a_model, vectors_like_a_model

VECTORS = vectors_like_a_model(20_000, 25, 0)
QUERIES = users_like_a_model(120, 25, 1)


@pytest.fixture(scope="module")
def inverted() -> IvfIndex:
    return IvfIndex.build(VECTORS, users_like_a_model(500, 25, 3), seed=0)


@pytest.mark.parametrize("target", [0.9, 0.99, 1.0])
def test_a_target_is_reached_with_no_more_lists_than_needed(inverted: IvfIndex, target: float) -> None:
    index = calibrate(inverted, VECTORS, QUERIES, 50, target)
    reached = certify(index, VECTORS, QUERIES, 50)
    assert reached.recall >= target
    fewer = index.with_effort(Effort(max(index.effort.nprobe * 7 // 10, 1), 0.0, 50))
    assert index.effort.nprobe == 1 or certify(fewer, VECTORS, QUERIES, 50).recall < target


def test_other_users_find_about_as_much(inverted: IvfIndex) -> None:
    index = calibrate(inverted, VECTORS, QUERIES, 50, 0.95)
    others = certify(index, VECTORS, users_like_a_model(300, 25, 2), 50)
    assert others.queries == 300
    assert others.n == 50
    assert others.recall > 0.92
    assert 0 <= others.lowest <= others.recall


def test_longer_lists_and_long_exclusions_reach_the_target_too(inverted: IvfIndex) -> None:
    index = calibrate(inverted, VECTORS, QUERIES, 20, 0.95)
    assert certify(index, VECTORS, QUERIES, 200).recall > 0.93
    best = [brute_force(VECTORS, query, 220) for query in QUERIES[:40]]
    hits = index.search(QUERIES[:40], 20, [rows[:200] for rows in best])
    found = [len(set(rows) & set(wanted[200:])) / 20 for rows, wanted in zip(hits.rows, best, strict=True)]
    assert np.mean(found) > 0.9


def test_a_row_is_found_as_soon_as_its_list_is_looked_into(inverted: IvfIndex) -> None:
    queries = QUERIES[:15]
    best = np.array([brute_force(VECTORS, query, 1)[0] for query in queries])
    places = inverted.places(queries, best[:, None])[:, 0]
    assert len(set(places)) > 1
    for query, row, place in zip(queries, best, places, strict=True):
        found = {
            nprobe: inverted.with_effort(Effort(nprobe, 0.0, 1)).search(query[None], 1).rows[0, 0]
            for nprobe in (int(place), int(place) + 1)
            if nprobe
        }
        assert found.pop(int(place) + 1) == row
        assert row not in found.values()


def test_an_exact_index_is_certified_as_such() -> None:
    found = certify(ExactIndex.build(VECTORS), VECTORS, QUERIES, 100)
    assert (found.recall, found.lowest) == (1.0, 1.0)


def test_a_list_as_long_as_the_catalogue() -> None:
    few = VECTORS[:30]
    index = calibrate(IvfIndex.build(few, QUERIES, seed=0), few, QUERIES, 100, 0.99)
    assert certify(index, few, QUERIES, 100).n == 30


def test_effort_grows_with_the_length_of_the_list() -> None:
    effort = Effort(nprobe=10, growth=0.5, n=100)
    assert [effort.at(results) for results in (1, 100, 400, 10_000)] == [10, 10, 20, 100]


@pytest.mark.parametrize(("size", "lists"), [(1, 1), (15, 1), (1000, 64), (100_000, 512), (1_000_000, 2048)])
def test_lists_grow_as_the_root_of_the_size(size: int, lists: int) -> None:
    assert lists_for(size) == lists
