"""A small shop with unusual ids, and real bundles of it, published as a training run does."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall.bundle import versions as publish
from recall.bundle.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from recall.models.torch.fm import FactorizationMachine

ODD_IDS = [
    *("a/b", "a%2Fb", "../../etc/passwd", "' OR 1=1--", '"quoted"', "<script>alert(1)</script>", "{{7*7}}"),
    *("nul\x00inside", "line\r\nbreak", "\nERROR service: forged", "\ufeffmark", "\u202eright to left", "e\u0301", "\u00e9"),
    *("\U0001f600", " space ", "0012", "-0", "null", "true", ".", "..", "a?b#c", "a+b&c=d", "x" * 1024),
]
N_ITEMS, N_USERS = 1500, 150
ITEMS = [*(str(number) for number in range(N_ITEMS)), *ODD_IDS]
USERS = [*(str(number) for number in range(N_USERS)), *ODD_IDS]
GENRES = ["drama", "comedy", "noir"]

CONFIG: dict[str, Any] = {
    "name": "shop",
    "data": {"users": "users.parquet", "items": "items.parquet", "time": "time", "attributes": ["year"]},
    "model": {"k": 16},
    "export": {"keep": 1000},
    "fields": {
        "age": {"side": "user", "kind": "numeric"},
        "likes": {"side": "user", "kind": "bag"},
        "device": {"side": "user", "kind": "categorical"},
        "history": {"kind": "history", "lags": [[1, 1], [2, 4]]},
        "item_id": {"side": "item", "kind": "categorical"},
        "genre": {"side": "item", "kind": "categorical"},
        "price": {"side": "item", "kind": "numeric"},
    },
}


@dataclass(frozen=True)
class Shop:
    """Two bundles of one shop with different models, as templates to publish copies of."""

    templates: tuple[Path, Path]
    dataset: Any
    encoder: Any
    config: Any

    @classmethod
    def open(cls, folder: Path) -> "Shop":
        """Write the tables and the two bundles to a folder."""
        import numpy as np  # keeps torch out of the import of this module
        import polars as pl

        from recall.config import parse_config
        from recall.data.dataset import load_dataset
        from recall.features.encoder import FeatureEncoder

        folder.mkdir(parents=True)
        rng = np.random.default_rng(5)
        users = {
            "user_id": USERS,
            "age": rng.integers(18, 80, len(USERS)).astype(float),
            "likes": [sorted(rng.choice(GENRES, rng.integers(0, 3), replace=False)) for _ in USERS],
        }
        pl.DataFrame(users).write_parquet(folder / "users.parquet")
        items = {
            "item_id": ITEMS,
            "genre": rng.choice(GENRES, len(ITEMS)),
            "price": rng.gamma(2.0, 10.0, len(ITEMS)),
            "year": [1950 + len(one) % 70 for one in ITEMS],
        }
        pl.DataFrame(items).write_parquet(folder / "items.parquet")
        count = 5000
        events = {
            "user_id": [*USERS, *rng.choice(USERS, count - len(USERS))],
            "item_id": [*ITEMS, *rng.choice(ITEMS, count - len(ITEMS))],
            "time": rng.integers(0, 1000, count),
            "device": rng.choice(["phone", "web"], count),
        }
        pl.DataFrame(events).write_parquet(folder / "interactions.parquet")
        config = parse_config(CONFIG)
        dataset = load_dataset(config, folder)
        shop = cls((folder, folder), dataset, FeatureEncoder.fit(dataset), config)
        first, second = (shop.export(folder / f"bundles {seed}", seed) for seed in (1, 2))
        return cls((first, second), shop.dataset, shop.encoder, shop.config)

    def export(self, root: Path, seed: int, corrupt: "Callable[[FactorizationMachine], object] | None" = None) -> Path:
        """Publish a randomly initialised model, after `corrupt`, if given, has changed its parameters."""
        import torch

        from recall.models.torch.fm import FactorizationMachine
        from recall.publish.export import export

        model = FactorizationMachine(self.encoder.n_user_features, self.encoder.n_item_features, self.config.model.k)
        model.initialise(1.0, torch.Generator().manual_seed(seed))
        if corrupt is not None:
            with torch.no_grad():
                corrupt(model)
        return export(model, self.encoder, self.dataset, self.config, root).folder

    def publish(self, root: Path, which: int = 0, keep: int | None = None) -> Path:
        """Publish a copy of a template as the next version of a root."""
        with publish.staging(root) as staged:
            copy(self.templates[which], staged)
            return publish.publish(staged, root, keep=keep)

    def root(self, folder: Path, versions: int = 1) -> Path:
        """Create a root with this many versions, alternating between the templates."""
        for number in range(versions):
            self.publish(folder, number % 2)
        return folder


def copy(template: Path, folder: Path) -> None:
    """Copy the files of a bundle, the manifest last."""
    for path in sorted(template.iterdir(), key=lambda one: one.name == MANIFEST):
        shutil.copyfile(path, folder / path.name)


def verified_number(root: Path) -> int:
    """Verify all checksums of the live version and return its number. Raises BundleError if any byte differs."""
    from recall.bundle import files

    folder = publish.resolve(root)
    manifest = Manifest.read(folder)
    if folder.name != manifest.version:
        raise ValueError(f"the folder {folder.name} contains version {manifest.version}")
    files.check_names(folder, manifest)
    files.check_contents(folder, manifest.files, digests=True)
    return manifest.sequence


def leftovers(root: Path) -> list[str]:
    """List the folders left in the staging area of a root."""
    staging = root / publish.STAGING
    return [one for one in os.listdir(staging) if (staging / one).is_dir()] if staging.is_dir() else []
