"""Measure how the index scales with the catalogue.

Build time, bytes, and searches a second at one recall, as a table and a plot.
"""

import resource
import sys
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
    """

    items: int
    seconds: float
    cells: int
    bytes_per_item: float
    recall: float
    rate: float
    exact_rate: float
    peak: int


def grow(world: World, n: int, target: float, folder: Path, most: int) -> Iterator[str]:
    """Return a Markdown table of every size up to `most`, and write the plot."""
    sizes = [_measured(world, items, n, target) for items in SIZES if items <= most]
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


def _measured(world: World, items: int, n: int, target: float) -> Size:
    vectors = _catalogue(world.items, items)
    half = len(world.users) // 2
    fitting, asked, fresh = world.users[: half - _QUERIES], world.users[half - _QUERIES : half], world.users[half:][:_QUERIES]
    began = time.perf_counter()
    index = CellIndex.build(vectors, fitting, 0, 2)
    seconds = time.perf_counter() - began
    truth = Truth.of(vectors, asked, n)
    low, high = 0, len(_EFFORTS) - 1
    while low < high:
        middle = (low + high) // 2
        tried = index.with_effort(_EFFORTS[middle])
        found = truth.shares([tried.search(user[None], n).rows[0] for user in asked]).mean()
        low, high = (low, middle) if found >= target else (middle + 1, high)
    tuned = index.with_effort(_EFFORTS[low])
    recall = float(Truth.of(vectors, fresh, n).shares([tuned.search(user[None], n).rows[0] for user in fresh]).mean())
    rate = 1 / in_turn({"tuned": lambda user: tuned.search(user[None], n)}, fresh)["tuned"]
    exact = 1 / in_turn({"exact": lambda user: index.search(user[None], n)}, fresh[:24])["exact"]
    size = sum(array.nbytes for array in (index.codes.codes, index.codes.scales, index.codes.rows)) / items
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Size(items, seconds, index.codes.cells, size, recall, rate, exact, peak)


def _catalogue(vectors: Float32, items: int) -> Float32:
    """Return this many vectors: a sample, or all plus random neighbours."""
    rng = np.random.default_rng(0)
    if items <= len(vectors):
        return np.ascontiguousarray(vectors[np.sort(rng.choice(len(vectors), items, replace=False))])
    spread = vectors.std(axis=0) / 3
    made = np.empty((items, vectors.shape[1]), dtype=np.float32)
    for first in range(0, items, len(vectors)):
        part = made[first : first + len(vectors)]
        part[:] = vectors[: len(part)]
        if first:
            part += spread * rng.standard_normal(part.shape, dtype=np.float32)
    return made
