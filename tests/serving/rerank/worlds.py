"""Random items for tests of rules, rankings over them, and reference implementations of the rules."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.serving.rerank.base import Candidates, Groups
from recall.serving.rerank.rules import AnyRule, Dedupe, Diversify, Pin, Quota


@dataclass(frozen=True)
class World:
    """Items with ids "0", "1" and so on, some of them not eligible."""

    frame: pl.DataFrame
    item_scores: np.ndarray
    item_vectors: np.ndarray
    mask: np.ndarray

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([int(one) if one.isdecimal() and int(one) < len(self.mask) else -1 for one in ids], dtype=np.int64)

    def eligible(self, rows: np.ndarray) -> np.ndarray:
        return self.mask[rows]

    def everything(self) -> np.ndarray:
        return self.mask.copy()

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return self.item_scores[rows]

    def taste(self, rows: np.ndarray) -> np.ndarray:
        return self.item_vectors[rows][:, 1:]

    def groups(self, column: str, where: str) -> Groups:
        if column not in self.frame.columns:
            raise RequestError(f"no column {column!r}", where=where)
        return Groups.of(self.frame[column])

    @property
    def ranking(self) -> list[int]:
        """Return all eligible rows, best first."""
        return [int(row) for row in np.lexsort((np.arange(len(self.mask)), -self.item_scores)) if self.mask[row]]

    def fetcher(self, widths: list[int]) -> Callable[[int, np.ndarray | None], Candidates]:
        """Return a fetch function for the ranking that records the requested sizes."""

        def fetch(width: int, among: np.ndarray | None) -> Candidates:
            widths.append(width)
            rows = np.array([row for row in self.ranking if among is None or among[row]][:width], dtype=np.int64)
            return Candidates(rows, self.item_scores[rows], complete=len(rows) < width)

        return fetch


@st.composite
def worlds(draw: st.DrawFn, most: int = 60) -> World:
    """Draw a world with few distinct scores, so that ties are common, and columns with one, several or no values."""
    size = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.integers(1, 8))
    shop = rng.integers(-1, kinds, size)
    vectors = rng.normal(size=(size, 4)).astype(np.float32)
    vectors[rng.random(size) < 0.1] = 0
    return World(
        pl.DataFrame(
            {
                "shop": pl.Series([None if one < 0 else f"s{one}" for one in shop], dtype=pl.String),
                "tags": pl.Series(
                    [
                        None if rng.random() < 0.1 else [f"t{tag}" for tag in rng.integers(0, kinds, rng.integers(0, 4))]
                        for _ in shop
                    ],
                    dtype=pl.List(pl.String),
                ),
            }
        ),
        rng.choice([0.0, 0.5, 1.0, 2.5, 3.0], size) if draw(st.booleans()) else rng.normal(size=size),
        vectors,
        rng.random(size) < draw(st.sampled_from([0.3, 1.0])),
    )


def rules(world: World, with_diversity: bool = True) -> st.SearchStrategy[AnyRule]:
    """Draw any rule over a world, including pins of unknown and ineligible items."""
    columns = st.sampled_from(["shop", "tags"])
    ids = st.integers(0, len(world.mask) + 2).map(str)
    pins = st.lists(
        st.tuples(ids, st.integers(1, 25)), min_size=1, max_size=4, unique_by=(lambda one: one[0], lambda one: one[1])
    )
    kinds = [
        st.builds(Quota, columns, st.integers(1, 4)),
        st.builds(Dedupe, columns),
        st.builds(Pin, pins.map(dict)),
    ]
    diverse = st.builds(Diversify, st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(1, 40))
    return st.one_of(*kinds, diverse) if with_diversity else st.one_of(*kinds)


def defined(world: World, rule: AnyRule, ranking: list[int]) -> list[int]:
    """Apply a rule to a whole ranking by its definition."""
    match rule:
        case Quota(column, most):
            return capped(world, column, most, ranking)
        case Dedupe(column):
            return capped(world, column, 1, ranking)
        case Diversify(relevance, pool):
            return marginal(world, relevance, ranking[:pool]) + ranking[pool:]
        case Pin(items):
            rows = {int(one): at for one, at in items.items() if int(one) < len(world.mask) and world.mask[int(one)]}
            found = [row for row in ranking if row not in rows]
            for row, at in sorted(rows.items(), key=lambda one: one[1]):
                found.insert(at - 1, row)
            return found


def capped(world: World, column: str, most: int, ranking: list[int]) -> list[int]:
    taken: Counter[str] = Counter()
    kept = []
    for row in ranking:
        held = world.frame[column][row]
        values = [] if held is None else [held] if isinstance(held, str) else list(dict.fromkeys(held))
        if all(taken[value] < most for value in values):
            kept.append(row)
            taken.update(values)
    return kept


def marginal(world: World, relevance: float, pool: list[int]) -> list[int]:
    """Apply Carbonell & Goldstein's formula in two loops; values equal up to rounding are ties."""
    scores = [float(world.item_scores[row]) for row in pool]
    span = max(scores, default=0.0) - min(scores, default=0.0)
    gain = [(score - min(scores)) / span if span else 1.0 for score in scores]
    left, picked = list(range(len(pool))), []
    while left:
        values = [
            relevance * gain[at] - (1 - relevance) * max((cosine(world, pool[at], pool[one]) for one in picked), default=0)
            for at in left
        ]
        best = next(at for at, value in zip(left, values, strict=True) if value >= max(values) - 1e-6)
        picked.append(best)
        left.remove(best)
    return [pool[at] for at in picked]


def cosine(world: World, one: int, other: int) -> float:
    first, second = (world.item_vectors[row, 1:].astype(np.float64) for row in (one, other))
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / lengths) if lengths else 0.0
