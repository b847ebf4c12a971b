"""All kinds of rules, and the check of the rules of a request."""

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
"""Candidates that one cap asks for beyond what it is to leave; when they run out, more are fetched. Guesses of several caps
in a row would multiply without this bound: ten of them to 59,049 times the length of the list."""

Id = Annotated[str, Field(min_length=1, max_length=1024)]
Position = Annotated[int, Field(ge=1, le=1000, strict=True)]


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
        codes = self.groups.codes[rows]
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
    """Items at fixed positions; the others close up around them.

    A pin passes over the score and nothing else: an item that a filter, a list or the user's seen items leave out is not
    shown, and neither is one that the catalogue lacks; both give a warning. Where a list ends before a position, the item is
    its last. A later rule treats a pinned item as any other.

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
                f"two items are pinned to position {twice[0]}", where=f"{where}/items", hint="Give each a position of its own"
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
    """Puts rows at positions.

    Attributes:
        rows: int64 [p], eligible and distinct.
        scores: floats [p].
        positions: int64 [p], from 1, rising.
        warnings: of the pins that had no effect.
    """

    rows: Int64
    scores: Scores
    positions: Int64
    warnings: tuple[str, ...] = ()

    @override
    def fetch_size(self, wanted: int) -> int:
        """Return as many as are wanted: a pin takes a place and may take a candidate."""
        return wanted + len(self.rows)

    @override
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Insert the pins, up to where more candidates could still come in between.

        Args:
            candidates: the first of the ranking before.
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

    Each place goes to the item with the largest

        relevance * s - (1 - relevance) * c

    where s is the item's score, scaled so that the best of the pool has 1 and the last 0 (all have 1 where their scores are
    equal), and c its largest cosine with an item above it, 0 for the first place. The cosine is of item vectors without
    the parts that an item has for everyone; of a vector of zeros it is 0. Equal values go by the order
    before. Items below the pool follow as they were.

    Attributes:
        relevance: 1 leaves the order as it was, 0 uses similarity alone after the first place.
        pool: number of candidates that are put in order.
    """

    relevance: Annotated[float, Field(ge=0, le=1, strict=True, examples=[0.7])] = 0.7
    pool: Annotated[int, Field(ge=1, le=2000, strict=True, examples=[200])] = 200
    kind: Literal["diversify"] = "diversify"

    @override
    def step(self, pool: Pool, where: str) -> Step:
        return Marginal(pool.taste, self.relevance, self.pool)


@dataclass(frozen=True)
class Marginal(Step):
    """Puts the first `pool` candidates in order by marginal relevance.

    Attributes:
        taste: components of item vectors that tell which are alike, of rows: int64 [m] -> float32 [m, ...].
        relevance, pool: as in `Diversify`.
    """

    taste: Callable[[Int64], Float32]
    relevance: float
    pool: int

    @override
    def fetch_size(self, wanted: int) -> int:
        """Return the size of the whole pool: any of it may come first."""
        return max(self.pool, wanted)

    @override
    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """Order the pool; nothing is returned while the pool is not full.

        Args:
            candidates: the first of the ranking before.
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
        """Places of the first `count` of these, in their new order."""
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
            # nothing is above the first place, and a likeness below 0 counts once something is
            penalty = likeness[best].copy() if place == 0 else np.maximum(penalty, likeness[best], out=penalty)
            gain[best] = -np.inf
        return order


AnyRule = Quota | Dedupe | Diversify | Pin
TaggedRule = Annotated[AnyRule, Field(discriminator="kind")]
"""A rule as plain values, distinguished by `kind`."""

MOST_RULES = 10
"""Rules that one request may have."""


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
