"""Reasons for the absence of an item: compared with the full ranking, and by removing each reason."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.index.base import Ranked
from recall.serving.recommender import Recommender
from recall.serving.request import Absence, Request
from recall.serving.rerank.channels import Channels, ListChannel, ModelChannel
from recall.serving.rerank.rules import AnyRule, Dedupe, Pin, Quota
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks
from tests.hypotheses import examples

unchanged = settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])


def ranked(shop: Recommender, request: Request) -> list[tuple[str, float]]:
    """Compute the exact ranking of all eligible items."""
    answer = shop.recommend(replace(request, n=1000, rules=(), channels=None))
    assert len(answer.items) < 1000
    return [(item.item_id, item.score) for item in answer.items]


def kinds(absence: Absence) -> list[str]:
    return [one.kind for one in absence.reasons]


@unchanged
@given(
    item=st.sampled_from(["i0", "i3", "i5", "i77", "i120", "i249"]),
    user=st.sampled_from(["u1", "u7", None]),
    n=st.integers(1, 40),
    popularity=st.sampled_from([0.0, 1.0, 3.0]),
    boosts=st.sampled_from([{}, {"margin": 1.5, "category=c1": -1.0}]),
    exclude=st.lists(st.sampled_from(["i3", "i5", "i9", "i249"]), max_size=2),
    filter_=st.sampled_from([None, {"category": "c1"}, {"price": {"lt": 12}}]),
)
def test_the_rank_and_score_gap_match_the_full_ranking(
    shop: Recommender,
    item: str,
    user: str | None,
    n: int,
    popularity: float,
    boosts: dict[str, float],
    exclude: list[str],
    filter_: dict[str, object] | None,
) -> None:
    request = Request(user, n=n, popularity=popularity, boosts=boosts, exclude=exclude, filter=filter_)
    found = shop.why_not(request, item)
    order = shop.items.current().rows
    others = [one for one in ranked(shop, request) if one[0] != item]
    ahead = [one for one in others if (-one[1], order([one[0]])[0]) < (-found.score, order([item])[0])]
    assert found.rank == len(ahead) + 1
    assert found.eligible == len(others) + 1
    assert found.last == ((others[n - 1][0], others[n - 1][1], None) if len(others) >= n else None)
    assert found.score == pytest.approx(shop.explain(request, item).score, abs=1e-5)
    if found.last is not None:
        assert found.missing == pytest.approx(found.last.score - found.score, abs=1e-6)
        assert sum(one.value for one in found.contributions) == pytest.approx(found.missing, abs=1e-4)
    listed = [one.item_id for one in shop.recommend(request).items]
    assert found.listed == (listed.index(item) + 1 if item in listed else None)
    assert bool(found.reasons) == (item not in listed)
    if found.exact:  # approximate search may miss an item that scores higher
        assert ("score" in kinds(found)) == (item not in listed and found.rank > n)
    assert ("excluded" in kinds(found)) == (item in exclude)


def test_every_reason_for_ineligibility_is_named(shop: Recommender) -> None:
    first = ranked(shop, Request("u1"))[0][0]
    record = shop.users.get("u1")
    assert record is not None
    had = next(one for one in record.seen if shop.items.current().rows([one])[0] >= 0)
    cases: list[tuple[Request, str, list[tuple[str, str]]]] = [
        (Request("u1", exclude=("no", first)), first, [("excluded", "/exclude/1")]),
        (Request("u1", allow=()), first, [("allow", "/allow")]),
        (Request("u1", filter={"category": "none such", "price": {"gte": -1e9}}), first, [("filter", "/filter/category")]),
        (Request("u1", history=["x", first]), first, [("seen", "/history/1")]),
        (Request("u1", n=900), had, [("seen", "/exclude_seen")]),
    ]
    for request, item, expected in cases:
        found = shop.why_not(request, item)
        assert [(one.kind, one.where) for one in found.reasons] == expected
    both = shop.why_not(Request("u1", n=1, exclude=(first, had), filter={"category": "none such"}), had)
    assert kinds(both)[:3] == ["excluded", "seen", "filter"]


def undone(request: Request, where: str) -> Request:
    if where == "/channels":
        return replace(request, channels=None)
    place = int(where.rpartition("/")[2])
    return replace(request, rules=[rule for at, rule in enumerate(request.rules) if at != place])


@pytest.mark.parametrize(
    "rules",
    [
        [Quota("category", 1)],
        [Dedupe("series"), Quota("category", 2)],
        [Quota("tags", 2), Pin({"i249": 1, "i248": 2})],
        [Pin({"i240": 1, "i241": 2, "i242": 3, "i243": 4})],
    ],
)
def test_without_the_named_rule_the_item_is_listed(shop: Recommender, rules: Sequence[AnyRule]) -> None:
    request = Request("u2", n=10, rules=rules)
    listed = [one.item_id for one in shop.recommend(request).items]
    named = 0
    for item, _ in ranked(shop, request)[:60]:  # an approximate index lists some that rank below the first 14
        found = shop.why_not(request, item)
        if item in listed:
            assert found.reasons == ()
            continue
        assert found.reasons
        for reason in found.reasons:
            if reason.kind == "rule":
                assert item in [one.item_id for one in shop.recommend(undone(request, reason.where)).items]
                named += 1
    assert named


def test_channels_that_displace_an_item_are_named(shop: Recommender) -> None:
    best = shop.recommend(Request("u3", n=5)).items[-1].item_id
    editors = [f"i{one}" for one in range(100, 140) if f"i{one}" != best]
    channels = Channels([ModelChannel(), ListChannel(editors, name="editors", weight=50.0)])
    request = Request("u3", n=5, channels=channels)
    found = shop.why_not(request, best)
    assert found.rank >= 5  # an approximate index may rank it higher, and then its score excludes it too
    assert ("channels", "/channels") in [(one.kind, one.where) for one in found.reasons]
    if found.rank == 5:
        assert len(found.reasons) == 1


def test_an_item_excluded_only_by_all_rules_together_is_explained(shop: Recommender) -> None:
    order = [item for item, _ in ranked(shop, Request("u4"))]
    pinned = [one for one in ("i240", "i241") if one in order]
    request = Request("u4", n=1, rules=[Pin({pinned[0]: 1}), Pin({pinned[1]: 1})])
    found = shop.why_not(request, order[0])
    assert [(one.kind, one.where) for one in found.reasons] == [("rules", "/rules")]


def test_an_item_missed_by_approximate_search_is_explained(shop: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    best = ranked(shop, Request("u5"))[0][0]
    row, search = shop.items.current().rows([best])[0], CatalogSnapshot.search_one

    def passing_over(
        self: CatalogSnapshot,
        query: np.ndarray,
        n: int,
        excluded: np.ndarray,
        within: SegmentMasks | None = None,
        *,
        exact: bool = False,
    ) -> Ranked:
        if exact:
            return search(self, query, n, excluded, within, exact=True)
        return search(self, query, n, np.append(excluded, row), within)._replace(exact=False)

    monkeypatch.setattr(CatalogSnapshot, "search_one", passing_over)
    found = shop.why_not(Request("u5", n=5), best)
    assert (found.listed, found.rank, kinds(found), found.exact) == (None, 1, ["search"], False)
    assert found.missing is not None
    assert found.missing <= 0


def test_unknown_items_and_invalid_requests_are_refused(shop: Recommender) -> None:
    with pytest.raises(RequestError, match="is not in the catalogue") as raised:
        shop.why_not(Request("u1"), "none")
    assert raised.value.where == "/item_id"
    with pytest.raises(RequestError, match="n must be an integer from 1 to 1000, got 0"):
        shop.why_not(Request("u1", n=0), "i5")


def test_new_and_deleted_items_are_explained(shop: Recommender) -> None:
    changed = shop.items.current().sequence > 0
    request, item = Request("u1", filter={"category": "c3"}), "new4" if changed else "i30"
    found = shop.why_not(request, item)
    assert ("filter" in kinds(found)) == (shop.items.current().items().filter(item_id=item)["category"][0] != "c3")
    with pytest.raises(RequestError, match="is not in the catalogue"):
        shop.why_not(request, "i30" if changed else "new4")
