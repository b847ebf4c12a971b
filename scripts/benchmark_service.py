"""Measure the service's overhead over the search itself, and its latency.

The real server answers known users over HTTP.

    python scripts/benchmark_service.py --folder FOLDER --check
    python scripts/benchmark_service.py --folder FOLDER --quick --check
    python scripts/benchmark_service.py --bundle bundles --rate 100 --seconds 20
    python scripts/benchmark_service.py --bundle bundles --nginx --against ../older

Bundles of generated shops with 100,000 and 1 million items are kept in FOLDER, and created if missing; `--quick` uses the
large one only if it exists. `--check` exits with 1 if a criterion fails, and names it. With `--bundle`, one bundle is measured
under an open load, and the report printed as JSON. With `--nginx`, the CPU time per request behind nginx with its default
settings is printed, for this checkout and for others in turn; all must be able to read the bundle.

The service and a bare ASGI application, which calls the same index and writes the same bytes, alternate on one core; the
client has another. Latency is measured from the scheduled send time.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from figures import Figure, table
from report_sections import replace_section
from serving.closed import closed_load
from serving.nginx import DEFAULTS, nginx
from serving.open import open_load
from serving.processes import Served, bare_application, pinned, service
from serving.shop import build, requests_of, users_of

from recall.serving.recommender import Recommender
from recall.serving.request import Request

N = 100
CONNECTIONS = 8
_USERS = 1000
_MANY_USERS = 20_000  # enough for each to be evicted before it is requested again
_STEP = 7919
_OURS, _BARE, _NEW = "the service", "bare ASGI", "the service, users not cached"
_SIZES = {"100k": 100_000, "1m": 1_000_000}
_SERVER, _SENDER = 0, 1  # cores


@dataclass(frozen=True)
class Report:
    """Latencies in milliseconds from the scheduled send time.

    `server_cpu_us` is the server's CPU time per request.
    """

    items: int
    index: str
    n: int
    rate: float
    achieved: float
    requests: int
    failed: int
    p50: float
    p95: float
    p99: float
    worst: float
    server_cpu_us: float
    server_peak_mb: float


def main() -> int:
    """Run from the command line; return the exit code."""
    given = _arguments()
    if given.bundle and given.nginx:
        behind_nginx(given.bundle, [Path(__file__).absolute().parents[1], *given.against], given.seconds / 10, given.n)
        return 0
    if given.bundle:
        report = measure(given.bundle, given.rate, given.seconds, given.n, given.seed)
        print(json.dumps(asdict(report), indent=2))
        return 1 if report.failed else 0
    began = time.perf_counter()
    lines: list[str] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-service-") as scratch:
        roots = dict(_bundles(given.folder or Path(scratch), quick=given.quick))
        seconds, rounds = (0.5, 12) if given.quick else (1, 24)
        capacity = 0.0
        for name, root in roots.items():
            capacity = _beside_bare(lines, figures, name, root, seconds, rounds) if name == "100k" else capacity
            if name != "100k":
                _beside_bare(lines, figures, name, root, seconds, rounds)
                figures.append(_two_workers(root, seconds, rounds))
        report = measure(roots["100k"], capacity / 2, 10 if given.quick else 30, N, 0)
        note = f"p50 {report.p50:.2f} ms, worst {report.worst:.1f} ms at {report.rate:.0f} requests a second"
        figures.append(Figure("p99 at half of capacity, 100k items, ms", report.p99, 10, 5, "less", note))
        figures.append(_encoding(roots["100k"]))
    lines += ["", *table(figures)]
    print(*lines, f"{time.perf_counter() - began:.0f} s in all.", sep="\n")
    if given.docs:
        write(given.docs, lines, quick=given.quick)
    return verdict(figures, report.failed, check=given.check)


def write(docs: Path, lines: Sequence[str], *, quick: bool) -> None:
    """Write the results to a section of a Markdown file."""
    command = f"    python scripts/benchmark_service.py --folder FOLDER{' --quick' if quick else ''}"
    text = "\n".join(["### The service", "", command, "", f"{platform.machine()}, lists of {N}.", "", *lines])
    replace_section(docs, "service", text)


def verdict(figures: Sequence[Figure], failed: int, *, check: bool) -> int:
    """Name every failed criterion, and requests that were not answered.

    Returns the exit code, 0 unless `check`.
    """
    missed = [f"{one.name}: {one.value:.3g}, {one.least:.3g} is required" for one in figures if one.missed]
    if failed:
        missed.append(f"{failed} requests of the open load were not answered")
    for one in missed:
        print(f"missed: {one}", file=sys.stderr)
    return 1 if check and missed else 0


def _bundles(folder: Path, *, quick: bool) -> Iterator[tuple[str, Path]]:
    for name, items in _SIZES.items():
        root = folder / name / "bundles"
        if not root.is_dir():
            if quick and name != "100k":
                continue
            root.parent.mkdir(parents=True, exist_ok=True)
            build(root.parent, items, 64, 0)
        yield name, root


def _beside_bare(lines: list[str], figures: list[Figure], name: str, root: Path, seconds: float, rounds: int) -> float:
    """Measure the service's share of the bare application's throughput.

    Returns the service's requests a second.
    """
    requests, strangers = requests_of(users_of(root, _USERS, 0), N), requests_of(users_of(root, _MANY_USERS, 1), N)
    with service(root, core=_SERVER) as ours, bare_application(root, _USERS, N, core=_SERVER) as bare:
        loads = {_OURS: (ours, requests), _BARE: (bare, requests), _NEW: (ours, strangers)}
        rates, costs = _in_turn(loads, seconds, rounds)
    if not lines:
        lines += ["| | items | requests a second | CPU us a request |", "|---|---|---|---|"]
    for who in loads:
        lines.append(f"| {who} | {name} | {median(rates[who]):,.0f} | {median(costs[who]):.0f} |")
    share, first = _ratio(rates[_OURS], rates[_BARE]), _ratio(rates[_NEW], rates[_BARE])
    least, aim = (0.7, 0.85) if name == "100k" else (0.85, 0.95)
    by_cpu = _ratio(costs[_BARE], costs[_OURS])
    note = f"{by_cpu:.2f} by CPU time, and {first:.2f} if users are not cached; one core, {CONNECTIONS} connections"
    what = f"recommend, {N} results, {name} items: requests a second against bare ASGI"
    figures.append(Figure(what, share, least, aim, note=note))
    return median(rates[_OURS])


def _two_workers(root: Path, seconds: float, rounds: int) -> Figure:
    requests = requests_of(users_of(root, _USERS, 0), N)
    with service(root) as one, service(root, "--workers", "2") as two:
        loads = {"one": (one, requests), "two": (two, requests)}
        rates, _ = _in_turn(loads, seconds, rounds, sender=None, connections=2 * CONNECTIONS)
    one_a_second, two_a_second = median(rates["one"]), median(rates["two"])
    note = f"{one_a_second:,.0f} and {two_a_second:,.0f} requests a second; the client runs on the same cores"
    return Figure("two workers against one, 1m items", _ratio(rates["two"], rates["one"]), 1.9, 2.0, note=note)


def _ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Median over the rounds.

    Other load on the machine lasts for seconds, and affects both sides of a round.
    """
    return median(one / other for one, other in zip(of, to, strict=True))


def _in_turn(
    loads: Mapping[str, tuple[Served, Sequence[bytes]]],
    seconds: float,
    rounds: int,
    sender: int | None = _SENDER,
    connections: int = CONNECTIONS,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return requests a second and server microseconds per request, by round.

    The first round is not counted.
    """
    rates: dict[str, list[float]] = {name: [] for name in loads}
    costs: dict[str, list[float]] = {name: [] for name in loads}
    with pinned(sender):
        for number in range(rounds + 1):
            for name, (served, requests) in loads.items():
                first = _STEP * number % len(requests)  # each round starts with other users
                before = served.cpu_seconds()
                load = closed_load(served.port, [*requests[first:], *requests[:first]], connections, seconds)
                if set(load.statuses) != {200}:
                    raise SystemExit(f"{name} answered {dict(load.statuses)}")
                rates[name].append(load.rate)
                costs[name].append(1e6 * (served.cpu_seconds() - before) / load.statuses.total())
    return {name: one[1:] for name, one in rates.items()}, {name: one[1:] for name, one in costs.items()}


def measure(bundle: Path, rate: float, seconds: float, n: int, seed: int) -> Report:
    """Load the service over a bundle with Poisson arrivals."""
    requests = requests_of(users_of(bundle, _USERS, seed), n)
    with service(bundle, core=_SERVER) as served, pinned(_SENDER):
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/v1/info") as answer:
            info = json.load(answer)
        open_load(served.port, requests, rate, min(2.0, seconds), seed + 1)  # warm
        before, start = served.cpu_seconds(), time.perf_counter()
        latencies, statuses = open_load(served.port, requests, rate, seconds, seed)
        took = time.perf_counter() - start
        used, peak = served.cpu_seconds() - before, served.peak_mb()
    p50, p95, p99, worst = np.percentile(np.array(latencies) * 1000, [50, 95, 99, 100]).round(3).tolist()
    failed = sum(status != 200 for status in statuses)
    achieved = round((len(statuses) - failed) / took, 1)
    cpu = round(used / len(statuses) * 1e6, 1)
    sizes, index = info["sizes"]["items"], info["index"]
    return Report(sizes, index, n, round(rate, 1), achieved, len(statuses), failed, p50, p95, p99, worst, cpu, round(peak, 1))


def behind_nginx(bundle: Path, trees: Sequence[Path], seconds: float, n: int, rounds: int = 10) -> None:
    """Print the processor time of a request behind nginx with its defaults.

    Args:
        bundle: published bundles.
        trees: checkouts that alternate on one core; the others are also reported relative to the last one.
        seconds: duration of the load on each in each round.
        n: results per request.
        rounds: number of counted rounds.
    """
    requests = requests_of(users_of(bundle, _USERS, 0), n)
    with ExitStack() as stack:
        loads = {}
        for tree in trees:
            served = stack.enter_context(service(bundle, core=_SERVER, tree=tree.absolute()))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-nginx-")))
            folder.chmod(0o755)
            front = stack.enter_context(nginx(folder, DEFAULTS, served.port))
            loads[str(tree)] = (replace(served, port=front.port), requests)
        _, costs = _in_turn(loads, seconds, rounds)
    for name, one in costs.items():
        relative = _ratio(one, costs[str(trees[-1])])
        print(f"{name}: {median(one):.0f} us of CPU time per request behind nginx, {relative:.2f} of {trees[-1]}")


def _encoding(root: Path) -> Figure:
    """Measure the work before the search.

    Looking up and encoding the values of a known user, and computing the vector.
    """
    recommender = Recommender.load(root, pause=None)
    requests = [Request(user_id=one, n=N) for one in users_of(root, _USERS, 0)]
    whole = _microseconds(lambda request: recommender.user_vectors([request]), requests)
    encoder, tables = recommender.bundle.encoder, recommender.bundle.tables
    records = [recommender.users.get(one.user_id or "") for one in requests]
    values = [
        ({**record.features, encoder.schema.user_id: request.user_id}, record.history)
        for record, request in zip(records, requests, strict=True)
        if record is not None
    ]
    alone = _microseconds(lambda one: tables.user_parts(encoder.encode_user(*one).rows), values)
    recommender.close()
    note = f"with user lookup, history lookup and validation of the request {whole:.0f} us"
    return Figure("user vector and encoding, us a request", alone, 100, 40, "less", note)


def _microseconds(act: Callable[[Any], object], over: Sequence[Any]) -> float:
    times = []
    for _ in range(6):
        began = time.thread_time()
        for one in over:
            act(one)
        times.append(time.thread_time() - began)
    return 1e6 * median(times[1:]) / len(over)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder of the bundles (default: a temporary one)")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, without creating a bundle of a million items")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a criterion fails")
    parser.add_argument("--docs", type=Path, help="Markdown file with the section to replace")
    parser.add_argument("--bundle", type=Path, help="measure this bundle under an open load")
    parser.add_argument("--nginx", action="store_true", help="with --bundle: CPU time behind nginx with its defaults")
    parser.add_argument(
        "--against", type=Path, action="append", default=[], metavar="TREE", help="with --nginx: another checkout"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="with --bundle: requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="with --bundle")
    parser.add_argument("--n", type=int, default=N, help="with --bundle: results per request")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
