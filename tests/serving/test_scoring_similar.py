"""Similar items, compared with cosines over the whole catalogue."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.hypotheses import examples
from tests.serving.conftest import shaped_root, shop

__all__ = ["shaped_root", "shop"]

unchanged = settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])


def cosines(shop: Recommender, item: str) -> dict[str, float]:
    """Compute the cosine of every other item with this one."""
    catalogue = shop.items.current()
    ids = catalogue.items()["item_id"].to_list()
    vectors = catalogue.vectors(catalogue.rows(ids)).astype(np.float64)[:, 1:]
    own = vectors[ids.index(item)]
    found = {}
    for one, vector in zip(ids, vectors, strict=True):
        lengths = np.linalg.norm(vector) * np.linalg.norm(own)
        if one != item and lengths > 0:
            found[one] = float(vector @ own / lengths)
    return found


@unchanged
@given(
    item=st.sampled_from(["i0", "i3", "i5", "i77", "i120", "i249"]),
    n=st.integers(1, 300),
    exclude=st.lists(st.sampled_from(["i3", "i5", "i9", "nothing"]), max_size=2),
    allow=st.sampled_from([None, [f"i{one}" for one in range(0, 250, 3)], []]),
    filter_=st.sampled_from([None, {"category": "c1"}, {"price": {"lt": 12}}, {"category": "none such"}]),
)
def test_similar_items_are_the_nearest_eligible_ones(
    shop: Recommender, item: str, n: int, exclude: list[str], allow: list[str] | None, filter_: dict[str, object] | None
) -> None:
    request = Request(n=n, exclude=exclude, allow=allow, filter=filter_)
    found = shop.similar(item, request)
    everything = {one.item_id for one in shop.recommend(Request(n=1000, exclude=exclude, allow=allow, filter=filter_)).items}
    expected = {one: value for one, value in cosines(shop, item).items() if one in everything}
    assert len(found.items) == min(n, len(expected))
    scores = [one.score for one in found.items]
    assert scores == sorted(scores, reverse=True)
    for one in found.items:
        assert one.score == pytest.approx(expected[one.item_id], abs=1e-6)
    if found.items and len(found.items) < len(expected):
        listed = {one.item_id for one in found.items}
        assert max(value for one, value in expected.items() if one not in listed) <= scores[-1] + 1e-6
    assert (found.item_id, found.bundle, found.degraded) == (item, shop.bundle.manifest.version, ())


def test_similarity_is_symmetric(shop: Recommender) -> None:
    first = shop.similar("i5", Request(n=1)).items[0]
    back = {one.item_id: one.score for one in shop.similar(first.item_id, Request(n=1000)).items}
    assert back["i5"] == first.score


def test_item_biases_do_not_affect_similarity(recommender: Recommender) -> None:
    plain = [one.item_id for one in recommender.similar("i1").items]
    liked = recommender.bundle.item_vectors.copy()
    liked[:, 0] += np.arange(len(liked)) * 100
    vectors = recommender.bundle.item_vectors
    object.__setattr__(recommender.bundle, "item_vectors", liked)
    try:
        assert [one.item_id for one in recommender.similar("i1").items] == plain
    finally:
        object.__setattr__(recommender.bundle, "item_vectors", vectors)


def test_a_zero_vector_has_no_similar_items(recommender: Recommender) -> None:
    vectors = recommender.bundle.item_vectors
    silent = vectors.copy()
    silent[3, 1:] = 0
    object.__setattr__(recommender.bundle, "item_vectors", silent)
    try:
        similarity = recommender._scorer
        catalogue = recommender.items.current()
        nothing = np.empty(0, dtype=np.int64)
        assert len(similarity.nearest(catalogue, 3, 5, nothing, None)[0]) == 0
        (warning,) = recommender.similar("i3").warnings
        assert "no item is similar to it" in warning
        assert recommender.similar("i4").warnings == ()
        rows, _ = similarity.nearest(catalogue, 4, 100, nothing, None)
        assert sorted(rows.tolist()) == [row for row in range(len(vectors)) if row not in (3, 4)]
    finally:
        object.__setattr__(recommender.bundle, "item_vectors", vectors)


@pytest.mark.parametrize(
    ("item", "request_", "where"),
    [
        ("none", Request(), "/item_id"),
        (3, Request(), "/item_id"),
        ("i5", Request(n=0), "/n"),
        ("i5", Request(filter={"x": 1}), "/filter/x"),
    ],
)
def test_invalid_input_is_named(shop: Recommender, item: object, request_: Request, where: str) -> None:
    with pytest.raises(RequestError) as raised:
        shop.similar(item, request_)  # type: ignore[arg-type]
    assert raised.value.where == where
