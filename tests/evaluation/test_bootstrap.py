import numpy as np
import pytest

from recall.errors import DataError
from recall.evaluation import bootstrap
from recall.evaluation.bootstrap import Estimate, PerRequestMetrics, compare, estimate


def judged(values, user=None):
    values = np.asarray(values, dtype=np.float64)
    return PerRequestMetrics(np.arange(len(values)) if user is None else np.asarray(user), {"recall@10": values})


def test_the_value_is_the_mean_and_equal_values_have_no_width():
    figure = estimate(judged([0.5, 0.5, 0.5]), 100, seed=0)["recall@10"]
    assert figure == Estimate(value=0.5, low=0.5, high=0.5)
    assert estimate(judged([1, 0, 0, 1], [0, 0, 0, 1]), 50, seed=0)["recall@10"].value == 0.5


def test_intervals_are_omitted_on_request_and_for_a_single_user():
    assert estimate(judged([0, 1]), 0, seed=0)["recall@10"] == Estimate(value=0.5)
    assert estimate(judged([0, 1], [3, 3]), 100, seed=0)["recall@10"] == Estimate(value=0.5)


def test_equal_seeds_give_equal_draws_for_any_blocking(monkeypatch):
    figures = judged(np.random.default_rng(0).random(40))
    first = estimate(figures, 200, seed=7)
    assert estimate(figures, 200, seed=7) == first
    assert estimate(figures, 200, seed=8) != first
    monkeypatch.setattr(bootstrap, "_BLOCK", 40 * 33)
    assert estimate(figures, 200, seed=7) == first


def test_intervals_cover_the_truth_in_about_95_percent():
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        figure = estimate(judged(random.random(120) < 0.3), 300, seed=trial)["recall@10"]
        covered += figure.low <= 0.3 <= figure.high
    assert 0.90 <= covered / 300 <= 0.985


def test_intervals_are_valid_for_correlated_requests_of_a_user():
    """100 users with 20 identical requests each have the information of 100 requests, not 2,000."""
    random = np.random.default_rng(2)
    covered, widths = 0, []
    for trial in range(200):
        figure = estimate(judged(np.repeat(random.random(100) < 0.3, 20), np.repeat(np.arange(100), 20)), 300, seed=trial)
        covered += figure["recall@10"].low <= 0.3 <= figure["recall@10"].high
        widths.append(figure["recall@10"].high - figure["recall@10"].low)
    assert covered / 200 >= 0.88
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 100), rel=0.1)


def test_users_with_more_requests_weigh_more():
    """The mean is over requests, so a resample divides by its own number of requests."""
    figure = estimate(judged([1] * 9 + [0], [0] * 9 + [1]), 500, seed=0)["recall@10"]
    assert (figure.value, figure.low, figure.high) == (0.9, 0, 1)


def test_a_paired_difference_is_detected_despite_overlapping_intervals():
    random = np.random.default_rng(3)
    easy = random.random(200)
    better, worse = judged(easy + 0.02 + 0.01 * random.random(200)), judged(easy)
    one, other = (estimate(part, 500, seed=0)["recall@10"] for part in (better, worse))
    assert one.low < other.high
    compared = compare(better, worse, 500, seed=0)["recall@10"]
    assert compared.verdict == "higher"
    assert compared.difference.value == pytest.approx(0.025, abs=0.002)
    assert compared.ratio.value == pytest.approx(one.value / other.value)
    assert compared.ratio.low > 1
    assert compare(worse, better, 500, seed=0)["recall@10"].verdict == "lower"


def test_equal_answers_are_undecided():
    figures = judged(np.random.default_rng(4).random(50))
    assert compare(figures, figures, 100, seed=0)["recall@10"].difference == Estimate(value=0, low=0, high=0)
    noise = judged(np.random.default_rng(5).random(50))
    assert compare(figures, noise, 300, seed=0)["recall@10"].verdict == "undecided"
    assert compare(judged([1, 1]), judged([0, 0.5]), 0, seed=0)["recall@10"].verdict == "undecided"


def test_a_ratio_to_0_is_omitted():
    assert compare(judged([1, 1]), judged([0, 0]), 100, seed=0)["recall@10"].ratio is None
    nearly = compare(judged([1, 1, 1]), judged([0, 0, 1]), 100, seed=0)["recall@10"]
    assert (nearly.ratio.value, nearly.ratio.low, nearly.ratio.high) == (pytest.approx(3), None, None)


def test_metrics_of_different_requests_are_not_compared():
    with pytest.raises(DataError, match="3 and 2 requests"):
        compare(judged([1, 1, 1]), judged([1, 1]), 10, seed=0)


def test_intervals_of_many_users_approach_the_normal_distribution():
    random = np.random.default_rng(6)
    figures = PerRequestMetrics(np.arange(10_000), {f"m{i}": random.random(10_000) for i in range(6)})
    for name, found in estimate(figures, 1000, seed=0).items():
        values = figures.values[name]
        half = 1.96 * values.std() / np.sqrt(len(values))
        assert found.value == pytest.approx(values.mean())
        assert found.high - found.value == pytest.approx(half, rel=0.2)
        assert found.value - found.low == pytest.approx(half, rel=0.2)
