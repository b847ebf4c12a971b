"""Masked copies of item rows, as of new items, with a small weight.

Where masked rows merge into few, all of them are in every sweep. Where other columns keep them distinct, a share of the
rows is drawn for each sweep, at a larger weight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int64, Integers
from recall.features.csr import SparseRows
from recall.training.als.kernels import Entries
from recall.training.masking import NEWCOMER, Masking, Roles, merged, uniform

# Share and number of the rows drawn were chosen on held-out items of ml-100k and toys: with fewer, the figures of one seed
# differ from those of another; more cost time.
_SHARE = 0.2
_AT_LEAST = 500  # rows drawn, where there are so many
_BLOCK = 1 << 16  # rows masked at a time: their entries are copied several times over


@dataclass(frozen=True, slots=True)
class MaskedRows:
    """Masked rows, merged.

    Attributes:
        rows: m different rows.
        sources: int64 [n], rising: the rows that were masked.
        code: int64 [n], which of `rows` each became.
        weight: of each of the n, beside the 1 of the row as it is.
    """

    rows: SparseRows
    sources: Int64
    code: Int64
    weight: float

    def summed(self, values: Float32) -> Float32:
        """Return weighted sums over the sources of each masked row: [N] -> float32 [m]."""
        sums = np.bincount(self.code, values[self.sources], len(self.rows))
        return (sums * self.weight).astype(np.float32)

    def columns(self, pairs: Entries, n: int) -> Entries:
        """Return the pairs of the other side's rows with the masked rows.

        Args:
            pairs: of the other side's rows with the n rows of this one.
            n: rows of this side.

        Returns:
            As many rows as `pairs`, with indices in [0, m).
        """
        place = np.full(n, -1, dtype=np.int32)
        place[self.sources] = self.code
        start, stop = pairs.indptr[0], pairs.indptr[-1]
        found = place[pairs.indices[start:stop]]
        there = found >= 0
        owner = np.repeat(np.arange(pairs.n, dtype=np.int32), np.diff(pairs.indptr))[there]
        return _gathered(owner, found[there], pairs.weights[start:stop][there] * self.weight, pairs.n, len(self.rows))


class MaskedItems:
    """Masks the rows of items."""

    def __init__(self, rows: SparseRows, roles: Roles, drop: float, seed: int) -> None:
        """Prepare to mask.

        Args:
            rows: of the items, as they train.
            roles: of their fields.
            drop: weight of all masked rows beside the 1 of the rows as they are.
            seed: of the draws.
        """
        self._rows, self._masking, self._seed = rows, Masking(roles), seed
        self._ways = {way: drop * share for way, share in roles.ways.items()}
        self._share = max(_SHARE, min(1.0, _AT_LEAST / max(len(rows), 1)))

    def fixed(self, few: Callable[[MaskedRows], bool]) -> list[MaskedRows]:
        """Take out the rows with unknown ids, where they merge into few.

        Args:
            few: whether they are.
        """
        if NEWCOMER not in self._ways:
            return []
        every = np.arange(len(self._rows))
        masked = self._masked(every, np.full(len(every), NEWCOMER, np.int8), self._ways[NEWCOMER], 0)
        if not few(masked):
            return []
        del self._ways[NEWCOMER]
        return [masked]

    @property
    def lonely(self) -> bool:
        """Whether items have one field."""
        return len(self._masking.roles.fields) == 1

    def drawn(self, sweep: int) -> MaskedRows | None:
        """Return the random masked rows of one sweep, besides the fixed ones; or None."""
        if not self._ways:
            return None
        chosen = np.flatnonzero(uniform(np.arange(len(self._rows)), self._seed, sweep, 0) < self._share)
        if not len(chosen):
            return None
        total = sum(self._ways.values())
        bounds = np.cumsum(list(self._ways.values())) / total
        way = np.searchsorted(bounds[:-1], uniform(chosen, self._seed, sweep, 1), side="right")
        patterns = np.array(list(self._ways), dtype=np.int8)[way]
        return self._masked(chosen, patterns, total / self._share, sweep)

    def _masked(self, sources: Int64, patterns: npt.NDArray[np.int8], weight: float, sweep: int) -> MaskedRows:
        fields = len(self._masking.roles.fields)
        parts: list[SparseRows] = []
        codes: list[Int64] = []
        n = 0
        for first in range(0, max(len(sources), 1), _BLOCK):
            block = slice(first, first + _BLOCK)
            tossed = np.stack([uniform(sources[block], self._seed, sweep, 2 + field) for field in range(fields)], axis=1)
            rows, code = merged(self._masking(self._rows.take(sources[block]), patterns[block], tossed))
            parts.append(rows)
            codes.append(code + n)
            n += len(rows)
        if len(parts) == 1:
            return MaskedRows(parts[0], sources, codes[0], weight)
        rows, code = merged(SparseRows.vstack(parts))
        return MaskedRows(rows, sources, code[np.concatenate(codes)], weight)


def _gathered(rows: Integers, columns: npt.NDArray[np.integer[Any]], weights: Float32, n: int, width: int) -> Entries:
    together = SparseRows.from_coo(rows, columns, weights, n, width)
    return Entries(together.indptr, together.indices, together.weights)
