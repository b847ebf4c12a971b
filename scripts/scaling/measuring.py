"""Measurements of one size each, kept in a JSON file with how they were made.

Each runs in a new process, so that peaks of memory are separate.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCRIPT = Path(__file__).parents[1] / "scale_plan.py"
K = 64
N = 100  # length of lists
WORLD = "RECALL_WORLD_ITEMS"
SHARDS = (1, 2, 4, 8)
Figures = dict[str, Any]
_COLUMNS = ("category", "brand", "tags", "price")  # of items, that fields of the shop read


def index(items: int, folder: Path) -> Figures:
    """Build and search an index of vectors that are mapped from a file."""
    from index.growth import measured

    world = _world(folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        return {"shop": len(world.items), **asdict(measured(world, items, N, 0.99, Path(scratch)))}


def shards(items: int, folder: Path) -> Figures:
    """Search one catalogue as a whole and in parts of a random cut, at one effort."""
    from index.growth import catalogue, queries, tune
    from index.measure import Truth

    from recall.index.cells.index import CellIndex

    world = _world(folder)
    vectors = catalogue(world.items, items)
    fitting, asked, fresh = queries(world)
    effort = tune(CellIndex.build(vectors, fitting, 0, 2), Truth.of(vectors, asked, N), 0.99).effort
    truth, order, found = Truth.of(vectors, fresh, N), np.random.default_rng(0).permutation(items), {}
    for count in SHARDS:
        rows = [np.sort(part) for part in np.array_split(order, count)]
        parts = [
            CellIndex.build(np.ascontiguousarray(vectors[one]), fitting, 0, 2).with_search_param(effort, 1) for one in rows
        ]
        spent, best = [], []
        for user in fresh:
            began = time.thread_time()
            hits = [part.search(user[None], N) for part in parts]
            spent.append(time.thread_time() - began)
            among = np.concatenate([one[hit.rows[0]] for one, hit in zip(rows, hits, strict=True)])
            best.append(among[np.argsort(-np.concatenate([hit.scores[0] for hit in hits]), kind="stable")[:N]])
        found[str(count)] = {"us": 1e6 * float(np.median(spent)), "recall": float(truth.shares(best).mean())}
    return {"items": items, "shards": found}


def processes(items: int, folder: Path) -> Figures:
    """Open an index in two processes that share it."""
    from index.growth import catalogue, queries
    from index.memory import opened_twice
    from index.worlds import World

    from recall.index.cells.index import CellIndex

    world = _world(folder)
    vectors = catalogue(world.items, items)
    built = CellIndex.build(vectors, queries(world)[0], 0, 2)
    return {"items": items, **asdict(opened_twice(World("", vectors, world.users, {}), built, N))}


def training(interactions: int, folder: Path) -> Figures:
    """Run `recall train`, and take memory and time of its stages."""
    from benchmark_memory import measure

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        stages = measure(interactions, Path(scratch), prepared=False)
    return {"interactions": interactions, "stages": {name: stage._asdict() for name, stage in stages.items()}}


def solver(interactions: int, folder: Path) -> Figures:  # noqa: ARG001 - as the others
    """Sweep over generated pairs, without tables and fields around them."""
    from training.growth import sweep

    return {name: value for name, value in sweep(interactions, K, 2).items() if name != "kernels"}


def export(items: int, folder: Path) -> Figures:
    """Publish a catalogue of ten features an item."""
    from benchmark_export import measure

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _, figures = measure(items, K, Path(scratch))
    return {name: figures[name] for name in ("items", "seconds", "processor_seconds", "peak_bytes", "bytes", "files")}


def delivery(items: int, folder: Path) -> Figures:
    """Compare the files of a version with those of a compaction and a rebuild.

    A replica fetches files whose digest none of its versions has.
    """
    import polars as pl

    from recall.bundle.manifest import Manifest
    from recall.bundle.versions import resolve
    from recall.publish.derived import compact
    from recall.publish.rebuild import rebuild
    from recall.serving.recommender import Recommender

    root = _shop(folder, items)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy, table = Path(scratch) / "root", Path(scratch) / "items.parquet"
        shutil.copytree(root, copy, copy_function=os.link)
        version = Manifest.read(resolve(copy)).files
        known = {entry.sha256 for entry in version.values()}
        found: Figures = {"items": items, "files": {name: entry.bytes for name, entry in version.items()}}

        def fetched(name: str) -> None:
            made = Manifest.read(resolve(copy)).files
            found[name] = {file: entry.bytes for file, entry in made.items() if entry.sha256 not in known}
            known.update(entry.sha256 for entry in made.values())

        with Recommender.load(copy, users=None) as live:
            found["users"] = len(live.users)
            live.items.upsert({f"new-{number}": {"price": 1.0} for number in range(100)})
        compact(copy)
        fetched("compaction of 100 new items")
        held = pl.read_parquet(root.parent / "items.parquet", columns=["item_id", *_COLUMNS])
        held.with_columns(
            pl.when(pl.int_range(pl.len()) % 100 == 0).then(1.0).otherwise(pl.col("price")).alias("price")
        ).write_parquet(table)
        rebuild(copy, table, copy)
        fetched("rebuild with other prices of 1 %")
    return found


def users(count: int, folder: Path) -> Figures:
    """Write users and interactions into a Redis, and read its memory."""
    from serving.cluster_users import opened
    from serving.redis_servers import Redis

    from recall.store.users.changes import InteractionEvent, UserPut

    named = [f"user-{number:08}" for number in range(count)]
    parts = [named[first : first + 500] for first in range(0, count, 500)]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        redis = Redis(Path(scratch) / "redis", "--appendfsync", "everysec")

        def held() -> int:
            return int(redis.client.info("memory")["used_memory"])

        def take(number: int, key: str | None) -> None:
            for place, some in enumerate(parts):
                item = f"item-{(7919 * number + place) % 100_000:06}"
                store.write([InteractionEvent(one, item, None, "0" * 16) for one in some], key and f"{key}-{place}")

        try:
            store, before = opened(redis.url, 30.0), held()
            for some in parts:
                store.write([UserPut(one, {"country": "fr"}, (), ()) for one in some])
            put = held()
            for number in range(_TAKEN):
                take(number, None)
            took = held()
            take(_TAKEN, "0123456789abcdef0123456789abcdef")
            keyed = held()
            store.close()
        finally:
            redis.kill()
    each = (took - put) / count / _TAKEN
    figures = {"bytes": (put - before) / count, "bytes_interaction": each, "bytes_key": (keyed - took) / count - each}
    return {"users": count, "interactions": _TAKEN, **figures}


_TAKEN = 20


def changes(count: int, folder: Path) -> Figures:
    """Change items of a shop in batches of a hundred; load them again."""
    import polars as pl

    from recall.serving.recommender import Recommender

    root, drawn = _shop(folder, 10_000), np.random.default_rng(0)
    items = pl.read_parquet(root.parent / "items.parquet", columns=list(_COLUMNS))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy = Path(scratch) / "root"
        shutil.copytree(root, copy, copy_function=os.link)
        with Recommender.load(copy, users=None) as live:
            before, worked, began = _resident(), time.process_time(), time.perf_counter()
            for first in range(0, count, 100):
                some = items[drawn.integers(0, len(items), 100)].to_dicts()
                live.items.upsert({f"new-{first + place}": one for place, one in enumerate(some)})
            seconds, cpu, held = time.perf_counter() - began, time.process_time() - worked, _resident() - before
        log = sum(one.stat().st_size for one in copy.glob("journal.sqlite*"))
        began = time.perf_counter()
        Recommender.load(copy, users=None).close()
        loading = time.perf_counter() - began
    return {"changes": count, "seconds": seconds, "cpu": cpu, "log_bytes": log, "memory": held, "loading": loading}


def service(items: int, folder: Path) -> Figures:
    """Ask a service on one core for lists of a hundred items."""
    from serving.closed import closed_load
    from serving.open import open_load
    from serving.processes import pinned
    from serving.processes import service as served
    from serving.shop import requests_of, users_of

    root = _shop(folder, items)
    asked = requests_of(users_of(root, 1_000, 0), N)
    with served(root, core=0) as one, pinned(1):
        closed_load(one.port, asked, 8, 2)
        worked = one.cpu_seconds()
        load = closed_load(one.port, asked, 8, 6)
        us = 1e6 * (one.cpu_seconds() - worked) / sum(load.statuses.values())
        latencies, statuses = open_load(one.port, asked, load.rate / 2, 15, 0)
        peak = one.peak_mb()
    ms = 1e3 * np.quantile(latencies, np.linspace(0, 1, 201) ** (1 / 4))
    if failed := sum(status != 200 for status in statuses):
        raise RuntimeError(f"{failed} of {len(statuses)} requests failed")
    return {
        "items": items,
        "rate": load.rate,
        "us": us,
        "peak_mb": peak,
        "quantiles_ms": [round(one, 3) for one in ms.tolist()],
    }


class Measurement(NamedTuple):
    """A measurement and the sizes it is made at.

    Attributes:
        run: measures one size.
        minutes: by size, on two cores.
    """

    run: Callable[[int, Path], Figures]
    minutes: Mapping[int, float]


MEASUREMENTS = {
    "index": Measurement(index, {100_000: 0.1, 1_000_000: 0.5, 3_000_000: 1.5, 10_000_000: 4, 30_000_000: 12}),
    "shards": Measurement(shards, {300_000: 0.3, 1_000_000: 1}),
    "processes": Measurement(processes, {1_000_000: 0.5}),
    "export": Measurement(export, {100_000: 0.2, 300_000: 0.3, 1_000_000: 0.7}),
    "delivery": Measurement(delivery, {10_000: 0.4, 40_000: 0.8}),
    "users": Measurement(users, {10_000: 0.2}),
    "changes": Measurement(changes, {10_000: 0.4}),
    "service": Measurement(service, {10_000: 0.6, 40_000: 0.9, 1_000_000: 6}),
    "solver": Measurement(solver, {1_000_000: 0.2, 3_000_000: 0.3, 10_000_000: 0.9, 30_000_000: 3}),
    "training": Measurement(training, {300_000: 0.4, 1_000_000: 0.9, 3_000_000: 2.5, 10_000_000: 8, 30_000_000: 25}),
}
"""Names, and default sizes with about how long they take."""


def measure(names: Sequence[str], sizes: Sequence[int], most: float, folder: Path, out: Path, *, again: bool) -> None:
    """Run measurements that the file lacks, the shortest first; save each at once.

    Args:
        names: in `MEASUREMENTS`.
        sizes: that replace the default ones; none to keep those.
        most: minutes of a measurement that is run; longer ones are left out.
        folder: for catalogues that several measurements share.
        out: JSON file with the measurements.
        again: also repeat measurements that the file has.
    """
    planned = {name: MEASUREMENTS[name].minutes if not sizes else dict.fromkeys(sizes, 0.0) for name in names}
    order = sorted((minutes, name, size) for name, found in planned.items() for size, minutes in found.items())
    for minutes, name, size in order:
        if minutes <= most and (again or str(size) not in read(out)["measurements"].get(name, {})):
            print(f"{name} {size:,}: about {minutes:g} min", file=sys.stderr, flush=True)
            entry = _run(name, size, folder)
            whole = read(out)
            whole["measurements"].setdefault(name, {})[str(size)] = entry
            write(out, whole)


def read(path: Path) -> dict[str, Any]:
    """Return the content of a file: measurements, and outputs of cases."""
    return dict(json.loads(path.read_text())) if path.exists() else {"measurements": {}, "cases": {}}


def write(path: Path, whole: Mapping[str, Any]) -> None:
    """Replace the file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    part.replace(path)


def made() -> dict[str, Any]:
    """Return when and where something is measured."""
    names = [one.partition(":")[2].strip() for one in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in one]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    machine = (
        f"{(names or [platform.machine()])[0]}, {os.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}"
    )
    return {"date": datetime.now(UTC).date().isoformat(), "machine": machine}


def _run(name: str, size: int, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(SCRIPT), "run", name, str(size), str(folder)]
    load, began, before = os.getloadavg()[0], time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **made(),
        "command": f"python scripts/scale_plan.py measure {name} --sizes {size}",
        "figures": _rounded(json.loads(ended.stdout.splitlines()[-1])),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(cpu, 1),
        "load": [round(one, 1) for one in (load, os.getloadavg()[0])],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _world(folder: Path) -> Any:
    """Return vectors of items and users of a shop."""
    from index.worlds import World

    from recall.serving.recommender import Recommender
    from recall.serving.request import Request

    with Recommender.load(_shop(folder, int(os.environ.get(WORLD, "10000"))), users=None) as served:
        named = served.users.sample(6_000, 0)
        users = served.user_vectors([Request(one) for one in np.random.default_rng(0).permutation(named).tolist()])
        return World("", np.array(served.bundle.item_vectors), users, {})


def _shop(folder: Path, items: int) -> Path:
    """Return a published shop, made once."""
    place = folder / f"shop-{items}"
    if not (place / "bundles" / "CURRENT").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        build = "import sys, pathlib, serving.shop; serving.shop.build(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))"
        _apart(["-c", build, str(place), str(items), str(K), "0"])
    return place / "bundles"


def _apart(arguments: Sequence[str]) -> None:
    """Run Python in another process, whose memory is not measured."""
    path = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parents[1])))
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr, env={**os.environ, "PYTHONPATH": path})
