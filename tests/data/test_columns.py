from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.config import DataConfig
from recall.config.schema import Schema
from recall.data.columns import RunColumns, find_columns
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


def find(tables: Tables, fields: dict[str, dict[str, Any]], data: DataConfig | None = None) -> RunColumns:
    return find_columns(Schema.model_validate({"fields": {**USER, **ITEM, **fields}}), data or DataConfig(), tables)


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
    assert find(tables, fields) == RunColumns(
        users=("gender", "tastes", "strengths"), context=("hour",), items=("genre", "country")
    )


def test_the_id_columns_are_never_ambiguous(tables: Tables) -> None:
    assert find(tables, {"again": categorical("user", column="user_id")}) == RunColumns((), (), ())


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
        ("item", categorical("user", column="item_id"), ConfigError, "give the model the answer"),
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
        find_columns(schema, DataConfig(), tables)


def attributes(tables: Tables, *names: str) -> tuple[str, ...]:
    return find(tables, {"country": categorical("item")}, DataConfig(attributes=names)).item_attributes


def test_attributes_are_item_columns_without_a_field(tables: Tables) -> None:
    assert attributes(tables) == ()
    assert attributes(tables, "genre", "item_id", "country", "genre") == ("genre",)


def test_missing_attributes_are_named(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'gener'.*Did you mean 'genre'") as refused:
        attributes(tables, "genre", "gener")
    assert refused.value.where == "data.attributes"
    with pytest.raises(ConfigError, match="the items table, which is not set"):
        find(replace(tables, items=None), {}, DataConfig(attributes=("genre",)))
    nested = pl.DataFrame({"item_id": [1], "genre": [[["g"]]]})
    nested.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="lists of lists"):
        find(read_tables(DataConfig(items="items.parquet"), tmp_path), {}, DataConfig(attributes=("genre",)))


def test_attributes_of_users_are_columns_that_no_field_reads(tables: Tables) -> None:
    def found(*names: str, **fields: dict[str, Any]) -> tuple[str, ...]:
        return find(tables, {"gender": categorical("user"), **fields}, DataConfig(user_attributes=names)).user_attributes

    assert found("user_id", "gender", "country", "country") == ("country",)
    with pytest.raises(DataError, match="the users table has no column 'nmae'") as refused:
        found("nmae")
    assert refused.value.where == "data.user_attributes"
    with pytest.raises(ConfigError, match="a field reads the column 'country' of the interactions"):
        found("country", country=categorical("user", source="interactions"))
    with pytest.raises(ConfigError, match="the users table, which is not set"):
        find(replace(tables, users=None), {}, DataConfig(user_attributes=("x",)))
