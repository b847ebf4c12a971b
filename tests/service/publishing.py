"""A small shop with awkward ids, and real bundles of it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from pydantic import JsonValue

from recall.bundle.versions import versions
from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.features.encoder import FeatureEncoder
from recall.models.torch.fm import FactorizationMachine
from recall.publish.export import export

ODD_IDS = [
    "a/b",
    "a%2Fb",
    "../../etc/passwd",
    "' OR 1=1--",
    '"quoted"',
    "<script>alert(1)</script>",
    "{{7*7}}",
    "nul\x00inside",
    "line\r\nbreak",
    "\ufeffmark",
    "\u202eright to left",
    "e\u0301",
    "\u00e9",
    "\U0001f600",
    " space ",
    "0012",
    "-0",
    "null",
    "true",
]
ITEMS = [*(str(number) for number in range(60)), *ODD_IDS]
USERS = [*(str(number) for number in range(20)), *ODD_IDS]

CONFIG = {
    "name": "shop",
    "data": {"users": "users.parquet", "items": "items.parquet", "time": "time", "attributes": ["year"]},
    "index": {"boosts": ["year", "genre=noir"]},
    "model": {"k": 6},
    "export": {"keep": 100},
    "fields": {
        "age": {"side": "user", "kind": "numeric"},
        "likes": {"side": "user", "kind": "bag"},
        "device": {"side": "user", "kind": "categorical"},
        "history": {"kind": "history", "lags": [[1, 1], [2, 4]]},
        "item_id": {"side": "item", "kind": "categorical"},
        "genre": {"side": "item", "kind": "categorical"},
    },
}


@dataclass(frozen=True)
class Shop:
    """Publishes bundles of the shop in `root`; `made` holds roots that were published before, to be copied."""

    root: Path
    made: Path
    config: RunConfig
    dataset: Dataset
    encoder: FeatureEncoder

    @classmethod
    def open(
        cls,
        folder: Path,
        root: Path,
        titles: Mapping[str, str] | None = None,
        images: str = "",
        names: Mapping[str, str] | None = None,
    ) -> "Shop":
        """Write the tables and read them.

        Args:
            folder: for the tables; it is made.
            root: for bundles.
            titles: titles of items by id; a further column has addresses of images.
            images: origin of the images, of every fifth item.
            names: of users by id, a further column.
        """
        folder.mkdir()
        rng = np.random.default_rng(5)
        genres = ["drama", "comedy", "noir"]
        users = {
            "user_id": USERS,
            "age": rng.integers(18, 80, len(USERS)).astype(float),
            "likes": [sorted(rng.choice(genres, rng.integers(0, 3), replace=False)) for _ in USERS],
        }
        if names is not None:
            users["name"] = [names.get(one) for one in USERS]
        pl.DataFrame(users).write_parquet(folder / "users.parquet")
        items = {"item_id": ITEMS, "genre": rng.choice(genres, len(ITEMS)), "year": [1950 + len(one) for one in ITEMS]}
        if titles is not None:
            items["title"] = [titles.get(one) for one in ITEMS]
            items["poster"] = [f"{images}/{one}.png" if one.isdigit() and int(one) % 5 == 0 else None for one in ITEMS]
        pl.DataFrame(items).write_parquet(folder / "items.parquet")
        count = 400
        pl.DataFrame(
            {
                "user_id": [*USERS, *rng.choice(USERS, count - len(USERS))],
                "item_id": rng.choice(ITEMS, count),
                "time": rng.integers(0, 1000, count),
                "device": rng.choice(["phone", "web"], count),
            }
        ).write_parquet(folder / "interactions.parquet")
        attributes = ["year", *(["title", "poster"] if titles is not None else [])]
        of_users = {"user_attributes": ["name"]} if names is not None else {}
        config = parse_config({**CONFIG, "data": {**CONFIG["data"], "attributes": attributes, **of_users}})
        dataset = load_dataset(config, folder)
        return cls(root, folder.with_name("made"), config, dataset, FeatureEncoder.fit(dataset))

    def publish(self, seed: int, metrics: Mapping[str, JsonValue] | None = None) -> Path:
        """Publish a different model for each seed; return the folder of the version.

        Args:
            seed: of the parameters.
            metrics: of a training, for the manifest.
        """
        if metrics is None and not self.root.exists():
            return self.publish_all(seed)[0]
        model = FactorizationMachine(self.encoder.n_user_features, self.encoder.n_item_features, self.config.model.k)
        model.initialise(1.0, torch.Generator().manual_seed(seed))
        return export(model, self.encoder, self.dataset, self.config, self.root, metrics).folder

    def in_(self, root: Path) -> "Shop":
        """The same shop with another root."""
        return replace(self, root=root)

    def publish_all(self, *seeds: int) -> list[Path]:
        """Publish some models in a root that does not exist yet; return the folders of the versions."""
        made = self.made / "-".join(map(str, seeds))
        if not made.exists():
            made.mkdir(parents=True)
            for seed in seeds:
                self.in_(made).publish(seed)
        shutil.copytree(made, self.root, symlinks=True)
        return versions(self.root)
