"""Valid forms of filters, and errors for all others."""

import datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.serving.filters.parse import (
    CONDITIONS,
    DEPTH,
    VALUES,
    AllOf,
    AnyOf,
    Available,
    Bound,
    Equals,
    Holds,
    In,
    Missing,
    Not,
    Predicate,
    Range,
    parse,
)

DAY = datetime.date(2026, 3, 1)


@pytest.mark.parametrize(
    ("filter_", "predicate"),
    [
        ({}, AllOf(())),
        ({"category": "shoes"}, Equals("category", "shoes")),
        ({"category": {"equals": 5}}, Equals("category", 5)),
        ({"category": {"in": ["a", 5]}}, In("category", ("a", 5))),
        ({"price": {"gte": 1, "lt": 5.5}}, Range("price", (Bound("gte", 1), Bound("lt", 5.5)))),
        ({"price": {"missing": True}}, Missing("price")),
        ({"price": {"missing": False}}, Not(Missing("price"))),
        ({"price": {"exists": False}}, Missing("price")),
        ({"tags": {"any": ["a"], "all": []}}, AllOf((Holds("tags", "any", ("a",)), Holds("tags", "all", ())))),
        ({"a": 1, "not": {"b": True}}, AllOf((Equals("a", 1), Not(Equals("b", True))))),
        ({"any": [{"a": 1}, {"all": []}]}, AnyOf((Equals("a", 1), AllOf(())))),
        ({"available": {"from": "a"}}, Available("a", None)),
        ({"available": {"until": "b", "at": "now"}}, Available(None, "b")),
        ({"available": {"from": "a", "until": "b", "at": "2026-03-01"}}, Available("a", "b", "2026-03-01")),
        ({"columns": {"any": 1, "columns": "x"}}, AllOf((Equals("any", 1), Equals("columns", "x")))),
        ({"day": DAY, "price": np.float32(2)}, AllOf((Equals("day", DAY), Equals("price", 2.0)))),
        ({"price": {"in": (Decimal("2.5"), np.int64(3))}}, In("price", (2.5, 3))),
    ],
)
def test_every_form_of_condition_is_parsed(filter_: object, predicate: Predicate) -> None:
    assert parse(filter_) == predicate
    assert hash(parse(filter_)) == hash(predicate)


@pytest.mark.parametrize(
    ("filter_", "where", "message"),
    [
        ([], "", "a filter must be an object, got a list"),
        ("shoes", "", "must be an object, got a text"),
        ({5: 1}, "", "the keys of a filter must be text, got a number"),
        ({"a": None}, "/a", '{"missing": true}'),
        ({"a": ["x"]}, "/a", 'Write {"in"'),
        ({"a": {}}, "/a", "the condition is empty"),
        ({"a/b": {"like": "x"}}, "/a~1b/like", "the operator of a condition is unknown. Known names"),
        ({"a": {"equal": "x"}}, "/a/equal", "Did you mean 'equals'?"),
        ({"a": {"equals": None}}, "/a/equals", "got null"),
        ({"a": {"equals": {"x": 1}}}, "/a/equals", "got an object"),
        ({"a": {"equals": float("nan")}}, "/a/equals", "must be a finite number"),
        ({"a": {"gt": Decimal("inf")}}, "/a/gt", "must be a finite number"),
        ({"a": {"gt": b"x"}}, "/a/gt", "got a bytes"),
        ({"a": {"in": "x"}}, "/a/in", "in must be a list of values, got a text"),
        ({"a": {"in": ["x", [1]]}}, "/a/in/1", "got a list"),
        ({"a": {"any": "x"}}, "/a/any", "any must be a list of values"),
        ({"a": {"missing": 1}}, "/a/missing", "missing must be true or false, got a number"),
        ({"all": {"a": 1}}, "/all", 'all must be a list of filters, got an object. For a column with the name "all", write'),
        ({"any": "x"}, "/any", '{"columns": {"any": condition}}'),
        ({"any": [{"a": 1}, 5]}, "/any/1", "a filter must be an object, got a number"),
        ({"not": True}, "/not", "a filter must be an object"),
        ({"columns": []}, "/columns", "columns must be an object"),
        ({"columns": {"x": {"missin": 1}}}, "/columns/x/missin", "Did you mean"),
        ({"available": "now"}, "/available", "must name the column of its start or of its end"),
        ({"available": {"at": "now"}}, "/available", "must name the column of its start or of its end"),
        ({"available": {"from": "a", "to": "b"}}, "/available/to", "the keys of an availability window are from, until, at"),
        ({"available": {"from": 5}}, "/available/from", "the name of a column must be text, got a number"),
        ({"available": {"from": "a", "at": None}}, "/available/at", "got null"),
        ({"not": {"any": [{"x": {"lte": []}}]}}, "/not/any/0/x/lte", "got a list"),
    ],
)
def test_invalid_filters_are_refused_with_their_location(filter_: object, where: str, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(filter_)
    assert refused.value.where == "/filter" + where
    assert message in str(refused.value)


def test_the_size_of_filters_is_limited() -> None:
    deep: dict = {"a": 1}
    for _ in range(DEPTH - 1):
        deep = {"not": deep}
    parse(deep)
    for too_much, message in (
        ({"not": deep}, f"at most {DEPTH} deep"),
        ({"all": [{"a": {"missing": True}}] * (CONDITIONS + 1)}, "at most 1,000 conditions"),
        ({"a": {"in": list(range(VALUES + 1))}}, "at most 10,000 values"),
    ):
        with pytest.raises(RequestError, match=message):
            parse(too_much)
    for _ in range(5000):
        deep = {"not": deep}
    with pytest.raises(RequestError, match="deep"):
        parse(deep)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
WORDS = st.sampled_from(["all", "any", "not", "available", "columns", "from", "until", "at", "in", "gt", "missing", "x/y"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.text(max_size=2)), inner)),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_filter_or_refused_with_a_pointer(value: object) -> None:
    refused = None
    try:
        hash(parse(value))
    except RequestError as error:
        refused = error
    assert refused is None or (refused.where.startswith("/filter") and refused.what)
