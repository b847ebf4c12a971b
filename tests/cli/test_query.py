import json
from pathlib import Path

import pytest

from recall.serving.recommender import Recommender, Request


def test_query_prints_the_recommenders_answer(run, published: Path, recommender: Recommender) -> None:
    expected = recommender.recommend(
        Request(user_id="u1", features={"age": 30}, context={"device": "web", "hour": 3}, n=4, exclude=("i2",))
    )
    ended = run(
        *("query", published, "--user", "u1", "--feature", "age=30", "--context", "device=web"),
        *("--context", "hour=3", "-n", 4, "--exclude", "i2", "--json"),
    )
    assert ended.code == 0
    assert [item["item_id"] for item in ended.json["items"]] == [item.item_id for item in expected.items]
    assert ended.json["user"] == "known"


def test_query_passes_the_popularity(run, published: Path, recommender: Recommender) -> None:
    expected = recommender.recommend(Request(user_id="u1", popularity=0.25))
    ended = run("query", published, "--user", "u1", "--popularity", 0.25, "--json")
    shown = [(item["item_id"], item["score"]) for item in ended.json["items"]]
    assert shown == [(item.item_id, item.score) for item in expected.items]


def test_query_passes_filters_and_allowed_items(run, published: Path, recommender: Recommender) -> None:
    filter_ = {"category": {"in": ["c0", "c1"]}, "tags": {"any": ["t0"]}}
    expected = recommender.recommend(Request(user_id="u1", filter=filter_, exclude_seen=False))
    assert 0 < len(expected.items) < 10
    ended = run("query", published, "--user", "u1", "--seen", "--filter", json.dumps(filter_), "--json")
    found = [(item["item_id"], item["score"]) for item in ended.json["items"]]
    assert found == [(item.item_id, item.score) for item in expected.items]
    ended = run("query", published, "--allow", "i1", "--allow", "i4", "--json")
    assert sorted(item["item_id"] for item in ended.json["items"]) == ["i1", "i4"]


@pytest.mark.parametrize(
    ("filter_", "where", "message"),
    [
        ("category=c1", "--filter", "this is not JSON"),
        ("[]", "--filter", "must be a JSON object"),
        ('{"categry": "c1"}', "/filter/categry", "Did you mean 'category'?"),
        ('{"price": {"lte": "cheap"}}', "/filter/price/lte", "holds numbers"),
    ],
)
def test_an_invalid_filter_names_its_location(run, published: Path, filter_: str, where: str, message: str) -> None:
    ended = run("query", published, "--filter", filter_)
    assert ended.code == 65
    assert f"where: {where}" in ended.err
    assert message in ended.err


def test_query_prints_a_table_with_item_features(run, published: Path) -> None:
    ended = run("query", published, "--history", "i1", "--history", "i2", "-n", 3, "--exclude", "nothing")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["rank", "item", "score", "category", "tags", "tag_weights", "price"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert "anonymous user, exact search, bundle 000001-" in ended.err
    assert "1 excluded ids are not in the catalogue: 'nothing'" in ended.err


def test_query_explains_an_item_by_field(run, published: Path, recommender: Recommender) -> None:
    expected = recommender.explain(Request(user_id="u1"), "i4")
    ended = run("query", published, "--user", "u1", "--explain", "i4", "--json")
    assert ended.code == 0
    assert ended.json["score"] == pytest.approx(expected.score)
    assert ended.json["contributions"][0]["user_field"] == expected.contributions[0].user_field
    lines = run("query", published, "--user", "u1", "--explain", "i4").out.splitlines()
    assert lines[0].split() == ["user", "field", "item", "field", "contribution"]
    assert lines[-1].split() == ["score", f"{expected.score:.4f}"]
    assert run("query", published, "--user", "u1", "--explain", "nothing").code == 65


def test_query_explains_why_an_item_is_missing(run, published: Path, recommender: Recommender) -> None:
    ranking = [one.item_id for one in recommender.recommend(Request(user_id="u1", n=100)).items]
    ended = run("query", published, "--user", "u1", "-n", "2", "--why-not", ranking[4], "--json")
    assert (ended.json["rank"], ended.json["listed"], ended.json["last"]["item_id"]) == (5, None, ranking[1])
    assert [one["kind"] for one in ended.json["reasons"]] == ["score"]
    shown = run("query", published, "--user", "u1", "-n", "2", "--exclude", ranking[0], "--why-not", ranking[0])
    assert "/exclude/0" in shown.out
    assert f"item {ranking[0]} is not listed: rank 1 of" in shown.err
    lacking = run("query", published, "--user", "u1", "-n", "2", "--why-not", ranking[4])
    assert f"below that of {ranking[1]}, the last" in lacking.err
    assert "is listed at position 1" in run("query", published, "--user", "u1", "--why-not", ranking[0]).err
    assert run("query", published, "--user", "u1", "--why-not", "nothing").code == 65


def test_a_request_can_be_given_as_json(run, published: Path, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"user_id": "u3", "context": {"device": "tv"}, "n": 2}))
    ended = run("query", published, "--request", path, "--json")
    assert len(ended.json["items"]) == 2


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("{", None),
        ("[]", None),
        ('{"userid": "u1"}', "/userid"),
        ('{"exclude": "i1"}', "/exclude"),
        ('{"n": 0}', "/n"),
        ('{"allow": "i1"}', "/allow"),
        ('{"filter": ["i1"]}', "/filter"),
        ('{"filter": {"price": {}}}', "/filter/price"),
        ('{"popularity": -1}', "/popularity"),
    ],
)
def test_an_invalid_request_names_its_location(run, published: Path, tmp_path: Path, body: str, where: str | None) -> None:
    path = tmp_path / "request.json"
    path.write_text(body)
    ended = run("query", published, "--request", path)
    assert ended.code == 65
    assert f"where: {where or path}" in ended.err


def test_missing_option_values_and_unknown_columns_are_named(run, published: Path) -> None:
    assert "--feature column=value" in run("query", published, "--feature", "age").err
    ended = run("query", published, "--context", "devise=web")
    assert ended.code == 65
    assert "Did you mean 'device'?" in ended.err
