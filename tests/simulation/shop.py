"""The initial root of the simulations, and a version trained elsewhere."""

import shutil
from pathlib import Path

HERE, ELSEWHERE = "root", "elsewhere"
FOREIGN = 500
"""Number of the version trained elsewhere."""


def make_shop(folder: Path) -> Path:
    """Create a folder with two roots of one version each: two models of the same items."""
    from recall.config import parse_config
    from recall.data.dataset import load_dataset
    from recall.features.encoder import FeatureEncoder
    from recall.publish.export import export
    from tests.conftest import TINY, random_model, write_tiny_tables  # these import torch

    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_tables(folder)
    config = parse_config({**TINY, "index": {"kind": "exact"}, "export": {"keep": 3}})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    for seed, name in enumerate((HERE, ELSEWHERE)):
        export(random_model(encoder, seed=seed), encoder, dataset, config, folder / name)
    for table in folder.glob("*.parquet"):
        table.unlink()
    _renumber(folder / ELSEWHERE)
    return folder


def _renumber(root: Path) -> None:
    """Give the only version of a root a number that other roots do not reach."""
    from recall.bundle.manifest import Manifest
    from recall.bundle.versions import CURRENT, resolve

    version = resolve(root)
    manifest = Manifest.read(version).model_copy(update={"sequence": FOREIGN})
    manifest.write(version)
    version.rename(version.with_name(manifest.version))
    (root / CURRENT).write_text(manifest.version + "\n", encoding="utf-8")


def fresh_root(shop: Path, folder: Path) -> Path:
    """Copy the root."""
    shutil.copytree(shop / HERE, folder)
    return folder
