from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recall.config import ColumnSplit, IndexConfig, LastSplit, PairwiseConfig, SquareConfig, load_config, parse_config
from recall.errors import ConfigError

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
}

TEXT = """
name = "films"
seed = 3

[data]
interactions = "ratings.csv"
time = "when"
split = { by = "last", test = 2 }

[fields]
user_id = { side = "user", kind = "categorical" }
item_id = { side = "item", kind = "categorical" }
past = { kind = "history", lags = [[1, 1], [2, 5]] }

[model]
k = 16

[train]
sweeps = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recall.toml"
    path.write_text(TEXT)
    return path


def test_one_file_contains_all_settings(file: Path) -> None:
    config = load_config(file)
    assert (config.name, config.seed, config.model.k) == ("films", 3, 16)
    assert config.data.split == LastSplit(by="last", test=2)
    assert config.train == SquareConfig(sweeps=4)
    assert list(config.schema_.fields) == ["user_id", "item_id", "past"]
    assert config.schema_.history is not None
    assert config.schema_.history.lags == ((1, 1), (2, 5))


def test_a_configuration_round_trips(file: Path) -> None:
    config = load_config(file)
    assert parse_config(config.model_dump(mode="json")) == config


def test_settings_are_overridden_by_their_path(file: Path) -> None:
    overrides = [
        "train.sweeps=7",
        "data.interactions=other.parquet",
        'name="x y"',
        "data.split={by='column'}",
        "index.kind=exact",
    ]
    config = load_config(file, overrides)
    assert isinstance(config.train, SquareConfig)
    assert (config.train.sweeps, config.data.interactions, config.name) == (7, "other.parquet", "x y")
    assert config.data.split == ColumnSplit(by="column")
    assert config.index.kind == "exact"
    other = load_config(file, ['train={objective="bpr", epochs=2}'])
    assert other.train == PairwiseConfig(objective="bpr", epochs=2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.sweeps", "must be section.key=value"),
        ("=3", "must be section.key=value"),
        ("train..sweeps=3", "must be section.key=value"),
        ("name.first=3", "goes through 'name', which is a value"),
        ("train.sweps=3", "train.sweps: this key is not known. Did you mean 'sweeps'?"),
    ],
)
def test_an_empty_override_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"objective": "softmax", "top": 9, "candidates": "sampled"}}, "top needs the scores of all items"),
        ({"train": {"objective": "softmax", "top_temperature": 2}}, "top_temperature does nothing without top"),
        ({"modle": {}}, "modle: this key is not known. Did you mean 'model'?"),
        ({"data": {"splt": 1}}, "data.splt: this key is not known. Did you mean 'split'?"),
        ({"data": {"split": {"by": "last", "tests": 1}}}, "data.split.tests: this key is not known. Did you mean 'test'?"),
        (
            {"data": {"split": {"by": "column", "valid": ["train"]}}},
            "data.split: a value means one part of the split, but ['train']",
        ),
        (
            {"data": {"outcome": {"column": "r", "atleast": 4}}},
            "data.outcome.atleast: this key is not known. Did you mean 'at_least'",
        ),
        (
            {"data": {"outcome": {"column": "r", "at_least": 4, "below": "gone"}}},
            "data.outcome.below: Input should be 'left out'",
        ),
        ({"data": {"events": {"column": "e", "weights": {}}}}, "data.events: weights must name at least one event"),
        (
            {"data": {"events": {"column": "e", "weights": {"view": 0}}}},
            "data.events.weights.view: Input should be greater than 0",
        ),
        ({"data": {"events": {"column": "e", "wieghts": {"view": 1}}}}, "Did you mean 'weights'?"),
        (
            {"data": {"events": {"column": "e", "weights": {"view": 1}, "left_out": ["view"]}}},
            "data.events: an event has one meaning, but ['view'] are named more than once",
        ),
        ({"data": {"item_columns": ["t"], "time": "t"}}, "data: data.item_columns names 't', which is data.time"),
        ({"data": {"item_columns": ["t"], "user_columns": ["t"]}}, "data.user_columns and data.item_columns both name ['t']"),
        ({"data": {"carve": 2}}, "data.carve: Input should be less than 1 (given: 2)"),
        ({"train": {"sweeps": "x"}}, "train.sweeps: Input should be a valid integer"),
        ({"train": {"objective": "softmax", "epoch": 1}}, "train.epoch: this key is not known. Did you mean 'epochs'?"),
        ({"train": {"stopping": {"patience": 0}}}, "train.stopping.patience: Input should be greater than or equal to 1"),
        ({"fields": {**FIELDS, "x": {"side": "user", "kind": "bag", "nrom": "sqrt"}}}, "fields.x.nrom: this key is not known"),
        ({"fields": {**FIELDS, "x": {"side": "user", "kind": "fancy"}}}, "fields.x: Input tag 'fancy'"),
        ({"model": {"kind": "lr", "k": 4}}, "model.k: this key is not known"),
        ({"model": {"kind": "fwfm", "rnak": 4}}, "model.rnak: this key is not known. Did you mean 'rank'?"),
        ({"model": {"cosin": True}}, "model.cosin: this key is not known. Did you mean 'cosine'?"),
        ({"model": {"kind": "fwfm", "rank": 2, "cosine": True}}, "model: a cosine is of whole vectors"),
        ({"model": {"kind": "gbm"}}, "model: Input tag 'gbm'"),
        ({"model": {"cosine": True}}, "the square loss is of inner products"),
        (
            {
                "data": {"time": "t"},
                "fields": {**FIELDS, "past": {"kind": "history", "shared": True, "learn_weights": True}},
                "model": {"kind": "lr"},
            },
            "no list of a model of kind 'lr' depends on the history 'past': leave out its learn_weights",
        ),
        ({"fields": {"user_id": FIELDS["user_id"]}}, "no field of side 'item'"),
        (
            {"fields": {**FIELDS, "past": {"kind": "history"}}},
            "without data.time, the column that orders each user's interactions, the history 'past' holds what else",
        ),
    ],
)
def test_an_invalid_key_or_value_is_named_with_its_path(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"fields": FIELDS, **values}, where="run.toml")
    assert message in caught.value.what
    assert caught.value.where == "run.toml"


@pytest.mark.parametrize(("boost", "near"), [("prize", "price"), ("prize=3", "price"), ("age", "year"), ("both", "")])
def test_boosts_are_columns_of_items(boost: str, near: str) -> None:
    values = {
        "data": {"attributes": ["year"]},
        "fields": {
            "age": {"side": "user", "kind": "numeric"},
            "cost": {"side": "item", "kind": "numeric", "column": "price"},
            "kind": {"side": "item", "kind": "categorical"},
            "both": {"side": "item", "kind": "cross", "of": ["kind", "kind2"]},
            "kind2": {"side": "item", "kind": "categorical"},
        },
    }
    known = ["price", "price=3", "year", "kind=a=b", "item_id=i1"]
    assert parse_config({**values, "index": {"boosts": known}}).index.boosts == tuple(known)
    with pytest.raises(ConfigError, match=f"index.boosts names '{boost}'.*{near}"):
        parse_config({**values, "index": {"boosts": [*known, boost]}})


@pytest.mark.parametrize(
    ("model", "dim"),
    [
        ({}, 65),
        ({"kind": "lr"}, 1),
        ({"kind": "fwfm", "k": 4}, 13),
        ({"kind": "fwfm", "k": 4, "rank": 2}, 9),
        ({"kind": "fwfm", "k": 4, "cosine": True}, 13),
        ({"kind": "ffm", "k": 4}, 61),
    ],
)
def test_the_vector_length_is_known_before_training(model: dict[str, Any], dim: int) -> None:
    config = parse_config({"fields": FIELDS, "model": model, "train": {"objective": "softmax"}})
    assert config.model.dim(user_fields=5, item_fields=3) == dim


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"encoding": "klingon"}, "is not an encoding of text"),
        ({"encoding": "rot13"}, "is not an encoding of text"),
        ({"quote": "„"}, "quote must be one ASCII character"),
        ({"quote": ";", "separator": ";"}, "other than the separator"),
        ({"separator": ";\n"}, "must not hold the end of a line"),
        ({"header": ["a", "a"]}, "header must name each column once"),
        ({"header": []}, "header must name each column once"),
        ({"clocks": {"day": "hour"}}, r"which lacks \['day'\]"),
        ({"numbers": {"a": ","}, "lists": ["a"]}, r"\['a'\] are named more than once"),
        ({"booleans": {"a": ["J", "J"]}}, r"those of \['a'\] are alike"),
        ({"times": {"a": "day"}}, "times.a must be a format"),
        ({"times": {"a": "%H:%M:%S,%f"}}, "times.a must be a format"),
        ({"numbers": {"code": ","}}, r"data.text keeps \['code'\] as written"),
    ],
)
def test_keys_of_a_format_that_contradict_each_other_are_refused(form: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"data": {"text": ["code"], "formats": {"items": form}}, "fields": FIELDS})


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"fields": FIELDS, "data": {"carve": 2, "splt": 1}, "seed": -1})
    assert all(name in caught.value.what for name in ("data.carve", "data.splt", "seed"))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "recall.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: this is not TOML .*line 1"):
        load_config(broken)
    broken.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_config(broken)
    assert caught.value.hint == "Give the path of a TOML file, in UTF-8"
    with pytest.raises(ConfigError, match="the configuration is a folder") as caught:
        load_config(tmp_path)
    assert caught.value.hint == f"Give the file, such as {tmp_path / 'recall.toml'}"


def test_a_configuration_is_immutable(file: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config(file).seed = 4  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["ivf_int8", "pq"])
def test_a_former_index_kind_is_refused_with_a_hint_and_read_from_manifests(kind):
    with pytest.raises(ConfigError, match=r"no longer built.*'cells', 'ivf' or 'auto'"):
        parse_config({"fields": FIELDS, "index": {"kind": kind}})
    assert IndexConfig.recorded({"kind": kind, "target": 0.9}) == IndexConfig(kind="ivf", target=0.9)


def test_an_unknown_index_kind_gets_a_suggestion_and_a_new_choice_in_manifests() -> None:
    with pytest.raises(ConfigError, match=r"index.kind: no index of kind 'cell' is known.*'cells'"):
        parse_config({"fields": FIELDS, "index": {"kind": "cell"}})
    assert IndexConfig.recorded({"kind": "elsewhere"}) == IndexConfig()
