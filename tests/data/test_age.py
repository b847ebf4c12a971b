import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.data.dataset import FLOOR, decay
from recall.data.split import TEST, TRAIN, VALID


def test_later_training_interactions_of_a_user_halve_the_weight():
    user = np.array([0, 0, 0, 0, 1, 1])
    parts = np.array([TRAIN, TRAIN, TRAIN, TEST, TRAIN, VALID], dtype=np.int8)
    assert decay(user, parts, 1.0).tolist() == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert decay(user, parts, 2.0)[0] == 0.5


def test_weights_do_not_underflow_to_zero():
    shares = decay(np.zeros(5000, dtype=np.int32), np.full(5000, TRAIN, dtype=np.int8), 3.0)
    assert shares.min() == np.float32(FLOOR)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([TRAIN, VALID, TEST])), max_size=40), st.floats(0.5, 50))
def test_decay_matches_a_manual_calculation(rows, half_life):
    rows.sort(key=lambda row: row[0])
    user = np.array([row[0] for row in rows], dtype=np.int32)
    parts = np.array([row[1] for row in rows], dtype=np.int8)
    expected = []
    for place, (one, part) in enumerate(rows):
        later = sum(other == one and where == TRAIN for other, where in rows[place + 1 :])
        expected.append(max(0.5 ** (later / half_life), FLOOR) if part == TRAIN else 1.0)
    assert decay(user, parts, half_life).tolist() == pytest.approx(expected, rel=1e-6)
