import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recall.config import RunConfig
from recall.config.schema import Side
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.incremental import load_additions
from recall.errors import DataError, RequestError
from recall.features.csr import source_rows
from recall.features.encoder import FeatureEncoder
from recall.features.fitting import context_frame
from tests.features.rows import as_sets


def test_blocks_follow_the_schema_and_partition_the_rows(tiny_encoder: FeatureEncoder) -> None:
    for blocks, size in (
        (tiny_encoder.user_blocks, tiny_encoder.n_user_features),
        (tiny_encoder.item_blocks, tiny_encoder.n_item_features),
    ):
        assert [block.offset for block in blocks] == [0, *np.cumsum([block.size for block in blocks])[:-1]]
        assert blocks[-1].offset + blocks[-1].size == size
    assert [block.name for block in tiny_encoder.user_blocks] == [
        *("user_id", "gender", "age", "zip", "device", "hour", "gender_device", "history[1]", "history[2-4]")
    ]


def test_a_request_is_encoded_like_its_interaction_in_bulk(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder) -> None:
    positions = np.arange(len(tiny_dataset.events))
    bulk = as_sets(build_contexts(tiny_dataset, tiny_encoder, positions).features)
    ids = tiny_dataset.items["item_id"].to_list()
    for position, event in enumerate(tiny_dataset.events.iter_rows(named=True)):
        before = tiny_dataset.events[:position].filter(pl.col("user") == event["user"])["item"].to_list()
        values = {name: event[name] for name in tiny_dataset.context_columns}
        values |= tiny_dataset.users.row(event["user"], named=True)
        single = tiny_encoder.encode_user(values, [ids[item] for item in reversed(before)])
        assert as_sets(single.rows) == [bulk[position]]


def test_a_single_item_is_encoded_like_in_bulk(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder) -> None:
    bulk = as_sets(tiny_encoder.encode_items(tiny_dataset.items))
    for item, row in zip(tiny_dataset.items.iter_rows(named=True), bulk, strict=True):
        assert as_sets(tiny_encoder.encode_item(item)) == [row]


def test_the_state_round_trips_through_json_and_text_columns(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder) -> None:
    values, vocabularies = tiny_encoder.state()
    assert vocabularies.schema == pl.Schema({"field": pl.String(), "value": pl.String()})
    back = FeatureEncoder.from_state(json.loads(json.dumps(values)), vocabularies)
    assert back.schema == tiny_encoder.schema
    assert back.user_blocks == tiny_encoder.user_blocks
    assert back.item_blocks == tiny_encoder.item_blocks
    everything = np.arange(len(tiny_dataset.events))
    assert as_sets(build_contexts(tiny_dataset, back, everything).features) == as_sets(
        build_contexts(tiny_dataset, tiny_encoder, everything).features
    )
    assert as_sets(back.encode_items(tiny_dataset.items)) == as_sets(tiny_encoder.encode_items(tiny_dataset.items))


def test_only_training_interactions_are_fitted(tiny_dataset: Dataset) -> None:
    changed = tiny_dataset.events.with_columns(
        device=pl.when(pl.col("split") == 0).then(pl.col("device").cast(pl.String)).otherwise(pl.lit("held out")),
        hour=pl.when(pl.col("split") == 0).then("hour").otherwise(10_000),
    )
    before, after = FeatureEncoder.fit(tiny_dataset), FeatureEncoder.fit(replace(tiny_dataset, events=changed))
    assert before.state()[0] == after.state()[0]
    assert before.state()[1].equals(after.state()[1])


def test_an_unknown_request_column_gets_the_nearest_name(tiny_encoder: FeatureEncoder) -> None:
    with pytest.raises(RequestError) as caught:
        tiny_encoder.encode_user({"gendre": "f"})
    assert caught.value.where == "/features/gendre"
    assert caught.value.hint == "Did you mean 'gender'?"
    with pytest.raises(RequestError, match="/features/a~1b~0"):
        tiny_encoder.encode_item({"a/b~": 1})


def test_unknown_values_are_reported(tiny_encoder: FeatureEncoder) -> None:
    encoded = tiny_encoder.encode_user(
        {"user_id": "nobody", "gender": "f", "device": "fridge", "zip": "never seen"}, ["i1", "?"]
    )
    assert encoded.unknown == ("user_id", "device")


def test_a_table_without_a_column_gets_the_nearest_name(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder) -> None:
    with pytest.raises(DataError, match=r"no column 'price'.*Did you mean 'prices'"):
        tiny_encoder.encode_items(tiny_dataset.items.rename({"price": "prices"}))


def test_an_unreadable_column_is_named_with_its_field(tiny_dataset: Dataset) -> None:
    listed = tiny_dataset.users.with_columns(gender=pl.concat_list("gender"))
    with pytest.raises(DataError, match=r"fields\.gender, column 'gender': a column of type List\(String\)"):
        FeatureEncoder.fit(replace(tiny_dataset, users=listed))


def test_a_context_frame_joins_user_columns(tiny_dataset: Dataset) -> None:
    users = tiny_dataset.users.with_columns(weight=pl.int_range(pl.len()) * 10)  # also the name of an interactions column
    frame = context_frame(["device", "weight"], tiny_dataset.events[[30, 2]], users)
    assert frame["weight"].to_list() == [10 * user for user in tiny_dataset.events["user"].gather([30, 2])]
    assert frame["device"].to_list() == tiny_dataset.events["device"].gather([30, 2]).to_list()


@pytest.fixture
def grown(tiny_folder: Path, tiny_additions: Path, tiny_encoder: FeatureEncoder, tiny_config: RunConfig) -> FeatureEncoder:
    return tiny_encoder.with_values_of(load_additions(tiny_config, tiny_additions, tiny_folder))


def test_growing_keeps_the_meaning_of_rows(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder, grown: FeatureEncoder) -> None:
    """Check that old data are encoded as before once new rows are mapped to their origin."""
    for blocks, found, rows in (
        ("user_blocks", build_contexts(tiny_dataset, grown, np.arange(len(tiny_dataset.events))).features, None),
        ("item_blocks", grown.encode_items(tiny_dataset.items), tiny_encoder.encode_items(tiny_dataset.items)),
    ):
        before = rows or build_contexts(tiny_dataset, tiny_encoder, np.arange(len(tiny_dataset.events))).features
        back = source_rows(getattr(tiny_encoder, blocks), getattr(grown, blocks))
        assert len(back) == found.n_features > before.n_features
        learnt = np.isin(before.indices, [block.offset for block in getattr(tiny_encoder, blocks)], invert=True)
        assert (back[found.indices] == before.indices)[learnt].all()
        assert np.array_equal(found.weights, before.weights)


def test_rows_of_new_values_start_from_the_unknown_row(tiny_encoder: FeatureEncoder, grown: FeatureEncoder) -> None:
    back = source_rows(tiny_encoder.user_blocks, grown.user_blocks)
    values = {"user_id": "new", "gender": "z", "device": "watch"}
    before, after = tiny_encoder.encode_user(values), grown.encode_user(values)
    assert set(before.unknown) == {"user_id", "gender", "device"}
    assert after.unknown == ()
    assert as_sets(replace(after.rows, indices=back[after.rows.indices])) == as_sets(before.rows)
    assert grown.count_new_values(tiny_encoder)["device"] == 1


def test_scales_and_buckets_do_not_grow(tiny_encoder: FeatureEncoder, grown: FeatureEncoder) -> None:
    assert tiny_encoder.state()[0] == grown.state()[0]
    again = FeatureEncoder.from_state(*grown.state())
    assert again.user_blocks == grown.user_blocks


def test_an_encoder_with_other_fields_cannot_grow(tiny_dataset: Dataset, tiny_encoder: FeatureEncoder) -> None:
    other = tiny_dataset.schema.model_copy(update={"fields": dict(list(tiny_dataset.schema.fields.items())[1:])})
    with pytest.raises(DataError, match="other fields"):
        tiny_encoder.with_values_of(replace(tiny_dataset, schema=other))
    with pytest.raises(DataError, match="'hour' comes from the users table"):
        tiny_encoder.with_values_of(replace(tiny_dataset, context_columns=("device",)))


@pytest.mark.parametrize(("side", "fields"), [("user", ["user_id"]), ("item", ["item_id"])])
def test_id_fields_are_those_that_read_the_id_column(tiny_encoder: FeatureEncoder, side: Side, fields: list[str]) -> None:
    assert [block.field for block in tiny_encoder.id_blocks(side)] == fields
    assert [block.field for block in tiny_encoder.id_blocks(side, alone=True)] == fields
