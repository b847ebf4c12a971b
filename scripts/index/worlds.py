"""Catalogues to search: real splits and synthetic shops, trained by the pipeline.

    python scripts/index/worlds.py shop 100000 FOLDER         a generated shop with this many items
    python scripts/index/worlds.py CONFIG.toml DATA FOLDER     a configuration and its data

A world is a folder with `items.npy` float32 [items, dim] and `users.npy` float32 [users, dim]: vectors of the catalogue and of
requests, drawn from held-out interactions if there are enough. It is created once.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recall._arrays import Float32

QUERIES = 12_000
K = 64
SHOP = {
    "user_id": {"side": "user", "kind": "categorical"},
    "age": {"side": "user", "kind": "numeric"},
    "country": {"side": "user", "kind": "categorical"},
    "interests": {"side": "user", "kind": "bag"},
    "device": {"side": "user", "kind": "categorical"},
    "history": {"kind": "history"},
    "item_id": {"side": "item", "kind": "categorical"},
    "category": {"side": "item", "kind": "categorical"},
    "brand": {"side": "item", "kind": "categorical"},
    "tags": {"side": "item", "kind": "bag"},
    "price": {"side": "item", "kind": "numeric", "scale": "log"},
}
"""Fields of a generated shop, for `[fields]` of a configuration."""


@dataclass(frozen=True)
class World:
    """One catalogue."""

    name: str
    items: Float32
    users: Float32
    about: Mapping[str, float]


def open_world(folder: Path) -> World:
    """Read an existing world."""
    items, users = (np.load(folder / f"{name}.npy") for name in ("items", "users"))
    return World(folder.name, items, users, json.loads((folder / "about.json").read_text()))


def make_shop(folder: Path, items: int, k: int = K, seed: int = 0) -> None:
    """Generate a shop with ten interactions per item, and train a model briefly."""
    from recall.config import parse_config
    from recall.data.synthetic import SyntheticConfig, generate

    users = max(1000, items // 5)
    considered = 1000 if items <= 200_000 else 200
    shop = generate(SyntheticConfig(users, items, 10 * items, considered, seed))
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    shop.write(tables)
    config = parse_config(
        {
            "name": folder.name,
            "data": {"users": "users.parquet", "items": "items.parquet", "time": "time", "split": {"by": "last"}},
            "fields": SHOP,
            "model": {"k": k},
            "train": {"sweeps": 6},
        },
        "shop",
    )
    _learn(folder, config, tables)


def make_split(folder: Path, toml: Path, data: Path) -> None:
    """Train one of the examples on its data."""
    from recall.config import load_config

    _learn(folder, load_config(toml, []), data)


def _learn(folder: Path, config: object, data: Path) -> None:
    from recall.config import RunConfig
    from recall.data.contexts import build_contexts
    from recall.data.dataset import load_dataset
    from recall.data.split import TRAIN
    from recall.features.encoder import FeatureEncoder
    from recall.publish.export import tables_of
    from recall.training.train import train

    assert isinstance(config, RunConfig)
    began = time.perf_counter()
    dataset = load_dataset(config, data)
    encoder = FeatureEncoder.fit(dataset)
    model = train(config, dataset, encoder, lambda one: print(one, file=sys.stderr)).model
    tables = tables_of(model, encoder, config.model)
    rng = np.random.default_rng(config.seed)
    held_out = np.flatnonzero(dataset.events["split"].to_numpy() != TRAIN)
    among = held_out if len(held_out) >= QUERIES else np.arange(len(dataset.events))
    drawn = np.sort(rng.choice(among, min(QUERIES, len(among)), replace=False))
    users = tables.user_vectors(build_contexts(dataset, encoder, drawn).features)
    save(folder, tables.item_vectors(encoder.encode_items(dataset.items)), rng.permutation(users), time.perf_counter() - began)


def save(folder: Path, items: Float32, users: Float32, seconds: float) -> None:
    """Write a world and print statistics of its vectors."""
    lengths = np.linalg.norm(items[:, 1:], axis=1)
    sample = items[np.random.default_rng(0).choice(len(items), min(len(items), 50_000), replace=False), 1:].astype(np.float64)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(sample.T)))[::-1]
    shares = np.cumsum(spectrum) / spectrum.sum()
    about = {
        "seconds": seconds,
        "length_p50": float(np.median(lengths)),
        "length_p99": float(np.quantile(lengths, 0.99)),
        "length_max": float(lengths.max()),
        "first_order_deviation": float(items[:, 0].std()),
        "directions_for_half": int(np.searchsorted(shares, 0.5)) + 1,
        "directions_for_90": int(np.searchsorted(shares, 0.9)) + 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "items.npy", items)
    np.save(folder / "users.npy", users)
    (folder / "about.json").write_text(json.dumps(about))  # written last: marks the folder as complete


def main() -> None:
    """Create one world from the command line."""
    if sys.argv[1] == "shop":
        make_shop(Path(sys.argv[3]), int(sys.argv[2]))
    else:
        make_split(Path(sys.argv[3]), Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
