import numpy as np
import polars as pl
import pytest

from recall.config import EvaluationConfig, parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.errors import DataError
from recall.evaluation.protocol import held_out, requests
from recall.features.encoder import FeatureEncoder
from tests.conftest import TINY


def held_of(dataset):
    known = np.flatnonzero(dataset.events["split"].to_numpy() < TEST)
    return held_out(dataset, EvaluationConfig(mask="user", request="row"), dataset.select(TEST), known)


def without(*names):
    return parse_config({**TINY, "fields": {name: field for name, field in TINY["fields"].items() if name not in names}})


def test_a_request_is_encoded_like_its_row(tiny_dataset, tiny_encoder):
    held = held_of(tiny_dataset)
    for event, request in zip(held.event.tolist(), requests(tiny_dataset, held, tiny_encoder, 5), strict=True):
        user = tiny_dataset.events["user"][event]
        before = tiny_dataset.events.with_row_index("event").filter(pl.col("user") == user, pl.col("event") < event)["item"]
        history = [tiny_dataset.items["item_id"][item] for item in reversed(before.to_list())]
        assert list(request.history) == history[:4]  # the longest lag
        assert request.user_id == tiny_dataset.users["user_id"][user]
        assert request.features == {}
        assert set(request.context) == {"device", "hour"}
        for name, value in request.context.items():
            assert value == tiny_dataset.events[name][event]


def test_masked_items_are_sent_as_ids_per_request(tiny_dataset, tiny_encoder):
    held = held_of(tiny_dataset)
    ids = tiny_dataset.items["item_id"]
    for row, request in enumerate(requests(tiny_dataset, held, tiny_encoder, 5)):
        assert list(request.exclude) == ids.gather(held.masked[row]).to_list()
        assert request.exclude_seen is False


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
def test_decimals_and_missing_values_are_equal_in_requests_and_tables(tmp_path, dtype):
    table = pl.DataFrame(
        {
            "user_id": ["a"] * 8,
            "item_id": ["x", "y"] * 4,
            "level": pl.Series([0.1, 0.7, None, float("nan")] * 2, dtype=dtype),
            "split": ["train"] * 4 + ["test"] * 4,
        }
    )
    table.write_parquet(tmp_path / "interactions.parquet")
    fields = {"level": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    dataset = load_dataset(parse_config({"data": {"split": {"by": "column"}}, "fields": fields}), tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    held = held_of(dataset)
    asked = requests(dataset, held, encoder, 1)
    assert [dict(request.context) for request in asked] == [{"level": 0.1}, {"level": 0.7}, {}, {}]
    bulk = encoder.contexts.encode(dataset.events[held.event])
    for row, request in enumerate(asked):
        encoded = encoder.encode_user(request.context)
        assert encoded.unknown == ()
        assert encoded.rows.indices.tolist() == bulk.indices[bulk.indptr[row] : bulk.indptr[row + 1]].tolist()


def test_a_model_without_history_gets_none(tiny_folder, tiny_dataset):
    config = without("history")
    encoder = FeatureEncoder.fit(load_dataset(config, tiny_folder))
    assert all(request.history is None for request in requests(tiny_dataset, held_of(tiny_dataset), encoder, 3))


def test_data_without_columns_of_the_model_are_refused(tiny_folder, tiny_encoder):
    """Otherwise the user store would supply a history that may contain relevant items."""
    data = load_dataset(without("history"), tiny_folder)
    with pytest.raises(DataError, match="reads a history"):
        requests(data, held_of(data), tiny_encoder, 3)
    data = load_dataset(without("hour"), tiny_folder)
    with pytest.raises(DataError, match="'hour'"):
        requests(data, held_of(data), tiny_encoder, 3)


def test_without_times_a_model_reads_the_other_items_whatever_the_fields_of_the_data(tiny_folder):
    """A race may add the bag of a user's other items, which the drafted configuration then does not name."""
    data = {**TINY["data"], "time": None, "split": {"by": "random", "test": 0.3}}
    bag = {**TINY["fields"], "history": {"kind": "history", "lags": [[1, 50]]}}
    config = parse_config({**TINY, "data": data, "fields": bag})
    dataset = load_dataset(config, tiny_folder)
    encoder, held = FeatureEncoder.fit(dataset), held_of(dataset)
    expected = requests(dataset, held, encoder, 3)
    assert any(request.history for request in expected)
    fields = {name: field for name, field in bag.items() if name != "history"}
    other = load_dataset(parse_config({**TINY, "data": data, "fields": fields}), tiny_folder)
    assert requests(other, held_of(other), encoder, 3) == expected
