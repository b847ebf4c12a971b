"""Re-ranking rules: quotas, deduplication, pins and diversity."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import override

from recall._arrays import Float32, Float64, Int64
from recall._ids import id_warnings
from recall.errors import RequestError
from recall.serving.rerank.base import Candidates, Groups, Mask, Pool, Rule, Scores, Step, check_distinct, refused, scaled

_MOST_SPARE = 2_000
"""Largest number of candidates that one cap requests beyond the results wanted; if they run out, more are fetched. Without
this limit, the estimates of several caps in a row would multiply: of ten caps to 59,049 times the length of the list."""

Id = Annotated[str, Field(min_length=1, max_length=1024)]
Position = Annotated[int, Field(ge=1, le=1000, strict=True)]


@dataclass(frozen=True, slots=True)
class Quota(Rule):
    """At most `most` items of each value of a column.

    Items are admitted in the order of the ranking. An item with several values counts for each of them, and is admitted only
    if none of them is full; an item without a value is always admitted.

    Attributes:
        column: column of the catalogue.
        most: maximum number of items of one value, at least 1.
    """

    column: Annotated[str, Field(min_length=1, max_length=256, examples=["genre"])]
    most: Annotated[int, Field(ge=1, le=1000, strict=True, examples=[3])]
    kind: Literal["quota"] = "quota"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        return Capped(pool.groups(self.column, f"{where}/column"), self.most, pool.everything)


@dataclass(frozen=True, slots=True)
class Dedupe(Rule):
    """Only the best of the items that share a value, such as editions of one book.

    An item with several values is dropped if a better item has one of them; an item without a value is never dropped.

    Attributes:
        column: column of the catalogue.
    """

    column: Annotated[str, Field(min_length=1, max_length=256, examples=["series"])]
    kind: Literal["dedupe"] = "dedupe"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        return Capped(pool.groups(self.column, f"{where}/column"), 1, pool.everything)


@dataclass(frozen=True)
class Capped(Step):
    """Admits at most `most` items of each value, in the order of the ranking.

    Attributes:
        groups: values of each item.
        most: maximum number of items of one value.
        everything: returns a new mask of the eligible rows; called only if candidates run out.
    """

    groups: Groups
    most: int
    everything: Callable[[], Mask]

    @override
    def fetch_size(self, wanted: int) -> int:
        """Estimate three times as many, and at most `_MOST_SPARE` more."""
        return wanted + min(2 * wanted, _MOST_SPARE)

    @override
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Admit candidates.

        Args:
            candidates: beginning of the ranking before the step.
            wanted: results wanted.
        """
        kept = self._admitted(candidates.rows, wanted)
        if len(kept) >= wanted:
            last = kept[wanted - 1] == len(candidates) - 1 if wanted else not len(candidates)
            return candidates.take(kept[:wanted], complete=bool(candidates.complete and last))
        closed = candidates.complete or not self._open(candidates.rows, candidates.rows[kept]).any()
        return candidates.take(kept, complete=closed)

    def _admitted(self, rows: Int64, wanted: int) -> Int64:
        """Return the positions of admitted rows, at least of the first `wanted`."""
        return self._one_each(rows) if self.groups.indptr is None else self._several(rows, wanted)

    def _one_each(self, rows: Int64) -> Int64:
        codes = self.groups.codes[rows]
        order = np.argsort(codes, kind="stable")
        ordered = codes[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else order
        ranks = np.empty(len(rows), dtype=np.int64)
        ranks[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(np.concatenate([starts, [len(rows)]])))
        return np.flatnonzero((ranks < self.most) | (codes < 0))

    def _several(self, rows: Int64, wanted: int) -> Int64:
        # the admission of an item depends on all items before it: one after another, up to `wanted`
        flat, ends = self.groups.several(rows)
        values, bounds = flat.tolist(), ends.tolist()
        taken: Counter[int] = Counter()
        full: set[int] = set()
        kept = []
        for place in range(len(rows)):
            own = values[bounds[place] : bounds[place + 1]]
            if full.isdisjoint(own):
                kept.append(place)
                if len(kept) == wanted:
                    break
                for value in own:
                    taken[value] += 1
                    if taken[value] == self.most:
                        full.add(value)
        return np.array(kept, dtype=np.int64)

    @override
    def remaining_mask(self, candidates: Candidates) -> Mask | None:
        """Return the rows without a full value."""
        kept = self._admitted(candidates.rows, len(candidates))
        return self._open(candidates.rows, candidates.rows[kept])

    def _open(self, seen: Int64, kept: Int64) -> Mask:
        """Return the eligible rows without a full value, except seen ones: bool [size].

        Args:
            seen: int64 [m], all candidates so far.
            kept: int64 [k], the admitted ones.
        """
        groups = self.groups
        codes = groups.codes[kept] if groups.indptr is None else groups.several(kept)[0]
        full = np.append(np.bincount(codes[codes >= 0], minlength=groups.count) >= self.most, [False])  # -1 is last
        rows = self.everything()
        rows[seen] = False
        if groups.indptr is None:
            return np.asarray(rows & ~full[groups.codes])
        before = np.concatenate([[0], np.cumsum(full[groups.codes])])[groups.indptr]
        return np.asarray(rows & (before[1:] == before[:-1]))


@dataclass(frozen=True, slots=True)
class Pin(Rule):
    """Items at fixed positions; the other items fill the positions between them.

    A pin overrides only the score: an item that a filter, an allow list, or the exclusion of seen items leaves out is not
    listed, and neither is one that the catalogue lacks; both give a warning. If the list ends before the position, the item is
    the last one. Later rules treat a pinned item as any other.

    Attributes:
        items: position from 1 by id; each position once.
    """

    items: Annotated[Mapping[Id, Position], Field(min_length=1, max_length=100, examples=[{"12": 1, "7": 3}])]
    kind: Literal["pin"] = "pin"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        twice = [position for position in self.items.values() if list(self.items.values()).count(position) > 1]
        if twice:
            raise RequestError(
                f"two items are pinned to position {twice[0]}", where=f"{where}/items", hint="Give each item another position"
            )
        ids = sorted(self.items, key=self.items.__getitem__)
        rows = pool.rows(ids)
        check_distinct(ids, rows, f"{where}/items")
        allowed = rows >= 0
        allowed[allowed] = pool.eligible(rows[allowed])
        positions = np.array([self.items[one] for one in ids], dtype=np.int64)
        strangers = [one for one, row in zip(ids, rows.tolist(), strict=True) if row < 0]
        barred = [one for one, row, fine in zip(ids, rows.tolist(), allowed.tolist(), strict=True) if row >= 0 and not fine]
        warnings = id_warnings(
            (strangers, "pinned ids are not in the catalogue"), (barred, "pinned ids are filtered or seen and are not shown")
        )
        rows = rows[allowed]
        return Pinned(rows, pool.scores(rows), positions[allowed], warnings)


@dataclass(frozen=True)
class Pinned(Step):
    """Inserts rows at positions.

    Attributes:
        rows: int64 [p], eligible and distinct.
        scores: floats [p].
        positions: int64 [p], from 1, ascending.
        warnings: pins without effect, in sentences.
    """

    rows: Int64
    scores: Scores
    positions: Int64
    warnings: tuple[str, ...] = ()

    @override
    def fetch_size(self, wanted: int) -> int:
        """Add the pins, which may be among the candidates."""
        return wanted + len(self.rows)

    @override
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Insert pins as far as the positions before them are filled.

        Args:
            candidates: beginning of the ranking before the step.
            wanted: results wanted.
        """
        others = candidates.take(~np.isin(candidates.rows, self.rows), complete=candidates.complete)
        places: list[int] = []
        for position in self.positions.tolist():
            last = len(others) + len(places)
            if position - 1 > last and not candidates.complete:
                break
            places.append(min(position - 1, last))
        rows = np.empty(len(others) + len(places), dtype=np.int64)
        scores = np.empty(len(rows), dtype=np.result_type(others.scores, self.scores))
        free = np.ones(len(rows), dtype=bool)
        free[places] = False
        rows[free], scores[free] = others.rows, others.scores
        rows[places], scores[places] = self.rows[: len(places)], self.scores[: len(places)]
        return Candidates(rows, scores, candidates.complete)


@dataclass(frozen=True, slots=True)
class Diversify(Rule):
    """Maximal marginal relevance (Carbonell & Goldstein 1998) over a pool of items.

    Each position goes to the remaining item of the pool with the largest

        relevance * s - (1 - relevance) * c

    where s is the item's score, scaled from 1 for the best to 0 for the last of the pool (1 for all if the scores are equal),
    and c its largest cosine with an item above it, 0 for the first position. The cosine is that of the item vectors without the
    component that is the same for all users; it is 0 for a vector of zeros. Ties keep the previous order. Items after the pool
    follow unchanged.

    Attributes:
        relevance: 1 keeps the order; 0 uses only the similarity after the first position.
        pool: number of candidates to reorder.
    """

    relevance: Annotated[float, Field(ge=0, le=1, strict=True, examples=[0.7])] = 0.7
    pool: Annotated[int, Field(ge=1, le=2000, strict=True, examples=[200])] = 200
    kind: Literal["diversify"] = "diversify"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        return Marginal(pool.taste, self.relevance, self.pool)


@dataclass(frozen=True)
class Marginal(Step):
    """Reorders the first `pool` candidates by marginal relevance.

    Attributes:
        taste: returns the components of item vectors that determine similarity: rows int64 [m] -> float32 [m, ...].
        relevance, pool: as in `Diversify`.
    """

    taste: Callable[[Int64], Float32]
    relevance: float
    pool: int

    @override
    def fetch_size(self, wanted: int) -> int:
        """Return at least the size of the pool: any of its items may be first."""
        return max(self.pool, wanted)

    @override
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Reorder the pool; return nothing until all of its candidates are known.

        Args:
            candidates: beginning of the ranking before the step.
            wanted: results wanted.
        """
        among = min(self.pool, len(candidates))
        if among < self.pool and not candidates.complete:
            return candidates.take(slice(0), complete=False)
        picked = self._order(candidates.rows[:among], candidates.scores[:among], min(wanted, among))
        if len(picked) < among:
            return candidates.take(picked, complete=False)
        return candidates.take(np.concatenate([picked, np.arange(among, len(candidates))]), complete=candidates.complete)

    def _order(self, rows: Int64, scores: Scores, count: int) -> Int64:
        """Return the positions of the first `count` candidates in the new order."""
        parts = self.taste(rows)
        lengths = np.linalg.norm(parts, axis=1, keepdims=True)
        directions = parts / np.where(lengths > 0, lengths, np.float32(1))
        gain = self.relevance * scaled(scores)
        likeness = (1 - self.relevance) * (directions @ directions.T).astype(np.float64)
        penalty: Float64 = np.zeros(len(rows))
        order = np.empty(count, dtype=np.int64)
        for place in range(count):
            best = int((gain - penalty).argmax())
            order[place] = best
            # the first item has no penalty; from the second on, a negative similarity counts, too
            penalty = likeness[best].copy() if place == 0 else np.maximum(penalty, likeness[best], out=penalty)
            gain[best] = -np.inf
        return order


AnyRule = Quota | Dedupe | Diversify | Pin
TaggedRule = Annotated[AnyRule, Field(discriminator="kind")]
"""A rule as plain values, distinguished by `kind`."""

MOST_RULES = 10
"""Maximum number of rules of a request."""


def read_rules(values: Sequence[object]) -> tuple[AnyRule, ...]:
    """Validate rules, which may be objects or plain values.

    Raises:
        RequestError: A rule is malformed or out of bounds; `where` is the JSON pointer within a request.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) > MOST_RULES:
        found = f"{len(values)} rules" if isinstance(values, list | tuple) else type(values).__name__
        raise RequestError(f"rules must be a list of at most {MOST_RULES} rules, got {found}", where="/rules")
    try:
        return tuple(_adapter().validate_python(list(values)))
    except ValidationError as error:
        raise refused("rules", error) from None


@cache
def _adapter() -> TypeAdapter[list[AnyRule]]:
    return TypeAdapter(list[TaggedRule])
