import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import Dataset, load_dataset
from recall.data.incremental import load_additions
from recall.data.selection import FLOOR, decay_shares, k_core
from recall.data.split import TEST, TRAIN, VALID
from recall.errors import ConfigError, DataError

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
}
LOG = "user_id,item_id,t\na,x,10\na,y,20\nb,x,30\nb,y,40\nb,z,50\nc,x,60\n"


def config(**data: Any) -> RunConfig:
    return parse_config({"data": {"interactions": "e.csv", "time": "t", **data}, "fields": FIELDS})


def load(folder: Path, text: str, **data: Any) -> Dataset:
    (folder / "e.csv").write_text(text)
    return load_dataset(config(**data), folder)


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    users = dataset.users["user_id"].gather(dataset.events["user"])
    return list(zip(users, dataset.items["item_id"].gather(dataset.events["item"]), strict=True))


def plain_k_core(rows: Sequence[tuple[int, int]], min_user: int, min_item: int) -> list[bool]:
    left = set(rows)
    while True:
        users, items = [one for one, _ in left], [one for _, one in left]
        fewer = {(u, i) for u, i in left if users.count(u) >= min_user and items.count(i) >= min_item}
        if fewer == left:
            return [row in left for row in rows]
        left = fewer


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_a_k_core_is_what_is_left_when_nothing_more_is_to_be_left_out(
    rows: list[tuple[int, int]], min_user: int, min_item: int
) -> None:
    user, item = np.array(rows).T
    assert k_core(user, item, min_user, min_item).tolist() == plain_k_core(rows, min_user, min_item)


def test_the_window_begins_with_since_and_ends_before_until(tmp_path: Path) -> None:
    dataset = load(tmp_path, LOG, since=20, until=50)
    assert pairs(dataset) == [("a", "y"), ("b", "x"), ("b", "y")]
    assert dataset.items["item_id"].to_list() == ["y", "x"]  # z is in no row that is left
    assert dataset.left_out == (
        "data.since = 20 leaves out 1 of 6 rows, 0 users and 0 items",
        "data.until = 50 leaves out 2 of 6 rows, 1 users and 1 items",
    )


@pytest.mark.parametrize("since", ["2024-01-02", "2024-01-01T12:00:00+12:00", datetime.date(2024, 1, 2)])
@pytest.mark.parametrize("each", [1, 1000, 10**6, 10**9, "iso"])
def test_a_date_bounds_dates_and_unix_times_of_any_unit(tmp_path: Path, since: object, each: int | str) -> None:
    first = 1_704_067_200  # 2024-01-01
    seconds = [first, first + 43_199, first + 86_399, first + 86_400]
    at = [
        datetime.datetime.fromtimestamp(one, datetime.UTC).isoformat() if each == "iso" else one * int(each) for one in seconds
    ]
    text = "user_id,item_id,t\n" + "".join(f"a,i{place},{one}\n" for place, one in enumerate(at))
    # the second form is 2024-01-01T00:00:00 in UTC
    expected = ["i0", "i1", "i2", "i3"] if since == "2024-01-01T12:00:00+12:00" else ["i3"]
    assert [item for _, item in pairs(load(tmp_path, text, since=since))] == expected


def test_a_date_among_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a date cannot be compared with the numbers") as caught:
        load(tmp_path, LOG, since="2024-01-02")
    assert caught.value.where == "data.since"


def test_a_window_needs_a_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the time of each interaction"):
        load(tmp_path, LOG, since=5, time=None)


def test_a_bound_that_is_no_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither numbers nor ISO 8601") as caught:
        load(tmp_path, LOG, until="yesterday")
    assert "data.until" in caught.value.where


def test_a_window_without_interactions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.since = 61 leaves out every interaction"):
        load(tmp_path, LOG, since=61)


def test_only_the_bound_that_is_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data: data\.min_user = 9 leaves out every interaction"):
        load(tmp_path, LOG, min_user=9)


def test_users_and_items_with_few_partners_are_left_out(tmp_path: Path) -> None:
    dataset = load(tmp_path, LOG, min_user=2, min_item=2)
    assert pairs(dataset) == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    assert dataset.users["user_id"].to_list() == ["a", "b"]
    assert dataset.items["item_id"].to_list() == ["x", "y"]


def test_repeated_rows_are_no_further_partners(tmp_path: Path) -> None:
    dataset = load(tmp_path, LOG + "c,x,70\nc,x,80\n", min_user=2)
    assert {user for user, _ in pairs(dataset)} == {"a", "b"}


def test_items_of_the_items_table_stay_in_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("item_id\nx\nz\nw\n")
    dataset = load(tmp_path, LOG, items="i.csv", min_item=2)
    assert dataset.items["item_id"].to_list() == ["x", "z", "w", "y"]
    assert ("b", "z") not in pairs(dataset)
    assert dataset.offer.counts() == load(tmp_path, LOG.replace("b,z,50\n", ""), items="i.csv").offer.counts()


def test_repeats_are_merged_into_the_last_row(tmp_path: Path) -> None:
    text = "user_id,item_id,t,w\na,x,30,1\na,y,20,2\na,x,10,3\na,x,30,4\nb,x,5,1\n"
    kept = load(tmp_path, text, weight="w")
    merged = load(tmp_path, text, weight="w", repeats="merge")
    assert pairs(kept) == [("a", "x"), ("a", "y"), ("a", "x"), ("a", "x"), ("b", "x")]
    assert pairs(merged) == [("a", "y"), ("a", "x"), ("b", "x")]
    assert (merged.events["weight"] / merged.events["weight"][2]).to_list() == pytest.approx([2, 8, 1])


def test_of_merged_rows_the_context_of_the_last_is_read(tmp_path: Path) -> None:
    text = "user_id,item_id,t,device\na,x,30,web\na,x,10,app\na,y,20,app\n"
    fields = {**FIELDS, "device": {"side": "user", "kind": "categorical"}}
    (tmp_path / "e.csv").write_text(text)
    run = parse_config({"data": {"interactions": "e.csv", "time": "t", "repeats": "merge"}, "fields": fields})
    assert load_dataset(run, tmp_path).events["device"].to_list() == ["app", "web"]


def test_the_split_is_that_of_the_rows_that_are_left(tmp_path: Path) -> None:
    dataset = load(tmp_path, LOG, min_item=2, split={"by": "last", "test": 1, "valid": 0})
    assert [pairs(dataset)[place] for place in dataset.select(TEST)] == [("a", "y"), ("b", "y"), ("c", "x")]
    named = "user_id,item_id,t,split\na,x,1,train\na,y,2,test\nb,x,3,train\nb,y,4,train\nb,z,5,nonsense\n"
    dataset = load(tmp_path, named, min_item=2, split={"by": "column"})
    assert dataset.events["split"].to_list() == [TRAIN, TEST, TRAIN, TRAIN]


def test_rows_that_were_not_taken_make_no_partners(tmp_path: Path) -> None:
    text = "user_id,item_id,t,label\na,x,1,1\na,y,2,0\nb,x,3,1\nb,y,4,1\nc,x,5,0\n"
    dataset = load(tmp_path, text, label="label", min_user=2)
    assert pairs(dataset) == [("b", "x"), ("b", "y")]
    assert dataset.negatives is not None
    assert len(dataset.negatives) == 0
    every = load(tmp_path, text, label="label", min_item=2)
    assert pairs(every) == [("a", "x"), ("b", "x")]
    assert every.negatives is not None
    assert every.users["user_id"].gather(every.negatives["user"]).to_list() == []


def test_forms_of_one_id_are_one_partner(tmp_path: Path) -> None:
    dataset = load(tmp_path, "user_id,item_id,t\n1,x,1\n1.0,y,2\n2,x,3\n", min_user=2)
    assert pairs(dataset) == [("1", "x"), ("1", "y")]


def test_errors_name_rows_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not positive") as caught:
        load(tmp_path, "user_id,item_id,t,w\na,x,1,1\na,y,2,1\nb,x,3,-1\n", weight="w", since=2)
    assert caught.value.row == 3


def test_check_says_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(LOG)
    messages = [one.message for one in check(config(min_user=2, min_item=2), tmp_path)]
    assert "data.min_user = 2 and data.min_item = 2 leaves out 2 of 6 rows, 1 users and 1 items" in messages


def test_known_interactions_never_validate_with_a_window(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, LOG), (new, "user_id,item_id,t\na,z,70\na,w,80\n")):
        folder.mkdir()
        (folder / "e.csv").write_text(text)
    dataset = load_additions(config(since=20, carve_last=1), new, old)
    held = [pair for pair, part in zip(pairs(dataset), dataset.events["split"], strict=True) if part != TRAIN]
    assert held == [("a", "w")]


@pytest.mark.parametrize(
    ("data", "message"),
    [({"min_user": 0}, "min_user"), ({"repeats": "drop"}, "repeats"), ({"since": float("inf")}, "since")],
)
def test_invalid_settings_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**data)


def test_later_training_interactions_of_a_user_halve_the_weight():
    user = np.array([0, 0, 0, 0, 1, 1])
    parts = np.array([TRAIN, TRAIN, TRAIN, TEST, TRAIN, VALID], dtype=np.int8)
    assert decay_shares(user, parts, 1.0).tolist() == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert decay_shares(user, parts, 2.0)[0] == 0.5


def test_weights_do_not_underflow_to_zero():
    shares = decay_shares(np.zeros(5000, dtype=np.int32), np.full(5000, TRAIN, dtype=np.int8), 3.0)
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
    assert decay_shares(user, parts, half_life).tolist() == pytest.approx(expected, rel=1e-6)
