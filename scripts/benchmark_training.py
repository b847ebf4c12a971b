"""Compare training with other programs, then scale the data and profile it.

    python scripts/benchmark_training.py --data ../shared/data --peers ../peers
    python scripts/benchmark_training.py --quick --check

On ml-1m (last item of each user, NDCG@10) and gowalla (its own split, NDCG@20) this solver, implicit's ALS and BPR, LightFM's
WARP and irspack's iALS are trained in turn, each in a separate process, with equal k and threads. Vectors are saved after
every step, and all are evaluated in the same way over the whole catalogue. On a tenth of ml-1m's items that are held out, the
library is compared with irspack's iALS with features. Peers are searched in PEERS/implicit, PEERS/lightfm and PEERS/irspack,
environments made by `python -m venv`, and in the Python that runs this; missing ones are skipped with a message. Settings
were chosen on a part of the training pairs, by hand and by parts of the grids that `--tune` tries.

Results go to docs/benchmarks.md. `--check` exits with 1 and names each failed criterion.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report_sections import replace_section
from training import cold
from training.methods import SETTINGS, TITLES, Run, candidates, python_of, run
from training.splits import AT, Split

ROOT = Path(__file__).resolve().parents[1]
GROWTH = Path(__file__).parent / "training" / "growth.py"
BARS = {"als": 0.5, "warp": 0.1, "ials_cg": 0.5, "ials_cholesky": 0.5, "ials_pp": 0.5}
"""Limit for the time to (nearly) reach a peer's best NDCG, as a share of the peer's time."""
NEAR = 0.99
"""The share of the best NDCG that counts as reached; its standard error over these requests is 2 to 5 %."""
FLAT = 1.5  # limit for seconds and bytes per interaction at any size, relative to the smallest
SAME = 0.999


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured number with its limit, a maximum or a minimum."""

    name: str
    value: float
    bar: float
    large: bool = False

    @property
    def met(self) -> bool:
        """Whether the number is within its limit."""
        return self.value >= self.bar if self.large else self.value <= self.bar

    def __str__(self) -> str:
        bound = "at least" if self.large else "at most"
        return f"{'met   ' if self.met else 'MISSED'}  {self.name}: {self.value:.3f}, {bound} {self.bar:g}"


def main() -> int:
    """Run from the command line; return the exit code."""
    given = _arguments()
    if given.tune:
        return tune(given)
    text, figures = [], []
    for name in AT:
        folder = given.data / name
        if not (folder / "interactions.parquet").is_file():
            print(f"{name}: skipped, {folder} holds no interactions.parquet")
            continue
        part, found = side_by_side(name, folder, given)
        text.append(part)
        figures += found
    if (given.data / "ml-1m" / "items.parquet").is_file():
        part, found = new_items(given)
        text.append(part)
        figures += found
    part, found = growth(given)
    text.append(part)
    figures += found
    text.append("\n".join(str(figure) for figure in figures).join(("```\n", "\n```")))
    text.append(f"Machine: {_machine()}. Command: `{_command()}`.")
    whole = "## Training\n\n" + "\n\n".join(text)
    replace_section(given.report, "training", whole)
    print(f"\n{whole}\n\nwritten to {given.report}")
    missed = [figure for figure in figures if not figure.met]
    for figure in missed:
        print(f"missed: {figure.name}", file=sys.stderr)
    return 1 if given.check and missed else 0


def side_by_side(name: str, folder: Path, given: argparse.Namespace) -> tuple[str, list[Figure]]:
    """Compare all methods on one data set, in several rounds."""
    split = Split.read(name, folder, tuning=False, requests=given.requests)
    runs: dict[str, list[Run]] = {}
    pythons = {method: python_of(method, given.peers) for method in TITLES}
    skipped = [TITLES[method] for method, python in pythons.items() if python is None]
    for count in range(given.rounds):
        for method, python in pythons.items():
            if python is not None:
                found = run(method, python, split, SETTINGS[name][method], given.k, given.threads, given.quick)
                runs.setdefault(method, []).append(found)
                reached = f"NDCG@{AT[name]} {found.best:.4f} after {found.reached(found.best):.1f} s"
                print(f"{name} {count + 1}/{given.rounds} {TITLES[method]:14} {reached}, {found.seconds[-1]:.1f} s in all")
    figures = []
    head, near = f"NDCG@{AT[name]}", f"{NEAR:.0%}"
    lines = [
        f"### {name}, ids only, k = {given.k}, {given.threads} threads",
        "",
        f"| method | best {head} | seconds to {near} of it | this solver's | share | to all of it | this solver's | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, own in runs.items():
        best = statistics.median(one.best for one in own)
        told, shares = [], []
        for part in (NEAR, 1.0):
            theirs, ours, share = _race(runs["solver"], own, part)
            told += [f"{theirs:.2f}", "" if method == "solver" else "never" if ours is None else f"{ours:.2f}"]
            shares.append(share)
        told.insert(2, "" if method == "solver" else f"{shares[0]:.3f}")
        memory = f"{statistics.median(one.peak for one in own) / 1e6:.0f}"
        memory += f" ({statistics.median(one.peak - one.before for one in own) / 1e6:.0f} by training)"
        lines.append(f"| {TITLES[method]} | {best:.4f} | {' | '.join(told)} | {memory} |")
        if method in BARS:
            figures.append(
                Figure(f"{name}: share of {TITLES[method]}'s seconds to {near} of its best", shares[0], BARS[method])
            )
    loading = statistics.median(one.loading for one in runs["solver"])
    lines += ["", f"Medians of {given.rounds} rounds. Before it trains, this solver loads compiled code in {loading:.1f} s."]
    if skipped:
        lines[-1] += f" Not installed, skipped: {', '.join(skipped)}."
    return "\n".join(lines), figures


def new_items(given: argparse.Namespace) -> tuple[str, list[Figure]]:
    """Compare items that are held out of training, and known by their features alone."""
    python = python_of("ials_cg", given.peers)
    lines = [
        f"### ml-1m, a tenth of the items held out, k = {given.k}: NDCG@{cold.AT} of requests for these items",
        "",
        "| method | among all items | among the held-out items | seconds of training |",
        "|---|---|---|---|",
    ]
    split = cold.ColdSplit.read(given.data / "ml-1m", given.k, 0)
    rows = {"this library, square loss with default settings": cold.own(split)}
    if python is not None:
        rows["irspack iALS with features, CG"] = cold.irspack(split, python, cold.SETTINGS, given.threads)
    for name, (seconds, (everything, unseen)) in rows.items():
        lines.append(f"| {name} | {everything:.4f} | {unseen:.4f} | {seconds:.1f} |")
    lines += ["", f"{len(split.held):,} requests, {len(split.unseen)} of {len(split.features):,} items held out."]
    if python is None:
        return "\n".join(lines) + " Not installed, skipped: irspack.", []
    (ours, mine), (theirs, its) = rows.values()
    lines[-1] += " irspack: seconds to its best epoch, chosen on these requests; its settings on another hold-out."
    return "\n".join(lines), [
        Figure("new items: NDCG among all, relative to irspack", mine[0] / its[0], 1.0, large=True),
        Figure("new items: NDCG among the new, relative to irspack", mine[1] / its[1], 1.0, large=True),
        Figure("new items: share of irspack's seconds", ours / theirs, BARS["ials_cg"]),
    ]


def _race(ours: list[Run], theirs: list[Run], part: float) -> tuple[float, float | None, float]:
    """Compare median seconds to a share of the other method's best NDCG.

    Returns the other's seconds, ours (None if never reached), and their ratio.
    """
    its = [other.reached(part * other.best) or 0.0 for other in theirs]
    mine = [own.reached(part * other.best) for own, other in zip(ours, theirs, strict=True)]
    found = [seconds for seconds in mine if seconds is not None]
    if len(found) < len(mine):
        return statistics.median(its), None, float("inf")
    shares = (own / other for own, other in zip(found, its, strict=True))
    return statistics.median(its), statistics.median(found), statistics.median(shares)


def growth(given: argparse.Namespace) -> tuple[str, list[Figure]]:
    """Train on generated data of several sizes; compare lists at 1 and 2 threads."""
    results = []
    for size in given.sizes:
        results.append(_measured("sweep", size, given.k, given.threads))
        last = results[-1]
        print(f"{last['interactions']:,} interactions: {last['sweep']:.2f} s a sweep, {last['bytes']:.0f} bytes an interaction")
    each = [1e9 * one["sweep"] / one["interactions"] for one in results]
    lines = [
        f"### Growth, two fields besides the ids of both sides, k = {given.k}, {given.threads} threads",
        "",
        "| interactions | seconds to open | seconds a sweep | ns an interaction | peak bytes an interaction |",
        "|---|---|---|---|---|",
    ]
    for one, nanoseconds in zip(results, each, strict=True):
        row = (f"{one['interactions']:,}", f"{one['opening']:.2f}", f"{one['sweep']:.2f}", f"{nanoseconds:.0f}")
        lines.append(f"| {' | '.join(row)} | {one['bytes']:.0f} |")
    largest = results[-1]
    lines += [
        "",
        f"Where a sweep over {largest['interactions']:,} interactions goes ({largest['name']}):",
        "",
        *_profile(largest, given),
    ]
    same = _measured("agree", given.sizes[0], given.k)["agree"]
    lines += ["", f"Top-20 lists at 1 and 2 threads from one seed are the same in {100 * same:.2f} % of places."]
    bytes_each = [one["bytes"] for one in results]
    return "\n".join(lines), [
        Figure("seconds an interaction, largest of all sizes to the first", max(each) / each[0], FLAT),
        Figure("bytes an interaction, largest of all sizes to the first", max(bytes_each) / bytes_each[0], FLAT),
        Figure("top-20 lists at 1 and 2 threads, same places", same, SAME, large=True),
    ]


def _profile(one: dict[str, Any], given: argparse.Namespace) -> list[str]:
    available = one["wall"] * given.threads
    lines = ["| loop | share of thread time | GFLOP/s a thread | GB/s a thread |", "|---|---|---|---|"]
    seconds = flops = moved = 0.0
    for name, spent in sorted(one["kernels"].items(), key=lambda item: -item[1][0]):
        lines.append(
            f"| {name} | {spent[0] / available:.1%} | {spent[1] / spent[0] / 1e9:.1f} | {spent[2] / spent[0] / 1e9:.1f} |"
        )
        seconds, flops, moved = seconds + spent[0], flops + spent[1], moved + spent[2]
    lines.append(f"| tables of conjugate gradients, sums of shards, waiting | {1 - seconds / available:.1%} | | |")
    rates = flops / seconds * given.threads, moved / seconds * given.threads
    text = (
        f"While they run, the loops do {rates[0] / 1e9:.0f} GFLOP/s, {rates[0] / one['peak_flops']:.0%} of the"
        f" {one['peak_flops'] / 1e9:.0f} of a product of large matrices, and go through rows at {rates[1] / 1e9:.0f} GB/s,"
        f" {rates[1] / one['peak_bytes']:.0%} of the {one['peak_bytes'] / 1e9:.0f} at which memory is copied (most rows are in"
        " caches)."
    )
    return [*lines, "", text]


def _measured(what: str, *numbers: int) -> dict[str, Any]:
    command = [sys.executable, str(GROWTH), what, *(str(number) for number in numbers)]
    places = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=places)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def tune(given: argparse.Namespace) -> int:
    """Try every method's grid on a part of the training pairs.

    Prints all results, best first.
    """
    for name in AT:
        split = Split.read(name, given.data / name, tuning=True, requests=given.requests)
        for method in TITLES:
            python = python_of(method, given.peers)
            if python is None:
                print(f"{name} {TITLES[method]}: skipped, not installed")
                continue
            found = [
                (run(method, python, split, settings, given.k, given.threads, given.quick).best, json.dumps(settings))
                for settings in candidates(method)
            ]
            for best, settings in sorted(found, reverse=True):
                print(f"{name} {TITLES[method]}: {best:.4f} {settings}", flush=True)
    return 0


def _machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _command() -> str:
    return " ".join(["python", "scripts/benchmark_training.py", *sys.argv[1:]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("RECALL_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="folder of the data sets")
    parser.add_argument("--peers", type=Path, help="folder with the environments of the peers")
    parser.add_argument("--quick", action="store_true", help="one round, half the steps, two sizes: under ten minutes")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a criterion fails")
    parser.add_argument("--tune", action="store_true", help="search for settings instead, without the test part")
    parser.add_argument("--k", type=int, default=64, help="factors (default 64)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of every method (default all)")
    parser.add_argument("--rounds", type=int, help="runs of each method (default 3, with --quick 1)")
    parser.add_argument("--requests", type=int, default=6100, help="maximum number of evaluated users (default 6100)")
    parser.add_argument("--sizes", type=int, nargs="+", help="generated interactions (default 1, 3, 10 and 30 million)")
    parser.add_argument("--report", type=Path, default=ROOT / "docs" / "benchmarks.md", help="Markdown file for the results")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.sizes = given.sizes or [1_000_000, 3_000_000, *(() if given.quick else (10_000_000, 30_000_000))]
    return given


if __name__ == "__main__":
    sys.exit(main())
