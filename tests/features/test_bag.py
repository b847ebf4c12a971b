from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config.schema import BagField
from recall.errors import DataError, RequestError
from recall.features.bag import BagEncoder
from recall.features.column import FieldSource
from tests.features.rows import agree, as_sets

TAGS = st.sampled_from(["a", "b", "c", "d", "", "ü"])
NORMS = st.sampled_from(["none", "mean", "sqrt"])
WEIGHT = st.floats(-100, 100, width=32)


def bag(**settings: Any) -> BagField:
    return BagField(side="item", kind="bag", **settings)


def fit(field: BagField, frame: pl.DataFrame) -> BagEncoder:
    return BagEncoder.fit(field, FieldSource("x"), frame, np.ones(len(frame), dtype=np.int64))


def lists(values: list[Any], inner: pl.DataType | None = None) -> pl.DataFrame:
    return pl.DataFrame({"x": pl.Series(values, dtype=pl.List(inner or pl.String()))})


@given(*[st.lists(st.none() | st.lists(st.none() | TAGS, max_size=6), max_size=5)] * 2, NORMS)
def test_a_request_is_encoded_like_a_list_column(learnt: list[Any], asked: list[Any], norm: str) -> None:
    agree(fit(bag(norm=norm), lists(learnt)), lists(asked))


@given(st.lists(st.none() | st.lists(st.tuples(TAGS, WEIGHT), max_size=6), max_size=5), NORMS)
def test_a_weighted_bag_in_a_request_is_encoded_like_a_column(bags: list[list[tuple[str, float]] | None], norm: str) -> None:
    frame = lists([None if pairs is None else [tag for tag, _ in pairs] for pairs in bags]).with_columns(
        w=pl.Series([None if pairs is None else [weight for _, weight in pairs] for pairs in bags], dtype=pl.List(pl.Float64))
    )
    agree(fit(bag(norm=norm, weights="w"), frame), frame)


@given(st.lists(st.none() | st.text("ab|", max_size=6), max_size=5), NORMS)
def test_a_request_is_encoded_like_a_text_column(texts: list[str | None], norm: str) -> None:
    frame = pl.DataFrame({"x": texts}, {"x": pl.String()})
    agree(fit(bag(norm=norm), frame), frame)


def test_text_is_split_and_lists_are_not() -> None:
    text, listed = pl.DataFrame({"x": ["a|b", "b", ""]}), lists([["a", "b"], ["b"], None])  # empty text is missing
    assert as_sets(fit(bag(), text).encode(text)) == as_sets(fit(bag(), listed).encode(listed))
    assert fit(bag(), lists([["a|b"]])).vocabulary.values.to_list() == ["a|b"]
    assert fit(bag(separator=", "), pl.DataFrame({"x": ["a, b"]})).vocabulary.values.to_list() == ["a", "b"]


def test_missing_and_empty_bags_differ_and_unknown_values_are_summed() -> None:
    encoder = fit(bag(norm="none"), lists([["a", "b"], ["a"]]))
    rows = as_sets(encoder.encode(lists([None, [], ["a", "x", "y"], ["b", "b"], ["a", None, ""]])))
    assert rows == [{1: 1.0}, {}, {2: 1.0, 0: 2.0}, {3: 2.0}, {2: 1.0}]


@pytest.mark.parametrize(("norm", "weight"), [("none", 1.0), ("mean", 0.25), ("sqrt", 0.5)])
def test_weights_are_divided_by_the_number_of_values(norm: str, weight: float) -> None:
    encoder = fit(bag(norm=norm), lists([["a", "b", "c"]]))
    assert as_sets(encoder.encode(lists([["a", "b", "c", "c"]]))) == [{2: weight, 3: weight, 4: 2 * weight}]


def test_min_count_counts_bags() -> None:
    frame = lists([["a", "a", "a"], ["b"], ["b"]])
    assert fit(bag(min_count=2), frame).vocabulary.values.to_list() == ["b"]
    encoder = BagEncoder.fit(bag(min_count=2), FieldSource("x"), frame, np.array([2, 0, 1]))
    assert encoder.vocabulary.values.to_list() == ["a"]


def test_bags_may_contain_numbers_and_be_arrays() -> None:
    frame = lists([[1, 2], [2]], pl.Int64())
    encoder = fit(bag(), frame)
    agree(encoder, frame)
    assert encoder.encode_one({"x": [2.0]}) == [(2, 1.0)]
    array = pl.DataFrame({"x": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64(), 2))})
    assert as_sets(encoder.encode(array)) == as_sets(encoder.encode(lists([[1, 2]], pl.Int64())))
    floats = lists([[0.5, float("nan")]], pl.Float64())
    assert as_sets(fit(bag(), floats).encode(floats)) == [{2: 1.0}]


def test_weights_may_be_text() -> None:
    frame = pl.DataFrame({"x": ["a|b"], "w": ["0.5|2"]})
    encoder = fit(bag(weights="w", norm="none"), frame)
    assert as_sets(encoder.encode(frame)) == [{2: 0.5, 3: 2.0}]
    agree(encoder, frame)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0], [1.0]], r"column 'w': 1 value is without one weight for each value of 'x': \['a', 'b'\], first in row 1"),
        ([None, [1.0]], "without one weight for each value"),
        ([[1.0, None], [1.0]], "1 value is missing"),
        ([[1.0, float("nan")], [1.0]], "1 value is missing"),
        ([[1.0, float("inf")], [1.0]], "1 value is infinite"),
        ([[1.0, 1e300], [1.0]], "1 value is too large"),
    ],
)
def test_weights_that_do_not_match_their_bags_are_refused(weights: list[Any], message: str) -> None:
    frame = lists([["a", "b"], ["a"]]).with_columns(w=pl.Series(weights, dtype=pl.List(pl.Float64())))
    with pytest.raises(DataError, match=message):
        fit(bag(weights="w"), frame)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"x": 3, "w": [1.0]}, "/features/x"),
        ({"x": [["a"]], "w": [1.0]}, "/features/x"),
        ({"x": ["a"]}, "/features/w"),
        ({"x": ["a"], "w": [1.0, 2.0]}, "/features/w"),
        ({"x": ["a"], "w": ["much"]}, "/features/w"),
        ({"x": ["a"], "w": [float("nan")]}, "/features/w"),
        ({"x": ["a"], "w": [1e300]}, "/features/w"),
        ({"x": ["a"], "w": [None]}, "/features/w"),
        ({"x": ["a"], "w": 2.0}, "/features/w"),
    ],
)
def test_an_invalid_bag_in_a_request_names_its_column(values: dict[str, Any], where: str) -> None:
    frame = lists([["a"]]).with_columns(w=pl.Series([[1.0]]))
    with pytest.raises(RequestError) as caught:
        fit(bag(weights="w"), frame).encode_one(values)
    assert caught.value.where == where


def test_a_column_without_bags_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"column 'x': a column of type Int64 holds no bags.*categorical"):
        fit(bag(), pl.DataFrame({"x": [1]}))
