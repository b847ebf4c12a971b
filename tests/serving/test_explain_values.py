"""Contributions of values sum to the score, and per field to those of the fields."""

from collections import Counter

import pytest

from recall.serving import explain
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.serving.test_explain import golden

__all__ = ["golden"]

ASKED = Request("ada", context={"hour": 9}, n=4, exclude_seen=False)


@pytest.mark.parametrize("popularity", [0.0, 1.0, 2.5])
def test_values_sum_to_the_score_and_to_their_field_contributions(golden: Recommender, popularity: float) -> None:
    asked = Request("ada", context={"hour": 9}, n=4, exclude_seen=False, popularity=popularity)
    for item in golden.recommend(asked).items:
        explained = golden.explain(asked, item.item_id, values=True)
        assert explained.values
        assert sum(one.value for one in explained.values) + explained.rest == pytest.approx(item.score, abs=1e-4)
        sums: Counter[tuple[str | None, tuple[str, ...]]] = Counter()
        for one in explained.values:
            sums[one.user.field if one.user else None, tuple(value.field for value in one.items)] += one.value  # type: ignore[assignment]
        for one in explained.contributions:
            assert sums.pop((one.user_field, one.item_fields)) == pytest.approx(one.value, abs=1e-4)
        assert all(abs(rest) < 1e-4 for rest in sums.values())
        sizes = [abs(one.value) for one in explained.values]
        assert sizes == sorted(sizes, reverse=True)


def test_values_are_returned_only_on_request(golden: Recommender) -> None:
    explained = golden.explain(ASKED, "jam")
    assert (explained.values, explained.rest) == (None, 0.0)


def test_values_beyond_the_limit_are_summed(golden: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = golden.explain(ASKED, "jam", values=True)
    monkeypatch.setattr(explain, "MOST_VALUES", 3)
    explained = golden.explain(ASKED, "jam", values=True)
    assert explained.values == whole.values[:3]
    assert explained.rest == pytest.approx(sum(one.value for one in whole.values[3:]), abs=1e-9)


def test_the_rest_includes_boosts(shop: Recommender) -> None:
    asked = Request("u1", boosts={"margin": 2.0, "category=c1": 1.0})
    explained = shop.explain(asked, "i5", values=True)
    boosts = sum(one.value for one in explained.contributions if one.user_field == "boosts")
    assert boosts != 0
    assert explained.rest == pytest.approx(boosts, abs=1e-6)
    assert sum(one.value for one in explained.values) + explained.rest == pytest.approx(explained.score, abs=1e-4)


def test_an_empty_answer_needs_no_explanation(shop: Recommender) -> None:
    answer = shop.recommend(Request("u1", allow=(), explain=True))
    assert (answer.items, answer.contributions) == ((), ())


def test_every_item_of_an_answer_is_explained(shop: Recommender) -> None:
    for asked in (Request("u1", n=7), Request("u1", n=30, boosts={"price": 0.1}, popularity=2.0)):
        plain = shop.recommend(asked)
        assert plain.contributions == ()
        explained = shop.recommend(
            Request(asked.user_id, n=asked.n, boosts=asked.boosts, popularity=asked.popularity, explain=True)
        )
        assert explained.items == plain.items
        assert len(explained.contributions) == asked.n
        for item, parts in zip(explained.items, explained.contributions, strict=True):
            assert sum(one.value for one in parts) == pytest.approx(item.score, abs=1e-4)
            assert parts == shop.explain(asked, item.item_id).contributions
