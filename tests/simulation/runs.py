"""Runs by their seeds, and the seeds that are kept."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.power import fast_folder
from tests.simulation.world import Fault, World

SEEDS = Path(__file__).with_name("seeds.txt")


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        fault: what was found; empty when nothing was.
        said: its log.
        digest: hash of the log.
    """

    fault: str
    said: list[str]
    digest: str


@dataclass(frozen=True)
class Kept:
    """A seed that has found something once.

    Attributes:
        seed, steps: of the run.
        without: what does not happen in it.
        told: what it found.
    """

    seed: int
    steps: int
    without: tuple[str, ...]
    told: str


def run(shop: Path, seed: int, steps: int, passed: Collection[str] = (), without: Collection[str] = ()) -> Outcome:
    """Let a run happen in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        world = World(shop, Path(folder), seed, passed, without)
        try:
            world.run(steps)
            fault = ""
        except Fault as found:
            fault = str(found).replace(folder, "")
    return Outcome(fault, world.said, world.digest)


def kept() -> list[Kept]:
    """The seeds of the file, of which each line has a seed, steps, what does not happen, or -, and what was found."""
    found = []
    for line in SEEDS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            seed, steps, without, told = line.split(maxsplit=3)
            found.append(Kept(int(seed), int(steps), () if without == "-" else tuple(without.split(",")), told))
    return found
