"""Contract tests of every kind of field, from the configuration to an explained answer; one kind exists only here."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from pydantic import Field
from typing_extensions import override

from recall.config import RunConfig, docs, parse_config
from recall.config.schema import FIELD_KINDS, ColumnField, Schema
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset, load_dataset
from recall.data.incremental import load_additions
from recall.errors import ConfigError, RequestError
from recall.features.column import ColumnEncoder, FieldSource, WeightedRows, column_of, refusal
from recall.features.csr import SparseRows, source_rows
from recall.features.encoder import FeatureEncoder
from recall.features.fitting import ENCODERS
from recall.features.values import known_texts
from recall.features.vocabulary import FIRST, MISSING, Vocabulary
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.training.train import train
from tests.conftest import TINY
from tests.features.rows import as_sets


class PrefixField(ColumnField):
    """The first letters of a text, with one row per prefix, and the length of the text as the weight of a further row."""

    learns_values = True

    kind: Literal["prefix"]
    letters: int = Field(default=1, ge=1)
    """Length of the prefix."""


@dataclass(frozen=True, eq=False)
class PrefixEncoder(ColumnEncoder):
    """Row `FIRST` is the length divided by the largest one seen; the rows of the vocabulary follow, shifted by one."""

    column: str
    letters: int
    longest: int
    vocabulary: Vocabulary

    @staticmethod
    def fit(field: PrefixField, source: FieldSource, frame: pl.DataFrame, counts: npt.NDArray[np.integer]) -> "PrefixEncoder":
        texts = known_texts(column_of(frame, source.column))
        vocabulary = Vocabulary.fit(texts.str.head(field.letters), counts)
        return PrefixEncoder(source.column, field.letters, int(texts.str.len_chars().max() or 1), vocabulary)  # type: ignore[arg-type]

    @staticmethod
    def restore(field: PrefixField, source: FieldSource, state: Mapping[str, Any], vocabulary: Vocabulary) -> "PrefixEncoder":
        return PrefixEncoder(source.column, field.letters, int(state["longest"]), vocabulary)

    @override
    @property
    def size(self) -> int:
        return self.vocabulary.size + 1

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        rows = [self.encode_one({self.column: text}) for text in known_texts(column_of(frame, self.column))]
        return SparseRows.from_coo(
            np.repeat(np.arange(len(rows)), [len(row) for row in rows]),
            np.array([feature for row in rows for feature, _ in row], dtype=np.int64),
            np.array([weight for row in rows for _, weight in row]),
            len(rows),
            self.size,
        )

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        text = values.get(self.column)
        if text is None or text == "":
            return [(MISSING, 1.0)]
        if not isinstance(text, str):
            raise refusal(self.column, "the value is not a text")
        row = self.vocabulary.row(text[: self.letters])
        return [(FIRST, len(text) / self.longest), (row + (row >= FIRST), 1.0)]

    @override
    def state(self) -> dict[str, object]:
        return {"longest": self.longest}

    @override
    def describe(self, row: int, weight: float) -> str:
        return f"{weight * self.longest:g} letters" if row == FIRST else f"{self.vocabulary.values[row - FIRST - 1]}..."


KINDS: dict[str, dict[str, object]] = {
    "categorical": {"side": "item", "kind": "categorical", "column": "category"},
    "bag": {"side": "item", "kind": "bag", "column": "tags", "weights": "tag_weights", "norm": "mean"},
    "numeric": {"side": "user", "kind": "numeric", "column": "age"},
    "numeric, log": {"side": "item", "kind": "numeric", "column": "price", "scale": "log"},
    "numeric, buckets": {"side": "user", "kind": "numeric", "column": "hour", "scale": "buckets", "buckets": 3},
    "hashed": {"side": "user", "kind": "hashed", "column": "device", "buckets": 5},
    "history": {"kind": "history", "lags": [[1, 2], [3, 5]], "norm": "mean"},
    "history, one table": {"kind": "history", "lags": [[1, 1], [1, 9]], "shared": True, "weights": [0.5, 1], "decay": 0.7},
    "cross": {"side": "user", "kind": "cross", "of": ["zip", "hour"], "min_count": 2},
    "prefix": {"side": "user", "kind": "prefix", "column": "device", "letters": 2},
}


@pytest.fixture(params=KINDS)
def field(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Settings of a field named x; the kind `prefix` exists only in this test."""
    monkeypatch.setitem(FIELD_KINDS, "prefix", PrefixField)
    monkeypatch.setitem(ENCODERS, "prefix", PrefixEncoder)
    return deepcopy(KINDS[request.param])


@pytest.fixture
def config(field: dict[str, object]) -> RunConfig:
    return parse_config({**TINY, "fields": {**TINY["fields"], "x": field}})


@pytest.fixture
def dataset(config: RunConfig, tiny_folder: Path) -> Dataset:
    return load_dataset(config, tiny_folder)


@pytest.fixture
def encoder(dataset: Dataset) -> FeatureEncoder:
    return FeatureEncoder.fit(dataset)


def everything(dataset: Dataset, encoder: FeatureEncoder) -> tuple[SparseRows, SparseRows]:
    """All interactions and all items, encoded."""
    positions = np.arange(len(dataset.events))
    return build_contexts(dataset, encoder, positions).features, encoder.encode_items(dataset.items)


def test_every_kind_has_a_contract_test() -> None:
    assert {one["kind"] for one in KINDS.values()} == {*FIELD_KINDS, "prefix"}
    assert set(ENCODERS) == {*FIELD_KINDS} - {"history"}  # which reads no column


def test_settings_round_trip_through_json_and_are_in_the_reference(field: dict[str, object], config: RunConfig) -> None:
    schema = config.schema_
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert Schema.model_validate_json(schema.model_dump_json()).fingerprint() == schema.fingerprint()
    assert type(schema.fields["x"]) is FIELD_KINDS[str(field["kind"])]
    described = {section.variant: {key.name for key in section.keys} for section in docs.sections()}
    assert field.keys() - {"kind"} <= described[f'kind = "{field["kind"]}"']


def test_a_misspelt_setting_is_refused_with_a_suggestion(field: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"fields\.x\.sied: this key is not known\. Did you mean 'side'\?"):
        parse_config({**TINY, "fields": {**TINY["fields"], "x": {**field, "sied": "user"}}})


def test_a_request_is_encoded_like_a_table(dataset: Dataset, encoder: FeatureEncoder) -> None:
    contexts, items = (as_sets(rows) for rows in everything(dataset, encoder))
    ids = dataset.items["item_id"].to_list()
    for position, event in enumerate(dataset.events.iter_rows(named=True)):
        before = dataset.events[:position].filter(pl.col("user") == event["user"])["item"].to_list()
        values = dataset.users.row(event["user"], named=True) | {name: event[name] for name in dataset.context_columns}
        assert as_sets(encoder.encode_user(values, [ids[item] for item in reversed(before)]).rows) == [contexts[position]]
    for item, row in zip(dataset.items.iter_rows(named=True), items, strict=True):
        assert as_sets(encoder.encode_item(item)) == [row]


def test_fitted_state_round_trips_through_json_and_text(dataset: Dataset, encoder: FeatureEncoder) -> None:
    values, vocabularies = encoder.state()
    back = FeatureEncoder.from_state(json.loads(json.dumps(values)), vocabularies)
    assert (back.user_blocks, back.item_blocks) == (encoder.user_blocks, encoder.item_blocks)
    assert [as_sets(rows) for rows in everything(dataset, back)] == [as_sets(rows) for rows in everything(dataset, encoder)]


def test_known_values_keep_their_row_when_the_vocabulary_grows(
    config: RunConfig, dataset: Dataset, encoder: FeatureEncoder, tiny_folder: Path, tiny_additions: Path
) -> None:
    grown = encoder.with_values_of(load_additions(config, tiny_additions, tiny_folder))
    for blocks, before, after in zip(
        ("user_blocks", "item_blocks"), everything(dataset, encoder), everything(dataset, grown), strict=True
    ):
        back = source_rows(getattr(encoder, blocks), getattr(grown, blocks))
        known = np.isin(before.indices, [block.offset for block in getattr(encoder, blocks)], invert=True)
        assert (back[after.indices] == before.indices)[known].all()
        assert np.array_equal(after.weights, before.weights)


def test_a_value_of_the_wrong_type_names_its_column(encoder: FeatureEncoder) -> None:
    field = encoder.schema.fields["x"]
    for column in field.columns("x")[:1]:
        with pytest.raises(RequestError) as caught:
            (encoder.encode_user if field.side == "user" else encoder.encode_item)({column: {"a": 1}})
        assert caught.value.where == f"/features/{column}"


def test_every_kind_is_trained_published_and_explained(
    config: RunConfig, dataset: Dataset, encoder: FeatureEncoder, tmp_path: Path
) -> None:
    """The export checks the served scores; the answer must name the contribution of the field."""
    settings = {"train": {"objective": "square", "sweeps": 2}, "model": {"kind": "fm", "k": 3}}
    config = config.model_validate(config.model_dump(mode="json") | settings)
    trained = train(config, dataset, encoder, lambda _: None)
    export(trained.model, encoder, dataset, config, tmp_path / "bundles")
    recommender = Recommender.load(tmp_path / "bundles")
    try:
        request = Request("u1", {"device": "phone", "hour": 3}, n=3)
        answer = recommender.recommend(request)
        explanation = recommender.explain(request, answer.items[0].item_id, values=True)
    finally:
        recommender.close()
    assert explanation.score == pytest.approx(answer.items[0].score, rel=1e-5)
    names = {name for one in explanation.contributions for name in (one.user_field, *one.item_fields) if name}
    assert any(name == "x" or name.startswith("x[") for name in names)
    assert explanation.values is not None
