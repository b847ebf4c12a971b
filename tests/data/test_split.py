import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import ColumnSplit, LastSplit, NoSplit, TimeSplit
from recall.data.split import TEST, TRAIN, VALID, carve, carve_last, column_parts, sorted_parts
from recall.errors import ConfigError, DataError


def test_a_column_names_the_parts() -> None:
    rule = ColumnSplit(by="column", train=("train", "more"), valid=("dev",))
    parts = column_parts(pl.Series(["dev", "train", "test", "more"]), rule, "x")
    assert parts.tolist() == [VALID, TRAIN, TEST, TRAIN]
    numbered = ColumnSplit(by="column", train=("0",), valid=("1",), test=("2",))
    assert column_parts(pl.Series([2, 0, 1]), numbered, "x").tolist() == [TEST, TRAIN, VALID]


def test_values_that_name_no_part_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        column_parts(pl.Series(["train", "tset", None, "tset", "holdout"]), ColumnSplit(by="column"), "a.csv, column 'split'")
    assert caught.value.what == "4 rows name no part of the split: 'holdout', 'tset', None"
    assert caught.value.why == "the configuration names 'train', 'valid', 'test'"


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 3))
def test_the_last_of_each_user_are_held_out(lengths: list[int], test: int, valid: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    times = pl.Series(np.zeros(starts[-1], dtype=np.int64))
    parts = sorted_parts(starts, times, 1, LastSplit(by="last", test=test, valid=valid))
    for start, length in zip(starts, lengths, strict=False):
        expected = [TEST] * test + [VALID] * valid + [TRAIN] * length
        assert parts[start : start + length][::-1].tolist() == expected[:length]


def test_a_share_of_time_is_a_quantile_of_all_rows() -> None:
    times = pl.Series([5, 1, 3, 9, 7, 2, 4, 8, 6, 10])
    starts = np.array([0, 10])
    assert sorted_parts(starts, times, 1, TimeSplit(by="time", test=0.9)).tolist() == [
        TEST if t == 10 else TRAIN for t in times
    ]
    parts = sorted_parts(starts, times, 1, TimeSplit(by="time", test=0.8, valid=0.5))
    assert parts.tolist() == [TEST if t >= 9 else VALID if t >= 6 else TRAIN for t in times]


def test_rows_of_one_time_stay_together() -> None:
    times = pl.Series([1, 2, 2, 2, 2])
    parts = sorted_parts(np.array([0, 5]), times, 1, TimeSplit(by="time", test=0.6))
    assert parts.tolist() == [TRAIN, TEST, TEST, TEST, TEST]


def test_a_time_is_in_the_unit_of_the_column() -> None:
    times = pl.Series([10, 20, 30])
    assert sorted_parts(np.array([0, 3]), times, 1, TimeSplit(by="time", test=30, valid=20)).tolist() == [TRAIN, VALID, TEST]
    micro = times * 1_000_000
    assert sorted_parts(np.array([0, 3]), micro, 1_000_000, TimeSplit(by="time", test=25)).tolist() == [TRAIN, TRAIN, TEST]


def test_validation_after_the_test_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"validation would start at 0\.9, after the test at 0\.5"):
        sorted_parts(np.array([0, 4]), pl.Series([1, 2, 3, 4]), 1, TimeSplit(by="time", test=0.5, valid=0.9))


@pytest.mark.parametrize("rule", [TimeSplit(by="time"), LastSplit(by="last")])
def test_a_split_by_time_needs_times(rule: TimeSplit | LastSplit) -> None:
    with pytest.raises(ConfigError, match=r"Name the time column in data\.time"):
        sorted_parts(np.array([0, 1]), None, 1, rule)


def test_without_a_rule_everything_trains() -> None:
    assert sorted_parts(np.array([0, 3]), None, 1, NoSplit()).tolist() == [TRAIN] * 3


def test_a_share_is_carved_once_and_the_same_for_one_seed() -> None:
    parts = np.array([TRAIN] * 90 + [TEST] * 10, dtype=np.int8)
    carved = carve(parts, 0.1, seed=4)
    assert np.bincount(carved).tolist() == [81, 9, 10]
    assert (carved[90:] == TEST).all()
    assert (carve(parts, 0.1, seed=4) == carved).all()
    assert (carve(parts, 0.1, seed=5) != carved).any()
    assert (parts == VALID).sum() == 0
    assert carve(carved, 0.5, seed=4) is carved
    assert carve(parts, 0.0, seed=4) is parts


def test_the_last_of_every_user_who_has_others_is_carved() -> None:
    user = np.array([0, 0, 0, 1, 2, 2, 2])
    parts = np.array([TRAIN, TRAIN, TEST, TRAIN, TRAIN, TRAIN, TRAIN], dtype=np.int8)
    assert carve_last(parts, 1, user).tolist() == [TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN, VALID]
    among = np.array([True, True, True, True, True, False, False])
    assert carve_last(parts, 1, user, among).tolist() == [TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN, TRAIN]
    assert carve_last(parts, 9, user).tolist() == [TRAIN, VALID, TEST, TRAIN, TRAIN, VALID, VALID]
    assert carve_last(parts, 0, user) is parts


def test_only_what_may_be_drawn_is_carved() -> None:
    parts = np.zeros(40, dtype=np.int8)
    among = np.arange(40) >= 30
    carved = carve(parts, 0.5, 0, among)
    assert (carved == VALID).sum() == 5
    assert not (carved[:30] == VALID).any()
