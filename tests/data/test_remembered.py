from dataclasses import dataclass

import numpy as np
import polars as pl

from recall.data.dataset import Dataset
from recall.data.history import previous_items
from recall.data.remembered import with_remembered
from recall.data.split import REMEMBERED


@dataclass
class Known:
    history: tuple[str, ...]
    seen: tuple[str, ...]


def test_what_is_remembered_comes_first_and_does_not_train(tiny_dataset: Dataset) -> None:
    known = Known(history=("i1", "i2", "i1"), seen=("i1", "i2", "i7", "gone"))
    dataset = with_remembered(tiny_dataset, [("u3", known), ("u0", Known((), ()))])
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
