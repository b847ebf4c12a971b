"""Prepare interactions within a bound of memory, and read them again.

python scripts/scale_out.py data --check
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recall.data.prepared_manifest import read_manifest
from recall.data.tables import MANIFEST

Check = Callable[[str, bool, str], None]
RECALL = Path(sys.executable).with_name("recall")
_CONFIG = """name = "log"
[data]
interactions = "interactions"
time = "time"
weight = "stars"
split = { by = "last" }
[fields]
user_id = { side = "user", kind = "categorical" }
device = { side = "user", kind = "categorical" }
previous = { kind = "history", lags = [[1, 1]] }
item_id = { side = "item", kind = "categorical" }
"""
_PART = 1_000_000
_READ = (
    "import sys; from pathlib import Path; from recall.config import load_config; from recall.data.dataset import load_dataset;"
    "print(load_dataset(load_config(Path(sys.argv[1])), Path(sys.argv[2])).fingerprint())"
)
_STARTED = (
    "import os, sys; _, status, used = os.wait4(os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ), 0);"
    "print(used.ru_maxrss); sys.exit(os.waitstatus_to_exitcode(status))"
)


def write_log(folder: Path, rows: int) -> Path:
    """Write a log in no order, and its configuration.

    Args:
        folder: created.
        rows: number of interactions, of 0.06 users and 0.005 items for each.

    Returns:
        The configuration.
    """
    (folder / "interactions").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, rows, _PART)):
        n = min(_PART, rows - first)
        user = (rng.random(n) ** 2 * 0.06 * rows).astype(np.int64)
        item = (rng.random(n) ** 3 * 0.005 * rows).astype(np.int64)
        pl.DataFrame({"user": user, "item": item, "time": rng.integers(1_700_000_000, 1_750_000_000, n)}).select(
            user_id=pl.format("u{}", "user"),
            item_id=pl.format("i{}", "item"),
            time="time",
            stars=pl.Series(rng.integers(1, 6, n, dtype=np.int8)),
            device=pl.Series(rng.choice(["phone", "web", "tv"], n)),
        ).write_parquet(folder / "interactions" / f"part-{number:03}.parquet")
    (folder / "recall.toml").write_text(_CONFIG)
    return folder / "recall.toml"


def measured(command: Sequence[str | Path]) -> tuple[str, int]:
    """Run a command; return what it printed, and its peak of resident bytes.

    A small process starts it: Linux counts the memory of the process that starts another in the peak of that one, and this one
    may have generated data.
    """
    ended = subprocess.run([sys.executable, "-c", _STARTED, *command], stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode}: {command}")
    printed, _, peak = ended.stdout.rstrip("\n").rpartition("\n")
    return printed, int(peak) * 1024


def data(folder: Path, quick: bool, check: Check) -> None:
    """Check memory, equality and interruption of prepared data, and training."""
    rows, limit = (3_000_000, 1e9) if quick else (30_000_000, 3e9)
    config = write_log(folder / "log", rows)
    began = time.perf_counter()
    _, peak = measured([RECALL, "data", "prepare", config, "--out", folder / "prepared"])
    seconds = time.perf_counter() - began
    manifest = read_manifest(folder / "prepared")
    sizes = f"{manifest.shards} shards, {manifest.users:,} users, {manifest.items:,} items"
    figures = f"peak {peak / 1e6:,.0f} MB, {sizes}, {seconds:.0f} s"
    check(f"{rows:,} interactions are prepared within {limit / 1e9:g} GB", peak <= limit, figures)
    digest, reading = measured([sys.executable, "-c", _READ, config, folder / "prepared"])
    source, whole = measured([sys.executable, "-c", _READ, config, config.parent])
    check("the same is read as from the source", digest == source, f"data hash {digest[:16]} and {source[:16]}")
    figures = f"{reading / 1e6:,.0f} MB, {whole / 1e6:,.0f} MB from the source"
    check("reading takes less memory than reading the source", reading < whole, figures)
    interrupted(config, folder / "interrupted", digest, check)
    if not quick:
        settings = ("--set", 'train.objective="square"', "--set", "train.sweeps=1", "--set", "model.k=32")
        _, peak = measured([RECALL, "train", config, "--data", folder / "prepared", "--out", folder / "bundles", *settings])
        check(f"{rows:,} prepared interactions are trained within 10 GB", peak <= 10e9, f"peak {peak / 1e6:,.0f} MB")


def spark(folder: Path, quick: bool, check: Check) -> None:
    """Check that Spark writes the same as `recall data prepare`."""
    rows = 30_000 if quick else 300_000
    config, out = write_log(folder / "log", rows), folder / "spark"
    job = Path(__file__).parents[2] / "examples" / "spark_prepare.py"
    measured([sys.executable, job, config, config.parent, out, str(rows // 3)])
    measured([RECALL, "data", "prepare", config, "--out", folder / "prepared"])
    written, prepared = (measured([sys.executable, "-c", _READ, config, one])[0] for one in (out, folder / "prepared"))
    ours, theirs = read_manifest(folder / "prepared"), read_manifest(out)
    check(f"Spark writes the same {rows:,} interactions", written == prepared, f"data hash {written[:16]} and {prepared[:16]}")
    same = ours.model_dump(exclude={"files", "columns"}) == theirs.model_dump(exclude={"files", "columns"})
    check("its manifest says the same", same, f"{theirs.shards} shards, {theirs.users:,} users, {theirs.items:,} items")


def interrupted(config: Path, out: Path, digest: str, check: Check) -> None:
    """Check a preparation that is killed, and made again.

    Args:
        config: of the log.
        out: where to prepare.
        digest: what is read from the whole.
        check: of the case.
    """
    command: list[str | Path] = [RECALL, "data", "prepare", config, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "spool").exists():
        if process.poll() is not None:
            raise RuntimeError("ended before it could be killed")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    unfinished = not (out / MANIFEST).exists()
    ended = subprocess.run([sys.executable, "-c", _READ, config, out], capture_output=True, text=True, check=False)
    refused = "not prepared to the end" in ended.stderr
    said = ended.stderr.strip().splitlines()[-1][:90]
    check("a killed preparation is not taken for a complete one", unfinished and refused, said)
    measured(command)
    again, _ = measured([sys.executable, "-c", _READ, config, out])
    check("made again, it is complete", again == digest, f"data hash {again[:16]}")
