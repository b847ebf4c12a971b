"""Columns of listed items, and lists of items like those that a user took."""

import pytest

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Request


def test_answers_have_the_columns_that_a_request_names(recommender: Recommender) -> None:
    table = {row["item_id"]: row for row in recommender.bundle.items().iter_rows(named=True)}
    request = Request("u1", n=15, fields=["price", "category"], exclude_seen=False)
    answer = recommender.recommend(request)
    for found in (answer, recommender.similar("i1", request), recommender.score(request, ["i3", "none", "i2"])):
        assert len(found.fields) == len(found.items) > 1
        for item, fields in zip(found.items, found.fields, strict=True):
            row = table[item.item_id]
            assert fields == {name: row[name] for name in ("price", "category") if row[name] is not None}
    assert any("price" not in one for one in answer.fields)  # missing in the table
    assert recommender.recommend_batch([request])[0] == answer
    assert recommender.recommend(Request("u1")).fields == ()


def test_a_changed_item_has_its_new_values(live: Recommender) -> None:
    live.items.upsert({"fresh": {"price": 77.0}})
    answer = live.recommend(Request(n=100, allow=["fresh", "i1"], fields=["item_id", "price"]))
    assert {one["item_id"]: one.get("price") for one in answer.fields}["fresh"] == 77.0


@pytest.mark.parametrize(
    "act",
    [
        lambda recommender, request: recommender.recommend(request),
        lambda recommender, request: recommender.recommend_batch([request]),
        lambda recommender, request: recommender.similar("i1", request),
        lambda recommender, request: recommender.score(request, ["i1"]),
    ],
)
def test_an_unknown_column_is_refused_with_the_nearest_name(recommender: Recommender, act) -> None:
    with pytest.raises(RequestError, match="category") as error:
        act(recommender, Request(fields=["price", "categroy"]))
    assert error.value.where == "/fields/1"


def test_rows_hold_the_items_most_like_those_taken(recommender: Recommender) -> None:
    request = Request(history=["i4", "unheard of", "i2", "i4", "i5"], n=3, because=2, fields=["category"])
    answer = recommender.recommend(request)
    assert [row.because for row in answer.rows] == ["i4", "i2"]
    shown = list(answer.ids)
    for row in answer.rows:
        expected = recommender.similar(row.because, Request(n=3, exclude=[*request.history, *shown], fields=["category"]))
        assert row.items == expected.items
        assert row.fields == expected.fields
        shown += [item.item_id for item in row.items]
    assert len(shown) == len(set(shown)) == 9  # no item twice
    assert not {"i4", "i2", "i5"} & set(shown)
    categories = dict(recommender.bundle.items().select("item_id", "category").iter_rows())
    assert answer.rows[0].title == f"Because you took {categories['i4']}"
    assert recommender.recommend(Request(history=["i4"], because=1)).rows[0].title == "Because you took i4"


def test_rows_keep_to_the_filter_and_the_stored_history(recommender: Recommender) -> None:
    record = recommender.users.get("u1")
    assert record is not None
    answer = recommender.recommend(Request("u1", n=2, because=10, filter={"category": "c1"}, exclude_seen=False))
    categories = dict(recommender.bundle.items().select("item_id", "category").iter_rows())
    assert answer.rows
    assert [row.because for row in answer.rows] == list(dict.fromkeys(record.history))[: len(answer.rows)]
    assert {categories[item.item_id] for row in answer.rows for item in row.items} == {"c1"}
    assert recommender.recommend(Request(because=3)).rows == ()
    with pytest.raises(RequestError, match="because"):
        recommender.recommend(Request(because=11))
