"""Scores of given items are those of lists; vectors are query vectors."""

import numpy as np
import pytest

from recall.serving.recommender import Recommender, Request
from tests.service.publishing import Shop
from tests.service.routes.asking import content, post, refused
from tests.service.serving import Server


@pytest.fixture(scope="module")
def recommender(shop: Shop) -> Recommender:
    return Recommender.load(shop.root)


@pytest.mark.parametrize("extra", [{}, {"popularity": 3.0}, {"boosts": {"year": 0.5}}, {"features": {"age": 20}}])
def test_scores_are_those_of_the_list(server: Server, extra: dict) -> None:
    listed = server.post({"user_id": "3", "n": 1000, **extra}).json
    asked = [one["item_id"] for one in reversed(listed["items"])][:50]
    found = content(post(server, "/v1/score", {"user_id": "3", "items": [*asked, "nothing", asked[0], "nothing"], **extra}))
    scores = {one["item_id"]: one["score"] for one in listed["items"]}
    assert [one["item_id"] for one in found["items"]] == [*asked, asked[0]]
    assert [one["score"] for one in found["items"]] == [scores[one] for one in (*asked, asked[0])]
    assert found["missing"] == ["nothing"]
    assert (found["user"], found["user_offset"]) == ("known", listed["user_offset"])


def test_seen_items_are_scored_too(server: Server, recommender: Recommender) -> None:
    seen = recommender.users.get("3").seen
    found = content(post(server, "/v1/score", {"user_id": "3", "items": list(seen)}))
    assert [one["item_id"] for one in found["items"]] == list(seen)
    assert {one["probability"] for one in found["items"]} == {None}
    assert content(post(server, "/v1/score", {"items": ["nothing"]}))["items"] == []


def test_the_vector_is_the_query_vector(server: Server, recommender: Recommender) -> None:
    body = {"user_id": "3", "context": {"device": "fridge"}, "popularity": 0.5}
    found = content(post(server, "/v1/user-vector", body))
    (expected,) = recommender.user_vectors([Request("3", context={"device": "fridge"}, popularity=0.5)])
    np.testing.assert_allclose(found["vector"], expected, rtol=1e-6)
    assert found["vector"][0] == 0.5
    assert found["unknown"] == ["device"]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/score", {}, "/items"),
        ("/v1/score", {"items": []}, "/items"),
        ("/v1/score", {"items": ["1", 1.5]}, "/items/1"),
        ("/v1/score", {"items": ["1"] * 1001}, "/items"),
        ("/v1/score", {"items": ["1"], "filter": {}}, "/filter"),
        ("/v1/user-vector", {"boosts": {}}, "/boosts"),
        ("/v1/user-vector", {"popularity": -1}, "/popularity"),
        ("/v1/user-vector", {"features": {"age": "old"}}, "/features/age"),
    ],
)
def test_faults_are_named(server: Server, path: str, body: dict, pointer: str) -> None:
    refused(post(server, path, body), 422, pointer)
