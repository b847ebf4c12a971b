"""Bundles to serve.

A generated shop with a briefly trained model, published like a training run.
"""

import sys
from pathlib import Path

import orjson
from index.worlds import SHOP

from recall.bundle import files
from recall.bundle.versions import resolve
from recall.store.users.bundle_users import SqliteUsers


def build(folder: Path, items: int, k: int, seed: int) -> Path:
    """Generate a shop of `items` items, train a model briefly, and publish it.

    Returns the root.
    """
    from recall.config import parse_config  # keeps torch out of the import of this module
    from recall.data.dataset import load_dataset
    from recall.data.synthetic import SyntheticConfig, generate
    from recall.features.encoder import FeatureEncoder
    from recall.publish.export import export
    from recall.training.train import train

    users = max(200, min(items // 5, 50_000))
    shop = SyntheticConfig(users=users, items=items, interactions=20 * users, considered=200, seed=seed)
    generate(shop).write(folder)
    config = parse_config(
        {
            "name": "benchmark",
            "seed": seed,
            "data": {"users": "users.parquet", "items": "items.parquet", "time": "time"},
            "fields": SHOP,
            "model": {"k": k},
            "train": {"sweeps": 4},
        }
    )
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    model = train(config, dataset, encoder, lambda sweep: print(sweep, file=sys.stderr)).model
    export(model, encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


def users_of(bundle: Path, count: int, seed: int) -> list[str]:
    """Return ids of some known users."""
    users = SqliteUsers(resolve(bundle) / files.USERS)
    ids = users.sample(count, seed)
    users.close()
    return ids


def requests_of(users: list[str], n: int) -> list[bytes]:
    """Return one request for n items for each user, as bytes."""
    bodies = [orjson.dumps({"user_id": user, "n": n}) for user in users]
    head = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    return [head % (len(body), body) for body in bodies]
