"""Masked copies of the rows of one side, as of new users or items.

They have a small weight.

Where masked rows merge into few, all of them are in every sweep. Where a history or other columns keep them distinct, a share
of the rows is drawn for each sweep, at a larger weight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int64
from recall.features.csr import SparseRows
from recall.training.als.kernels import Entries
from recall.training.masking import NEWCOMER, PARTIAL, PROFILE, STRANGER, Masking, Roles, merged, uniform
from recall.training.ranks import Ranks

# Shares and weights were chosen on held-out users and items of ml-100k and toys: less than these makes the figures of one
# seed differ from those of another, more costs time.
_WAYS = {
    "user": {NEWCOMER: 0.4, PARTIAL: 0.2, PROFILE: 0.2, STRANGER: 0.2},
    "item": {NEWCOMER: 0.75, PARTIAL: 0.25},
}
# Of the square loss, chosen on held-out users of ml-100k (seeds 1 and 2) and toys. More of PROFILE helps users known by their
# columns and costs unknown ones; with less of STRANGER, toys serves unknown users worse than popularity does.
_SQUARE_WAYS = {**_WAYS, "user": {NEWCOMER: 0.03, PARTIAL: 0.02, PROFILE: 0.5, STRANGER: 0.45}}
_ALONE = Ranks()
_SHARE = {"user": 0.1, "item": 0.2}
_BLOCK = 1 << 16  # rows masked at a time: their entries are copied several times over
_AT_LEAST = {"user": 2000, "item": 500}  # rows drawn, where there are so many


@dataclass(frozen=True, slots=True)
class Masked:
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

    def pairs(self, pairs: Entries, columns: int) -> Entries:
        """Return the pairs of the masked rows.

        Args:
            pairs: of all N rows of the side; indices are in [0, columns).
            columns: exclusive upper bound of the indices.

        Returns:
            m rows.
        """
        starts, lengths = pairs.indptr[self.sources], np.diff(pairs.indptr)[self.sources]
        entries = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        return _gathered(
            np.repeat(self.code, lengths), pairs.indices[entries], pairs.weights[entries] * self.weight, len(self.rows), columns
        )

    def columns(self, pairs: Entries, n: int) -> Entries:
        """Return the pairs of the other side's rows with the masked rows.

        Args:
            pairs: of the other side's rows with the n rows of this one.
            n: rows of this side.

        Returns:
            As many rows as `pairs`, with indices in [0, m).
        """
        place = np.full(n, -1, dtype=np.int64)
        place[self.sources] = self.code
        start, stop = pairs.indptr[0], pairs.indptr[-1]
        found = place[pairs.indices[start:stop]]
        there = found >= 0
        owner = np.repeat(np.arange(pairs.n), np.diff(pairs.indptr))[there]
        return _gathered(owner, found[there], pairs.weights[start:stop][there] * self.weight, pairs.n, len(self.rows))


def ways_of(roles: Roles, side: str, square: bool = False) -> dict[int, float]:
    """Return the ways of masking the rows of a side, with their shares.

    Args:
        roles: of the side's fields.
        side: "user" or "item".
        square: whether for the square loss; gradient objectives otherwise.
    """
    ways = (_SQUARE_WAYS if square else _WAYS)[side]
    if roles.ids.all():
        ways = {NEWCOMER: 1.0}
    else:
        profile = roles.histories.any() and not (roles.ids | roles.histories).all()
        idle = {NEWCOMER: not roles.ids.any(), PROFILE: not profile}
        ways = {way: share for way, share in ways.items() if not idle.get(way, False)}
    total = sum(ways.values())
    return {way: share / total for way, share in ways.items()}


class Newcomers:
    """Masks the rows of one side."""

    def __init__(self, rows: SparseRows, roles: Roles, drop: float, side: str, seed: int, ranks: Ranks = _ALONE) -> None:
        """Prepare to mask.

        Args:
            rows: of the side, as they train.
            roles: of its fields.
            drop: weight of all masked rows beside the 1 of the rows as they are.
            side: "user" or "item".
            seed: of the draws.
            ranks: holders of the side's other rows.
        """
        self._ranks = ranks
        self._first, n = ranks.share(len(rows))
        self._rows, self._masking, self._seed = rows, Masking(roles), seed
        self._ways = {way: drop * share for way, share in ways_of(roles, side, square=True).items()}
        self._share = max(_SHARE[side], min(1.0, _AT_LEAST[side] / max(n, 1)))
        self._alike = not roles.histories.any()

    def fixed(self, few: Callable[[Masked], bool]) -> list[Masked]:
        """Take out the ways whose rows merge into so few that every sweep can see all.

        Args:
            few: whether they are.
        """
        found = []
        for way in [one for one in self._ways if one == STRANGER or (one == NEWCOMER and self._alike)]:
            every = np.arange(len(self._rows))
            masked = self._masked(every, np.full(len(every), way, np.int8), self._ways[way], 0)
            if few(masked):
                found.append(masked)
                del self._ways[way]
        return found

    @property
    def settled(self) -> bool:
        """Whether all ways of masking were taken out, so that nothing is left to draw."""
        return not self._ways

    @property
    def lonely(self) -> bool:
        """Whether the side has one field."""
        return len(self._masking.roles.fields) == 1

    def drawn(self, sweep: int) -> Masked | None:
        """Return the random masked rows of one sweep, besides the fixed ones; or None."""
        if not self._ways:
            return None
        chosen = np.flatnonzero(uniform(self._first + np.arange(len(self._rows)), self._seed, sweep, 0) < self._share)
        if not self._ranks.any(len(chosen) > 0):
            return None
        total = sum(self._ways.values())
        bounds = np.cumsum(list(self._ways.values())) / total
        way = np.searchsorted(bounds[:-1], uniform(self._first + chosen, self._seed, sweep, 1), side="right")
        patterns = np.array(list(self._ways), dtype=np.int8)[way]
        return self._masked(chosen, patterns, total / self._share, sweep)

    def _masked(self, sources: Int64, patterns: npt.NDArray[np.int8], weight: float, sweep: int) -> Masked:
        fields = len(self._masking.roles.fields)
        parts: list[SparseRows] = []
        codes: list[Int64] = []
        n = 0
        for first in range(0, max(len(sources), 1), _BLOCK):
            block = slice(first, first + _BLOCK)
            some = self._first + sources[block]
            tossed = np.stack([uniform(some, self._seed, sweep, 2 + field) for field in range(fields)], axis=1)
            rows, code = merged(self._masking(self._rows.take(sources[block]), patterns[block], tossed))
            parts.append(rows)
            codes.append(code + n)
            n += len(rows)
        if len(parts) == 1:
            return Masked(parts[0], sources, codes[0], weight)
        rows, code = merged(SparseRows.vstack(parts))
        return Masked(rows, sources, code[np.concatenate(codes)], weight)


def summed_pairs(pairs: Entries, code: Int64, n: int, columns: int) -> Entries:
    """Add up the pairs of rows that become one.

    Args:
        pairs: N rows; indices are in [0, columns).
        code: int64 [N], in [0, n): the row that each becomes.
        n: rows to make.
        columns: see `pairs`.

    Returns:
        n rows.
    """
    entries = slice(pairs.indptr[0], pairs.indptr[-1])
    owners = np.repeat(code, np.diff(pairs.indptr))
    return _gathered(owners, pairs.indices[entries], pairs.weights[entries], n, columns)


def _gathered(rows: Int64, columns: npt.NDArray[np.integer[Any]], weights: Float32, n: int, width: int) -> Entries:
    together = SparseRows.from_coo(rows, columns, weights, n, width)
    return Entries(together.indptr, together.indices, together.weights)
