import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recall.data.dependence import Dependence, choice_gain, encode_distinct, function_gain, number_gain, predict_by_group

small = arrays(np.int64, st.integers(1, 25), elements=st.integers(0, 3))


@given(small, st.data())
def test_predictability_is_by_majority_vote_of_other_rows(groups: np.ndarray, data: st.DataObject) -> None:
    values = data.draw(arrays(np.int64, len(groups), elements=st.integers(0, 3)))
    found = predict_by_group(groups, values)
    for row, group in enumerate(groups):
        others = [value for other, value in enumerate(values) if groups[other] == group and other != row]
        if not others:
            assert np.isnan(found[row])
            continue
        votes = np.bincount(others, minlength=4)
        mine, best = votes[values[row]], np.delete(votes, values[row]).max()
        assert found[row] == (1.0 if mine > best else 0.5 if mine == best else 0.0)


def test_a_function_scores_1_and_noise_0_for_any_cardinality() -> None:
    rng = np.random.default_rng(0)
    for rows, items in ((200, 30), (5_000, 800)):
        item = rng.integers(0, items, rows)
        assert function_gain(item, item * 7 % 11).value == 1.0
        for values in (2, 24, rows):
            noise = function_gain(item, rng.integers(0, values, rows))
            assert noise.low < 0.05, (rows, values, noise)
            assert noise.value < 0.1, (rows, values, noise)


def test_constant_or_short_columns_are_not_functions() -> None:
    item = np.arange(100) % 5
    assert function_gain(item, np.zeros(100, dtype=np.int64)).value == 0
    assert function_gain(item[:8], item[:8] % 2).value == 0  # only three rows repeat an item: agreement may be chance
    assert function_gain(np.arange(100), np.arange(100)).value == 0  # every item occurs once: undecidable
    assert function_gain(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)).rows == 0


def test_numbers_close_to_an_item_mean_are_nearly_a_function() -> None:
    rng = np.random.default_rng(1)
    item = rng.integers(0, 50, 3_000)
    price = np.exp(rng.normal(size=50))[item]
    assert number_gain(item, price * rng.normal(1, 0.03, 3_000)).low > 0.9
    assert number_gain(item, rng.normal(size=3_000)).value < 0.05
    assert number_gain(item, np.full(3_000, 2.0)).value == 0


def test_a_column_that_predicts_the_item_beyond_user_and_popularity_is_found() -> None:
    rng = np.random.default_rng(2)
    item, user = rng.zipf(1.5, 2_000) % 100, rng.integers(0, 200, 2_000)
    assert choice_gain(item * 3, item, user).value > 0.9
    assert choice_gain(rng.integers(0, 24, 2_000), item, user).value < 0.05
    favourite = user % 100  # each user has one item, so the user determines the item and the value only identifies the user
    assert abs(choice_gain(user, favourite, user).value) < 0.05


def test_repeat_visits_in_a_session_are_not_evidence() -> None:
    user = np.repeat(np.arange(100), 6)
    item = np.repeat(np.arange(100) % 40, 6)
    session = pl.Series(np.repeat(np.arange(100), 6))
    found = Dependence.of(user, item, session)
    assert found.choice.value < 0.1
    assert found.of_item.value == 0


def test_missing_values_are_ignored() -> None:
    values = pl.Series([None, "a", "b", None, "a"])
    assert encode_distinct(values).tolist() == [-1, 1, 2, -1, 1]
    item = np.arange(300) % 10
    half = pl.Series([f"t{one}" if row % 2 else None for row, one in enumerate(item)])
    assert Dependence.of(np.arange(300), item, half).of_item.value == 1.0
    assert Dependence.of(np.arange(300), item, pl.Series([None] * 300, dtype=pl.String)).of_item.rows == 0
