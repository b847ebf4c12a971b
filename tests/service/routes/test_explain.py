"""Explanations over HTTP are the recommender's, and add up to the served score."""

import pytest

from recall.serving.recommender import Recommender, Request
from tests.service.publishing import Shop
from tests.service.routes.asking import content, post, refused
from tests.service.serving import Server


@pytest.fixture(scope="module")
def recommender(shop: Shop) -> Recommender:
    return Recommender.load(shop.root)


@pytest.mark.parametrize("extra", [{}, {"popularity": 0.25}, {"boosts": {"year": 0.01, "genre=noir": 2}}])
def test_an_answer_that_explains_itself_adds_up(server: Server, extra: dict) -> None:
    plain = server.post({"user_id": "3", "n": 12, **extra}).json
    told = server.post({"user_id": "3", "n": 12, "explain": True, **extra}).json
    assert [(one["item_id"], one["score"]) for one in told["items"]] == [
        (one["item_id"], one["score"]) for one in plain["items"]
    ]
    assert not any("contributions" in one for one in plain["items"])
    for item in told["items"]:
        assert sum(one["value"] for one in item["contributions"]) == pytest.approx(item["score"], abs=1e-4)
        alone = content(post(server, "/v1/explain", {"user_id": "3", "item_id": item["item_id"], "values": True, **extra}))
        assert alone["contributions"] == item["contributions"]
        assert alone["score"] == pytest.approx(item["score"], abs=1e-5)
        assert sum(one["value"] for one in alone["values"]) + alone["rest"] == pytest.approx(item["score"], abs=1e-4)


def test_at_most_a_hundred_items_are_explained(server: Server) -> None:
    assert server.post({"n": 100, "explain": True}).status == 200
    refused(server.post({"n": 101, "explain": True}), 422, "/n")
    assert server.post({"n": 101, "explain": False}).status == 200


def test_sources_and_contributions_are_returned_together(server: Server) -> None:
    channels = {"lists": [{"kind": "model"}, {"kind": "list", "items": ["7", "8"]}]}
    found = server.post({"n": 5, "channels": channels, "explain": True}).json
    assert all(set(one) == {"item_id", "score", "sources", "contributions"} for one in found["items"])
    scores = content(post(server, "/v1/score", {"items": [one["item_id"] for one in found["items"]]}))["items"]
    for one, scored in zip(found["items"], scores, strict=True):  # the model's score, since the merged one has no contributions
        assert sum(part["value"] for part in one["contributions"]) == pytest.approx(scored["score"], abs=1e-4)


def test_an_explanation_is_that_of_the_recommender(server: Server, recommender: Recommender) -> None:
    body = {"user_id": 3, "context": {"device": "web"}, "history": ["4"], "item_id": 7, "values": True}
    found = content(post(server, "/v1/explain", body))
    expected = recommender.explain(Request("3", context={"device": "web"}, history=("4",)), "7", values=True)
    assert found["item_id"] == "7"
    assert (found["score"], found["user_offset"], found["rest"]) == (expected.score, expected.user_offset, expected.rest)
    assert found["contributions"] == [
        {"user_field": one.user_field, "item_fields": list(one.item_fields), "value": one.value}
        for one in expected.contributions
    ]
    assert len(found["values"]) == len(expected.values)
    first, of = found["values"][0], expected.values[0]
    assert first["value"] == of.value
    assert [value["value"] for value in first["items"]] == [value.value for value in of.items]
    assert {one["user"]["value"] for one in found["values"] if one["user"] and one["user"]["field"] == "history[1]"} == {"4"}
    assert content(post(server, "/v1/explain", {"item_id": "7"}))["values"] is None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/item_id"),
        ({"item_id": "none such"}, "/item_id"),
        ({"item_id": "7", "n": 3}, "/n"),
        ({"item_id": "7", "values": 1}, "/values"),
        ({"item_id": "7", "boosts": {"yaer": 1}}, "/boosts/yaer"),
        ({"item_id": "7", "features": {"aeg": 1}}, "/features/aeg"),
    ],
)
def test_invalid_requests_for_explanations(server: Server, body: dict, pointer: str) -> None:
    refused(post(server, "/v1/explain", body), 422, pointer)


def test_why_not(server: Server, recommender: Recommender) -> None:
    ranking = [one.item_id for one in recommender.recommend(Request("3", n=1000)).items]
    found = content(post(server, "/v1/why-not", {"user_id": "3", "n": 10, "item_id": ranking[20]}))
    assert (found["listed"], found["rank"], found["eligible"]) == (None, 21, len(ranking))
    assert [one["kind"] for one in found["reasons"]] == ["score"]
    assert found["last"]["item_id"] == ranking[9]
    assert found["missing"] == pytest.approx(found["last"]["score"] - found["score"])
    assert sum(one["value"] for one in found["contributions"]) == pytest.approx(found["missing"], abs=1e-4)
    listed = content(post(server, "/v1/why-not", {"user_id": "3", "n": 10, "item_id": ranking[0]}))
    assert (listed["listed"], listed["rank"], listed["reasons"]) == (1, 1, [])
    assert listed["missing"] < 0
    few = content(post(server, "/v1/why-not", {"user_id": "3", "n": 1000, "item_id": ranking[0]}))
    assert (few["last"], few["missing"], few["contributions"]) == (None, None, [])


def test_every_reason_points_into_the_request(server: Server, recommender: Recommender) -> None:
    best = recommender.recommend(Request("3", n=1)).items[0].item_id
    body = {"user_id": "3", "item_id": best, "exclude": ["1", best], "filter": {"year": {"gt": 9999}}, "allow": ["1"]}
    found = content(post(server, "/v1/why-not", body))
    assert [(one["kind"], one["where"]) for one in found["reasons"]] == [
        ("excluded", "/exclude/1"),
        ("allow", "/allow"),
        ("filter", "/filter/year"),
    ]
    refused(post(server, "/v1/why-not", {"item_id": "none such"}), 422, "/item_id")
    refused(post(server, "/v1/why-not", {"item_id": best, "explain": True}), 422, "/explain")
    refused(
        post(server, "/v1/why-not", {"item_id": best, "rules": [{"kind": "dedupe", "column": "x"}]}), 422, "/rules/0/column"
    )
