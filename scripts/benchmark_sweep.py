"""Compare seconds of a sweep and peak memory of training with another source tree.

    python scripts/benchmark_sweep.py examples/toys.toml --data ../shared/data --against ../before
    python scripts/benchmark_sweep.py shop/recall.toml --data shop --against ../before --repeats 4 --set train.sweeps=2

`recall train` of this tree and of the other runs in turn, A B A B, each in a separate process with this Python and the
same number of threads. A ratio above 1 means that this tree is slower, or takes more memory. `--check` exits with 1 when
a ratio is above `--most`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trained import data_folder

from recall.config import load_config

ROOT = Path(__file__).resolve().parents[1]
_COMMAND = (
    "import json, resource, sys; sys.argv[0] = 'recall'\n"
    "from recall.cli import main\n"
    "try:\n    code = main()\n"
    "except SystemExit as error:\n    code = error.code\n"
    "print(json.dumps({'peak_kb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), file=sys.stderr)\n"
    "sys.exit(code)"
)


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        sweep: seconds of a sweep.
        peak: of the process, in bytes.
    """

    sweep: float
    peak: int


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    config = load_config(arguments.config, arguments.set)
    runs: dict[Path, list[Run]] = {ROOT: [], arguments.against.resolve(): []}
    with tempfile.TemporaryDirectory(prefix="benchmark-sweep-") as scratch:
        data = data_folder(config, arguments.data, Path(scratch))
        for number in range(arguments.repeats):
            for tree, found in runs.items():
                found.append(_train(tree, arguments, data, Path(scratch) / f"{number}-{tree.name}"))
                print(f"{config.name}  {tree}  {found[-1].sweep:.3f} s  {found[-1].peak / 2**20:.0f} MiB", file=sys.stderr)
    own, other = runs.values()
    ratios = {
        "seconds of a sweep": statistics.median(a.sweep / b.sweep for a, b in zip(own, other, strict=True)),
        "peak memory": statistics.median(a.peak / b.peak for a, b in zip(own, other, strict=True)),
    }
    for name, ratio in ratios.items():
        print(f"{config.name}: {name} relative to {arguments.against}: {ratio:.2f}, at most {arguments.most:g}")
    return 1 if arguments.check and max(ratios.values()) > arguments.most else 0


def _train(tree: Path, arguments: argparse.Namespace, data: Path, out: Path) -> Run:
    settings = [word for setting in arguments.set for word in ("--set", setting)]
    command = ["train", str(arguments.config.resolve()), "--data", str(data), "--out", str(out), "--json", *settings]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _COMMAND, *command],
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tree,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"benchmark_sweep: {tree}: {done.stderr[-2000:]}")
    result, last = json.loads(done.stdout), json.loads(done.stderr.splitlines()[-1])
    return Run(result["training_seconds"] / result["sweeps"], last["peak_kb"] * 1024)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, such as examples/toys.toml")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RECALL_DATA", "../shared/data")), help="data folder")
    parser.add_argument("--against", type=Path, required=True, help="another source tree of this project")
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each tree (default 2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--most", type=float, default=1.2, help="largest ratio that is allowed (default 1.2)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is above it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
