"""Items found by titles and ids, compared with a plain search of their texts."""

import polars as pl
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.batch import find_items, title_in, title_of
from recall.serving.recommender import Recommender
from tests.conftest import random_model

TITLES = {"1": "The Heat", "2": "Cheaters", "3": "Heat (1995)", "4": "ÉTÉ .*", "heat": "Other", "6": None}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("films")
    pl.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user_id": ["u", "v"] * 3, "item_id": list(TITLES)}).write_parquet(folder / "interactions.parquet")
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    data = {"items": "items.parquet", "attributes": ["title"]}
    config = parse_config({"name": "films", "data": data, "fields": fields})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder, k=2), encoder, dataset, config, folder / "bundles")
    return Recommender.load(folder / "bundles")


def found(recommender: Recommender, text: str, count: int = 10) -> list[str]:
    return [one.item_id for one in find_items(recommender, text, count).items]


def test_the_best_match_is_first(films: Recommender) -> None:
    assert title_in(films) == "title"
    assert found(films, "hEAT") == ["heat", "3", "1", "2"]
    assert found(films, "heat", 2) == ["heat", "3"]
    assert found(films, "été .*") == ["4"]
    assert found(films, "none") == []
    assert find_items(films, "cheat").items[0].features == {"title": "Cheaters"}


def test_live_changes_are_found(films: Recommender) -> None:
    films.items.upsert({"1": {"title": "Cold"}, "new": {"title": "New heat"}, "bare": {}})
    films.items.delete(["2"])
    assert found(films, "heat") == ["heat", "3", "new"]
    assert found(films, "cold") == ["1"]
    assert found(films, "bare") == ["bare"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "long-name", "Title"], "Title"),
        (["surname"], None),
        ([], None),
        (["Film Name"], "Film Name"),
        (["genre", "fullName", "Titre"], "Titre"),
    ],
)
def test_titles_are_found_by_name(names: list[str], expected: str | None) -> None:
    assert title_of(names) == expected
