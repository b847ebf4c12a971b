"""Benchmark the index against hardware limits and peers, on trained vectors.

    pip install -c constraints.txt '.[train,serve,bench]'     missing packages are skipped and reported
    python scripts/benchmark_index.py --worlds FOLDER --data DATA --docs docs/benchmarks.md
    python scripts/benchmark_index.py --worlds FOLDER --quick --check

Worlds are catalogues with users (scripts/index/worlds.py): generated shops of 100,000 and 1 million items, and gowalla and
ml-1m if DATA contains them. They are kept in FOLDER and trained if missing; the large one takes about ten minutes. `--quick`
uses existing worlds, without graphs of a million vectors, whose construction takes almost half an hour, and without growth.
`--few` only compares a Faiss IndexFlatIP with the cells for small catalogues. `--check` exits with 1 if a criterion fails, and
names it.

Searches are for the top 100, one at a time, on one thread, interleaved; times are CPU time. Settings are chosen on one half of
the users and measured on the other.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
from figures import Figure, table
from index import contenders, worlds
from index.few import beside_the_cells
from index.growth import grow
from index.measure import Point, Truth, cheapest, in_turn, seconds_of
from index.memory import ready_and_shared
from index.serving import certified, upsert_latency
from index.streaming import Stream
from report_sections import replace_section

from recall._arrays import Float32
from recall.config import IndexConfig
from recall.index.bitmap import RowBitmap
from recall.index.cells.index import CellIndex

N = 100
TARGETS = (0.95, 0.99)
SHARES = (0.001, 0.01, 0.1, 0.5)
OURS = "recall cells"
GRAPHS = ("hnswlib", "usearch", "voyager")
_SHOPS = {"shop50k": 50_000, "shop100k": 100_000, "shop1m": 1_000_000}
_LARGE = 200_000
_CHOOSING = 400  # users to choose settings with, and as many to measure with


@dataclass
class Report:
    """Collects the report."""

    figures: list[Figure] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        """Print a line and add it to the report."""
        print(*lines, sep="\n", flush=True)
        self.lines.extend(lines)


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    folder = arguments.worlds or Path(tempfile.mkdtemp(prefix="benchmark-index-"))
    if arguments.few:
        return _only_few(arguments, folder)
    report = Report()
    began = time.perf_counter()
    faiss.omp_set_num_threads(1)
    names = contenders.installed()
    missing = sorted(set(contenders.KINDS) - set(names))
    report.say(
        f"{platform.machine()}, one thread, lists of {N}. Peers: {', '.join(names)}."
        + (f" Not installed, skipped: {', '.join(missing)}." if missing else ""),
        "",
    )
    opened = list(_worlds(folder, arguments))
    largest = max((world for world in opened), key=lambda one: len(one.items))
    report.say(
        "| catalogue | items | dim | length p50 / p99 / max | directions with half, 90 % of the variance |", "|---" * 5 + "|"
    )
    for world in opened:
        about = world.about
        report.say(
            f"| {world.name} | {len(world.items):,} | {world.items.shape[1]} "
            f"| {about['length_p50']:.2f} / {about['length_p99']:.2f} / {about['length_max']:.2f} "
            f"| {about['directions_for_half']}, {about['directions_for_90']} |"
        )
    for world in opened:
        indexes = _compare(report, world, names, arguments.quick)
        _filters(report, world, indexes, large=world is largest)
    _exact(report, largest)
    _few(report, largest)
    # tuning a million vectors takes minutes
    _certificates(report, [world for world in opened if not arguments.quick or len(world.items) <= _LARGE])
    if arguments.upserts:
        report.figures.append(upsert_latency(arguments.upserts))
    report.say("", *table(report.figures), "", f"{time.perf_counter() - began:.0f} s in all.")
    if not arguments.quick:
        grown = grow(largest, N, 0.99, arguments.docs.parent if arguments.docs else folder, arguments.most)
        report.say("", "Growth:", "", *grown)
    if arguments.docs:
        replace_section(
            arguments.docs, "index", "\n".join(["### The index", "", f"    {_command(arguments)}", "", *report.lines])
        )
    missed = [one for one in report.figures if one.missed]
    for one in missed:
        print(f"missed: {one.name}: {one.value:.3g}, at least {one.least:.3g} is required", file=sys.stderr)
    return 1 if arguments.check and missed else 0


def _worlds(folder: Path, arguments: argparse.Namespace) -> Iterator[worlds.World]:
    """Yield the catalogues, small ones first, after creating missing ones."""
    only = arguments.only or ("ml-1m", "gowalla", "shop100k", "shop1m")
    for name in only:
        if not (folder / name / "about.json").exists():
            _make(folder / name, arguments)
        if (folder / name / "about.json").exists():
            yield worlds.open_world(folder / name)


def _make(folder: Path, arguments: argparse.Namespace) -> None:
    if folder.name in _SHOPS:
        if folder.name != "shop1m" or not arguments.quick:
            worlds.make_shop(folder, _SHOPS[folder.name])
        return
    toml = Path(__file__).parent.parent / "examples" / f"{folder.name}.toml"
    data = arguments.data / folder.name if arguments.data else None
    if not arguments.quick and toml.exists() and data is not None and data.is_dir():
        worlds.make_split(folder, toml, data)


def _compare(report: Report, world: worlds.World, names: Sequence[str], quick: bool) -> dict[float, CellIndex]:
    """Measure every contender at every target; return this project's index at each."""
    fitting, choosing, measuring = _users(world)
    large = len(world.items) > _LARGE
    truth, fresh = Truth.of(world.items, choosing, N), Truth.of(world.items, measuring, N)
    built: list[tuple[contenders.Contender, float]] = []
    for name in names:
        if name in GRAPHS and large and (quick or name != "hnswlib"):
            continue  # a graph of a million vectors takes many minutes
        began = time.process_time()
        one = contenders.KINDS[name][1](world.items, fitting, 2)
        built.append((one, time.process_time() - began))
    report.say("", f"{world.name}, {len(world.items):,} items:", "")
    report.say(
        "| | build, CPU s | " + " | ".join(f"recall {one}: queries a second" for one in TARGETS) + " |", "|---" * 4 + "|"
    )
    ours: dict[float, CellIndex] = {}
    texts: dict[tuple[str, float], str] = {}
    for target in TARGETS:
        points = {one.name: cheapest(one, truth, target) for one, _ in built}
        if isinstance(setting := points[OURS].setting, CellIndex):
            ours[target] = setting
        seconds = in_turn({name: partial(_searched, point) for name, point in points.items()}, measuring)
        rates = {name: 1 / one for name, one in seconds.items()}
        for name, point in points.items():
            share = float(fresh.shares([_searched(point, user) for user in measuring]).mean())
            texts[name, target] = f"{rates[name]:,.0f} at {share:.4f}" + ("" if point.reached else "; the maximum")
        if world.name.startswith("shop"):
            _against(report, world.name, rates, points, "hnswlib", target, (2.5, 5.0))
        _against(report, world.name, rates, points, "ScaNN", target, (0.7, 1.0))
    for one, spent in built:
        report.say(f"| {one.name} | {spent:.1f} | " + " | ".join(texts[one.name, target] for target in TARGETS) + " |")
    return ours


def _against(
    report: Report,
    world: str,
    rates: dict[str, float],
    points: dict[str, Point],
    peer: str,
    target: float,
    bars: tuple[float, float],
) -> None:
    """Compare with a peer, at its best recall if it does not reach the target."""
    name = f"{world}: queries a second at recall {target}, times {peer}'s"
    if peer not in rates:
        report.figures.append(Figure(name, None, *bars, note="left out"))
        return
    short = "" if points[peer].reached else f"at the {points[peer].recall:.3f} that {peer} reaches at most"
    best = max(((rate, one) for one, rate in rates.items() if one != OURS and points[one].reached), default=None)
    peers = f"{rates[OURS] / best[0]:.2g} times the best peer's, {best[1]}" if best else "not reached by any peer"
    report.figures.append(Figure(name, rates[OURS] / rates[peer], *bars, note=", ".join(filter(None, (short, peers)))))


def _filters(report: Report, world: worlds.World, indexes: dict[float, CellIndex], *, large: bool) -> None:
    """Measure recall and time with random filters, each repeated."""
    index = indexes[0.99]
    _, _, measuring = _users(world)
    rng = np.random.default_rng(0)
    report.say(
        "",
        f"{world.name} under filters, tuned for .99:",
        "",
        "| eligible | recall | exact | time against no filter | first time |",
    )
    report.say("|---" * 5 + "|")
    searches: dict[str, Callable[[Float32], object]] = {"all": lambda user: index.search(user[None], N)}
    first: dict[float, float] = {}
    found: dict[float, tuple[float, float]] = {}
    for share in SHARES:
        chosen = RowBitmap.of_mask(rng.random(len(world.items)) < share)
        searches[str(share)] = search = partial(_filtered, index, chosen)
        first[share] = seconds_of(search, measuring[:1])
        truth = Truth.of(world.items[chosen.rows], measuring[:200], min(N, chosen.count))
        place = np.full(len(world.items), -1)
        place[chosen.rows] = np.arange(chosen.count)
        hits = [index.search(user[None], truth.n, None, [chosen]) for user in truth.users]
        found[share] = (
            float(truth.shares([place[hit.rows[0]] for hit in hits]).mean()),
            float(np.mean([hit.exact[0] for hit in hits])),
        )
    seconds = in_turn(searches, measuring)
    for share in SHARES:
        ratio = seconds[str(share)] / seconds["all"]
        recall, exact = found[share]
        report.say(f"| {share:.1%} | {recall:.4f} | {exact:.0%} | {ratio:.2f} | {first[share] * 1e3:.2f} ms |")
        report.figures.append(Figure(f"{world.name}: recall under a filter that leaves {share:.1%}", recall, 0.985, 0.99))
        if share == 0.01 and large:
            report.figures.append(Figure(f"{world.name}: time with a 1 % filter against none", ratio, 1.0, 0.3, "less"))


def _exact(report: Report, world: worlds.World) -> None:
    """Time exact search over the largest catalogue, one query and a batch of 64."""
    fitting, choosing, measuring = _users(world)
    index = CellIndex.build(world.items, fitting, 0, 2)
    looked = np.mean([index.scanned(user, N)[1] for user in measuring[:20]])
    size = index.codes.codes[0].nbytes / 16 + 4  # the codes of an item and its scale
    stream = Stream(int(looked * size))
    flat = faiss.IndexFlatIP(world.items.shape[1])
    flat.add(world.items)
    usual = faiss.cvar.distance_compute_blas_threshold
    one = in_turn({"stream": lambda _: stream.read(), "ours": lambda user: index.search(user[None], N),
                   "faiss": lambda user: flat.search(user[None], N)}, measuring[:72])  # fmt: skip
    batch = np.ascontiguousarray(choosing[:64])
    faiss.cvar.distance_compute_blas_threshold = _DEFAULT_BLAS
    together = in_turn({"ours": lambda _: index.search(batch, N), "faiss": lambda _: flat.search(batch, N)}, measuring[:4], 3)
    faiss.cvar.distance_compute_blas_threshold = usual
    width = f"{len(world.items):,} x {world.items.shape[1]}"
    share = (looked * size / one["ours"]) / (stream.nbytes / one["stream"])
    note = (
        f"{one['ours'] * 1e3:.2f} ms and {looked / len(world.items):.0%} of the items; memory is read at "
        f"{stream.nbytes / one['stream'] / 1e9:.1f} GB/s; faiss takes {one['faiss'] / one['ours']:.1f} times as long"
    )
    report.figures.append(Figure(f"exact, one query, {width}: share of streaming bandwidth", share, 0.55, 0.8, note=note))
    ratio = together["faiss"] / together["ours"]
    note = f"{together['ours'] / 64 * 1e3:.2f} ms a query"
    report.figures.append(Figure(f"exact, batch of 64, {width}: times faiss's default", ratio, 6, 10, note=note))
    report.figures.extend(ready_and_shared(world, index, N))


def _few(report: Report, world: worlds.World) -> None:
    """Compare a Faiss IndexFlatIP with the cells over few items of a world."""
    report.say(
        "", f"Few items of {world.name}, each query without 100 seen ones:", "", *beside_the_cells(world, report.figures)
    )


def _only_few(arguments: argparse.Namespace, folder: Path) -> int:
    """Run only the comparison over few items, in a separate section.

    Returns the exit code.
    """
    name = (arguments.only or ["shop50k"])[0]
    if not (folder / name / "about.json").exists():
        _make(folder / name, arguments)
    report = Report()
    faiss.omp_set_num_threads(1)
    _few(report, worlds.open_world(folder / name))
    if report.figures:
        report.say("", *table(report.figures))
    if arguments.docs:
        text = [
            "### The index of few items",
            "",
            f"    {_command(arguments)}",
            "",
            f"{platform.machine()}, one thread.",
            *report.lines,
        ]
        replace_section(arguments.docs, "index of few items", "\n".join(text))
    return 1 if arguments.check and any(one.missed for one in report.figures) else 0


def _certificates(report: Report, opened: Sequence[worlds.World]) -> None:
    """Tune an index for each catalogue as an export does, and test it on fresh users."""
    report.say("", "| tuned for .99 | chosen | certificate | recall of fresh users | seconds |", "|---" * 5 + "|")
    wrong = 0
    for world in opened:
        one = certified(world, IndexConfig(target=0.99, n=N, exact_up_to=0))
        fresh = f"{one.mean:.4f} ± {one.deviation:.4f}"
        report.say(f"| {world.name} | {one.chosen} | at least {one.lower:.4f} | {fresh} | {one.seconds:.0f} |")
        wrong += one.mean + 2 * one.deviation < one.lower
    name = "tuned indexes whose recall on fresh users is significantly below their certificate"
    report.figures.append(Figure(name, wrong, 0, 0, "less", f"of {len(opened)}"))


def _users(world: worlds.World) -> tuple[Float32, Float32, Float32]:
    """Return users to train indexes, to choose settings, and to measure."""
    half = len(world.users) // 2
    return world.users[: half - _CHOOSING], world.users[half - _CHOOSING : half], world.users[half : half + _CHOOSING]


def _searched(point: Point, user: Float32) -> npt.NDArray[np.int64]:
    return point.contender.search(user, N, point.setting)


def _filtered(index: CellIndex, chosen: RowBitmap, user: Float32) -> object:
    return index.search(user[None], N, None, [chosen])


_DEFAULT_BLAS = 128_000
"""The default of Faiss 1.15, which opening an index of this project lowers."""


def _command(arguments: argparse.Namespace) -> str:
    words = ["python scripts/benchmark_index.py --worlds FOLDER"]
    return " ".join([*words, *(["--data DATA"] if arguments.data else []), *(["--quick"] if arguments.quick else []),
                     *(["--few"] if arguments.few else [])])  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=Path, help="folder of the catalogues (default: a temporary one)")
    parser.add_argument("--data", type=Path, help="folder with the public splits")
    parser.add_argument("--quick", action="store_true", help="under ten minutes: without large graphs and growth")
    parser.add_argument("--few", action="store_true", help="only compare IndexFlatIP with the cells over few items")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a criterion fails")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="catalogues to use (default: all)")
    parser.add_argument("--upserts", type=float, default=10, metavar="SECONDS", help="seconds of upserts; 0 for none")
    parser.add_argument("--most", type=int, default=10_000_000, help="items of the largest step of growth")
    parser.add_argument("--docs", type=Path, help="Markdown file with the section to replace")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
