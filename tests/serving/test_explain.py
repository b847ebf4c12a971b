from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recall.errors import RequestError
from recall.features.csr import FeatureLayout
from recall.models.serving.layout import Attribution
from recall.serving.explain import contributions
from recall.serving.recommender import Recommender, Request
from recall.serving.request import Contribution

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLES = sorted(path for path in GOLDEN.iterdir() if path.is_dir() and path.name.startswith("bundle_v"))


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest) -> Iterator[Recommender]:
    """A bundle of each kind of model."""
    recommender = Recommender.load(request.param)
    yield recommender
    recommender.close()


def test_contributions_are_named_by_field_and_sorted_by_size() -> None:
    users, items = FeatureLayout.of_sizes([("age", 2)]), FeatureLayout.of_sizes([("tags", 3), ("price", 1)])
    parts = Attribution(np.array([[0.5, 0.0]]), np.array([-2.0, 0.25]), np.array([[0.125, 1.0], [0.0, 0.0]]))
    assert contributions(parts, users, items, popularity=2.0) == (
        Contribution(None, ("tags",), -4.0),
        Contribution(None, ("tags", "price"), 2.0),
        Contribution("age", ("tags",), 0.5),
        Contribution(None, ("price",), 0.5),
        Contribution(None, ("tags", "tags"), 0.25),
    )


@pytest.mark.parametrize("popularity", [0.0, 1.0, 2.5])
def test_contributions_sum_to_the_served_score(golden: Recommender, popularity: float) -> None:
    asked = Request("ada", context={"hour": 9}, n=4, exclude_seen=False, popularity=popularity)
    answer = golden.recommend(asked)
    for item in answer.items:
        explained = golden.explain(asked, item.item_id)
        assert explained.item_id == item.item_id
        assert explained.score == pytest.approx(item.score, abs=1e-5)
        assert sum(one.value for one in explained.contributions) == pytest.approx(item.score, abs=1e-4)
        assert (explained.user_offset, explained.bundle) == (answer.user_offset, answer.bundle)


def test_every_name_is_a_field_of_its_side(golden: Recommender) -> None:
    encoder = golden.bundle.encoder
    for one in golden.explain(Request("bob"), "jam").contributions:
        assert one.user_field is None or one.user_field in encoder.user_fields.names
        assert set(one.item_fields) <= set(encoder.item_fields.names)
        assert len(one.item_fields) == 1 or one.user_field is None


def test_excluded_items_can_be_explained(golden: Recommender) -> None:
    asked = Request("ada", exclude=("tea",))
    assert "tea" not in [item.item_id for item in golden.recommend(asked).items]
    assert golden.explain(asked, "tea").contributions


@pytest.mark.parametrize(
    ("item_id", "message"), [("none", "item 'none' is not in the catalogue"), (7, "an id must be text, got int")]
)
def test_an_unknown_item_is_refused(golden: Recommender, item_id: object, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        golden.explain(Request("ada"), item_id)  # type: ignore[arg-type]
    assert raised.value.where == "/item_id"


def test_an_invalid_request_cannot_be_explained(golden: Recommender) -> None:
    with pytest.raises(RequestError, match="n must be an integer from 1 to 1000, got 0"):
        golden.explain(Request("ada", n=0), "tea")
