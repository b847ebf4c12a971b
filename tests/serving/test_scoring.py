"""Scores of given items equal their scores in lists."""

import pytest

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Request, ScoredItem
from tests.serving.conftest import shaped_root, shop

__all__ = ["shaped_root", "shop"]


@pytest.mark.parametrize(
    "request_", [Request("u1"), Request("u7", popularity=2.5), Request("u3", boosts={"margin": 2, "category=c1": -1})]
)
def test_scores_equal_those_of_the_ranking(shop: Recommender, request_: Request) -> None:
    whole = shop.recommend(Request(request_.user_id, n=1000, popularity=request_.popularity, boosts=request_.boosts))
    listed = {one.item_id: one.score for one in whole.items}
    asked = [*reversed(listed), "nothing", next(iter(listed))]
    found = shop.score(request_, asked)
    assert [one.item_id for one in found.items] == [one for one in asked if one != "nothing"]
    for one in found.items:
        assert one.score == pytest.approx(listed[one.item_id], abs=1e-5)
    assert found.missing == ("nothing",)
    assert (found.user_offset, found.user) == (whole.user_offset, whole.user)
    assert (found.bundle, found.sequence) == (whole.bundle, whole.sequence)


def test_without_boosts_scores_are_bit_identical(shop: Recommender) -> None:
    whole = shop.recommend(Request("u1", n=40))
    assert shop.score(Request("u1"), [one.item_id for one in whole.items]).items == whole.items


def test_scores_and_predictions_agree(recommender: Recommender) -> None:
    request = Request("u1")
    found = recommender.score(request, ["i1", "i2"])
    predicted = recommender.predict([(request, "i1"), (request, "i2")])
    assert [one.score + found.user_offset for one in found.items] == pytest.approx([one.score for one in predicted], abs=1e-5)
    logistic = recommender.bundle.manifest.objective == "logistic"
    assert (found.probabilities is None) == (not logistic)


def test_an_empty_list_of_items_can_be_scored(recommender: Recommender) -> None:
    assert recommender.score(Request("u1"), []).items == ()
    assert recommender.score(Request("u1"), ["nothing"]).items == ()
    with pytest.raises(RequestError) as raised:
        recommender.score(Request("u1"), ["i1", 2])  # type: ignore[list-item]
    assert raised.value.where == "/items/1"


def test_the_user_vector_reproduces_the_scores(shop: Recommender) -> None:
    request = Request("u1", popularity=0.5)
    found = shop.user_vector(request)
    assert found.vector == pytest.approx(shop.user_vectors([request])[0].tolist())
    catalogue = shop.items.current()
    vector = catalogue.vectors(catalogue.rows(["i5"]))[0]
    (scored,) = shop.score(request, ["i5"]).items
    assert isinstance(scored, ScoredItem)
    assert sum(a * b for a, b in zip(found.vector, vector.tolist(), strict=True)) == pytest.approx(scored.score, abs=1e-5)
