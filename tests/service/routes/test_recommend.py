"""Answers over HTTP are those of the recommender, with all fields."""

import orjson
import pytest

from recall.bundle.versions import resolve
from recall.serving.recommender import Recommender, Request
from tests.service.publishing import ITEMS, ODD_IDS, Shop
from tests.service.serving import Server


@pytest.fixture(scope="module")
def recommender(shop: Shop) -> Recommender:
    return Recommender.load(shop.root)


def ids(answer) -> list[str]:
    assert answer.status == 200, answer
    return [item["item_id"] for item in answer.json["items"]]


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ({}, Request()),
        ({"user_id": "3", "n": 7}, Request(user_id="3", n=7)),
        ({"user_id": 3, "n": 7}, Request(user_id="3", n=7)),
        ({"user_id": None, "features": {"age": 30, "likes": ["noir"]}}, Request(features={"age": 30, "likes": ["noir"]})),
        ({"features": {"age": None}}, Request(features={"age": None})),
        ({"context": {"device": "web"}, "history": [4, "5"]}, Request(context={"device": "web"}, history=("4", "5"))),
        ({"user_id": "3", "history": []}, Request(user_id="3", history=())),
        ({"user_id": "3", "exclude_seen": False}, Request(user_id="3", exclude_seen=False)),
        ({"user_id": "3", "features": {"age": 71}, "exclude": ["1", "2"]}, Request("3", {"age": 71}, exclude=("1", "2"))),
        ({"user_id": "3", "popularity": 0}, Request("3", popularity=0.0)),
        ({"user_id": "3", "popularity": 1.75}, Request("3", popularity=1.75)),
        ({"n": 7, "filter": {"genre": "noir"}}, Request(n=7, filter={"genre": "noir"})),
        ({"user_id": "3", "n": 2, "allow": [4, "5", "nul\x00inside"]}, Request("3", n=2, allow=("4", "5", "nul\x00inside"))),
        ({"n": 3, "filter": None, "allow": None}, Request(n=3)),
        ({"user_id": "nobody", "features": {"age": 40}}, Request(user_id="nobody", features={"age": 40})),
    ],
)
def test_answers_are_those_of_the_recommender(server: Server, recommender: Recommender, body: dict, request_: Request) -> None:
    answer, expected = server.post(body), recommender.recommend(request_)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    assert found.pop("request_id") == answer.headers["x-request-id"]
    assert found == {
        "items": [{"item_id": item.item_id, "score": item.score} for item in expected.items],
        "user": expected.user,
        "bundle": expected.bundle,
        "sequence": expected.sequence,
        "exact": expected.exact,
        "unknown": list(expected.unknown),
        "warnings": list(expected.warnings),
        "degraded": [],
        "user_offset": expected.user_offset,
    }
    assert len(found["items"]) == request_.n


def test_users_are_known_unknown_or_anonymous(server: Server) -> None:
    assert server.post({"user_id": "7"}).json["user"] == "known"
    assert server.post({}).json["user"] == "anonymous"
    stranger = server.post({"user_id": "nobody", "features": {"age": 30}})
    assert stranger.json["user"] == "unknown"
    assert ids(stranger) == ids(server.post({"features": {"age": 30}}))


def test_unknown_values_are_named_and_answered(server: Server) -> None:
    answer = server.post({"features": {"likes": ["opera"]}, "context": {"device": "fridge"}})
    assert len(ids(answer)) == 10
    assert sorted(answer.json["unknown"]) == ["device", "likes"]


def test_an_unknown_column_is_refused_with_the_nearest_name(server: Server) -> None:
    for part, name, column in (("features", "agee", "age"), ("context", "devise", "device")):
        answer = server.post({part: {name: 1}})
        assert answer.status == 422
        assert answer.pointers == [f"/{part}/{name}"]
        assert f"Did you mean '{column}'?" in answer.json["errors"][0]["message"]


@pytest.mark.parametrize("value", ["old", [1], True, 1e300])
def test_a_value_that_its_column_cannot_hold_is_refused(server: Server, value: object) -> None:
    answer = server.post({"features": {"age": value}})
    if value is True:  # true is the number 1, in tables and in requests
        assert answer.status == 200
    else:
        assert answer.status == 422
        assert answer.pointers == ["/features/age"]


def test_exclusions_are_left_out(server: Server) -> None:
    all_items = ids(server.post({"user_id": "5", "exclude_seen": False, "n": 1000}))
    unseen = ids(server.post({"user_id": "5", "n": 1000}))
    seen = set(all_items) - set(unseen)
    assert sorted(all_items) == sorted(ITEMS)
    assert seen
    assert unseen == [item for item in all_items if item not in seen]
    fewer = ids(server.post({"user_id": "5", "n": 1000, "exclude": unseen[:10]}))
    assert fewer == unseen[10:]
    assert ids(server.post({"user_id": "5", "exclude": ITEMS})) == []


def test_filters_allowed_and_seen_items_combine(server: Server, shop: Shop) -> None:
    genre = dict(zip(ITEMS, shop.dataset.items["genre"].to_list(), strict=True))
    unseen = ids(server.post({"user_id": "5", "n": 1000}))
    noir = [item for item in unseen if genre[item] == "noir"]
    assert 3 < len(noir) < len(unseen)
    assert ids(server.post({"user_id": "5", "n": 1000, "filter": {"genre": "noir"}})) == noir
    assert ids(server.post({"user_id": "5", "n": 3, "filter": {"genre": {"in": ["noir"]}}})) == noir[:3]
    some = unseen[::2]
    both = {"user_id": "5", "n": 1000, "filter": {"not": {"genre": "noir"}}, "allow": some, "exclude": some[:5]}
    assert ids(server.post(both)) == [item for item in some[5:] if genre[item] != "noir"]
    assert ids(server.post({"n": 1000, "allow": []})) == []
    assert ids(server.post({"n": 1000, "filter": {"item_id": {"in": ODD_IDS}}, "exclude_seen": False})) != []


@pytest.mark.parametrize(
    ("filter_", "pointer", "message"),
    [
        ("noir", "/filter", "dictionary"),
        ([], "/filter", "dictionary"),
        ({"genr": "noir"}, "/filter/genr", "Did you mean 'genre'?"),
        ({"genre": {"equal": "noir"}}, "/filter/genre/equal", "Did you mean 'equals'?"),
        ({"any": [{"genre": "noir"}, {"genre": ["noir"]}]}, "/filter/any/1/genre", '{"in": [...]}'),
        ({"genre": {"any": ["noir"]}}, "/filter/genre/any", "one value for each item"),
        ({"genre": {"gt": 3}}, "/filter/genre/gt", "cannot be read as numbers"),
        ({"available": {"from": "genre"}}, "/filter/available/from", "dates or times"),
        ({"a/b~": 1}, "/filter/a~1b~0", "no such column"),
        ({"x" * 257: 1}, "/filter", "at most 256"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_pointer(server: Server, filter_: object, pointer: str, message: str) -> None:
    answer = server.post({"filter": filter_})
    assert answer.status == 422
    assert answer.pointers == [pointer]
    assert message in answer.json["errors"][0]["message"]


def test_a_deep_filter_is_refused(server: Server) -> None:
    deep = b'{"not":' * 100 + b"{}" + b"}" * 100
    answer = server.post(b'{"filter":' + deep + b"}")
    assert answer.status == 422
    assert "deep" in answer.json["errors"][0]["message"]


def test_items_of_a_given_history_count_as_seen(server: Server) -> None:
    first = ids(server.post({"n": 3}))
    assert not {*first} & {*ids(server.post({"history": first, "n": 1000}))}
    assert {*first} <= {*ids(server.post({"history": first, "n": 1000, "exclude_seen": False}))}


def test_a_larger_n_than_the_catalogue_returns_the_catalogue(server: Server) -> None:
    answer = server.post({"n": 1000})
    assert sorted(ids(answer)) == sorted(ITEMS)
    scores = [item["score"] for item in answer.json["items"]]
    assert scores == sorted(scores, reverse=True)


def test_excluded_ids_that_do_not_exist_are_reported(server: Server) -> None:
    answer = server.post({"exclude": ["no such item", "1"]})
    assert answer.status == 200
    assert len(answer.json["warnings"]) == 1


@pytest.mark.parametrize("odd", ODD_IDS, ids=ascii)
def test_awkward_ids_are_returned_unchanged(server: Server, odd: str) -> None:
    assert odd in ids(server.post({"n": 1000}))
    assert odd not in ids(server.post({"n": 1000, "exclude": [odd]}))
    answer = server.post({"user_id": odd, "exclude_seen": False, "history": [odd]})
    assert answer.json["user"] == "known"
    assert answer.json["warnings"] == []
    escaped = b'{"user_id": "' + "".join(f"\\u{unit:04x}" for unit in _units(odd)).encode() + b'"}'
    assert server.post(escaped).json["items"] == server.post({"user_id": odd}).json["items"]


def _units(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2)]


def test_info_describes_the_bundle(server: Server, shop: Shop) -> None:
    answer = server.ask("GET", "/v1/info")
    info = orjson.loads(answer.body)
    created = info.pop("created")
    assert created.startswith("20")
    assert info.pop("request_id") == answer.headers["x-request-id"]
    assert (info.pop("changes"), info.pop("degraded")) == (0, [])
    assert info.pop("certificate")["met"] is True
    columns = info["columns"]
    values = columns.pop("values") | columns.pop("item_values")
    assert {name: sorted(found) for name, found in values.items()} == {
        "likes": ["comedy", "drama", "noir"],
        "device": ["phone", "web"],
        "genre": ["comedy", "drama", "noir"],
    }
    assert info == {
        "name": "shop",
        "bundle": resolve(shop.root).name,
        "sequence": 1,
        "sizes": {"users": len(shop.dataset.users), "items": len(ITEMS), "factors": 6},
        "index": "exact",
        "columns": {
            "features": ["age", "likes"],
            "context": ["device"],
            "history": True,
            "filter": {"item_id": "text", "genre": "text", "year": "integer"},
            "types": {"age": "float64", "likes": "list of text", "device": "text"},
            "boosts": ["year", "genre=noir"],
            "user_id": "user_id",
            "item_id": "item_id",
            "title": None,
            "user_title": None,
        },
    }
