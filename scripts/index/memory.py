"""Startup time and private memory of a process with a mapped index.

python scripts/index/memory.py FOLDER        one such process, which prints its results
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import Figure

from index.worlds import World
from recall.index.base import ItemIndex
from recall.index.cells.index import CellIndex
from recall.index.registry import engine_of, open_index

_VECTORS, _INDEX, _PARAMS, _USERS = "vectors.npy", "index", "params.json", "users.npy"
_SEARCHES = 200


@dataclass(frozen=True)
class Memory:
    """Resource usage of two processes that open and search one index.

    Attributes:
        file: bytes of the index file.
        mapped: bytes of the index and vectors, shared by all processes.
        own: maximum private memory of a process in bytes.
        opened: maximum seconds until a process could search.
    """

    file: int
    mapped: int
    own: float
    opened: float


def opened_twice(world: World, index: ItemIndex, n: int) -> Memory:
    """Open and search an index in two concurrent processes."""
    with tempfile.TemporaryDirectory(prefix="benchmark-index-") as scratch:
        folder = Path(scratch)
        np.save(folder / _VECTORS, world.items)
        np.save(folder / _USERS, world.users[:_SEARCHES])
        index.write(folder / _INDEX)
        (folder / _PARAMS).write_text(json.dumps({"kind": index.kind, "params": index.params, "n": n}))
        file = (folder / _INDEX).stat().st_size
        mapped = file + (folder / _VECTORS).stat().st_size
        first, second = _process(folder), _process(folder)  # both stay alive while the other is measured
        found = [_report(one) for one in (first, second)]
        for one in (first, second):
            one.communicate()
    return Memory(file, mapped, max(one["own"] for one in found), max(one["opened"] for one in found))


def ready_and_shared(world: World, index: CellIndex, n: int) -> list[Figure]:
    """Return seconds until an index answers, and memory of a second process.

    The memory is a share of what the first process maps.
    """
    found = opened_twice(world, index, n)
    own, mapped = found.own, found.mapped
    name = f"{len(world.items):,} items"
    memory = f"{name}: private memory of another process, as a share of the index"
    note = f"{own / 1e6:.1f} MB private after {_SEARCHES} searches, and {mapped / 1e6:.0f} MB shared"
    return [
        Figure(f"{name}: seconds until a mapped index can be searched", found.opened, 0.01, 0.005, "less"),
        Figure(memory, own / mapped, 0.02, 0.01, "less", note),
    ]


def _process(folder: Path) -> "subprocess.Popen[str]":
    scripts = Path(__file__).absolute().parent.parent
    command = [sys.executable, "-m", "index.memory", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (scripts, scripts.parent)))}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _report(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process that should open the index ended without output")
    found: dict[str, float] = json.loads(line)
    return found


def _own_bytes() -> int:
    """Return the anonymous memory of this process, as reported by Linux."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup names no anonymous memory")


def _open(folder: Path) -> dict[str, float]:
    asked = json.loads((folder / _PARAMS).read_text())
    users = np.load(folder / _USERS)
    vectors = np.load(folder / _VECTORS, mmap_mode="r")
    _other(users)  # the baseline includes compiled code and numpy, which belong to the program and not to the index
    before = _own_bytes()
    began = time.perf_counter()
    index = open_index(folder / _INDEX, engine_of(asked["kind"]).name, asked["kind"], asked["params"], vectors)
    opened = time.perf_counter() - began
    for user in users:
        index.search(user[None], asked["n"])
    return {"opened": opened, "own": _own_bytes() - before}


def _other(users: np.ndarray) -> None:
    small = CellIndex.build(np.ascontiguousarray(np.tile(users, (5, 1))), users, 0)
    small.search(users[:1], 10)


if __name__ == "__main__":
    print(json.dumps(_open(Path(sys.argv[1]))), flush=True)
    sys.stdin.read()
