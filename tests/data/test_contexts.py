from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.config import parse_config
from recall.data import contexts as module
from recall.data.contexts import build_contexts, negative_contexts, positives
from recall.data.dataset import Dataset, load_dataset
from recall.errors import DataError
from recall.features.encoder import FeatureEncoder
from tests.features.rows import as_sets

EVENTS = "user_id,item_id,hour,t,w\na,x,1,1,1\na,y,1,2,1\na,x,1,3,2\na,x,2,4,1\nb,x,1,1,1\nb,x,,2,1\nb,z,,3,1\n"
ITEM = {"item_id": {"side": "item", "kind": "categorical"}}


def load(folder: Path, fields: dict[str, Any]) -> tuple[Dataset, FeatureEncoder]:
    (folder / "e.csv").write_text(EVENTS)
    (folder / "u.csv").write_text("user_id,gender\nb,f\na,f\n")
    data = {"interactions": "e.csv", "users": "u.csv", "time": "t", "weight": "w"}
    dataset = load_dataset(parse_config({"data": data, "fields": {**ITEM, **fields}}), folder)
    return dataset, FeatureEncoder.fit(dataset)


def field(**settings: Any) -> dict[str, Any]:
    return {"side": "user", "kind": "categorical", **settings}


# events in order: user b (row 0) with hours 1, -, -; user a (row 1) with hours 1, 1, 1, 2
@pytest.mark.parametrize(
    ("fields", "context", "event"),
    [
        ({"user_id": field()}, [0, 0, 0, 1, 1, 1, 1], [0, 3]),
        ({"gender": field()}, [0, 0, 0, 1, 1, 1, 1], [0, 3]),
        ({"hour": field()}, [0, 1, 1, 0, 0, 0, 2], [0, 1, 6]),
        ({"user_id": field(), "hour": field()}, [0, 1, 1, 2, 2, 2, 3], [0, 1, 3, 6]),
        (
            {"gender": field(), "hour": field(), "x": {"kind": "cross", "side": "user", "of": ["gender", "hour"]}},
            [0, 1, 1, 2, 2, 2, 3],
            [0, 1, 3, 6],
        ),
        ({"history": {"kind": "history"}}, [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_interactions_with_equal_features_share_a_context(
    tmp_path: Path, fields: dict[str, Any], context: list[int], event: list[int]
) -> None:
    dataset, encoder = load(tmp_path, fields)
    built = build_contexts(dataset, encoder, np.arange(7))
    assert built.context.tolist() == context
    assert built.event.tolist() == event
    assert len(built) == len(built.features) == len(event)
    assert (built.context.dtype, built.event.dtype) == (np.int32, np.int64)


def test_a_context_has_the_features_of_its_interactions(tmp_path: Path) -> None:
    fields = {
        "user_id": field(),
        "hour": field(),
        "both": {"kind": "cross", "side": "user", "of": ["hour", "user_id"]},
        "likes": {"side": "user", "kind": "bag", "column": "gender"},
    }
    dataset, encoder = load(tmp_path, fields)
    built = build_contexts(dataset, encoder, np.arange(7))
    rows = as_sets(built.features)
    for position, event in enumerate(dataset.events.iter_rows(named=True)):
        values = {"hour": event["hour"], **dataset.users.row(event["user"], named=True)}
        assert as_sets(encoder.encode_user(values).rows) == [rows[built.context[position]]]


def test_contexts_of_selected_interactions(tmp_path: Path) -> None:
    dataset, encoder = load(tmp_path, {"user_id": field(), "hour": field()})
    built = build_contexts(dataset, encoder, np.array([6, 5, 1]))
    assert built.context.tolist() == [0, 1, 2]
    assert built.event.tolist() == [6, 5, 1]
    nothing = build_contexts(dataset, encoder, np.array([], dtype=np.int64))
    assert len(nothing) == len(nothing.features) == 0
    assert len(positives(dataset, nothing, np.array([], dtype=np.int64)).indices) == 0


def test_weights_of_an_item_in_a_context_are_summed(tmp_path: Path) -> None:
    dataset, encoder = load(tmp_path, {"user_id": field()})
    everything = np.arange(7)
    found = positives(dataset, build_contexts(dataset, encoder, everything), everything)
    ids = dataset.items["item_id"].gather(found.indices).to_list()
    assert found.indptr.tolist() == [0, 2, 4]
    unit = dataset.observation  # the file has weights of 1 and more
    sums = [weight / unit for weight in found.weights.tolist()]
    assert list(zip(ids, sums, strict=True)) == [("x", 2.0), ("z", 1.0), ("x", pytest.approx(4.0)), ("y", 1.0)]
    assert (found.indptr.dtype, found.indices.dtype, found.weights.dtype) == (np.int64, np.int32, np.float32)


def test_every_positive_is_in_a_context(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder) -> None:
    positions = tiny_dataset.training
    found = positives(tiny_dataset, build_contexts(tiny_dataset, tiny_encoder, positions), positions)
    assert found.indices.tolist() == tiny_dataset.events["item"].gather(positions).to_list()
    assert found.weights.tolist() == tiny_dataset.events["weight"].gather(positions).to_list()


def test_chunked_processing_gives_the_same_contexts(
    tiny_dataset: Dataset, tiny_encoder: FeatureEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = np.arange(len(tiny_dataset.events))
    whole = build_contexts(tiny_dataset, tiny_encoder, everything).features
    monkeypatch.setattr(module, "_BATCH_PAIRS", 7 * 16)
    pieces = build_contexts(tiny_dataset, tiny_encoder, everything).features
    np.testing.assert_array_equal(whole.indptr, pieces.indptr)
    np.testing.assert_array_equal(whole.indices, pieces.indices)
    np.testing.assert_array_equal(whole.weights, pieces.weights)


def test_list_contexts_are_compared_by_value(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a"] * 4, "item_id": list("wxyz"), "tags": [["p"], ["p"], [], None]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    fields = {**ITEM, "tags": {"side": "user", "kind": "bag"}}
    dataset = load_dataset(parse_config({"fields": fields}), tmp_path)
    built = build_contexts(dataset, FeatureEncoder.fit(dataset), np.arange(4))
    assert built.context.tolist() == [0, 0, 1, 2]


def test_negatives_have_the_context_and_history_of_their_time(tmp_path: Path) -> None:
    rows = ["a,x,1,1,1", "a,y,2,2,0", "a,z,1,3,1", "a,x,2,4,0", "b,y,1,1,0"]
    (tmp_path / "e.csv").write_text("user_id,item_id,hour,t,y\n" + "\n".join(rows) + "\n")
    data = {"interactions": "e.csv", "time": "t", "label": "y"}
    fields = {"user_id": field(), "hour": field(), "history": {"kind": "history", "lags": [[1, 1], [2, 2]], "norm": "none"}}
    config = parse_config({"data": data, "fields": {**ITEM, **fields}})
    dataset = load_dataset(config, tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    built = negative_contexts(dataset, encoder, np.arange(3))
    asked = [("a", "2", ["x"]), ("a", "2", ["z", "x"]), ("b", "1", [])]
    expected = [encoder.encode_user({"user_id": user, "hour": hour}, history).rows for user, hour, history in asked]
    assert as_sets(built.features) == [as_sets(rows)[0] for rows in expected]
    assert built.event.tolist() == [0, 1, 2]
    plain = parse_config({"data": data, "fields": {**ITEM, "user_id": field(), "hour": field()}})
    again = load_dataset(plain, tmp_path)
    shared = negative_contexts(again, FeatureEncoder.fit(again), np.arange(3))
    assert shared.context.tolist() == [0, 0, 1]
    with pytest.raises(DataError, match="label"):
        negative_contexts(replace(again, negatives=None), FeatureEncoder.fit(again), np.arange(1))
