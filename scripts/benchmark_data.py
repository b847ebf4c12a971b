"""Measure time and memory to load, split and encode ten million interactions.

    python scripts/benchmark_data.py --rows 10000000

Writes generated tables to a temporary folder and reads them in a separate process, so that the reported memory is that of
reading only. The last line is JSON; the limit for ten million rows is 60 seconds and 4 GB on two cores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from recall.config import RunConfig, parse_config
from recall.data.contexts import build_contexts, positives
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder

_AT_ONCE = 1_000_000


def config() -> RunConfig:
    """Return a run with every source of fields.

    Ids, users, items, context, and history.
    """
    return parse_config(
        {
            "data": {
                "users": "users.parquet",
                "items": "items.parquet",
                "time": "time",
                "split": {"by": "last", "test": 1, "valid": 1},
            },
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "country": {"side": "user", "kind": "categorical"},
                "age": {"side": "user", "kind": "numeric"},
                "device": {"side": "user", "kind": "categorical"},
                "history": {"kind": "history"},
                "item_id": {"side": "item", "kind": "categorical"},
                "tags": {"side": "item", "kind": "bag"},
                "price": {"side": "item", "kind": "numeric", "scale": "log"},
            },
        }
    )


def generate(folder: Path, rows: int) -> None:
    """Write the three tables in random order.

    There are 50 interactions per user and 200 per item on average, with a skewed distribution.
    """
    rng = np.random.default_rng(0)
    users, items = max(rows // 50, 10), max(rows // 200, 10)
    pl.DataFrame(
        {
            "user_id": np.arange(users),
            "country": rng.integers(0, 50, users).astype(str),
            "age": rng.integers(15, 90, users),
        }
    ).write_parquet(folder / "users.parquet")
    tags = pl.Series(rng.integers(0, 1000, (items, 5)).astype(str).tolist(), dtype=pl.List(pl.String))
    names = pl.Series([f"item-{number}" for number in range(items)])
    pl.DataFrame({"item_id": names, "tags": tags, "price": rng.lognormal(3, 1, items)}).write_parquet(folder / "items.parquet")
    parts = folder / "interactions.parquet"
    parts.mkdir()
    for number, first in enumerate(range(0, rows, _AT_ONCE)):
        size = min(_AT_ONCE, rows - first)
        pl.DataFrame(
            {
                "user_id": (users * rng.random(size) ** 2).astype(np.int64),
                "item_id": names.gather((items * rng.random(size) ** 3).astype(np.int64)),
                "time": rng.integers(1_500_000_000, 1_700_000_000, size),
                "device": pl.Series(["phone", "web", "tv", "tablet"]).gather(rng.integers(0, 4, size)),
            }
        ).write_parquet(parts / f"part-{number:04}.parquet")


def measure(folder: Path) -> dict[str, float]:
    """Load, split and encode the tables.

    Returns the seconds of each step, in total, and of CPU time; and the peak resident memory in GB.
    """
    seconds: dict[str, float] = {}
    started = before = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal before
        now = time.perf_counter()
        seconds[name], before = round(now - before, 2), now

    dataset = load_dataset(config(), folder)
    lap("load_and_split")
    encoder = FeatureEncoder.fit(dataset)
    lap("fit")
    items = encoder.encode_items(dataset.items)
    contexts = build_contexts(dataset, encoder, dataset.training)
    lap("encode")
    found = positives(dataset, contexts, dataset.training)
    lap("positives")
    # ru_maxrss counts kilobytes, on macOS bytes
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "interactions": len(dataset.events),
        "contexts": len(contexts),
        "pairs": found.nnz,
        "features": contexts.features.nnz + items.nnz,
        **seconds,
        "seconds": round(before - started, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gb": round(peak / 1e9, 2),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }


def main() -> int:
    """Parse the command line.

    Without --folder, generate the tables and measure in a separate process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="interactions to generate (default: ten million)")
    parser.add_argument("--folder", type=Path, help="measure the existing tables of this folder, in this process")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(json.dumps(measure(arguments.folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="recall-benchmark-") as folder:
        generate(Path(folder), arguments.rows)
        return subprocess.run([sys.executable, __file__, "--folder", folder], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
