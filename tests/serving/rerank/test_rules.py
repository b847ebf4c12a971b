"""Validation of rules in a request."""

import pytest

from recall.errors import RequestError
from recall.serving.rerank.rules import Dedupe, Diversify, Pin, Quota, read_rules

RULES = (Quota("genre", 3), Dedupe("series"), Diversify(0.5, 100), Pin({"i1": 2}))


def test_rules_round_trip_through_plain_values() -> None:
    plain = [
        {"kind": "quota", "column": "genre", "most": 3},
        {"kind": "dedupe", "column": "series"},
        {"kind": "diversify", "relevance": 0.5, "pool": 100},
        {"kind": "pin", "items": {"i1": 2}},
    ]
    assert read_rules(plain) == read_rules(RULES) == RULES
    assert read_rules([{"kind": "diversify"}]) == (Diversify(),)
    assert read_rules([]) == ()


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (Quota("genre", 0), "/rules/0/most"),
        (Quota("genre", 2.0), "/rules/0/most"),  # type: ignore[arg-type]
        (Quota("genre", True), "/rules/0/most"),
        (Quota("", 1), "/rules/0/column"),
        (Dedupe(None), "/rules/0/column"),  # type: ignore[arg-type]
        (Diversify(1.5), "/rules/0/relevance"),
        (Diversify(float("nan")), "/rules/0/relevance"),
        (Diversify("0.5"), "/rules/0/relevance"),  # type: ignore[arg-type]
        (Diversify(0.5, 0), "/rules/0/pool"),
        (Pin({}), "/rules/0/items"),
        (Pin({"a/b": 0}), "/rules/0/items/a~1b"),
        ({"kind": "quotas"}, "/rules/0/kind"),
        ({"column": "genre"}, "/rules/0"),
        ({"kind": "quota", "column": "genre"}, "/rules/0/most"),
        ({"kind": "dedupe", "column": "genre", "most": 1}, "/rules/0/most"),
        ("quota", "/rules/0"),
    ],
)
def test_values_out_of_range_are_named(rule: object, where: str) -> None:
    with pytest.raises(RequestError) as raised:
        read_rules([rule])
    assert raised.value.where == where


@pytest.mark.parametrize("rules", ["quota", 3, [Dedupe("genre")] * 11])
def test_the_number_of_rules_is_limited(rules: object) -> None:
    with pytest.raises(RequestError) as raised:
        read_rules(rules)  # type: ignore[arg-type]
    assert raised.value.where == "/rules"


def test_a_misspelt_kind_gets_a_suggestion() -> None:
    with pytest.raises(RequestError, match="Did you mean 'quota'"):
        read_rules([{"kind": "qouta"}])
