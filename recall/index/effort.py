"""How hard an approximate index looks, which is what tuning sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recall.index.base import ItemIndex


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
    """An index that looks as hard as it is told to, at no cost after it was built."""

    @property
    def efforts(self) -> Sequence[float]:
        """How hard it can look, rising; recall does not fall along them, but for rounding."""

    def tuned(self, effort: float, n: int) -> "TunableIndex":
        """The same index with one of its efforts, for lists of n."""
