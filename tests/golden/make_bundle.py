"""Make the golden bundles of this folder; run it for each model when the format version rises.

    for model in fm fwfm ffm cosine; do PYTHONPATH=. python tests/golden/make_bundle.py $model; done

A committed bundle is never made again: it represents published ones.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import torch

from recall.bundle.manifest import FORMAT_VERSION
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.models.torch.registry import new_model
from recall.publish.export import export
from recall.serving.recommender import Recommender, Request

REQUESTS = {
    "known user": {"user_id": "ada", "n": 4},
    "known user, nothing left out": {"user_id": "bob", "n": 8, "exclude_seen": False},
    "unknown user with features and history": {
        "user_id": "zoe",
        "features": {"plan": "pro"},
        "history": ["tea", "jam"],
        "n": 3,
    },
    "anonymous with context": {"context": {"hour": 21}, "exclude": ["bread", "no such item"], "n": 3},
    "filtered": {"user_id": "eve", "filter": {"year": {"lt": 2006}}, "n": 3, "exclude_seen": False},
    "boosted": {"user_id": "eve", "boosts": {"year": 0.01, "maker=a": 0.5}, "n": 3},
}


MODELS = {
    "fm": {"kind": "fm", "k": 3},
    "fwfm": {"kind": "fwfm", "k": 2, "rank": 2},
    "ffm": {"kind": "ffm", "k": 2},
    "cosine": {"kind": "fwfm", "k": 2, "cosine": True},
}

INDEXES = {"fm": "cells", "fwfm": "ivf", "ffm": "exact", "cosine": "ivf"}
"""A different index kind for each model, so that files of every kind are covered."""


def main() -> None:
    """Write the bundle and its expected answers."""
    name = sys.argv[1]
    target = Path(__file__).parent / f"bundle_v{FORMAT_VERSION}_{name}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tables(folder)
        config = parse_config(
            {
                "name": "golden",
                "model": MODELS[name],
                "index": {"kind": INDEXES[name], "boosts": ["year", "maker=a"]},
                "train": {"objective": "softmax"},
                "data": {"users": "users.parquet", "items": "items.parquet", "time": "time", "attributes": ["year"]},
                "fields": {
                    "user_id": {"side": "user", "kind": "categorical"},
                    "plan": {"side": "user", "kind": "categorical"},
                    "hour": {"side": "user", "kind": "numeric", "scale": "buckets", "buckets": 3},
                    "history": {"kind": "history", "lags": [[1, 1], [2, 3]]},
                    "item_id": {"side": "item", "kind": "categorical"},
                    "tags": {"side": "item", "kind": "bag"},
                    "price": {"side": "item", "kind": "numeric", "scale": "log"},
                    "maker": {"side": "item", "kind": "hashed", "buckets": 4},
                },
            }
        )
        dataset = load_dataset(config, folder)
        encoder = FeatureEncoder.fit(dataset)
        model = new_model(config.model, encoder.user_fields, encoder.item_fields)
        rng = np.random.default_rng(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.6, tuple(parameter.shape))))
        published = export(model, encoder, dataset, config, folder / "root").folder
        shutil.copytree(published, target)
    recommender = Recommender.load(target)
    answers = {}
    for title, request in REQUESTS.items():
        answer = recommender.recommend(Request(**request))  # type: ignore[arg-type]
        answers[title] = {
            "request": request,
            "items": [[item.item_id, round(item.score, 6)] for item in answer.items],
            "user": answer.user,
            "user_offset": round(answer.user_offset, 6),
            "warnings": answer.warnings,
        }
    recommender.close()
    target.with_suffix(".json").write_bytes(orjson.dumps(answers, option=orjson.OPT_INDENT_2))


def write_tables(folder: Path) -> None:
    """A shop of three users and eight items."""
    pl.DataFrame({"user_id": ["ada", "bob", "eve"], "plan": ["pro", "free", None]}).write_parquet(folder / "users.parquet")
    pl.DataFrame(
        {
            "item_id": ["tea", "coffee", "bread", "jam", "milk", "rice", "soap", "été"],
            "tags": [["hot", "drink"], ["hot", "drink"], ["food"], ["food", "sweet"], ["drink"], ["food"], [], None],
            "price": [3.5, 7.0, 2.0, 4.0, 1.1, None, 2.2, 9.9],
            "maker": ["a", "b", "c", "a", None, "d", "e", "f"],
            "year": [2001, 2002, None, 2004, 2005, 2006, 2007, 2008],
        }
    ).write_parquet(folder / "items.parquet")
    bought = {"ada": ["tea", "jam", "bread", "tea"], "bob": ["coffee", "milk", "rice"], "eve": ["soap", "tea", "coffee"]}
    rows = [(user, item, time, 7 * time % 24) for user, items in bought.items() for time, item in enumerate(items)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "time", "hour"], orient="row")
    events.write_parquet(folder / "interactions.parquet")


if __name__ == "__main__":
    main()
