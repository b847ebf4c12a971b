"""Values not seen in training are reported at every entry point after training."""

from pathlib import Path

import polars as pl
import pytest

from recall.features.encoder import FeatureEncoder
from recall.features.novelty import novelties
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.store.users.profiles import User

PLAIN = {"category": "c1", "tags": ["t1"], "tag_weights": [1.0], "price": 4.0}


def test_values_seen_in_training_give_no_warning(tiny_encoder: FeatureEncoder) -> None:
    assert novelties(tiny_encoder, "item", [PLAIN, {"category": "c1"}, {**PLAIN, "price": None}]) == ()
    assert novelties(tiny_encoder, "item", []) == ()
    assert novelties(tiny_encoder, "user", [{"gender": "f"}, {"age": 30.0}]) == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"category": "C1"}, "1 of 2 items: 'category' holds values that the model was not trained on; they count as unknown"),
        ({"tags": ["t1", "new"], "tag_weights": [1.0, 1.0]}, "1 of 2 items: 'tags' holds values"),
        ({"price": 1e9}, "1 of 2 items: 'price' is more than 10 standard deviations"),
        ({}, "1 of 2 items: no field has a value"),
        ({"category": "", "tags": None}, "1 of 2 items: no field has a value"),
    ],
)
def test_new_values_outliers_and_empty_items_are_named(
    tiny_encoder: FeatureEncoder, values: dict[str, object], said: str
) -> None:
    (sentence,) = novelties(tiny_encoder, "item", [PLAIN, values])
    assert sentence.startswith(said)
    (shown,) = novelties(tiny_encoder, "item", [PLAIN, values], shown=True)
    assert shown.startswith(sentence)
    assert ("C1" in shown) == (values.get("category") == "C1")
    assert "C1" not in sentence


def test_at_most_three_examples_are_shown(tiny_encoder: FeatureEncoder) -> None:
    (sentence,) = novelties(tiny_encoder, "item", [{"category": f"new {n % 5}"} for n in range(50)], shown=True)
    assert sentence.startswith("50 of 50 items")
    assert sentence.endswith(": 'new 0', 'new 1', 'new 2', ...")


def test_receipts_of_live_changes_contain_warnings(recommender: Recommender, published: Path, tmp_path: Path) -> None:
    import shutil

    live = Recommender.load(shutil.copytree(published, tmp_path / "root"))
    assert live.items.upsert({"a": PLAIN}).warnings == ()
    receipt = live.items.upsert({"a": {"category": "never"}, "b": {}})
    assert [warning.partition(":")[0] for warning in receipt.warnings] == ["1 of 2 items", "1 of 2 items"]
    assert tuple(receipt) == (receipt.sequence, receipt.known)
    assert live.users.put(User("new", {"gender": "f"})).warnings == ()
    assert live.users.put(User("new", history=["i1"])).warnings == ()
    put = live.users.upsert([User("new", {"gender": "never"}), User("other", history=["i1"])])
    assert [warning.partition(";")[0] for warning in put.warnings] == [
        "1 of 1 users: 'gender' holds values that the model was not trained on"
    ]
    assert tuple(put) == (put.sequence, put.known)
    live.close()


def test_a_rebuild_warns_about_new_and_changed_items(published: Path, tmp_path: Path) -> None:
    items = pl.read_parquet(published.parent / "items.parquet").drop("unused")
    items.write_parquet(tmp_path / "same.parquet")
    assert rebuild(published, tmp_path / "same.parquet", tmp_path / "out").warnings == ()
    fresh = items.head(1).with_columns(item_id=pl.lit("fresh"), category=pl.lit("never"))
    pl.concat([items, fresh]).write_parquet(tmp_path / "more.parquet")
    (warning,) = rebuild(published, tmp_path / "more.parquet", tmp_path / "out").warnings
    assert warning.startswith("1 of 1 items: 'category' holds values")
    assert warning.endswith(": 'never'")
    fresh.write_parquet(tmp_path / "other.parquet")
    (warning,) = rebuild(published, tmp_path / "other.parquet", tmp_path / "out", other_data=True).warnings
    assert warning.endswith(": 'never'")
