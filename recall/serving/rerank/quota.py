"""At most so many items of each value: quotas, and duplicates."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from recall._arrays import Int64
from recall.serving.rerank.base import Candidates, Groups, Mask, Pool, Rule, Step

_MOST_SPARE = 2_000
"""Candidates that one cap asks for beyond what it is to leave; when they run out, more are fetched. Guesses of several caps
in a row would multiply without this bound: ten of them to 59,049 times the length of the list."""


@dataclass(frozen=True, slots=True)
class Quota(Rule):
    """At most `most` items of each value of a column, the best of them.

    Items are admitted from the best down. An item that holds several values counts for each of them, and is admitted only
    where all of them have room; one without a value always is.

    Attributes:
        column: of the catalogue.
        most: items of one value, at least 1.
    """

    column: Annotated[str, Field(min_length=1, max_length=256, examples=["genre"])]
    most: Annotated[int, Field(ge=1, le=1000, strict=True, examples=[3])]
    kind: Literal["quota"] = "quota"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        return Capped(pool.groups(self.column, f"{where}/column"), self.most, pool.everything)


@dataclass(frozen=True, slots=True)
class Dedupe(Rule):
    """Keep the best item of all that share a value, such as editions of one book.

    An item that holds several values is dropped when a better one has any of them; one without a value never is.

    Attributes:
        column: of the catalogue.
    """

    column: Annotated[str, Field(min_length=1, max_length=256, examples=["series"])]
    kind: Literal["dedupe"] = "dedupe"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        return Capped(pool.groups(self.column, f"{where}/column"), 1, pool.everything)


@dataclass(frozen=True)
class Capped(Step):
    """Admits at most `most` items of each group, from the best down.

    Attributes:
        groups: what each item holds.
        most: items of one value.
        everything: returns a new mask of the eligible rows; called only if candidates run out.
    """

    groups: Groups
    most: int
    everything: Callable[[], Mask]

    @override
    def fetch_size(self, wanted: int) -> int:
        """Guess three times as many, and at most `_MOST_SPARE` more."""
        return wanted + min(2 * wanted, _MOST_SPARE)

    @override
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Admit candidates.

        Args:
            candidates: the first of the ranking before.
            wanted: results wanted.
        """
        kept = self._admitted(candidates.rows, wanted)
        if len(kept) >= wanted:
            last = kept[wanted - 1] == len(candidates) - 1 if wanted else not len(candidates)
            return candidates.take(kept[:wanted], complete=bool(candidates.complete and last))
        closed = candidates.complete or not self._open(candidates.rows, candidates.rows[kept]).any()
        return candidates.take(kept, complete=closed)

    def _admitted(self, rows: Int64, wanted: int) -> Int64:
        """Places of the rows that are admitted, at least the first `wanted`."""
        return self._one_each(rows) if self.groups.indptr is None else self._several(rows, wanted)

    def _one_each(self, rows: Int64) -> Int64:
        codes = self.groups.single(rows)
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else order
        ranks = np.empty(len(rows), dtype=np.int64)
        ranks[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(rows)]])))
        return np.flatnonzero((ranks < self.most) | (codes < 0))

    def _several(self, rows: Int64, wanted: int) -> Int64:
        # whether an item is admitted rests on each one before it: one after another, and no further than wanted
        flat, ends = self.groups.several(rows)
        values, bounds = flat.tolist(), ends.tolist()
        taken: Counter[int] = Counter()
        full: set[int] = set()
        kept = []
        for place in range(len(rows)):
            held = values[bounds[place] : bounds[place + 1]]
            if full.isdisjoint(held):
                kept.append(place)
                if len(kept) == wanted:
                    break
                for value in held:
                    taken[value] += 1
                    if taken[value] == self.most:
                        full.add(value)
        return np.array(kept, dtype=np.int64)

    @override
    def remaining_mask(self, candidates: Candidates) -> Mask | None:
        """Return the items whose values all have room."""
        kept = self._admitted(candidates.rows, len(candidates))
        return self._open(candidates.rows, candidates.rows[kept])

    def _open(self, seen: Int64, kept: Int64) -> Mask:
        """Eligible rows that were not seen and could still be admitted: bool [size]."""
        groups = self.groups
        codes = groups.single(kept) if groups.indptr is None else groups.several(kept)[0]
        full = np.append(np.bincount(codes[codes >= 0], minlength=groups.count) >= self.most, [False])  # -1 is last
        rows = self.everything()
        rows[seen] = False
        if groups.indptr is None:
            return np.asarray(rows & ~full[groups.codes])
        before = np.concatenate([[0], np.cumsum(full[groups.codes])])[groups.indptr]
        return np.asarray(rows & (before[1:] == before[:-1]))
