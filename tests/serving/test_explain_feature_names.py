"""Features are named like the table values."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recall.data.dataset import Dataset
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import Vocabulary
from recall.serving.explain import feature_values
from recall.serving.request import FeatureValue


def test_fields_of_every_kind_are_named(tiny_encoder: FeatureEncoder) -> None:
    values = {"user_id": "u3", "gender": "f", "age": 31.0, "zip": "00001", "device": "tv", "hour": 23}
    found = {
        one.field: one
        for one in feature_values(tiny_encoder, "user", tiny_encoder.encode_user(values, ["i1", "i4", "i4"]).rows)
    }
    assert {name: one.value for name, one in found.items() if name not in ("age", "zip", "hour", "history[2-4]")} == {
        "user_id": "u3",
        "gender": "f",
        "device": "tv",
        "gender_device": "f x tv",
        "history[1]": "i1",
    }
    assert float(found["age"].value) == 31.0
    assert found["zip"].value.startswith("bucket ")
    low, high = (float(edge) for edge in found["hour"].value.strip("[)").split(","))
    assert low <= 23 < high
    assert found["history[2-4]"].value == "i4"
    assert found["history[2-4]"].weight == pytest.approx(2 / 2**0.5)  # twice in a range of two, divided by the square root
    assert {one.state for one in found.values()} == {"learnt"}


def test_unknown_and_missing_values_are_named(tiny_encoder: FeatureEncoder) -> None:
    found = {one.field: one for one in feature_values(tiny_encoder, "user", tiny_encoder.encode_user({"gender": "q"}).rows)}
    assert found["gender"] == FeatureValue("gender", None, 1.0, "unknown")
    assert found["age"] == FeatureValue("age", None, 1.0, "missing")


def test_scaled_numbers_are_shown_in_original_units(tiny_encoder: FeatureEncoder, tiny_dataset: Dataset) -> None:
    rows = tiny_encoder.encode_items(tiny_dataset.items)
    for at, price in enumerate(tiny_dataset.items["price"].to_list()):
        (found,) = [one for one in feature_values(tiny_encoder, "item", rows.take(np.array([at]))) if one.field == "price"]
        assert (found.value is None) == (price is None)
        if price is not None:
            assert abs(float(found.value) - price) <= 1e-4 * max(1.0, price)


def test_bags_show_weights_and_bucket_crosses_their_limits(tiny_encoder: FeatureEncoder) -> None:
    row = tiny_encoder.encode_item({"item_id": "i3", "tags": ["t1", "t2"], "tag_weights": [1.0, 3.0]})
    tags = {one.value: one.weight for one in feature_values(tiny_encoder, "item", row) if one.field == "tags"}
    assert tags["t2"] == pytest.approx(3 * tags["t1"])
    crossed = replace(tiny_encoder.columns["gender_device"], right=tiny_encoder.columns["hour"])
    numbered = replace(crossed, vocabulary=Vocabulary(pl.Series(["1:f0"])))
    assert numbered.describe(2, 1.0).startswith("f x [-inf, ")
