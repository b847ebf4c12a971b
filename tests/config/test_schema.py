from typing import Any

import pytest
from pydantic import ValidationError

from recall.config.schema import CategoricalField, HistoryField, Schema

USER = {"user_id": {"side": "user", "kind": "categorical"}}
ITEM = {"item_id": {"side": "item", "kind": "categorical"}}


def schema(**fields: Any) -> Schema:
    return Schema.model_validate({"fields": {**USER, **ITEM, **fields}})


def test_a_schema_round_trips() -> None:
    full = schema(
        age={"side": "user", "kind": "numeric", "scale": "buckets", "buckets": 5},
        zip={"side": "user", "kind": "hashed", "column": "postcode", "source": "users"},
        tags={"side": "item", "kind": "bag", "weights": "w", "norm": "mean"},
        past={"kind": "history", "lags": [[1, 2], [3, 9]]},
        both={"kind": "cross", "side": "user", "of": ["age", "zip"]},
    )
    back = Schema.model_validate(full.model_dump(mode="json"))
    assert back == full
    assert back.fingerprint() == full.fingerprint()
    assert Schema.model_validate_json(full.model_dump_json()) == full


def test_the_fingerprint_depends_on_every_setting_and_the_field_order() -> None:
    prints = {
        schema().fingerprint(),
        schema(a={"side": "item", "kind": "categorical"}).fingerprint(),
        schema(a={"side": "item", "kind": "categorical", "min_count": 2}).fingerprint(),
        schema(b={"side": "item", "kind": "categorical"}).fingerprint(),
        schema().model_copy(update={"user_id": "uid"}).fingerprint(),
    }
    assert len(prints) == 5


def test_a_field_reads_the_column_of_its_name_by_default() -> None:
    fields = schema(sex={"side": "user", "kind": "categorical", "column": "gender"}, past={"kind": "history"})
    assert fields.column("sex") == "gender"
    assert fields.column("user_id") == "user_id"
    with pytest.raises(KeyError):
        fields.column("past")


def test_history_is_the_field_with_the_longest_lag() -> None:
    assert schema().history is None
    fields = schema(short={"kind": "history", "lags": [[1, 2]]}, long={"kind": "history", "lags": [[5, 9], [1, 1]]})
    assert fields.history == HistoryField(kind="history", lags=((5, 9), (1, 1)))


def test_later_settings_of_a_history_are_written_only_where_they_are_used() -> None:
    plain = HistoryField(kind="history")
    assert plain.model_dump(mode="json").keys() == {"kind", "side", "lags", "min_count", "norm"}
    used = HistoryField(kind="history", lags=((1, 9),), shared=True, weights=(2.0,), decay=0.5)
    assert HistoryField.model_validate(used.model_dump(mode="json")) == used
    assert schema(x=plain).fingerprint() != schema(x=used).fingerprint()


def test_weights_that_were_learnt_are_no_difference() -> None:
    plain = HistoryField(kind="history", lags=((1, 1), (2, 9)), shared=True)
    asked = schema(x=plain.model_copy(update={"learn_weights": True}))
    trained = schema(x=plain.model_copy(update={"weights": (1.0, 0.3)}))
    assert HistoryField.model_validate(asked.fields["x"].model_dump(mode="json")) == asked.fields["x"]
    assert asked.with_weights_of(trained) == trained
    assert asked.with_weights_of(asked) == asked
    assert trained.difference(asked) == ""
    assert asked.difference(asked) == ""
    assert schema(x=plain).difference(asked) == "field 'x' has learn_weights True and not None"
    assert asked.difference(trained) != ""


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        schema().user_id = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        CategoricalField(side="user", kind="categorical").min_count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"side": "user", "kind": "categorical", "source": "items"}, "not from the items table"),
        ({"side": "item", "kind": "categorical", "source": "interactions"}, "belong to side 'user'"),
        ({"side": "item", "kind": "categorical", "source": "users"}, "read from the items table"),
        ({"side": "user", "kind": "categorical", "min_count": 0}, "greater than or equal to 1"),
        ({"side": "user", "kind": "categorical", "mincount": 2}, "Extra inputs are not permitted"),
        ({"side": "user", "kind": "hashed", "buckets": 1}, "greater than or equal to 2"),
        ({"side": "user", "kind": "numeric", "scale": "cubic"}, "'standard', 'log' or 'buckets'"),
        ({"side": "neither", "kind": "categorical"}, "'user' or 'item'"),
        ({"side": "user", "kind": "fancy"}, "does not match any of the expected tags"),
        ({"kind": "history", "lags": []}, "inclusive|first <= last"),
        ({"kind": "history", "lags": [[0, 1]]}, "first <= last"),
        ({"kind": "history", "lags": [[3, 2]]}, "first <= last"),
        ({"kind": "history", "lags": [[1, 1], [2, 3]], "weights": [1]}, "1 weights for 2 ranges"),
        ({"kind": "history", "lags": [[1, 1]], "weights": [float("inf")]}, "finite number"),
        ({"kind": "history", "learn_weights": True}, "learn_weights needs shared = true and two or more ranges"),
        ({"kind": "history", "lags": [[1, 9]], "shared": True, "learn_weights": True}, "two or more ranges"),
        (
            {"kind": "history", "lags": [[1, 1], [2, 9]], "shared": True, "weights": [1, 0], "learn_weights": True},
            "0 stays 0: begin with another, such as 0.1",
        ),
        ({"kind": "history", "decay": -1}, "greater than or equal to 0"),
        ({"kind": "history", "side": "item"}, "'user'"),
        ({"kind": "cross", "side": "user", "of": ["user_id", "nothing"]}, "which is not a field"),
        ({"kind": "cross", "side": "user", "of": ["user_id", "item_id"]}, "is of side 'item'"),
        ({"kind": "cross", "side": "user", "of": ["user_id", "x"]}, "needs single-valued parts"),
    ],
)
def test_an_invalid_field_is_refused(field: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        schema(x=field)


@pytest.mark.parametrize("part", [{"kind": "bag"}, {"kind": "numeric"}, {"kind": "numeric", "scale": "log"}])
def test_a_cross_takes_single_values_only(part: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="needs single-valued parts"):
        schema(p={"side": "user", **part}, x={"kind": "cross", "side": "user", "of": ["user_id", "p"]})


def test_both_sides_need_a_field() -> None:
    with pytest.raises(ValidationError, match="no field of side 'item'"):
        Schema.model_validate({"fields": USER})
    with pytest.raises(ValidationError, match="no field of side 'user'"):
        Schema.model_validate({"fields": ITEM})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"user_id": "customer"}, "the user_id column is 'customer' and not 'user_id'"),
        ({"fields": {**USER, **ITEM, "x": {"side": "item", "kind": "bag"}}}, "field 'x' is new"),
    ],
)
def test_the_first_difference_is_named(change: dict[str, Any], said: str) -> None:
    values = {"fields": {**USER, **ITEM}}
    other = Schema.model_validate(values | change)
    mine = Schema.model_validate(values)
    assert mine.difference(other) == said
    assert (mine.difference(other) == "") == (mine.fingerprint() == other.fingerprint())


def test_a_removed_or_changed_field_is_named() -> None:
    full = Schema.model_validate({"fields": {**USER, **ITEM, "x": {"side": "item", "kind": "bag"}}})
    assert full.difference(Schema.model_validate({"fields": {**USER, **ITEM}})) == "field 'x' is not there"
    other = Schema.model_validate({"fields": {**USER, **ITEM, "x": {"side": "item", "kind": "bag", "norm": "mean"}}})
    assert full.difference(other) == "field 'x' has norm 'mean' and not 'sqrt'"
