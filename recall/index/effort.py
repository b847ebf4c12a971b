"""How hard an approximate index looks, which is what tuning sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recall.index.contract import ItemIndex


@dataclass(frozen=True, slots=True)
class Effort:
    """How many lists a query looks into: more for longer results, for they lie in more lists.

    Attributes:
        nprobe: lists for up to `n` results.
        growth: lists grow as this power of the number of results beyond `n`.
        n: number of results that `nprobe` was set for.
    """

    nprobe: int
    growth: float
    n: int

    def at(self, results: int) -> int:
        """Lists for this many results, excluded ones counted in."""
        return math.ceil(self.nprobe * math.pow(max(1.0, results / self.n), self.growth))


class TunableIndex(ItemIndex, Protocol):
    """An approximate index whose effort may be set after it was built, at no cost."""

    @property
    def efforts(self) -> Sequence[int]:
        """What `Effort.nprobe` may be, rising; recall does not fall along them, but for rounding."""

    def with_effort(self, effort: Effort) -> "TunableIndex":
        """The same index, looking as hard as `effort` says."""
