import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.evaluation import metrics
from tests.evaluation import reference

HITS = np.array(
    [
        [True, False, True, False, False],  # both of two relevant
        [False, False, False, False, False],  # none of one
        [False, True, True, True, False],  # three of seven
    ]
)
RELEVANT = np.array([2, 1, 7])


def test_recall_divides_by_all_relevant_items():
    assert metrics.recall(HITS, RELEVANT, 1).tolist() == [0.5, 0, 0]
    assert metrics.recall(HITS, RELEVANT, 5) == pytest.approx([1, 0, 3 / 7])


def test_hit_rate_is_the_share_of_requests_with_a_hit():
    assert metrics.hit_rate(HITS, 1).tolist() == [1, 0, 0]
    assert metrics.hit_rate(HITS, 2).tolist() == [1, 0, 1]


def test_ndcg_is_normalised_by_the_ideal_list():
    second, third, fourth = 1 / math.log2(3), 1 / math.log2(4), 1 / math.log2(5)
    assert metrics.ndcg(HITS, RELEVANT, 5) == pytest.approx(
        [(1 + third) / (1 + second), 0, (second + third + fourth) / (1 + second + third + fourth + 1 / math.log2(6))]
    )
    assert metrics.ndcg(HITS, RELEVANT, 1).tolist() == [1, 0, 0]


def test_reciprocal_rank_is_of_the_first_hit():
    assert metrics.reciprocal_rank(HITS, 5).tolist() == [1, 0, 0.5]
    assert metrics.reciprocal_rank(HITS, 1).tolist() == [1, 0, 0]
    assert metrics.reciprocal_rank(HITS[:, :0], 5).tolist() == [0, 0, 0]


def test_average_precision_matches_its_definition():
    assert metrics.average_precision(HITS, RELEVANT, 5) == pytest.approx([(1 + 2 / 3) / 2, 0, (1 / 2 + 2 / 3 + 3 / 4) / 5])


@given(st.data())
def test_every_metric_agrees_with_a_plain_reference(data):
    n_items = data.draw(st.integers(1, 12))
    answers = data.draw(st.lists(st.permutations(range(n_items)), min_size=1, max_size=4))
    wanted = [data.draw(st.sets(st.integers(0, 15), min_size=1, max_size=8)) for _ in answers]
    length = data.draw(st.integers(1, n_items))
    at = (1, 3, 10)
    hits = np.array([[item in want for item in answer[:length]] for answer, want in zip(answers, wanted, strict=True)])
    values = metrics.per_request(hits, np.array([len(want) for want in wanted]), at)
    assert list(values) == [f"{name}@{k}" for name in reference.METRICS for k in at]
    for name, metric in reference.METRICS.items():
        for k in at:
            expected = [metric(answer[:length], want, k) for answer, want in zip(answers, wanted, strict=True)]
            assert values[f"{name}@{k}"] == pytest.approx(expected)
            assert ((values[f"{name}@{k}"] >= 0) & (values[f"{name}@{k}"] <= 1 + 1e-12)).all()


def test_exposure_and_coverage_ignore_empty_positions():
    rows = np.array([[0, 2, 3], [2, -1, -1]])
    assert metrics.exposure(rows, 5, 3).tolist() == [1, 0, 2, 1, 0]
    assert metrics.exposure(rows, 5, 1).tolist() == [1, 0, 1, 0, 0]
    assert metrics.coverage(metrics.exposure(rows, 5, 3)) == 0.6


def test_gini_of_equal_and_of_single_exposure():
    assert metrics.gini(np.array([3, 3, 3, 3])) == 0
    assert metrics.gini(np.array([0, 0, 0, 9])) == 0.75
    assert metrics.gini(np.array([0, 0])) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_gini_is_half_the_relative_mean_difference(counts):
    assert metrics.gini(np.array(counts)) == pytest.approx(reference.gini(counts), abs=1e-12)


def test_novelty_is_the_information_in_the_training_share():
    information = metrics.self_information(np.array([4, 2, 2, 0]))
    assert information.tolist() == [1, 2, 2, 3]  # the last has no interactions and counts as one
    rows = np.array([[0, 1, 3], [3, -1, -1], [-1, -1, -1]])
    assert metrics.novelty(rows, information, 3).tolist() == [2, 3, 0]
    assert metrics.novelty(rows, information, 1).tolist() == [1, 3, 0]


def test_self_information_without_any_interaction_is_zero():
    assert metrics.self_information(np.zeros(3, dtype=np.int64)).tolist() == [0, 0, 0]
