import numpy as np
import pytest

from recall.errors import ExportError
from recall.models.serving.base import check_parity

RNG = np.random.default_rng(0)
USERS = RNG.standard_normal((6, 5)).astype(np.float32)
ITEMS = RNG.standard_normal((40, 5)).astype(np.float32)
OFFSET = RNG.standard_normal(6)
SCORES = USERS.astype(np.float64) @ ITEMS.T.astype(np.float64) + OFFSET[:, None]


def test_equal_scores_pass_the_parity_check() -> None:
    proof = check_parity(USERS, OFFSET, ITEMS, SCORES, 1e-4)
    assert (proof.users, proof.items, proof.top_k, proof.top_k_agreement) == (6, 40, 10, 6)
    assert 0 < proof.largest_error < 1e-6


def test_fewer_items_than_the_list_length_pass() -> None:
    assert check_parity(USERS, OFFSET, ITEMS[:3], SCORES[:, :3], 1e-4).top_k == 3


def test_a_different_score_is_named() -> None:
    wrong = SCORES.copy()
    wrong[4, 7] += 0.01
    with pytest.raises(ExportError, match=r"user 4 and item 7 of the sample: .*relative error 0.00"):
        check_parity(USERS, OFFSET, ITEMS, wrong, 1e-4)


def test_the_error_is_relative_to_the_users_largest_score() -> None:
    large = check_parity(USERS, OFFSET * 1e4, ITEMS, SCORES + (OFFSET * (1e4 - 1))[:, None], 1e-4)
    assert large.largest_error < 1e-6
    small = SCORES * 1e-6
    small[0, 0] += 5e-5  # far above these scores, yet below the tolerance relative to 1
    assert 4e-5 < check_parity(USERS * np.float32(1e-6), OFFSET * 1e-6, ITEMS, small, 1e-4).largest_error < 6e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_score_is_refused(value: float) -> None:
    wrong = SCORES.copy()
    wrong[0, 0] = value
    with pytest.raises(ExportError, match="not finite"):
        check_parity(USERS, OFFSET, ITEMS, wrong, 1e-4)
    vectors = ITEMS.copy()
    vectors[0, 0] = value
    with pytest.raises(ExportError, match="not finite"):
        check_parity(USERS, OFFSET, vectors, SCORES, 1e-4)


def test_ties_may_be_ordered_either_way() -> None:
    twins = np.repeat(ITEMS, 2, axis=0)
    wobble = 1e-7 * RNG.standard_normal((6, 80))
    assert check_parity(USERS, OFFSET, twins, np.repeat(SCORES, 2, axis=1) + wobble, 1e-4).top_k_agreement == 6
