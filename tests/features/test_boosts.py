"""Boost coordinates equal the column values, and weights are validated."""

import numpy as np
import polars as pl
import pytest

from recall.config.schema import Schema
from recall.errors import DataError, RequestError
from recall.features.boosts import Boosts

SCHEMA = Schema(
    user_id="user_id",
    item_id="item_id",
    fields={
        "user_id": {"side": "user", "kind": "categorical"},
        "genres": {"side": "item", "kind": "bag", "column": "genre", "separator": ";"},
    },
)
FRAME = pl.DataFrame(
    {
        "year": [1999, None, 2020, 5],
        "fresh": [True, False, None, True],
        "margin": ["0.5", " 2", None, "-1e3"],
        "genre": ["a;b", "b", None, "ab"],
        "tags": [["x", None], [], None, ["y", "x", "x"]],
        "size": [1.0, 2.5, float("nan"), 1.0],
        "a=b": [1, 2, 3, 4],
    }
)


def boosts(*names: str) -> Boosts:
    return Boosts.of(names, FRAME.columns, FRAME.get_column, len(FRAME), SCHEMA)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("year", [1999, 0, 2020, 5]),
        ("fresh", [1, 0, 0, 1]),
        ("size", [1, 2.5, 0, 1]),
        ("a=b", [1, 2, 3, 4]),
        ("year=1999", [1, 0, 0, 0]),
        ("size=1", [1, 0, 0, 1]),
        ("fresh=false", [0, 1, 0, 0]),
        ("genre=b", [1, 1, 0, 0]),
        ("tags=x", [1, 0, 0, 1]),
        ("tags=nothing", [0, 0, 0, 0]),
        ("a=b=3", None),
    ],
)
def test_a_boost_is_a_number_or_an_indicator(name: str, expected: list[float] | None) -> None:
    if expected is None:
        with pytest.raises(DataError, match="no column 'a'"):
            boosts(name)
        return
    found = boosts(name)
    assert (found.names, found.values.dtype) == ((name,), np.float32)
    assert found.values.tolist() == [expected]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("genre", "no numbers"),
        ("margin", "column=value"),
        ("tags", "no numbers"),
        ("yaer", "Did you mean 'year'"),
        ("yaer=3", "'year'"),
    ],
)
def test_a_column_without_numbers_is_refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        boosts("year", name)
    assert repr(name) in raised.value.where


def test_values_beyond_float32_are_refused() -> None:
    frame = pl.DataFrame({"year": [1e31]})
    with pytest.raises(DataError, match="Scale the column"):
        Boosts.of(["year"], frame.columns, frame.get_column, 1, SCHEMA)


def test_parts_of_a_boost_sum_to_its_total() -> None:
    found = boosts("year", "genre=b", "fresh")
    weights = found.weights({"genre=b": -2.0, "year": 0.5})
    assert weights.tolist() == [0.5, -2, 0]
    assert found.weighted_sum(weights).tolist() == [997.5, -2, 1010, 2.5]
    assert found.contributions(weights, 0) == {"year": 999.5, "genre=b": -2.0}
    assert found.contributions(weights, 2) == {"year": 1010.0}


@pytest.mark.parametrize(
    ("weights", "where", "message"),
    [
        ({"yaer": 1.0}, "/boosts/yaer", "Did you mean 'year'"),
        ({"genre=a": 1.0}, "/boosts/genre=a", "Did you mean 'genre=b'"),
        ({"a/b": 1.0}, "/boosts/a~1b", "Known names"),
        ({"year": float("nan")}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        ({"year": float("inf")}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        ({"year": 1.1e6}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        ({"year": -(10**400)}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        ({"year": True}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        ({"year": "1" * 400}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        ({"year": "1"}, "/boosts/year", "must be a number from -1e\\+06 to 1e\\+06"),
        (["year"], "/boosts", "object"),
    ],
)
def test_invalid_weights_are_refused(weights: dict[str, float], where: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        boosts("year", "genre=b").weights(weights)
    assert raised.value.where == where
    assert len(raised.value.what) < 120  # a value is not repeated in full


def test_without_boosts_the_error_explains_how_to_add_them() -> None:
    with pytest.raises(RequestError, match=r"index\.boosts"):
        boosts().weights({"year": 1.0})
