"""Answers with boosts, channels and rules, compared with a reference on the full ranking."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recall.errors import DataError, RequestError
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Recommendations, Request
from recall.serving.rerank.channels import Channels, LatestChannel, ListChannel, ModelChannel, PopularChannel, Source
from recall.serving.rerank.rules import AnyRule, Dedupe, Diversify, Pin, Quota
from tests.hypotheses import examples
from tests.serving.conftest import write_tables
from tests.serving.rerank.worlds import World, defined

unchanged = settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])


def ids_of(answer: Recommendations) -> list[str]:
    return [item.item_id for item in answer.items]


def catalogue(shop: Recommender) -> pl.DataFrame:
    return shop.items.current().items()


def coordinate(items: pl.DataFrame, name: str) -> np.ndarray:
    column, _, value = name.partition("=")
    if not value:
        return items[column].cast(pl.Float64).fill_null(0).to_numpy()
    return np.array([value in (held or "").split(";") for held in items[column]], dtype=float)


def world_of(shop: Recommender, request: Request) -> tuple[World, list[str]]:
    """Return scores and ids of all items, with excluded ones marked."""
    items, now = catalogue(shop), shop.items.current()
    ids = items["item_id"].to_list()
    vectors = now.vectors(now.rows(ids))
    scores = np.einsum("ij,j->i", vectors, shop.user_vectors([request])[0])
    for name, weight in request.boosts.items():
        scores = scores + weight * coordinate(items, name)
    everything = replace(request, rules=(), boosts={}, channels=None, n=1000)
    eligible = set(ids_of(shop.recommend(everything)))
    frame = items.with_columns(pl.col("tags").fill_null("").str.split(";").list.eval(pl.element().filter(pl.element() != "")))
    return World(frame, scores, vectors, np.array([one in eligible for one in ids])), ids


def whole(world: World, ids: list[str], rules: Sequence[AnyRule], ranking: list[int] | None = None) -> list[str]:
    ranking = world.ranking if ranking is None else ranking
    for rule in rules:
        if isinstance(rule, Pin):
            rule = Pin({str(ids.index(one)) if one in ids else "9999": position for one, position in rule.items.items()})
        ranking = defined(world, rule, ranking)
    return [ids[row] for row in ranking]


@st.composite
def rules(draw: st.DrawFn) -> list[AnyRule]:
    columns = st.sampled_from(["category", "tags", "series"])
    pins = st.dictionaries(st.sampled_from(["i3", "i249", "new4", "i1", "nothing"]), st.integers(1, 5), min_size=1)
    kinds = st.one_of(
        st.builds(Quota, columns, st.integers(1, 4)),
        st.builds(Dedupe, columns),
        st.builds(Pin, pins.filter(lambda one: len(set(one.values())) == len(one))),
    )
    return draw(st.lists(kinds, max_size=3))


REQUESTS = [
    Request("u1", n=10),
    Request("u2", n=40, exclude=["i3", "i4"]),
    Request("u3", n=10, filter={"category": {"in": ["c1", "c2"]}}),
    Request("u4", n=5, allow=["i3", "i5", "i9", "i249", "new4", "new5", "i1"], exclude_seen=False),
    Request("u5", n=1000, exclude_seen=False),
]


@unchanged
@given(chosen=rules(), request=st.sampled_from(REQUESTS))
def test_rules_on_retrieved_candidates_equal_rules_on_the_full_ranking(
    shop: Recommender, chosen: list[AnyRule], request: Request
) -> None:
    # with a boost every index is exact; this weight keeps the model's order
    request = replace(request, rules=chosen, boosts={"price": 1e-12})
    world, ids = world_of(shop, request)
    answer = shop.recommend(request)
    assert ids_of(answer) == whole(world, ids, chosen)[: request.n]
    assert answer.exact


@unchanged
@given(chosen=rules(), request=st.sampled_from(REQUESTS))
def test_the_index_returns_as_many_candidates_as_the_rules_need(
    shop: Recommender, chosen: list[AnyRule], request: Request
) -> None:
    chosen = [rule for rule in chosen if getattr(rule, "column", "") != "tags"]  # how many fit may depend on their order
    world, ids = world_of(shop, request)
    answer = shop.recommend(replace(request, rules=chosen))
    expected = whole(world, ids, chosen)[: request.n]
    assert len(answer.items) == len(expected)
    if answer.exact:
        assert ids_of(answer) == expected


@unchanged
@given(
    weights=st.dictionaries(
        st.sampled_from(["price", "margin", "category=c1", "tags=t2"]), st.floats(-3, 3, width=32), min_size=1
    ).filter(lambda weights: any(weights.values())),
    request=st.sampled_from(REQUESTS),
)
def test_boosted_answers_are_exact(shop: Recommender, weights: dict[str, float], request: Request) -> None:
    request = replace(request, boosts=weights)
    world, ids = world_of(shop, request)
    answer = shop.recommend(request)
    scores = dict(zip(ids, world.item_scores.tolist(), strict=True))
    expected = [scores[ids[row]] for row in world.ranking[: request.n]]
    np.testing.assert_allclose([item.score for item in answer.items], expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose([scores[one] for one in ids_of(answer)], expected, rtol=1e-5, atol=1e-4)
    assert len(set(ids_of(answer))) == len(answer.items)
    assert answer.exact


def test_a_boost_of_weight_0_changes_nothing(shop: Recommender) -> None:
    request = Request("u3", n=20)
    answer = shop.recommend(replace(request, boosts={"price": 0, "tags=t2": 0.0}))
    if shop.index.exact:
        assert answer == shop.recommend(request)
    assert len(answer.items) == 20


def test_an_explanation_includes_the_boosts(shop: Recommender) -> None:
    request = Request("u1", n=1000, exclude_seen=False, boosts={"price": 0.5, "tags=t2": -2.0}, popularity=0.5)
    items = {item.item_id: item.score for item in shop.recommend(request).items}
    for item_id in ("i3", "i249", "i5", next(iter(items))):
        explanation = shop.explain(request, item_id)
        assert explanation.score == pytest.approx(items[item_id], abs=1e-4)
        assert sum(part.value for part in explanation.contributions) == pytest.approx(explanation.score, abs=1e-4)
        boosted = {part.item_fields[0]: part.value for part in explanation.contributions if part.user_field == "boosts"}
        price, tags = catalogue(shop).filter(item_id=item_id)["price", "tags"].row(0)
        expected = {"price": 0.5 * (price or 0.0), "tags=t2": -2.0 * ("t2" in (tags or "").split(";"))}
        assert boosted == pytest.approx({name: part for name, part in expected.items() if part})


def test_diversification_reorders_the_pool(shop: Recommender) -> None:
    request = Request("u1", n=30, boosts={"price": 1e-12})
    world, ids = world_of(shop, request)
    answer = shop.recommend(replace(request, rules=[Diversify(0.6, 50)]))
    assert ids_of(answer) == whole(world, ids, [Diversify(0.6, 50)])[:30]
    assert set(ids_of(answer)) <= {ids[row] for row in world.ranking[:50]}


@pytest.mark.parametrize("merge", ["reciprocal_rank", "weights"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_channels_are_merged_by_the_given_method(shop: Recommender, request_: Request, merge: str) -> None:
    depth = 30
    lists = [
        ModelChannel(2.0),
        PopularChannel(0.7),
        LatestChannel("price", 0.5),
        ListChannel(["i3", "nothing", "i8", "i1", "i249"], name="editors"),
        ListChannel(["i4", "i9"], [1.0, 5.0], name="scored", weight=0.1),
    ]
    request = replace(request_, channels=Channels(lists, merge, depth=depth), boosts={"price": 1e-12})  # type: ignore[arg-type]
    world, ids = world_of(shop, request)
    items = catalogue(shop)
    counts = shop.bundle.counts()
    assert counts is not None
    rows = shop.bundle.item_ids.rows(ids)
    met = {one: float(np.log1p(counts[row])) if row >= 0 else 0.0 for one, row in zip(ids, rows.tolist(), strict=True)}
    eligible = [one for one, fine in zip(ids, world.mask.tolist(), strict=True) if fine]
    prices = dict(zip(ids, items["price"], strict=True))
    place = {one: at for at, one in enumerate(ids)}

    def best(scores: dict[str, float]) -> list[tuple[str, float]]:
        known = [one for one in eligible if scores.get(one) is not None]
        return [(one, scores[one]) for one in sorted(known, key=lambda one: (-scores[one], place[one]))][:depth]

    brought = [one for one in ("i3", "nothing", "i8", "i1", "i249") if one in eligible]
    expected = {
        "model": best(dict(zip(ids, world.item_scores.tolist(), strict=True))),
        "popular": best(met),
        "latest": best(prices),
        "editors": [(one, 1 - 0.25 * ["i3", "nothing", "i8", "i1", "i249"].index(one)) for one in brought],
        "scored": [(one, score) for one, score in (("i9", 5.0), ("i4", 1.0)) if one in eligible],
    }
    total: dict[str, float] = {}
    for channel in lists:
        found = expected[channel.name]
        low, high = min((score for _, score in found), default=0), max((score for _, score in found), default=0)
        for rank, (one, score) in enumerate(found, start=1):
            share = (score - low) / (high - low) if high > low else 1.0
            total[one] = total.get(one, 0.0) + channel.weight * (share if merge == "weights" else 1 / (60 + rank))
    answer = shop.recommend(request)
    ranked = sorted(total, key=lambda one: (-total[one], place[one]))
    rest = [ids[row] for row in world.ranking if ids[row] not in total]
    assert len(answer.items) == min(request.n, len(eligible))
    assert ids_of(answer)[len(ranked) :] == rest[: max(request.n - len(ranked), 0)]
    for item, one in zip(answer.items, ranked, strict=False):
        assert total[item.item_id] == pytest.approx(total[one], abs=1e-5)
        assert item.score == pytest.approx(total[item.item_id], abs=1e-5)
    for item in answer.items:
        tagged = {
            name: [one for one, _ in found].index(item.item_id) + 1
            for name, found in expected.items()
            if item.item_id in [one for one, _ in found]
        }
        assert item.sources is not None
        assert dict(item.sources) == tagged


def test_channels_without_the_model_return_their_items(shop: Recommender) -> None:
    channels = Channels([ListChannel(["i8", "i3", "nothing", "i4"])], depth=2)
    answer = shop.recommend(Request(n=10, exclude=["i3"], channels=channels))
    assert [(item.item_id, item.sources) for item in answer.items] == [
        ("i8", (Source("list", 1),)),
        ("i4", (Source("list", 2),)),
    ]
    assert answer.warnings == ("1 ids of channel 'list' are not in the catalogue: 'nothing'",)


def test_latest_items_are_the_last_of_the_catalogue(shop: Recommender) -> None:
    answer = shop.recommend(Request(n=30, exclude=["i247"], channels=Channels([LatestChannel()])))
    rows = [row for row in reversed(catalogue(shop)["item_id"].to_list()) if row != "i247"]
    assert ids_of(answer) == rows[:30]


def test_latest_items_by_a_date_column(shop: Recommender) -> None:
    answer = shop.recommend(Request(n=1000, channels=Channels([LatestChannel("released")], depth=1000)))
    items = catalogue(shop).filter(pl.col("released").is_not_null()).sort("released", descending=True, maintain_order=True)
    assert ids_of(answer) == items["item_id"].to_list()


def test_rules_apply_to_merged_channels(shop: Recommender) -> None:
    channels = Channels([ModelChannel(), PopularChannel()], depth=20)
    request = Request("u1", n=1000, exclude_seen=False, channels=channels, boosts={"price": 1e-12})
    plain = shop.recommend(request)
    answer = shop.recommend(replace(request, n=8, rules=[Quota("category", 1), Pin({"i249": 2})]))
    category = dict(zip(catalogue(shop)["item_id"], catalogue(shop)["category"], strict=True))
    taken: set[str] = set()
    expected = []
    for one in ids_of(plain):
        if category[one] is None or category[one] not in taken:
            expected.append(one)
            taken.add(category[one])
    expected = [one for one in expected if one != "i249"]
    expected.insert(1, "i249")
    assert ids_of(answer) == expected[:8]
    assert answer.items[1].score == next(item.score for item in plain.items if item.item_id == "i249")


def test_a_batch_equals_its_requests_one_by_one(shop: Recommender) -> None:
    requests = [
        *REQUESTS,
        Request("u1", rules=[Quota("category", 2)]),
        Request("u1", boosts={"price": 0.1}),
        Request("u1", channels=Channels([ModelChannel(), PopularChannel()])),
    ]
    assert shop.recommend_batch(requests) == [shop.recommend(request) for request in requests]


def test_pins_without_effect_give_a_warning(shop: Recommender) -> None:
    answer = shop.recommend(Request(n=3, exclude=["i3"], rules=[Pin({"i3": 1, "nothing": 2, "i4": 3})]))
    assert ids_of(answer)[2] == "i4"
    assert answer.warnings == (
        "1 pinned ids are not in the catalogue: 'nothing'",
        "1 pinned ids are filtered or seen and are not shown: 'i3'",
    )


@pytest.mark.parametrize(
    ("request_", "where", "message"),
    [
        (Request(rules=[Quota("categry", 1)]), "/rules/0/column", "Did you mean 'category'"),
        (Request(rules=[Dedupe("series"), Pin({"i3": 11})]), "/rules/1/items", "at most n = 10, got 11"),
        (Request(rules=[Quota("category", 0)]), "/rules/0/most", "greater than"),
        (Request(rules="quota"), "/rules", "list of"),  # type: ignore[arg-type]
        (Request(channels=Channels([ModelChannel(), LatestChannel("relesed")])), "/channels/lists/1/column", "'released'"),
        (
            Request(channels=Channels([LatestChannel("category")])),
            "/channels/lists/0/column",
            "must have numbers, or times in ISO 8601",
        ),
        (Request(channels=Channels([])), "/channels/lists", "at least 1"),
        (Request(boosts={"prize": 1.0}), "/boosts/prize", "Did you mean 'price'"),
        (Request(boosts={"price": float("inf")}), "/boosts/price", "must be a number from"),
    ],
)
def test_invalid_requests_are_named(shop: Recommender, request_: Request, where: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        shop.recommend(request_)
    assert raised.value.where == where


def test_without_boosts_the_error_explains_how_to_add_them(recommender: Recommender) -> None:
    with pytest.raises(RequestError, match=r"index\.boosts"):
        recommender.recommend(Request(boosts={"price": 1.0}))


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (Request(rules=[Dedupe("category")]), "/rules"),
        (Request(boosts={"price": 1.0}), "/boosts"),
        (Request(channels=Channels([ModelChannel()])), "/channels"),
    ],
)
def test_a_prediction_equals_the_model_score(shop: Recommender, request_: Request, where: str) -> None:
    with pytest.raises(RequestError, match="predictions are those of the model") as raised:
        shop.predict([(request_, "i3")])
    assert raised.value.where == where


def test_an_older_bundle_has_no_popularity() -> None:
    golden = Recommender.load(Path(__file__).parents[2] / "golden" / "bundle_v2_fm")
    with pytest.raises(RequestError, match="numbers of interactions of its items") as raised:
        golden.recommend(Request(channels=Channels([ModelChannel(), PopularChannel()])))
    assert raised.value.where == "/channels/lists/1"
    assert golden.recommend(Request(n=3, rules=[Quota("maker", 1)])).items
    golden.close()


def test_a_rebuild_keeps_boosts_and_refuses_non_numeric_columns(shaped_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shaped_root, tmp_path / "root"))
    write_tables(tmp_path)
    before = Recommender.load(root)
    rebuild(root, tmp_path / "items.csv", root)
    after = Recommender.load(root)
    request = Request("u1", n=20, boosts={"margin": 2.0, "tags=t2": 0.5})
    assert after.bundle.manifest.sequence == before.bundle.manifest.sequence + 1
    assert after.recommend(request).items == before.recommend(request).items
    before.close()
    after.close()
    items = pl.read_csv(tmp_path / "items.csv", infer_schema=False)
    items.with_columns(margin="released").write_csv(tmp_path / "items.csv")
    with pytest.raises(DataError, match="not a number") as raised:
        rebuild(root, tmp_path / "items.csv", root)
    assert "margin" in raised.value.where


def test_numeric_text_is_converted_for_boosts(shop: Recommender) -> None:
    items = catalogue(shop)
    assert items["margin"].dtype == pl.Float64
    assert items["series"].dtype == pl.String
