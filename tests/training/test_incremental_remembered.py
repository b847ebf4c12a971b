from pathlib import Path

import numpy as np
import polars as pl

from recall.config import parse_config
from recall.data.contexts import previous_items
from recall.data.dataset import Dataset, load_dataset
from recall.data.parts import parts_line
from recall.data.split import REMEMBERED
from recall.store.users.record import UserRecord
from recall.training.incremental import with_remembered
from tests.conftest import TINY


def known_user(history: tuple[str, ...], seen: tuple[str, ...]) -> UserRecord:
    return UserRecord({}, history, seen)


def test_remembered_interactions_come_first_and_do_not_train(tiny_dataset: Dataset) -> None:
    known = known_user(history=("i1", "i2", "i1"), seen=("i1", "i2", "i7", "gone"))
    dataset = with_remembered(tiny_dataset, [("u3", known), ("u0", known_user((), ()))])
    row = tiny_dataset.users["user_id"].to_list().index("u3")
    events = dataset.events.filter(pl.col("user") == row)
    earlier = events.filter(pl.col("split") == REMEMBERED)
    assert events["split"].to_list()[:4] == [REMEMBERED] * 4
    assert dataset.items["item_id"].gather(earlier["item"]).to_list() == ["i7", "i1", "i2", "i1"]
    assert earlier["device"].null_count() == 4
    assert events.filter(pl.col("split") != REMEMBERED).equals(tiny_dataset.events.filter(pl.col("user") == row))
    assert len(dataset.training) == len(tiny_dataset.training)
    first = np.flatnonzero((dataset.events["user"] == row) & (dataset.events["split"] != REMEMBERED))[:1]
    before = previous_items(dataset, first, 3)
    assert dataset.items["item_id"].gather(before.items).to_list() == ["i1", "i2", "i1"]


def test_nothing_to_remember_changes_nothing(tiny_dataset: Dataset) -> None:
    assert with_remembered(tiny_dataset, []).events.equals(tiny_dataset.events)


def test_negatives_keep_their_position(tiny_folder: Path) -> None:
    """A negative keeps its position, after all remembered interactions of its user."""
    interactions = pl.read_parquet(tiny_folder / "interactions.parquet")
    labelled = interactions.with_columns(
        pl.Series("taken", np.random.default_rng(0).random(len(interactions)) < 0.7).cast(pl.Int8)
    )
    labelled.write_parquet(tiny_folder / "interactions.parquet")
    data = {**TINY["data"], "label": "taken", "split": {"by": "none"}}
    dataset = load_dataset(parse_config({**TINY, "data": data}), tiny_folder)
    known = [("u1", known_user(("i2", "i1"), ("i2", "i1"))), ("u4", known_user(("i3",), ("i3",)))]
    remembered = with_remembered(dataset, known)
    assert dataset.negatives is not None
    assert remembered.negatives is not None
    for old, new in zip(dataset.negatives.iter_rows(named=True), remembered.negatives.iter_rows(named=True), strict=True):
        before = dataset.events[: old["before"]].filter(pl.col("user") == old["user"])
        after = remembered.events[: new["before"]].filter(pl.col("user") == old["user"])
        assert after.filter(pl.col("split") != REMEMBERED).equals(before)
        assert (remembered.events[new["before"] :].filter(pl.col("user") == old["user"])["split"] != REMEMBERED).all()


def test_remembered_interactions_do_not_count_in_shares(tiny_dataset: Dataset) -> None:
    known = [(f"u{number}", known_user(("i1", "i2"), ("i1", "i2") * 300)) for number in range(2)]
    line = parts_line(with_remembered(tiny_dataset, known))
    assert line.startswith(parts_line(tiny_dataset))
    assert line.endswith(", besides 4 of 2 users are known from the bundle")
