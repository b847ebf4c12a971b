import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.index.tuning.recall import alpha_spending, best_bound, lower_bound

shares = st.lists(st.integers(0, 20).map(lambda hits: hits / 20), min_size=0, max_size=60).map(np.array)


@given(shares, shares, st.floats(0.5, 0.999))
def test_the_bound_is_between_0_and_the_mean(drawn: np.ndarray, earlier: np.ndarray, confidence: float) -> None:
    bound = lower_bound(drawn, confidence, earlier)
    assert 0 <= bound <= 1
    assert bound <= (drawn.mean() if len(drawn) else 0) + 1e-9


@given(shares)
def test_the_assumed_spread_does_not_affect_validity(drawn: np.ndarray) -> None:
    assert lower_bound(np.zeros(len(drawn)), 0.95, np.ones(200)) == 0


def rare_zeros(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return (rng.random(shape) < 0.995).astype(float)


def lists_of_100(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.binomial(100, rng.beta(60, 0.6, shape)) / 100


def mostly_whole(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.02, 0.6, 1.0)


def even(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.random(shape)


MEANS = {rare_zeros: 0.995, lists_of_100: 60 / 60.6, mostly_whole: 0.992, even: 0.5}


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("draw", MEANS, ids=lambda one: one.__name__)
def test_the_bound_exceeds_the_mean_at_most_at_the_error_rate(draw, count: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(count)
    trials = 400
    bounds = [lower_bound(drawn, 0.9, draw(rng, (1, 100))[0]) for drawn in draw(rng, (trials, count))]
    wrong = np.mean(np.array(bounds) > MEANS[draw])
    assert wrong <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / trials)


def test_students_bound_fails_if_bad_users_are_rare() -> None:
    """The reason for not using the usual bound."""
    rng = np.random.default_rng(0)
    drawn = rare_zeros(rng, (400, 60))
    bounds = drawn.mean(axis=1) - 1.67 * drawn.std(axis=1, ddof=1) / np.sqrt(60)
    assert np.mean(bounds > 0.995) > 0.3


@pytest.mark.parametrize(("count", "margin"), [(1000, 0.005), (4000, 0.002)])
def test_the_bound_is_tight_for_high_recall(count: int, margin: float) -> None:
    drawn = lists_of_100(np.random.default_rng(1), (2, count))
    assert lower_bound(drawn[0], 0.95, drawn[1]) > drawn[0].mean() - margin


@pytest.mark.parametrize("count", [1, 20, 300, 3000])
def test_binary_shares_match_clopper_pearson(count: int) -> None:
    exactly = 0.05 ** (1 / count)
    assert exactly * 0.95 - 0.05 <= best_bound(count, 0.95) <= exactly
    assert best_bound(3000, 0.95) > 0.9985


def test_the_error_is_divided_among_all_rounds() -> None:
    errors = [1 - alpha_spending(0.95, look) for look in range(1, 2000)]
    assert errors[0] == pytest.approx(0.025)
    assert sum(errors) < 0.05
    assert errors == sorted(errors, reverse=True)
