"""Similar items, by GET and POST, for all kinds of ids."""

from urllib.parse import quote

import pytest

from recall.serving.recommender import Recommender, Request
from tests.service.publishing import ODD_IDS, Shop
from tests.service.routes.asking import content, get, post, refused
from tests.service.serving import Server


@pytest.fixture(scope="module")
def recommender(shop: Shop) -> Recommender:
    return Recommender.load(shop.root)


def path(item_id: str) -> str:
    return f"/v1/items/{quote(item_id, safe='')}/similar"


@pytest.mark.parametrize("item_id", ["7", *ODD_IDS])
def test_answers_are_those_of_the_recommender(server: Server, recommender: Recommender, item_id: str) -> None:
    found = content(get(server, path(item_id) + "?n=6"))
    assert found == content(post(server, path(item_id), {"n": 6}))
    assert found["item_id"] == item_id
    expected = recommender.similar(item_id, Request(n=6)).items
    assert found["items"] == [{"item_id": one.item_id, "score": one.score} for one in expected]
    assert len(content(get(server, path(item_id)))["items"]) == 10


def test_similar_items_among_allowed_ones(server: Server, recommender: Recommender) -> None:
    body = {"n": 30, "filter": {"genre": "noir"}, "exclude": ["3", "no such item"], "allow": [str(one) for one in range(40)]}
    found = content(post(server, path("7"), body))
    request = Request(n=30, filter={"genre": "noir"}, exclude=("3", "no such item"), allow=tuple(body["allow"]))
    assert found["items"] == [{"item_id": one.item_id, "score": one.score} for one in recommender.similar("7", request).items]
    assert found["warnings"] == ["1 excluded ids are not in the catalogue: 'no such item'"]


def test_missing_items_and_invalid_requests(server: Server) -> None:
    refused(get(server, path("none such")), 404)
    refused(post(server, path("none such"), {}), 404)
    refused(get(server, path("%FF").replace("%25", "%")), 422)
    for query in ("n=0", "n=1001", "n=ten", "n=1&n=2", "N=5", "n=", "n=%31%30e", "n=-1"):
        refused(get(server, f"{path('7')}?{query}"), 422)
    refused(post(server, path("7"), {"filter": {"gerne": "noir"}}), 422, "/filter/gerne")
    refused(post(server, path("7"), {"n": 0, "user_id": "3"}), 422, "/n", "/user_id")
