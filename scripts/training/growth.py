"""Scaling of the solver with data and threads, and determinism of its lists.

    python scripts/training/growth.py sweep INTERACTIONS K THREADS      one line of JSON
    python scripts/training/growth.py agree INTERACTIONS K

The data are generated: users and items with an id and two further fields each, with popularity as a power of the rank.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numba
import numpy as np
import torch

from recall.config import SquareConfig
from recall.evaluation.exact_topk import ItemLists, top_rows
from recall.features.csr import SparseRows
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.training.als import linear_algebra, one_hot, sparse_kernels
from recall.training.als.solver import ImplicitALS
from recall.training.pairs import ObservedPairs

CONFIG = SquareConfig(steps=3, unobserved=20, popularity=0.25, regularisation=0.002)
SWEEPS = 4  # the first sweep is not counted, because it touches memory for the first time
TOP = 20


def generated(interactions: int) -> ObservedPairs:
    """Generate about this many pairs, 50 per user and 300 per item."""
    rng = np.random.default_rng(0)
    users, items = interactions // 50, interactions // 300
    cumulative = np.cumsum(1.0 / (10 + np.arange(items)) ** 0.7)
    drawn = rng.random(interactions, dtype=np.float32) * np.float32(cumulative[-1])
    chosen = np.minimum(np.searchsorted(cumulative.astype(np.float32), drawn), items - 1)
    pairs = ItemLists.from_pairs(rng.integers(0, users, interactions), rng.permutation(items)[chosen], users)
    weights = np.ones(len(pairs.items), dtype=np.float32)
    return ObservedPairs(_rows(rng, users, 100, 12), _rows(rng, items, 300, 40), pairs.indptr, pairs.items, weights)


def _rows(rng: np.random.Generator, n: int, *sizes: int) -> SparseRows:
    """Return rows of an id and a value of each further field."""
    columns = [np.arange(n)]
    for size in sizes:
        columns.append(rng.integers(0, size, n) + columns[0].max() + 1 + sum(sizes[: len(columns) - 1]))
    indices = np.stack(columns, axis=1).astype(np.int32).reshape(-1)
    indptr = np.arange(n + 1, dtype=np.int64) * len(columns)
    return SparseRows(indptr, indices, np.ones(len(indices), dtype=np.float32), n + sum(sizes))


def watch() -> dict[str, list[float]]:
    """Let kernels count their work; return the counts.

    They are seconds, operations, and bytes of processed rows, by name of the kernel.
    """
    spent: dict[str, list[float]] = {}
    lock = Lock()

    def watched(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            began = time.perf_counter()
            result = kernel(*given)
            seconds = time.perf_counter() - began
            with lock:
                counted = spent.setdefault(name, [0.0, 0.0, 0.0])
                for place, amount in enumerate((seconds, *_work(name, given))):
                    counted[place] += amount
            return result

        return call

    for module, names in (
        (sparse_kernels, ("delta_encode", "gather", "scatter", "pair_gradients")),
        (linear_algebra, ("diagonal_map", "add_gram", "table_dot", "cg_step", "cg_direction")),
        (one_hot, ("solve_rows",)),
    ):
        for name in names:
            setattr(module, name, watched(name, getattr(module, name)))
    return spent


def _work(name: str, given: tuple[Any, ...]) -> tuple[float, float]:
    """Return the operations of a call, and the bytes of the rows it reads and writes."""
    if name in ("gather", "scatter", "pair_gradients"):
        entries, rows = int(given[0][-1] - given[0][0]), len(given[0]) - 1
        d = given[5 if name == "gather" else 4 if name == "scatter" else 7].shape[1]
        if name == "pair_gradients":
            return 4.0 * entries * d, 4.0 * d * (entries + 3 * rows)
        return 2.0 * entries * d, 4.0 * d * (entries * (1 if name == "gather" else 2) + rows)
    if name == "diagonal_map":
        return 3.0 * given[3].size, 8.0 * given[3].size
    if name == "add_gram":
        return float(given[1].size * (given[1].shape[1] + 1)), 4.0 * given[1].size
    if name in ("table_dot", "cg_step", "cg_direction"):
        flops, tables = {"table_dot": (2, 2), "cg_step": (7, 7), "cg_direction": (3, 4)}[name]
        return float(flops * given[0].size), 4.0 * tables * given[0].size
    return 0.0, 0.0


def sweep(interactions: int, k: int, threads: int) -> dict[str, Any]:
    """Measure seconds per sweep, memory, and the efficiency of the loops."""
    torch.set_num_threads(threads)
    _solver(generated(3000), k).sweep()  # load compiled code, which is not timed
    before = _memory("VmRSS")
    pairs = generated(interactions)
    _forget_peak()
    spent = watch()
    began, worked = time.perf_counter(), 0.0
    solver = _solver(pairs, k)
    opened, seconds = time.perf_counter() - began, []
    for count in range(SWEEPS):
        if count == 1:
            spent.clear()
            worked = time.process_time()
        began = time.perf_counter()
        solver.sweep()
        seconds.append(time.perf_counter() - began)
    counted = len(pairs.observed)
    return {
        "interactions": counted,
        "opening": opened,
        "sweep": float(np.median(seconds[1:])),
        "cpu": (time.process_time() - worked) / (SWEEPS - 1),
        "bytes": (_memory("VmHWM") - before) / counted,
        "wall": sum(seconds[1:]),
        "kernels": spent,
        **probe(threads),
        "name": f"numba {numba.__version__}",
    }


def probe(threads: int) -> dict[str, float]:
    """Measure the limits of the machine.

    FLOP/s of a matrix product, and bytes a second of a copy of a large array.
    """
    torch.set_num_threads(threads)
    square, large = torch.rand(2048, 2048), torch.rand(1 << 26)
    target = torch.empty_like(large)
    product = min(_timed(lambda: torch.mm(square, square)) for _ in range(5))
    copy = min(_timed(lambda: target.copy_(large)) for _ in range(5))
    return {"peak_flops": 2 * 2048**3 / product, "peak_bytes": 2 * 4 * len(large) / copy}


def _solver(pairs: ObservedPairs, k: int) -> ImplicitALS:
    model = FactorizationMachine(pairs.contexts.n_features, pairs.items.n_features, k)
    model.initialise(0.1, torch.Generator().manual_seed(0))
    return ImplicitALS(model, pairs, CONFIG)


def _timed(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def agree(interactions: int, k: int) -> dict[str, float]:
    """Return the share of positions in top lists that agree at 1 and 2 threads."""
    pairs = generated(interactions)
    asked = np.arange(min(2000, len(pairs.contexts)))
    lists = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        solver = _solver(pairs, k)
        for _ in range(6):
            solver.sweep()
        with torch.no_grad():
            phi = solver.model.user_vectors(SparseBatch.of(pairs.contexts.take(asked))).numpy()
            psi = solver.model.item_vectors(SparseBatch.of(pairs.items)).numpy()
        lists.append(top_rows(phi, psi, ItemLists(pairs.indptr, pairs.observed).take(asked), TOP))
    return {"agree": float((lists[0] == lists[1]).mean())}


def _memory(name: str) -> int:
    """Return a memory statistic of this process in bytes, as reported by Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def _forget_peak() -> None:
    """Reset the memory peak.

    Generating the data is not part of training.
    """
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    commands: dict[str, Callable[..., dict[str, Any]]] = {"sweep": sweep, "agree": agree}
    print(json.dumps(commands[what](*(int(number) for number in numbers))))
