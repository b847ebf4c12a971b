from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import ColumnSplit, LastSplit, NoSplit, RandomSplit, TimeSplit, parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, TRAIN, VALID, carve, carve_last, column_parts, id_hashes, random_parts, sorted_parts
from recall.data.times import Times
from recall.errors import ConfigError, DataError


def test_a_column_assigns_the_parts() -> None:
    rule = ColumnSplit(by="column", train=("train", "more"), valid=("dev",))
    parts = column_parts(pl.Series(["dev", "train", "test", "more"]), rule, "x")
    assert parts.tolist() == [VALID, TRAIN, TEST, TRAIN]
    numbered = ColumnSplit(by="column", train=("0",), valid=("1",), test=("2",))
    assert column_parts(pl.Series([2, 0, 1]), numbered, "x").tolist() == [TEST, TRAIN, VALID]


def test_values_without_a_part_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        column_parts(pl.Series(["train", "tset", None, "tset", "holdout"]), ColumnSplit(by="column"), "a.csv, column 'split'")
    assert caught.value.what == "4 rows name no part of the split: 'holdout', 'tset', None"
    assert caught.value.why == "the configuration names 'train', 'valid', 'test'"


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 3))
def test_the_last_of_each_user_are_held_out(lengths: list[int], test: int, valid: int) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    times = pl.Series(np.zeros(starts[-1], dtype=np.int64))
    parts = sorted_parts(starts, Times(times, 1), LastSplit(by="last", test=test, valid=valid))
    for start, length in zip(starts, lengths, strict=False):
        expected = [TEST] * test + [VALID] * valid + [TRAIN] * length
        assert parts[start : start + length][::-1].tolist() == expected[:length]


def test_a_share_of_time_is_a_quantile_of_all_rows() -> None:
    times = pl.Series([5, 1, 3, 9, 7, 2, 4, 8, 6, 10])
    starts = np.array([0, 10])
    assert sorted_parts(starts, Times(times, 1), TimeSplit(by="time", test=0.9)).tolist() == [
        TEST if t == 10 else TRAIN for t in times
    ]
    parts = sorted_parts(starts, Times(times, 1), TimeSplit(by="time", test=0.8, valid=0.5))
    assert parts.tolist() == [TEST if t >= 9 else VALID if t >= 6 else TRAIN for t in times]


def test_rows_with_equal_times_stay_in_one_part() -> None:
    times = pl.Series([1, 2, 2, 2, 2])
    parts = sorted_parts(np.array([0, 5]), Times(times, 1), TimeSplit(by="time", test=0.6))
    assert parts.tolist() == [TRAIN, TEST, TEST, TEST, TEST]


def test_a_split_time_uses_the_unit_of_the_column() -> None:
    times = pl.Series([10, 20, 30])
    assert sorted_parts(np.array([0, 3]), Times(times, 1), TimeSplit(by="time", test=30, valid=20)).tolist() == [
        TRAIN,
        VALID,
        TEST,
    ]
    micro = times * 1_000_000
    assert sorted_parts(np.array([0, 3]), Times(micro, 1_000_000), TimeSplit(by="time", test=25)).tolist() == [
        TRAIN,
        TRAIN,
        TEST,
    ]


def test_validation_after_the_test_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"validation would start at 0\.9, after the test at 0\.5"):
        sorted_parts(np.array([0, 4]), Times(pl.Series([1, 2, 3, 4]), 1), TimeSplit(by="time", test=0.5, valid=0.9))


@pytest.mark.parametrize("rule", [TimeSplit(by="time"), LastSplit(by="last")])
def test_a_split_by_time_needs_times(rule: TimeSplit | LastSplit) -> None:
    with pytest.raises(ConfigError, match=r"Name the time column in data\.time"):
        sorted_parts(np.array([0, 1]), None, rule)


def test_without_a_split_all_rows_are_for_training() -> None:
    assert sorted_parts(np.array([0, 3]), None, NoSplit()).tolist() == [TRAIN] * 3


def test_a_validation_share_is_deterministic_for_a_seed() -> None:
    parts = np.array([TRAIN] * 90 + [TEST] * 10, dtype=np.int8)
    carved = carve(parts, 0.1, seed=4)
    assert np.bincount(carved).tolist() == [81, 9, 10]
    assert (carved[90:] == TEST).all()
    assert (carve(parts, 0.1, seed=4) == carved).all()
    assert (carve(parts, 0.1, seed=5) != carved).any()
    assert (parts == VALID).sum() == 0
    assert carve(carved, 0.5, seed=4) is carved
    assert carve(parts, 0.0, seed=4) is parts


def test_the_last_interaction_of_users_with_several_is_for_validation() -> None:
    user = np.array([0, 0, 0, 1, 2, 2, 2])
    parts = np.array([TRAIN, TRAIN, TEST, TRAIN, TRAIN, TRAIN, TRAIN], dtype=np.int8)
    assert carve_last(parts, 1, user).tolist() == [TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN, VALID]
    among = np.array([True, True, True, True, True, False, False])
    assert carve_last(parts, 1, user, among).tolist() == [TRAIN, VALID, TEST, TRAIN, TRAIN, TRAIN, TRAIN]
    assert carve_last(parts, 9, user).tolist() == [TRAIN, VALID, TEST, TRAIN, TRAIN, VALID, VALID]
    assert carve_last(parts, 0, user) is parts


def test_validation_rows_are_drawn_only_from_the_permitted_rows() -> None:
    parts = np.zeros(40, dtype=np.int8)
    among = np.arange(40) >= 30
    carved = carve(parts, 0.5, 0, among)
    assert (carved == VALID).sum() == 5
    assert not (carved[:30] == VALID).any()


def drawn(users: list[str], items: list[str], seed: int = 0, **shares: float) -> list[int]:
    rule = RandomSplit(by="random", **shares)
    return random_parts(id_hashes(pl.Series(users)), id_hashes(pl.Series(items)), rule, seed).tolist()


def test_random_parts_depend_only_on_the_pair_and_the_seed() -> None:
    users, items = [f"u{n % 40}" for n in range(2000)], [f"i{n % 49}" for n in range(2000)]
    parts = drawn(users, items)
    assert drawn(users[::-1], items[::-1]) == parts[::-1]
    assert drawn(users[:500], items[:500]) == parts[:500]
    assert drawn(users, items, seed=1) != parts
    assert parts[1960:] == [parts[place - 1960] for place in range(1960, 2000)]  # 40 x 49 pairs, then again
    for part, share in ((TEST, 0.1), (VALID, 0.1), (TRAIN, 0.8)):
        assert parts[:1960].count(part) / 1960 == pytest.approx(share, abs=0.025)


def test_swapped_user_and_item_ids_are_different_pairs() -> None:
    names = [f"x{n}" for n in range(300)]
    assert drawn(names, names[::-1]) != drawn(names[::-1], names)


def test_the_validation_share_does_not_change_the_test_part() -> None:
    users, items = [f"u{n}" for n in range(500)], ["i"] * 500
    first, second = drawn(users, items, valid=0.0), drawn(users, items, valid=0.4)
    assert [part == TEST for part in first] == [part == TEST for part in second]
    assert VALID not in first


def test_a_random_split_needs_no_times_and_has_no_test_pair_in_training(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 17},i{n % 13}\n" for n in range(400))  # about two rows per pair
    (tmp_path / "e.csv").write_text("user_id,item_id\n" + rows)
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    split = {"by": "random", "test": 0.2, "valid": 0.1}
    dataset = load_dataset(parse_config({"data": {"interactions": "e.csv", "split": split}, "fields": fields}), tmp_path)
    pairs = [set(dataset.events[dataset.select(part)].select("user", "item").rows()) for part in (TRAIN, VALID, TEST)]
    assert all(pairs)
    assert not pairs[0] & pairs[1]
    assert not (pairs[0] | pairs[1]) & pairs[2]
