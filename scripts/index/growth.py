"""Measure how the index scales with the catalogue.

Build time, bytes, and searches a second at one recall, as a table and a plot.
"""

import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.measure import Truth, in_turn
from index.worlds import World
from recall._arrays import Float32
from recall.index.cells.index import CellIndex

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
_QUERIES = 200
_EFFORTS = np.geomspace(1, 12, 40)


@dataclass(frozen=True)
class Size:
    """Results for one size.

    Attributes:
        items: number of items.
        seconds: build time with two threads.
        cells: number of cells.
        bytes_per_item: size of the index, without the float32 vectors for the final scores.
        recall, rate: recall and searches a second at the target.
        exact_rate: exact searches a second.
        peak: peak memory of this process in bytes, including all vectors.
        cpu: CPU seconds of the build.
        building: peak of the build's memory in bytes, without mapped files, such as the vectors.
    """

    items: int
    seconds: float
    cells: int
    bytes_per_item: float
    recall: float
    rate: float
    exact_rate: float
    peak: int
    cpu: float
    building: float


def grow(world: World, n: int, target: float, folder: Path, most: int) -> Iterator[str]:
    """Return a Markdown table of every size up to `most`, and write the plot."""
    sizes = [measured(world, items, n, target) for items in SIZES if items <= most]
    yield "| items | build, s | cells | bytes an item | recall | queries a second | exact, a second | peak memory, GB |"
    yield "|---" * 8 + "|"
    for one in sizes:
        yield (
            f"| {one.items:,} | {one.seconds:.1f} | {one.cells:,} | {one.bytes_per_item:.0f} | {one.recall:.4f} | "
            f"{one.rate:,.0f} | {one.exact_rate:,.0f} | {one.peak / 1e9:.1f} |"
        )
    yield ""
    yield (
        f"Up to {len(world.items):,} items are drawn from {world.name}; larger catalogues add its items, each shifted by a "
        f"third of the typical distance. Each item also has {4 * world.items.shape[1]} bytes of memory-mapped vector."
    )
    if plot(sizes, folder / "index-growth.svg"):
        yield "\n![Searches a second and seconds to build, by the number of items](index-growth.svg)"


def plot(sizes: Sequence[Size], path: Path) -> bool:
    """Write the plot; return False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("matplotlib is not installed: skipping the plot", file=sys.stderr)
        return False
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    searches, building = figure.subplots(1, 2)
    items = [one.items for one in sizes]
    searches.loglog(items, [one.rate for one in sizes], "o-", label="at the target")
    searches.loglog(items, [one.exact_rate for one in sizes], "s--", label="exact")
    searches.set(xlabel="items", ylabel="searches a second, one thread")
    searches.legend()
    building.loglog(items, [one.seconds for one in sizes], "o-")
    building.set(xlabel="items", ylabel="seconds to build, two threads")
    for axes in (searches, building):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return True


def measured(world: World, items: int, n: int, target: float, folder: Path | None = None) -> Size:
    """Build an index of a number of items, and search it.

    Args:
        world: that items are drawn from, or added to.
        items: how many.
        n: length of lists.
        target: recall of the searches that are timed.
        folder: vectors are written there and mapped, so that they need not fit in memory; in memory without one.
    """
    vectors = catalogue(world.items, items, folder)
    fitting, asked, fresh = queries(world)
    began, worked = time.perf_counter(), time.process_time()
    with _OwnMemory() as memory:
        index = CellIndex.build(vectors, fitting, 0, 2)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    tuned = tune(index, Truth.of(vectors, asked, n), target)
    recall = float(Truth.of(vectors, fresh, n).shares([tuned.search(user[None], n).rows[0] for user in fresh]).mean())
    rate = 1 / in_turn({"tuned": lambda user: tuned.search(user[None], n)}, fresh)["tuned"]
    exact = 1 / in_turn({"exact": lambda user: index.search(user[None], n)}, fresh[:24])["exact"]
    size = sum(array.nbytes for array in (index.codes.codes, index.codes.scales, index.codes.rows)) / items
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Size(items, seconds, index.codes.cells, size, recall, rate, exact, peak, cpu, memory.most)


def queries(world: World) -> tuple[Float32, Float32, Float32]:
    """Return users to fit an index with, to tune it with, and to measure it with."""
    half, few = len(world.users) // 2, min(_QUERIES, len(world.users) // 4)
    return world.users[: half - few], world.users[half - few : half], world.users[half:][:few]


def tune(index: CellIndex, truth: Truth, target: float) -> CellIndex:
    """Return the index with the least effort that reaches a recall."""
    low, high = 0, len(_EFFORTS) - 1
    while low < high:
        middle = (low + high) // 2
        tried = index.with_search_param(_EFFORTS[middle], 1)
        found = truth.shares([tried.search(user[None], truth.n).rows[0] for user in truth.users]).mean()
        low, high = (low, middle) if found >= target else (middle + 1, high)
    return index.with_search_param(_EFFORTS[low], 1)


class _OwnMemory:
    """Largest growth of the anonymous memory of this process, by looking often."""

    def __enter__(self) -> "_OwnMemory":
        self.most, self._ended = 0.0, threading.Event()
        self._before = _anonymous()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, _anonymous() - self._before)


def _anonymous() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def catalogue(vectors: Float32, items: int, folder: Path | None = None) -> Float32:
    """Return this many vectors: a sample, or all plus random neighbours.

    Args:
        vectors: of the world.
        items: how many.
        folder: they are mapped from a file in it.
    """
    rng = np.random.default_rng(0)
    shape = (items, vectors.shape[1])
    path = None if folder is None else folder / f"vectors-{items}.npy"
    made = np.empty(shape, np.float32) if path is None else np.lib.format.open_memmap(path, "w+", np.float32, shape)
    if items <= len(vectors):
        made[:] = vectors[np.sort(rng.choice(len(vectors), items, replace=False))]
    else:
        spread = vectors.std(axis=0) / 3
        for first in range(0, items, len(vectors)):
            part = vectors[: items - first]
            shift = spread * rng.standard_normal(part.shape, dtype=np.float32) if first else 0
            made[first : first + len(part)] = part + shift
    if path is None:
        return made
    del made
    mapped: Float32 = np.load(path, mmap_mode="r")
    return mapped
