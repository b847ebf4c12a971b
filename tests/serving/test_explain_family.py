"""Explanations sum to the served score, for every model and request."""

from collections.abc import Iterator

import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.models.torch.registry import new_model
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.conftest import ITEMS, TINY, drawn, write_tiny_tables

MODELS = {
    "lr": {"kind": "lr"},
    "fm": {"kind": "fm", "k": 5},
    "fwfm": {"kind": "fwfm", "k": 4},
    "ffm": {"kind": "ffm", "k": 3},
    "cosine fm": {"kind": "fm", "k": 5, "cosine": True},
    "cosine fwfm": {"kind": "fwfm", "k": 4, "cosine": True},
    "cosine ffm": {"kind": "ffm", "k": 3, "cosine": True},
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def changed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    """A published model of every kind, with a new and a replaced item."""
    folder = tmp_path_factory.mktemp("family")
    write_tiny_tables(folder)
    index, train = {"boosts": ["price", "category=c1"]}, {"objective": "softmax"}  # trains every kind
    config = parse_config({**TINY, "model": request.param, "index": index, "train": train})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    model = drawn(new_model(config.model, encoder.user_fields, encoder.item_fields))
    export(model, encoder, dataset, config, folder / "bundles")
    recommender = Recommender.load(folder / "bundles")
    recommender.items.upsert(
        {
            "fresh": {"category": "c2", "tags": ["t1", "t2", "strange"], "tag_weights": [1.0, 2.0, 0.5], "price": 3.0},
            "i4": {"category": "c1"},
        }
    )
    yield recommender
    recommender.close()


@pytest.mark.parametrize(
    "asked",
    [
        Request("u4", context={"device": "tv", "hour": 3}),
        Request("nobody", features={"gender": "f", "age": 33.0, "zip": "99999"}, history=("i1", "i2", "i2", "strange")),
        Request("u1", popularity=3.5, boosts={"price": 0.5, "category=c1": -2.0}),
        Request(popularity=0.0),
    ],
    ids=["known", "unknown", "boosted", "nobody"],
)
def test_contributions_add_up(changed: Recommender, asked: Request) -> None:
    whole = Request(
        asked.user_id,
        asked.features,
        asked.context,
        asked.history,
        n=100,
        exclude_seen=False,
        popularity=asked.popularity,
        boosts=asked.boosts,
        explain=True,
    )
    answer = changed.recommend(whole)
    assert len(answer.items) == ITEMS + 1
    assert {"fresh", "i4"} <= {item.item_id for item in answer.items}
    for item, parts in zip(answer.items, answer.contributions, strict=True):
        explained = changed.explain(asked, item.item_id, values=True)
        assert explained.score == pytest.approx(item.score, abs=1e-5)
        assert explained.contributions == parts
        assert sum(one.value for one in parts) == pytest.approx(item.score, abs=1e-4)
        assert sum(one.value for one in explained.values) + explained.rest == pytest.approx(item.score, abs=1e-4)


def test_the_rank_of_an_item_is_exact(changed: Recommender) -> None:
    ranking = changed.recommend(Request("u4", n=100, exclude_seen=False)).items
    for place, item in enumerate(ranking, start=1):
        found = changed.why_not(Request("u4", n=3, exclude_seen=False), item.item_id)
        assert (found.rank, found.listed) == (place, place if place <= 3 else None)
        assert sum(one.value for one in found.contributions) == pytest.approx(found.missing, abs=1e-4)
