"""Rules, channels and boosts over HTTP: requests, answers and refusals."""

import pytest

from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.channels import Channels, LatestChannel, ListChannel, ModelChannel, PopularChannel
from recall.serving.rerank.rules import Dedupe, Diversify, Pin, Quota
from tests.service.publishing import Shop
from tests.service.serving import Server


@pytest.fixture(scope="module")
def recommender(shop: Shop) -> Recommender:
    return Recommender.load(shop.root)


SHAPED = [
    ({"rules": [{"kind": "quota", "column": "genre", "most": 2}]}, Request(rules=(Quota("genre", 2),))),
    ({"rules": [{"kind": "dedupe", "column": "genre"}]}, Request(rules=(Dedupe("genre"),))),
    ({"rules": [{"kind": "diversify", "relevance": 0.2, "pool": 30}]}, Request(rules=(Diversify(0.2, 30),))),
    ({"rules": [{"kind": "pin", "items": {"7": 1, "12": 3}}], "n": 4}, Request(n=4, rules=(Pin({"7": 1, "12": 3}),))),
    ({"boosts": {"year": 0.5, "genre=noir": -1}}, Request(boosts={"year": 0.5, "genre=noir": -1.0})),
    (
        {"channels": {"lists": [{"kind": "model"}, {"kind": "popular", "weight": 0.5}], "merge": "weights"}},
        Request(channels=Channels([ModelChannel(), PopularChannel(0.5)], "weights")),
    ),
    (
        {"channels": {"lists": [{"kind": "latest", "column": "year"}, {"kind": "list", "items": [7, "12"], "name": "ours"}]}},
        Request(channels=Channels([LatestChannel("year"), ListChannel(["7", "12"], name="ours")])),
    ),
]


@pytest.mark.parametrize(("body", "request_"), SHAPED)
def test_answers_are_those_of_the_recommender(server: Server, recommender: Recommender, body: dict, request_: Request) -> None:
    answer, expected = server.post(body), recommender.recommend(request_)
    assert answer.status == 200, answer
    sources = [
        {} if item.sources is None else {"sources": [{"channel": one.channel, "rank": one.rank} for one in item.sources]}
        for item in expected.items
    ]
    items = [{"item_id": item.item_id, "score": item.score} | tags for item, tags in zip(expected.items, sources, strict=True)]
    assert answer.json["items"] == items
    assert answer.json["exact"] == expected.exact
    assert items


def test_pins_are_at_their_positions(server: Server) -> None:
    found = server.post({"n": 4, "rules": [{"kind": "pin", "items": {"7": 1, "12": 3, "nothing": 2}}]}).json
    assert [item["item_id"] for item in found["items"]][::2] == ["7", "12"]
    assert found["warnings"] == ["1 pinned ids are not in the catalogue: 'nothing'"]


def test_the_nearest_name_is_suggested(server: Server) -> None:
    for body, near in (
        ({"rules": [{"kind": "qouta"}]}, "'quota'"),
        ({"rules": [{"kind": "quota", "colunm": "genre", "column": "genre", "most": 1}]}, "'column'"),
        ({"rules": [{"kind": "dedupe", "column": "gerne"}]}, "'genre'"),
        ({"channels": {"list": [], "lists": [{"kind": "model"}]}}, "'lists'"),
        ({"channels": {"lists": [{"kind": "list", "items": ["1"], "wieght": 1}]}}, "'weight'"),
        ({"boosts": {"yaer": 1}}, "'year'"),
    ):
        answer = server.post(body)
        assert answer.status == 422
        assert f"Did you mean {near}?" in answer.json["errors"][0]["message"]
