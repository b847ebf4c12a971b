"""Filters, allow lists, seen and excluded items combined, compared with brute force."""

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.config import RunConfig, parse_config
from recall.data.dataset import load_dataset
from recall.data.incremental import load_additions
from recall.errors import DataError, RequestError
from recall.features.encoder import FeatureEncoder
from recall.index.base import ItemIndex, Ranked
from recall.publish.export import export
from recall.publish.rebuild import rebuild
from recall.serving.filters import columns as filter_columns
from recall.serving.filters.parse import parse
from recall.serving.recommender import Recommender
from recall.serving.request import Recommendations, Request
from recall.serving.rerank.channels import Channels, LatestChannel, ListChannel, ModelChannel, PopularChannel
from recall.serving.rerank.rules import Diversify, Pin
from tests.conftest import random_model
from tests.hypotheses import examples
from tests.serving.filters.reference import UTC, columns_of, selected

ITEMS, USERS, ASKING = 2_000, 600, 12  # an approximate index is trained on user vectors
KINDS = ("exact", "ivf", "cells")
CONFIG: dict[str, Any] = {
    "name": "filtered",
    "data": {"items": "items.parquet", "time": "time", "attributes": ["rank", "labels", "from", "until", "genre"]},
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
        "genre": {"side": "item", "kind": "categorical"},
        "price": {"side": "item", "kind": "numeric"},
    },
    "export": {"users": 20, "items": 200},
}

TYPES = {"from": pl.Datetime("us"), "until": pl.Datetime("us")}


def write_tables(folder: Path) -> None:
    rng = np.random.default_rng(4)
    ids = [f"i{number}" for number in range(ITEMS)]
    moments = [datetime.datetime(2020, 1, 1), datetime.datetime(2100, 1, 1), None]
    pl.DataFrame(
        {
            "item_id": ids,
            "genre": rng.choice(["noir", "drama", "comedy"], ITEMS),
            "price": [None if rng.random() < 0.1 else round(float(one), 2) for one in rng.lognormal(2, 1, ITEMS)],
            "rank": rng.permutation(ITEMS),
            "labels": [list(rng.choice(["new", "sale", "top"], rng.integers(0, 3), replace=False)) for _ in ids],
            "from": [moments[one] for one in rng.integers(0, 3, ITEMS)],
            "until": [moments[one] for one in rng.integers(0, 3, ITEMS)],
        },
        schema_overrides=TYPES,
    ).write_parquet(folder / "items.parquet")
    users = [f"u{number}" for number in range(USERS)]
    pl.DataFrame(
        {
            "user_id": [*users, *rng.choice(users, 3_000)],
            "item_id": rng.choice(ids, USERS + 3_000),
            "time": rng.integers(0, 100, USERS + 3_000),
        }
    ).write_parquet(folder / "interactions.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filtered")
    write_tables(folder)
    return folder


def published(folder: Path, root: Path, **config: object) -> Path:
    run: RunConfig = parse_config({**CONFIG, **config})
    dataset = load_dataset(run, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder, k=8), encoder, dataset, run, root)
    return root


@pytest.fixture(scope="module", params=KINDS)
def recommender(request: pytest.FixtureRequest, folder: Path) -> Iterator[Recommender]:
    loaded = Recommender.load(published(folder, folder / request.param, index={"kind": request.param}))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def exact(folder: Path) -> Iterator[Recommender]:
    loaded = Recommender.load(published(folder, folder / "certain", index={"kind": "exact"}))
    yield loaded
    loaded.close()


def ids_of(answer: Recommendations) -> list[str]:
    return [item.item_id for item in answer.items]


def ranked(recommender: Recommender, request: Request) -> list[str]:
    """Compute the ids of all eligible items, best first, item by item."""
    items = recommender.bundle.items()
    ids = items["item_id"].to_list()
    record = recommender.users.get(request.user_id) if request.user_id else None
    seen = {*(record.seen if record and request.exclude_seen else ()), *request.exclude}
    left = [one not in seen and (request.allow is None or one in set(request.allow)) for one in ids]
    if request.filter is not None:
        left = np.array(left) & selected(request.filter, items, datetime.datetime.now(UTC))
    rows = np.flatnonzero(left)
    vector = recommender.user_vectors([request])[0].astype(np.float64)
    scores = recommender.bundle.item_vectors[rows].astype(np.float64) @ vector
    return [ids[row] for row in rows[np.lexsort((rows, -scores))]]


def check(recommender: Recommender, request: Request, answer: Recommendations) -> float:
    """Compute the recall of an answer after checking what every answer must satisfy."""
    eligible, found = ranked(recommender, request), ids_of(answer)
    expected = eligible[: request.n]
    assert len(found) == len(set(found)) == len(expected)
    assert set(found) <= set(eligible)
    if answer.exact:
        assert found == expected
    return len(set(found) & set(expected)) / len(expected) if expected else 1.0


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
def test_the_best_eligible_items_are_found_at_any_selectivity(recommender: Recommender, share: float) -> None:
    filter_ = {"rank": {"lt": share * ITEMS}}
    requests = [Request(f"u{user}", n=50, filter=filter_) for user in range(ASKING)]
    found = [check(recommender, *pair) for pair in zip(requests, recommender.recommend_batch(requests), strict=True)]
    # the recall of an approximate index within a bitmap is measured by the tests of the index
    assert np.mean(found) >= (1.0 if recommender.index.exact or share <= 0.01 else 0.85)


CONDITIONS: st.SearchStrategy[Mapping[str, object]] = st.sampled_from(
    [
        {"genre": "noir"},
        {"genre": {"in": ["noir", "drama"]}},
        {"price": {"lte": 5}},
        {"price": {"missing": True}},
        {"labels": {"any": ["new"]}},
        {"labels": {"all": ["sale", "top"]}},
        {"available": {"from": "from", "until": "until"}},
        {"item_id": {"in": ["i3", "i5", "i7"]}},
        {"rank": {"gte": 1_995}},
        {"not": {"genre": "noir", "price": {"gt": 3}}},
        {"any": [{"genre": "drama"}, {"labels": {"any": ["top"]}}]},
        {},
    ]
)


@given(
    user=st.sampled_from(["u1", "u2", None, "nobody"]),
    n=st.sampled_from([1, 10, 100, 1000]),
    exclude_seen=st.booleans(),
    exclude=st.lists(st.integers(0, ITEMS + 5).map("i{}".format), max_size=30),
    allow=st.none() | st.lists(st.integers(0, ITEMS + 5).map("i{}".format), max_size=60),
    filter_=st.none() | st.lists(CONDITIONS, max_size=3).map(lambda parts: {"all": parts}),
)
@settings(max_examples=examples(60))
def test_combined_restrictions_equal_a_loop_over_the_items(
    exact: Recommender, user: str | None, n: int, exclude_seen: bool, exclude: list[str], allow: list[str] | None, filter_: dict
) -> None:
    request = Request(user, n=n, exclude_seen=exclude_seen, exclude=exclude, allow=allow, filter=filter_)
    answer = exact.recommend(request)
    assert check(exact, request, answer) == 1.0
    assert answer.exact


def test_answers_contain_all_eligible_items_up_to_n(recommender: Recommender) -> None:
    for filter_ in ({"rank": {"lt": 7}}, {"rank": {"lt": 0}}, {"rank": {"lt": 999}}):
        request = Request(n=1000, filter=filter_)
        answer = recommender.recommend(request)
        assert len(answer.items) == filter_["rank"]["lt"]
        assert check(recommender, request, answer) == 1.0


def test_a_batch_equals_single_requests_and_shares_bitmaps(exact: Recommender) -> None:
    same = {"genre": "noir", "price": {"lt": 9}}
    requests = [
        Request("u1", n=20, filter=same),
        Request("u2", n=20, filter=dict(reversed(same.items()))),
        Request("u3", n=5),
        Request("u4", n=20, filter={"genre": "drama"}, allow=["i1", "i2", "i3"]),
        Request("u5", n=20, allow=[]),
    ]
    searched: list = []
    search_each = type(exact.index).search_each

    def seen(
        index: ItemIndex, queries: np.ndarray, n: int, exclude: Any, within: Any, *rest: Any, **options: bool
    ) -> list[Ranked]:
        searched.append(within)
        return search_each(index, queries, n, exclude, within, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(exact.index), "search_each", seen)
        together = exact.recommend_batch(requests)
    assert together == [exact.recommend(request) for request in requests]
    (within,) = [one for one in searched if len(one) == 4]
    assert within[0] is within[1]
    assert together[4].items == ()


def test_unknown_allowed_ids_are_named(exact: Recommender) -> None:
    answer = exact.recommend(Request(n=10, allow=["i5", "nowhere", "i5", "i7"], exclude=["elsewhere"]))
    assert sorted(ids_of(answer)) == ["i5", "i7"]
    assert answer.warnings == (
        "1 excluded ids are not in the catalogue: 'elsewhere'",
        "1 allowed ids are not in the catalogue: 'nowhere'",
    )


@pytest.mark.parametrize("filter_", [None, {"genre": "noir"}])
def test_many_excluded_items_are_removed_from_the_bitmap(
    recommender: Recommender, filter_: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request("u1", n=30, exclude=[f"i{number}" for number in range(1_500)], filter=filter_)
    few = recommender.recommend(request)
    monkeypatch.setattr(filter_columns, "MANY", 100)
    many = recommender.recommend(request)
    for answer in (few, many):
        assert check(recommender, request, answer) >= (1.0 if answer.exact else 0.85)


def test_an_invalid_filter_is_refused_with_its_location(exact: Recommender) -> None:
    for filter_, where in (
        ({"genr": "noir"}, "/filter/genr"),
        ({"any": [{"price": {"below": 3}}]}, "/filter/any/0/price/below"),
        ({"labels": "new"}, "/filter/labels"),
        ([{"genre": "noir"}], "/filter"),
    ):
        with pytest.raises(RequestError) as refused:
            exact.recommend(Request(filter=filter_))
        assert refused.value.where == where
        assert refused.value.hint
    with pytest.raises(RequestError) as refused:
        exact.recommend(Request(allow="i1"))
    assert refused.value.where == "/allow"


def test_prepared_columns_are_reused(folder: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(published(folder, tmp_path))
    request = Request(filter={"genre": "noir", "available": {"from": "from"}})
    assert recommender.eligibility.ready_for(Request())
    assert not recommender.eligibility.ready_for(request)
    recommender.recommend(request)
    assert recommender.eligibility.ready_for(request)
    assert not recommender.eligibility.ready_for(Request(filter={"genre": "drama"}))
    assert recommender.eligibility.ready_for(Request(filter={"genr": "noir"}))
    assert recommender.eligibility.ready_for(Request(filter={"genre": {}}))
    recommender.close()


def test_live_items_are_filtered_like_published_ones(folder: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(published(folder, tmp_path))
    request = Request(n=1000, filter={"genre": "noir", "labels": {"any": ["fresh"]}, "price": {"lt": 5}})
    assert recommender.recommend(request).items == ()
    match = {"genre": "noir", "labels": ["fresh", "new"], "price": 3.5}
    recommender.items.upsert({"a": match, "b": {**match, "price": 7}, "i1": match, "c": {"labels": ["fresh"]}, "d": match})
    recommender.items.delete(["d"])
    assert sorted(ids_of(recommender.recommend(request))) == ["a", "i1"]
    assert ids_of(recommender.recommend(Request(n=5, filter=request.filter, allow=["i1", "b", "c"]))) == ["i1"]
    missing = recommender.recommend(Request(n=5, filter={"rank": {"missing": True}}, exclude=["a"]))
    assert sorted(ids_of(missing)) == ["b", "c", "i1"]
    recommender.items.upsert({"a": {**match, "genre": "drama"}})
    assert ids_of(recommender.recommend(request)) == ["i1"]
    recommender.close()


@pytest.mark.parametrize("filter_", [{"genre": "noir"}, {"rank": {"lt": 30}}, {"rank": {"lt": 3}}])
@pytest.mark.parametrize(
    "shaping",
    [
        {"rules": [Diversify(0.5, pool=60)]},
        {"rules": [Pin({"i3": 1, "i4": 2, "i5": 3})]},
        {"channels": Channels([ModelChannel(), PopularChannel(), ListChannel(["i3", "i4", "i5"])], depth=1000)},
        {"channels": Channels([ModelChannel(), LatestChannel("rank")], depth=1000), "rules": [Diversify()]},
    ],
)
def test_rules_and_channels_respect_the_filter(recommender: Recommender, filter_: dict, shaping: dict) -> None:
    request = Request("u1", n=40, filter=filter_, exclude=["i5"])
    eligible = set(ranked(recommender, request))
    found = ids_of(recommender.recommend(replace(request, **shaping)))
    assert set(found) <= eligible
    assert len(found) == len(set(found)) == min(40, len(eligible))


def test_attributes_are_stored_and_do_not_change_vectors(folder: Path, tmp_path: Path) -> None:
    with_ = Recommender.load(published(folder, tmp_path / "with"))
    data = {**CONFIG["data"], "attributes": []}
    without = Recommender.load(published(folder, tmp_path / "without", data=data))
    np.testing.assert_array_equal(with_.bundle.item_vectors, without.bundle.item_vectors)
    assert with_.bundle.manifest.attributes == tuple(CONFIG["data"]["attributes"])
    assert without.bundle.manifest.attributes == ()
    assert with_.eligibility.columns.names == ("item_id", "genre", "price", "rank", "labels", "from", "until")
    assert without.eligibility.columns.names == ("item_id", "genre", "price")
    assert math.isclose(with_.recommend(Request("u1")).items[0].score, without.recommend(Request("u1")).items[0].score)
    with_.close()
    without.close()


def test_a_rebuild_reads_and_stores_the_attributes(folder: Path, tmp_path: Path) -> None:
    root = published(folder, tmp_path / "root")
    items = pl.read_parquet(folder / "items.parquet").with_columns(labels=pl.lit(["rebuilt"])).head(500)
    items.write_parquet(tmp_path / "items.parquet")
    rebuild(root, tmp_path / "items.parquet", root)
    recommender = Recommender.load(root)
    answer = recommender.recommend(Request(n=1000, filter={"labels": {"any": ["rebuilt"]}, "rank": {"exists": True}}))
    recommender.close()
    assert len(answer.items) == 500
    items.drop("rank").write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match="no column 'rank'"):
        rebuild(root, tmp_path / "items.parquet", root)


def test_new_data_include_their_attributes(folder: Path, tmp_path: Path) -> None:
    run = parse_config(CONFIG)
    fresh = {"item_id": ["fresh", "i3"], "genre": ["noir", "noir"], "price": [1.0, 2.0], "rank": [5_000, 5_001]}
    times = [datetime.datetime(2020, 1, 1), None]
    more = pl.DataFrame({**fresh, "labels": [["new"], []], "from": times, "until": times}, schema_overrides=TYPES)
    more.write_parquet(tmp_path / "items.parquet")
    pl.DataFrame({"user_id": ["u1"], "item_id": ["fresh"], "time": [500]}).write_parquet(tmp_path / "interactions.parquet")
    attributes = columns_of(load_additions(run, tmp_path, folder).items)
    assert attributes.select(parse({"rank": {"gte": 5_000}})).count == 2
    assert attributes.size == ITEMS + 1
