"""Shares of the users or items held out entirely: `data.split` by "users" and by "items"."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import ItemsSplit, UsersSplit, parse_config
from recall.data.contexts import items_before, previous_items
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import GIVEN, TEST, TRAIN, VALID, hashed_parts, mark_given
from recall.errors import ConfigError
from recall.features.encoder import FeatureEncoder
from tests.conftest import TINY

IDS = st.lists(st.text(max_size=4), unique=True, max_size=40)
SHARES = st.tuples(st.floats(0, 0.49), st.floats(0, 0.49))


def loaded(folder: Path, **split: object) -> Dataset:
    return load_dataset(parse_config({**TINY, "data": {**TINY["data"], "split": split}}), folder)


def part_of(dataset: Dataset, side: str) -> dict[str, set[int]]:
    """Return the parts of the interactions of each user or item."""
    frame = dataset.users if side == "user" else dataset.items
    named = pl.DataFrame({"id": frame[f"{side}_id"].gather(dataset.events[side]), "part": dataset.events["split"]})
    return {str(one): set(parts) for one, parts in named.group_by("id").agg("part").iter_rows()}


@given(IDS, IDS, SHARES, st.integers(0, 3), st.sampled_from(["users", "items"]))
def test_the_part_of_an_id_is_independent_of_other_ids(
    ids: list[str], more: list[str], shares: tuple[float, float], seed: int, by: str
) -> None:
    test, valid = shares
    rule = UsersSplit(by="users", test=test, valid=valid) if by == "users" else ItemsSplit(by="items", test=test, valid=valid)
    longer = pl.Series(list(dict.fromkeys([*more, *ids])), dtype=pl.String)
    before = hashed_parts(pl.Series(ids, dtype=pl.String), rule, seed)
    after = dict(zip(longer.to_list(), hashed_parts(longer, rule, seed), strict=True))
    assert [after[one] for one in ids] == before.tolist()


def test_shares_are_respected_and_validation_does_not_change_the_test_part() -> None:
    ids = pl.Series([f"u{number}" for number in range(20_000)])
    parts = hashed_parts(ids, UsersSplit(by="users", test=0.1, valid=0.2), 0)
    assert np.bincount(parts, minlength=3) / len(ids) == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    fewer = hashed_parts(ids, UsersSplit(by="users", test=0.1, valid=0.0), 0)
    assert ((fewer == TEST) == (parts == TEST)).all()
    assert not (fewer == VALID).any()
    assert ((hashed_parts(ids, UsersSplit(by="users"), 1) == TEST) != (parts == TEST)).any()
    assert ((hashed_parts(ids, ItemsSplit(by="items"), 0) == TEST) != (parts == TEST)).any()
    assert hashed_parts(pl.Series(["a", "b", "c", "d"]), UsersSplit(by="users", test=0.5, valid=0.2), 0).tolist() == [
        0,
        0,
        1,
        1,
    ]  # identical on every machine


@pytest.mark.parametrize("side", ["user", "item"])
def test_held_out_ids_have_no_training_rows(tiny_folder: Path, side: str) -> None:
    dataset = loaded(tiny_folder, by=f"{side}s", test=0.3, valid=0.4)
    parts = part_of(dataset, side)
    assert {TEST, VALID, TRAIN} <= set().union(*parts.values())
    for one, found in parts.items():
        assert found == {TRAIN} or TRAIN not in found, one
    frame = pl.read_parquet(tiny_folder / "interactions.parquet")
    more = pl.concat([frame, frame.head(30).with_columns(user_id=pl.lit("another"), time=pl.lit(99))], how="vertical_relaxed")
    more.write_parquet(tiny_folder / "interactions.parquet")
    again = part_of(loaded(tiny_folder, by=f"{side}s", test=0.3, valid=0.4), side)
    assert {one: found - {GIVEN} for one, found in again.items() if one in parts} == {
        one: found - {GIVEN} for one, found in parts.items()
    }


def test_held_out_items_are_in_the_catalogue_but_in_no_history(tiny_folder: Path) -> None:
    dataset, usual = loaded(tiny_folder, by="items", test=0.3), loaded(tiny_folder, by="none")
    assert dataset.hold_out == "items"
    assert dataset.items.equals(usual.items)
    events = dataset.events
    user, item, part = (events[name].to_numpy() for name in ("user", "item", "split"))
    positions = np.arange(len(events))
    history = previous_items(dataset, positions, 4)
    for at in positions:
        expected = [item[p] for p in range(at) if user[p] == user[at] and part[p] == TRAIN][::-1][:4]
        assert history.items[history.indptr[at] : history.indptr[at + 1]].tolist() == expected
    learnt = FeatureEncoder.fit(dataset).columns["item_id"].vocabulary
    held = set(dataset.items["item_id"].gather(np.unique(item[part != TRAIN])))
    assert held
    assert not held & set(learnt.values)


def test_the_oldest_interactions_of_a_held_out_user_are_known() -> None:
    user = np.array([0, 0, 0, 1, 2, 2, 2, 2])
    parts = np.array([TEST, TEST, TEST, TEST, TRAIN, TRAIN, TRAIN, TRAIN], dtype=np.int8)
    assert mark_given(parts, user, 0.5).tolist() == [GIVEN, TEST, TEST, TEST, TRAIN, TRAIN, TRAIN, TRAIN]
    assert mark_given(parts, user, 0.99).tolist() == [GIVEN, GIVEN, TEST, TEST, TRAIN, TRAIN, TRAIN, TRAIN]
    assert mark_given(parts, user, 0).tolist() == parts.tolist()


def test_without_times_no_interaction_of_a_held_out_user_is_known(tiny_folder: Path) -> None:
    fields = {name: field for name, field in TINY["fields"].items() if name != "history"}
    data = {name: value for name, value in TINY["data"].items() if name != "time"}
    config = parse_config({**TINY, "data": {**data, "split": {"by": "users", "test": 0.3}}, "fields": fields})
    assert GIVEN not in load_dataset(config, tiny_folder).events["split"]
    assert GIVEN in loaded(tiny_folder, by="users", test=0.3).events["split"]


def test_a_history_may_end_before_the_requested_interaction(tiny_folder: Path) -> None:
    dataset = loaded(tiny_folder, by="users", test=0.5)
    events = dataset.events
    asked = dataset.select(TEST)
    user = events["user"].to_numpy()
    first = asked[np.searchsorted(user[asked], user[asked])]
    history = items_before(dataset, user[asked], first, 1000)
    item, part = events["item"].to_numpy(), events["split"].to_numpy()
    for row, at in enumerate(asked):
        given_items = item[(user == user[at]) & (part == GIVEN)]
        assert history.items[history.indptr[row] : history.indptr[row + 1]].tolist() == given_items[::-1].tolist()


def test_labelled_rows_are_in_the_part_of_their_user(tiny_folder: Path) -> None:
    frame = pl.read_parquet(tiny_folder / "interactions.parquet")
    frame.with_columns(taken=pl.Series(np.arange(len(frame)) % 3 > 0).cast(pl.Int8)).write_parquet(
        tiny_folder / "interactions.parquet"
    )
    data = {**TINY["data"], "label": "taken", "split": {"by": "users", "test": 0.4}}
    dataset = load_dataset(parse_config({**TINY, "data": data}), tiny_folder)
    assert dataset.negatives is not None
    held = set(dataset.events["user"].to_numpy()[dataset.select(TEST)])
    negatives = dataset.negatives
    assert {user in held for user in negatives.filter(pl.col("split") == TEST)["user"]} <= {True}
    assert {user in held for user in negatives.filter(pl.col("split") == TRAIN)["user"]} == {False}


@pytest.mark.parametrize("by", ["users", "items"])
def test_shares_without_training_rows_are_refused(by: str) -> None:
    with pytest.raises(ConfigError, match=r"test and valid must leave a share to train on, got 0\.6 \+ 0\.4"):
        parse_config({**TINY, "data": {**TINY["data"], "split": {"by": by, "test": 0.6, "valid": 0.4}}})


def test_a_held_out_item_is_not_available_whatever_its_date(tiny_folder: Path) -> None:
    items = pl.read_parquet(tiny_folder / "items.parquet")
    items.with_columns(since=pl.lit(0)).write_parquet(tiny_folder / "items.parquet")
    data = {**TINY["data"], "available_from": "since", "split": {"by": "items", "test": 0.3, "valid": 0.1}}
    dataset = load_dataset(parse_config({**TINY, "data": data}), tiny_folder)
    events = dataset.events
    held = events.filter(events["split"] > TRAIN)["item"].unique().to_list()
    known = events.filter(events["split"] == TRAIN)["item"].unique().to_list()
    assert held
    assert not dataset.offered[held].any()
    assert dataset.offered[known].all()
    everything = load_dataset(parse_config({**TINY, "data": {**data, "split": {"by": "none"}}}), tiny_folder)
    assert everything.offered.all()
