"""Columns of listed items, in all routes that return lists."""

import pytest

from recall.serving.recommender import Recommender, Request
from tests.service.publishing import Shop
from tests.service.routes.asking import content, get, post, refused
from tests.service.serving import Server


@pytest.fixture(scope="module")
def table(shop: Shop) -> dict[str, dict]:
    with Recommender.load(shop.root) as recommender:
        return {row["item_id"]: row for row in recommender.bundle.items().iter_rows(named=True)}


FIELDS = ["genre", "year"]


def answers(server: Server) -> dict[str, list[dict]]:
    body = {"user_id": "3", "n": 4, "fields": FIELDS}
    return {
        "one": content(post(server, "/v1/recommend", body))["items"],
        "batch": post(server, "/v1/recommend:batch", {"requests": [body]}).json["answers"][0]["answer"]["items"],
        "get": content(get(server, "/v1/users/3/recommendations?n=4&fields=genre,year"))["items"],
        "score": content(post(server, "/v1/score", {"user_id": "3", "items": ["7", "12"], "fields": FIELDS}))["items"],
        "similar": content(post(server, "/v1/items/7/similar", {"n": 4, "fields": FIELDS}))["items"],
        "get similar": content(get(server, "/v1/items/7/similar?n=4&fields=genre,year"))["items"],
    }


def test_every_list_has_the_columns_that_a_request_names(server: Server, table: dict[str, dict]) -> None:
    for name, items in answers(server).items():
        assert len(items) > 1, name
        for item in items:
            assert item["fields"] == {column: table[item["item_id"]][column] for column in FIELDS}, name
    found = answers(server)
    assert found["one"] == found["batch"] == found["get"]
    assert found["similar"] == found["get similar"]
    assert "fields" not in content(post(server, "/v1/recommend", {"user_id": "3"}))["items"][0]


def test_unknown_columns_are_refused_with_the_nearest(server: Server) -> None:
    for path, body in (
        ("/v1/recommend", {}),
        ("/v1/score", {"items": ["7"]}),
        ("/v1/items/7/similar", {}),
    ):
        answer = post(server, path, {**body, "fields": ["year", "gerne"]})
        refused(answer, 422, "/fields/1")
        assert "'genre'" in answer.json["errors"][0]["message"]
    refused(get(server, "/v1/users/3/recommendations?fields=gerne"), 422, "/fields/0")
    refused(post(server, "/v1/recommend", {"fields": "genre"}), 422, "/fields")
    refused(post(server, "/v1/why-not", {"item_id": "7", "fields": ["genre"]}), 422, "/fields")


def test_rows_are_those_of_the_recommender(server: Server, shop: Shop) -> None:
    body = {"history": ["7", "12"], "n": 3, "because": 2, "fields": ["genre"]}
    found = content(post(server, "/v1/recommend", body))
    with Recommender.load(shop.root) as recommender:
        expected = recommender.recommend(Request(history=("7", "12"), n=3, because=2, fields=("genre",)))
    assert found["rows"] == [
        {
            "because": row.because,
            "title": row.title,
            "items": [
                {"item_id": item.item_id, "score": item.score, "fields": fields}
                for item, fields in zip(row.items, row.fields, strict=True)
            ],
        }
        for row in expected.rows
    ]
    assert [row["because"] for row in found["rows"]] == ["7", "12"]
    refused(post(server, "/v1/recommend", {"because": 11}), 422, "/because")
