"""Simulation runs by seed, and the file of seeds that found a bug."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.power import fast_folder
from tests.simulation.world import Fault, World

SEEDS = Path(__file__).with_name("seeds.txt")


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        fault: the bug found; empty if none.
        said: its log.
        digest: hash of the log.
    """

    fault: str
    said: list[str]
    digest: str


@dataclass(frozen=True)
class Kept:
    """A seed that once found a bug.

    Attributes:
        seed, steps: seed and length of the run.
        without: excluded events.
        bug: the bug it found.
    """

    seed: int
    steps: int
    without: tuple[str, ...]
    bug: str


def run(shop: Path, seed: int, steps: int, passed: Collection[str] = (), without: Collection[str] = ()) -> Outcome:
    """Run a simulation in a temporary folder."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        world = World(shop, Path(folder), seed, passed, without)
        try:
            world.run(steps)
            fault = ""
        except Fault as found:
            fault = str(found).replace(folder, "")
    return Outcome(fault, world.said, world.digest)


def kept() -> list[Kept]:
    """Read the seed file; each line has a seed, steps, excluded events or -, and the bug."""
    found = []
    for line in SEEDS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            seed, steps, without, bug = line.split(maxsplit=3)
            found.append(Kept(int(seed), int(steps), () if without == "-" else tuple(without.split(",")), bug))
    return found
