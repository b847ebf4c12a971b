"""Measure the time from files, and from a frame, to the first personal answer.

    python scripts/benchmark_first_answer.py ../shared/data/ml-100k --check

The files are those of MovieLens 100K as distributed by GroupLens, which `recall init` reads without changes; the race has
its default time. With --check the exit code is 1 where the files take two minutes or more, or the frame a minute or more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from recall.cli.demo import served

_LIMITS = {"files": 120.0, "frame": 60.0}  # seconds
_FRAME = """
import sys

import polars as pl

import recall

names = ["user_id", "item_id", "rating", "timestamp"]
frame = pl.read_csv(sys.argv[1], separator="\\t", has_header=False, new_columns=names)
print(recall.fit(frame, progress=False).recommend(196, n=5))
"""


def files(data: Path, root: Path) -> dict[str, float]:
    """Run the commands from files to an answer over HTTP.

    Args:
        data: folder of MovieLens 100K.
        root: empty folder to write to.

    Returns:
        Seconds by step.
    """
    tables = {"interactions": "u.data", "items": "u.item", "users": "u.user"}
    given = [part for name, file in tables.items() for part in (f"--{name}", str(data / file))]
    config = str(root / "recall.toml")
    steps = {
        "init": ["init", str(root), *given],
        "check": ["data", "check", config],
        "train": ["train", config, "--out", str(root)],
    }
    seconds = {}
    for name, arguments in steps.items():
        began = time.monotonic()
        command = [sys.executable, "-c", "from recall.cli import main; main()", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds[name] = time.monotonic() - began
    began = time.monotonic()
    with served(root) as url, urllib.request.urlopen(f"{url}/v1/users/196/recommendations?n=5") as answer:
        answer.read()
        seconds["serve and answer"] = time.monotonic() - began
    return seconds


def frame(data: Path) -> dict[str, float]:
    """Fit and ask in a new process; return its seconds.

    Args:
        data: folder of MovieLens 100K.
    """
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _FRAME, str(data / "u.data")], check=True, stdout=subprocess.DEVNULL)
    return {"fit and recommend": time.monotonic() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = {"files": files(given.data, Path(scratch)), "frame": frame(given.data)}
    print(f"{len(os.sched_getaffinity(0))} cores")
    for way, steps in found.items():
        print(f"{way}: {sum(steps.values()):.0f} s ({', '.join(f'{name} {taken:.1f} s' for name, taken in steps.items())})")
    if given.check and any(sum(steps.values()) >= _LIMITS[way] for way, steps in found.items()):
        sys.exit(1)
