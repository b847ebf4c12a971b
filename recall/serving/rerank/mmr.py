"""Maximal marginal relevance: diversify a list by the similarity of its items."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from recall._arrays import Float32, Int64
from recall.serving.rerank.base import Candidates, Mask, Pool, Scores, Step
from recall.serving.rerank.fusion import scaled


@dataclass(frozen=True, slots=True)
class Diversify:
    """Maximal marginal relevance (Carbonell & Goldstein 1998) over a pool of items.

    Each place goes to the item with the largest

        relevance * s - (1 - relevance) * c

    where s is the item's score, scaled so that the best of the pool has 1 and the last 0 (all have 1 where their scores are
    equal), and c its largest cosine with an item above it, 0 for the first place. The cosine is of item vectors without
    the parts that an item has for everyone; of a vector of zeros it is 0. Equal values go by the order
    before. Items below the pool follow as they were.

    Attributes:
        relevance: 1 leaves the order as it was, 0 looks at likeness alone once the first place is taken.
        pool: number of candidates that are put in order.
    """

    relevance: Annotated[float, Field(ge=0, le=1, strict=True, examples=[0.7])] = 0.7
    pool: Annotated[int, Field(ge=1, le=2000, strict=True, examples=[200])] = 200
    kind: Literal["diversify"] = "diversify"

    __pydantic_config__ = ConfigDict(extra="forbid", revalidate_instances="always", allow_inf_nan=False)

    def step(self, pool: Pool, where: str) -> Step:  # noqa: ARG002
        """Return the rule as a step over the items of one request.

        Args:
            pool: the items.
            where: JSON pointer of the rule.

        Raises:
            RequestError: The rule does not fit the catalogue.
        """
        return Marginal(pool.taste, self.relevance, self.pool)


@dataclass(frozen=True, slots=True)
class Marginal:
    """Puts the first `pool` candidates in order by marginal relevance.

    Attributes:
        taste: components of item vectors that tell which are alike, of rows: int64 [m] -> float32 [m, ...].
        relevance, pool: as in `Diversify`.
    """

    taste: Callable[[Int64], Float32]
    relevance: float
    pool: int
    warnings: tuple[str, ...] = ()

    def fetch_size(self, wanted: int) -> int:
        """Return the size of the whole pool: any of it may come first."""
        return max(self.pool, wanted)

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

    def remaining_mask(self, candidates: Candidates) -> Mask | None:  # noqa: ARG002
        """Any."""
        return None

    def _order(self, rows: Int64, scores: Scores, count: int) -> Int64:
        """Places of the first `count` of these, in their new order."""
        parts = self.taste(rows)
        lengths = np.linalg.norm(parts, axis=1, keepdims=True)
        directions = parts / np.where(lengths > 0, lengths, np.float32(1))
        gain = self.relevance * scaled(scores)
        likeness = (1 - self.relevance) * (directions @ directions.T).astype(np.float64)
        penalty: npt.NDArray[np.float64] = np.zeros(len(rows))
        order = np.empty(count, dtype=np.int64)
        for place in range(count):
            best = int((gain - penalty).argmax())
            order[place] = best
            # nothing is above the first place, and a likeness below 0 counts once something is
            penalty = likeness[best].copy() if place == 0 else np.maximum(penalty, likeness[best], out=penalty)
            gain[best] = -np.inf
        return order
