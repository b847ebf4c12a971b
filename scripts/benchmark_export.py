"""Time an export: encode a generated catalogue, index, verify, write and publish.

    python scripts/benchmark_export.py                     one million items, ten features each
    python scripts/benchmark_export.py --items 100000 --out export.json

Generating the data and fitting the encoder are not part of an export, and not timed.
"""

import argparse
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import torch

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset
from recall.features.encoder import FeatureEncoder
from recall.models.torch.fm import FactorizationMachine
from recall.publish.export import ExportReport, export

BAR = 30.0  # seconds for one million items
USERS, EVENTS = 20_000, 400_000
SIZES = {"category": 400, "brand": 5_000, "seller": 20_000, "colour": 24, "country": 60, "tags": 3_000}


def config_of(k: int) -> RunConfig:
    """Ten features for an item: its id, five categories, three tags and a number."""
    plain = {name: {"side": "item", "kind": "categorical"} for name in SIZES if name != "tags"}
    return parse_config(
        {
            "name": "benchmark-export",
            "data": {"users": "users.parquet", "items": "items.parquet", "time": "time"},
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "segment": {"side": "user", "kind": "categorical"},
                "hour": {"side": "user", "kind": "categorical"},
                "history": {"kind": "history"},
                "item_id": {"side": "item", "kind": "categorical"},
                **plain,
                "tags": {"side": "item", "kind": "bag"},
                "price": {"side": "item", "kind": "numeric", "scale": "log"},
            },
            "model": {"k": k},
        }
    )


def generate(n_items: int, config: RunConfig, rng: np.random.Generator) -> Dataset:
    """Return a catalogue with correlated columns, like real ones.

    Brand, seller and tags follow the category.
    """
    category = rng.zipf(1.3, n_items) % SIZES["category"]
    columns = {"category": category}
    for name in ("brand", "seller", "colour", "country"):
        near = category * 7919 + rng.zipf(1.5, n_items)
        columns[name] = np.where(rng.random(n_items) < 0.8, near, rng.integers(0, 1 << 30, n_items)) % SIZES[name]
    tags = (category[:, None] * 104_729 + rng.zipf(1.4, (n_items, 3))) % SIZES["tags"]
    items = pl.DataFrame(
        {
            "item_id": pl.int_range(n_items, eager=True).cast(pl.String),
            **{name: pl.Series(values).cast(pl.String) for name, values in columns.items()},
            "tags": pl.Series(tags.astype(np.int32)).cast(pl.List(pl.String)),
            "price": rng.lognormal(3, 1, n_items),
        }
    )
    users = pl.DataFrame(
        {
            "user_id": pl.int_range(USERS, eager=True).cast(pl.String),
            "segment": pl.Series(rng.integers(0, 50, USERS)).cast(pl.String),
        }
    )
    user = np.sort(rng.integers(0, USERS, EVENTS))
    events = pl.DataFrame(
        {
            "user": user.astype(np.int32),
            "item": (rng.zipf(1.2, EVENTS) % n_items).astype(np.int32),
            "weight": np.ones(EVENTS, dtype=np.float32),
            "split": (rng.random(EVENTS) < 0.05).astype(np.int8) * 2,
            "hour": pl.Series(rng.integers(0, 24, EVENTS)).cast(pl.String),
        }
    )
    return Dataset(config.schema_, events, users, items, ("hour",), ("segment",), (*SIZES, "price"))


def draw_model(encoder: FeatureEncoder, k: int, seed: int) -> FactorizationMachine:
    """Return a model with the decaying spectrum of a trained one."""
    generator = torch.Generator().manual_seed(seed)
    model = FactorizationMachine(encoder.n_user_features, encoder.n_item_features, k)
    spectrum = torch.arange(1, k + 1).float().pow(-0.5)
    with torch.no_grad():
        for factors in (model.user_factors, model.item_factors):
            factors.normal_(0.0, 0.5, generator=generator).mul_(spectrum)
        for weights in (model.user_weights, model.item_weights):
            weights.normal_(0.0, 0.1, generator=generator)
    return model


def measure(n_items: int, k: int, root: Path) -> tuple[ExportReport, dict[str, object]]:
    """Time one export."""
    config = config_of(k)
    started = time.perf_counter()
    dataset = generate(n_items, config, np.random.default_rng(0))
    encoder = FeatureEncoder.fit(dataset)
    model = draw_model(encoder, k, 0)
    prepared = time.perf_counter() - started
    processor = time.process_time()
    report = export(model, encoder, dataset, config, root)
    processor = time.process_time() - processor
    manifest = report.manifest
    return report, {
        "items": n_items,
        "k": k,
        "features_per_item": 10,
        "seconds": {name: round(value, 2) for name, value in report.seconds.items()},
        "total_seconds": round(sum(report.seconds.values()), 2),
        "processor_seconds": round(processor, 2),
        "preparing_seconds": round(prepared, 2),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
        "index": manifest.index.model_dump(),
        "parity": manifest.parity.model_dump(),
        "machine": {
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "libraries": manifest.libraries,
    }


def main() -> int:
    """Run, print, and return 1 if one million items take longer than the limit."""
    parser = argparse.ArgumentParser(description="Time an export.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--root", type=Path, help="folder to publish into; a temporary one when left out")
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="recall-export-"))
    try:
        report, figures = measure(arguments.items, arguments.k, root)
    finally:
        if arguments.root is None:
            shutil.rmtree(root, ignore_errors=True)
    for stage, seconds in report.seconds.items():
        print(f"{stage:>10}  {seconds:7.2f} s")
    print(f"{'total':>10}  {figures['total_seconds']:7.2f} s for {arguments.items:,} items")
    print(f"{'processor':>10}  {figures['processor_seconds']:7.2f} s")
    print(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
    if arguments.out is not None:
        arguments.out.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    return int(arguments.items == 1_000_000 and figures["total_seconds"] > BAR)  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
