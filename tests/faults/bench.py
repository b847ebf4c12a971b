"""What cases work with: a folder of their own, a shop, and how thorough to be."""

import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.servers import NOTHING, Server, serving
from tests.faults.shop import Shop

NOISE = 5.0
"""Milliseconds by which a p99 may differ for no reason: a single pause of the machine is a hundredth of a few seconds."""
_SHARED = 1000.0  # where other work shares the machine


@dataclass
class Bench:
    """Where cases are run.

    Attributes:
        folder: for whatever they write.
        shop: what is served.
        quick: fewer runs of everything.
        random: what is drawn, from the run's seed.
        requests: of the soak.
    """

    folder: Path
    shop: Shop
    quick: bool
    random: random.Random
    requests: int = 1_000_000
    _numbers: "count[int]" = field(default_factory=count)

    def many(self, quick: int, full: int) -> int:
        """How often to do something."""
        return quick if self.quick else full

    def within(self, seconds: float) -> float:
        """A bound on time: with few faults, which run beside whatever else a machine does, only what hangs is missed."""
        return max(30.0, seconds) if self.quick else seconds

    def slower(self, before: float, times: float) -> float:
        """Milliseconds that a p99 may reach that was `before`: so many times that, and `NOISE` more in any case."""
        return max(times * before, before + (_SHARED if self.quick else NOISE))

    def place(self, name: str) -> Path:
        """A path that nothing is at yet."""
        return self.folder / f"{next(self._numbers)}-{name}"

    def root(self, versions: int = 1) -> Path:
        """A new root with so many versions."""
        return self.shop.root(self.place("bundles"), versions)

    def serve(
        self,
        root: Path,
        *options: str,
        environment: Mapping[str, str] = NOTHING,
        before: Sequence[str] = (),
        limits: Mapping[int, int] | None = None,
        port: int | None = None,
    ) -> AbstractContextManager[Server]:
        """As `serving`, with a log of its own."""
        log = self.place("log")
        return serving(root, log, *options, environment=environment, before=before, limits=limits, port=port)
