from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.config import DataConfig
from recall.config.schema import Schema
from recall.data.sources import FieldColumns, find_attributes, find_columns
from recall.data.tables import Tables, read_tables
from recall.errors import ConfigError, DataError

ITEM = {"item_id": {"side": "item", "kind": "categorical"}}
USER = {"user_id": {"side": "user", "kind": "categorical"}}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    frames = {
        "interactions": {"user_id": [1], "item_id": [1], "hour": [3], "country": ["x"], "weight": [1.0]},
        "users": {"user_id": [1], "gender": ["f"], "country": ["y"], "tastes": [["a"]], "strengths": [[1.0]]},
        "items": {"item_id": [1], "genre": ["g"], "country": ["z"]},
    }
    for name, columns in frames.items():
        pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    return read_tables(DataConfig(users="users.parquet", items="items.parquet"), tmp_path)


def find(tables: Tables, fields: dict[str, dict[str, Any]]) -> FieldColumns:
    return find_columns(Schema.model_validate({"fields": {**USER, **ITEM, **fields}}), tables)


def categorical(side: str, **settings: str) -> dict[str, Any]:
    return {"side": side, "kind": "categorical", **settings}


def test_columns_are_found_in_their_table(tables: Tables) -> None:
    fields = {
        "sex": categorical("user", column="gender"),
        "hour": categorical("user"),
        "tastes": {"side": "user", "kind": "bag", "weights": "strengths"},
        "genre": categorical("item"),
        "country": categorical("item"),
        "sex_hour": {"kind": "cross", "side": "user", "of": ["sex", "hour"]},
        "history": {"kind": "history"},
    }
    assert find(tables, fields) == FieldColumns(
        users=("gender", "tastes", "strengths"), context=("hour",), items=("genre", "country")
    )


def test_the_id_columns_are_never_ambiguous(tables: Tables) -> None:
    assert find(tables, {"again": categorical("user", column="user_id")}) == FieldColumns((), (), ())


@pytest.mark.parametrize(("source", "expected"), [("interactions", ((), ("country",))), ("users", (("country",), ()))])
def test_source_selects_one_of_two_tables(tables: Tables, source: str, expected: tuple[tuple[str, ...], ...]) -> None:
    found = find(tables, {"country": categorical("user", source=source)})
    assert (found.users, found.context) == expected


def test_a_column_in_two_tables_requires_a_source(tables: Tables) -> None:
    with pytest.raises(ConfigError) as caught:
        find(tables, {"country": categorical("user")})
    assert caught.value.where == "fields.country"
    assert caught.value.hint == 'Write which one is meant: source = "interactions" or source = "users"'


def test_two_fields_cannot_read_the_same_name_from_two_tables(tables: Tables) -> None:
    fields = {
        "home": categorical("user", column="country", source="users"),
        "place": categorical("user", column="country", source="interactions"),
    }
    with pytest.raises(ConfigError, match="a request names each column once"):
        find(tables, fields)


@pytest.mark.parametrize(
    ("name", "field", "error", "message"),
    [
        ("gendre", categorical("user"), DataError, "Did you mean 'gender'"),
        ("gender", categorical("user", source="interactions"), DataError, "interactions table has no column 'gender'"),
        ("hour", categorical("item"), DataError, "in the interactions table, which no item field reads"),
        ("genre", categorical("user"), DataError, "in the items table, which no user field reads"),
        ("item", categorical("user", column="item_id"), ConfigError, "tell the model the answer"),
        ("weight", categorical("user"), ConfigError, "cannot be called 'weight'"),
        ("tastes", {"side": "user", "kind": "bag", "weights": "strength"}, DataError, "Did you mean 'strengths'"),
    ],
)
def test_a_column_that_cannot_be_read_is_refused(
    tables: Tables, name: str, field: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        find(tables, {name: field})
    assert getattr(caught.value, "where", "").startswith("fields")


def test_a_table_that_is_not_configured_is_named(tables: Tables) -> None:
    alone = Tables(tables.interactions, None, None)
    with pytest.raises(DataError, match=r"users: not set.*Or set data\.users"):
        find(alone, {"gender": categorical("user")})
    with pytest.raises(ConfigError, match="the field reads the items table, which is not set"):
        find(alone, {"genre": categorical("item", source="items")})


def test_users_and_items_each_need_an_id_column(tables: Tables) -> None:
    schema = Schema.model_validate({"user_id": "id", "item_id": "id", "fields": {**USER, **ITEM}})
    with pytest.raises(ConfigError, match="one id column, 'id'"):
        find_columns(schema, tables)


def attributes(tables: Tables, *names: str) -> tuple[str, ...]:
    return find_attributes(DataConfig(attributes=names), FieldColumns((), (), ("country",)), tables)


def test_attributes_are_item_columns_without_a_field(tables: Tables) -> None:
    assert attributes(tables) == ()
    assert attributes(tables, "genre", "item_id", "country", "genre") == ("genre",)


def test_missing_attributes_are_named(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'gener'.*Did you mean 'genre'") as refused:
        attributes(tables, "genre", "gener")
    assert refused.value.where == "data.attributes"
    with pytest.raises(ConfigError, match="the items table, which is not set"):
        find_attributes(DataConfig(attributes=("genre",)), FieldColumns((), (), ()), replace(tables, items=None))
    nested = pl.DataFrame({"item_id": [1], "genre": [[["g"]]]})
    nested.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="lists of lists"):
        attributes(read_tables(DataConfig(items="items.parquet"), tmp_path), "genre")


def test_attributes_of_users_are_columns_that_no_field_reads(tables: Tables) -> None:
    def found(*names: str, context: tuple[str, ...] = ()) -> tuple[str, ...]:
        config = DataConfig(user_attributes=names)
        return find_attributes(config, FieldColumns(("gender",), context, ()), tables, "user")

    (other, *_) = [name for name in tables.named["users"].columns if name not in ("user_id", "gender")] or ["gender"]
    assert found("user_id", "gender", other, other) == ((other,) if other != "gender" else ())
    with pytest.raises(DataError, match="the users table has no column 'nmae'") as refused:
        found("nmae")
    assert refused.value.where == "data.user_attributes"
    with pytest.raises(ConfigError, match=f"a field reads the column {other!r} of the interactions"):
        found(other, context=(other,))
    with pytest.raises(ConfigError, match="the users table, which is not set"):
        find_attributes(DataConfig(user_attributes=("x",)), FieldColumns((), (), ()), replace(tables, users=None), "user")
