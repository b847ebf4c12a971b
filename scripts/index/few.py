"""Compare a Faiss IndexFlatIP with the cells over few items.

Microseconds per query, file size, and memory of a process.
"""

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from figures import Figure

from index.memory import opened_twice
from index.worlds import World
from recall._arrays import Float32
from recall.config import IndexConfig
from recall.index.base import ItemIndex
from recall.index.cells.index import CellIndex
from recall.index.flat import ExactIndex

SIZES = (5_000, IndexConfig().exact_up_to, 50_000)
"""Numbers of items, including the default of `exact_up_to`."""
LENGTHS = (10, 100)
_SEEN = 100  # excluded items per query, like the seen items of a user
_ROUNDS = 3
_WITHOUT_BAR = 20_000  # a larger default of `exact_up_to` must be searched in 0.7 ms


def beside_the_cells(world: World, figures: list[Figure]) -> Iterator[str]:
    """Yield lines of Markdown.

    Adds the results for `exact_up_to` items if the default is larger than 20,000.

    Args:
        world: catalogue to draw items from; larger sizes are skipped.
        figures: list to append to.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(world.items))
    half = len(world.users) // 2
    fitting, asked = world.users[:half], np.ascontiguousarray(world.users[half : half + 400])
    head = ["items x dim", "index", *(f"top {n}: p50 / p95, us" for n in LENGTHS), "file, MB", "own memory of a process, MB"]
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for size in SIZES:
        if size > len(world.items):
            continue
        items = np.ascontiguousarray(world.items[np.sort(order[:size])])
        indexes: dict[str, ItemIndex] = {
            "Faiss IndexFlatIP": ExactIndex.build(items),
            "recall cells, exact": CellIndex.build(items, fitting, 0, 2),
        }
        seen = [rng.choice(size, _SEEN, replace=False) for _ in asked]
        times = {n: _percentiles(indexes, asked, seen, n) for n in LENGTHS}
        for name, index in indexes.items():
            memory = opened_twice(World(world.name, items, world.users, world.about), index, LENGTHS[0])
            took = " | ".join("{:.0f} / {:.0f}".format(*times[n][name]) for n in LENGTHS)
            sizes = f"{memory.file / 1e6:.1f} | {memory.own / 1e6:.1f}"
            yield f"| {size:,} x {items.shape[1]} | {name} | {took} | {sizes} |"
        if size == IndexConfig().exact_up_to > _WITHOUT_BAR:
            for n in LENGTHS:
                flat, cells = (times[n][name][0] for name in indexes)
                note = f"{flat / cells:.1f} times the cells'"
                figures.append(Figure(f"IndexFlatIP, {size:,} items, top {n}: p50, ms", flat / 1e3, 0.7, 0.35, "less", note))


def _percentiles(
    indexes: dict[str, ItemIndex], users: Float32, seen: list[npt.NDArray[np.int64]], n: int
) -> dict[str, tuple[float, float]]:
    """Return the median and 95th percentile of CPU microseconds of one query."""
    spent: dict[str, list[float]] = {name: [] for name in indexes}
    for number in range(_ROUNDS + 1):
        for user, left_out in zip(users, seen, strict=True):
            for name, index in indexes.items():
                began = time.thread_time()
                index.search(user[None], n, [left_out])
                if number:  # the first round warms up caches and compiled code
                    spent[name].append(1e6 * (time.thread_time() - began))
    return {name: (float(np.median(one)), float(np.quantile(one, 0.95))) for name, one in spent.items()}
