"""Catalogues with columns for filters and rules, some with live changes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.store.items import tiers
from tests.conftest import random_model

ITEMS, USERS, EVENTS = 250, 20, 1500
CONFIG = {
    "name": "shaped",
    "data": {"items": "items.csv", "attributes": ["released", "series", "margin"]},
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
        "category": {"side": "item", "kind": "categorical"},
        "tags": {"side": "item", "kind": "bag", "separator": ";"},
        "price": {"side": "item", "kind": "numeric"},
    },
}
BOOSTS = ["price", "margin", "category=c1", "tags=t2"]


def write_tables(folder: Path) -> None:
    """Write a CSV file, in which every value is text and some are missing."""
    rng = np.random.default_rng(11)
    pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(ITEMS)],
            "category": [None if one == 0 else f"c{one}" for one in rng.integers(0, 9, ITEMS)],
            "tags": [";".join(f"t{tag}" for tag in rng.integers(0, 7, rng.integers(0, 4))) for _ in range(ITEMS)],
            "price": [None if one < 2 else round(one, 2) for one in rng.gamma(2, 5, ITEMS)],
            "released": [None if one % 11 == 0 else f"20{one % 25:02}-05-{1 + one % 28:02}" for one in range(ITEMS)],
            "series": [None if one % 3 else f"s{one // 9}" for one in range(ITEMS)],
            "margin": [None if one < 0 else round(one, 3) for one in rng.normal(0.3, 0.2, ITEMS)],
        }
    ).write_csv(folder / "items.csv")
    pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in rng.integers(0, USERS, EVENTS)],
            "item_id": [f"i{number}" for number in np.minimum(rng.geometric(0.02, EVENTS), ITEMS) - 1],
        }
    ).write_parquet(folder / "interactions.parquet")


@pytest.fixture(scope="session", params=["exact", "ivf", "cells"])
def shaped_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue published with an index of each kind; read-only."""
    folder = tmp_path_factory.mktemp("shaped")
    write_tables(folder)
    config = parse_config({**CONFIG, "index": {"kind": request.param, "boosts": BOOSTS}})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder, k=6), encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


@pytest.fixture(scope="session", params=["as published", "changed", "sealed"])
def shop(request: pytest.FixtureRequest, shaped_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recommender]:
    """The published catalogue, and one with added, replaced and deleted items, in one segment and in several."""

    root = shaped_root
    if request.param != "as published":
        root = Path(shutil.copytree(shaped_root, tmp_path_factory.mktemp("changed") / "bundles"))
    with Recommender.load(root) as recommender:
        if request.param == "changed":
            change(recommender)
        elif request.param == "sealed":
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(tiers, "SEAL_AT", 5)
                patched.setattr(tiers, "_RATIO", 0)
                change(recommender)
            assert len(recommender.items.current().segments) == 6
        yield recommender


def change(recommender: Recommender) -> None:
    """Make live changes: 20 new items, 3 replaced, 5 deleted, and 1 both new and deleted."""
    new = {
        f"new{number}": {
            "category": f"c{number % 12}",
            "tags": ["t2", f"t{number}"] if number % 4 else [],
            "price": 1.5 * number,
            "released": "2030-01-01" if number % 2 else None,
            "series": "s1" if number % 5 else None,
            "margin": 0.1 * number,
        }
        for number in range(20)
    }
    for first in range(0, len(new), 5):
        recommender.items.upsert(dict(list(new.items())[first : first + 5]))
    recommender.items.upsert({f"i{number}": {"category": "c1", "price": 3.0} for number in (0, 5, 77)})
    recommender.items.delete(["i1", "i2", "i30", "i31", "i200", "new7"])
