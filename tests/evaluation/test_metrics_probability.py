import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.evaluation.metrics import BINS, bins, calibration_error, log_losses, user_aucs, weighted_auc

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2), st.booleans()), min_size=1, max_size=30)


def columns(rows):
    user, score, taken = zip(*rows, strict=True)
    return np.array(user), np.array(score, dtype=np.float64), np.array(taken)


def auc(score, taken, weight=None):
    _, level = np.unique(score, return_inverse=True)
    return weighted_auc(level, taken, np.ones(len(score)) if weight is None else weight)


def brute_auc(score, taken, weight):
    won = total = 0.0
    for s, t, w in zip(score, taken, weight, strict=True):
        for other, other_taken, v in zip(score, taken, weight, strict=True):
            if t and not other_taken:
                total += w * v
                won += w * v * (1.0 if s > other else 0.5 if s == other else 0.0)
    return won / total if total else math.nan


@given(ROWS, st.randoms(use_true_random=False))
def test_auc_counts_pairs_and_ties_as_half(rows, random):
    _, score, taken = columns(rows)
    weight = np.array([random.choice([0.0, 1.0, 2.0]) for _ in rows])
    assert auc(score, taken) == pytest.approx(brute_auc(score, taken, np.ones(len(rows))), nan_ok=True)
    assert auc(score, taken, weight) == pytest.approx(brute_auc(score, taken, weight), nan_ok=True)


@given(ROWS)
def test_auc_is_invariant_to_monotonic_functions_and_flips_with_the_sign(rows):
    _, score, taken = columns(rows)
    assert auc(np.exp(score), taken) == pytest.approx(auc(score, taken), nan_ok=True)
    assert auc(-score, taken) == pytest.approx(1 - auc(score, taken), nan_ok=True)


@given(ROWS)
def test_gauc_compares_rows_within_users(rows):
    user, score, taken = columns(rows)
    aucs, rows_of_users = user_aucs(user, score, taken)
    expected = {
        one: (brute_auc(score[user == one], taken[user == one], np.ones((user == one).sum())), (user == one).sum())
        for one in np.unique(user)
        if 0 < taken[user == one].sum() < (user == one).sum()
    }
    np.testing.assert_allclose(aucs, [value for value, _ in expected.values()])
    assert rows_of_users.tolist() == [count for _, count in expected.values()]


@given(st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=1, max_size=20))
def test_log_loss_uses_the_logistic_function(rows):
    score, taken = (np.array(part) for part in zip(*rows, strict=True))
    probability = 1 / (1 + np.exp(-score))
    np.testing.assert_allclose(
        log_losses(score, taken), -np.log(np.where(taken, probability, 1 - probability)), rtol=1e-3, atol=1e-12
    )


def test_log_loss_of_a_confident_wrong_score_is_finite():
    assert log_losses(np.array([1000.0, -1000.0]), np.array([False, True])).tolist() == [1000.0, 1000.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_bins_are_sorted_by_probability_and_ties_share_one(values):
    probability = np.array(values)
    found = bins(probability)
    assert ((found >= 0) & (found < BINS)).all()
    order = np.argsort(probability)
    assert (np.diff(found[order]) >= 0).all()
    for value in values:
        assert len(set(found[probability == value].tolist())) == 1


@given(st.integers(1, 300))
def test_bins_have_equal_sizes(n):
    counts = np.bincount(bins(np.random.default_rng(0).permutation(n) / n), minlength=BINS)
    assert counts.max() - counts.min() <= 1


def test_calibration_error_is_the_mean_gap():
    predicted, happened, weight = np.array([1.0, 3.0]), np.array([2.0, 2.5]), np.array([4.0, 4.0])
    assert calibration_error(predicted, happened, weight) == pytest.approx(0.5 * (1 / 4) + 0.5 * (0.5 / 4))
