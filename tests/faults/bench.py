"""The test bench of a case: a scratch folder, a shop, and the number of repetitions."""

import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.servers import NOTHING, Server, serving
from tests.faults.shop import Shop

NOISE = 5.0
"""Tolerance for a p99, in milliseconds: one pause of the machine makes up a hundredth of a few seconds."""
_SHARED = 1000.0  # with `--quick`, which runs on busy machines


@dataclass
class Bench:
    """The environment of one case.

    Attributes:
        folder: scratch folder.
        shop: data and bundles to serve.
        quick: whether to use fewer repetitions.
        random: random numbers, seeded by the run.
        requests: number of requests of the soak test.
    """

    folder: Path
    shop: Shop
    quick: bool
    random: random.Random
    requests: int = 1_000_000
    _numbers: "count[int]" = field(default_factory=count)

    def many(self, quick: int, full: int) -> int:
        """Choose a number of repetitions."""
        return quick if self.quick else full

    def within(self, seconds: float) -> float:
        """Relax a time limit with `--quick`, so that only a hang fails on a busy machine."""
        return max(30.0, seconds) if self.quick else seconds

    def slower(self, before: float, times: float) -> float:
        """Return the limit in milliseconds for a p99 that was `before`: a multiple of it, and at least `NOISE` more."""
        return max(times * before, before + (_SHARED if self.quick else NOISE))

    def place(self, name: str) -> Path:
        """Return a path that does not exist yet."""
        return self.folder / f"{next(self._numbers)}-{name}"

    def root(self, versions: int = 1) -> Path:
        """Create a root with this many versions."""
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
        """Start a service, as `serving` does, with its own log file."""
        log = self.place("log")
        return serving(root, log, *options, environment=environment, before=before, limits=limits, port=port)
