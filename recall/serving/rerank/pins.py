"""Items that stand at a place of the list whatever they score."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field

from recall._arrays import Int64
from recall.errors import RequestError
from recall.serving.rerank.base import Candidates, Mask, Pool, Scores, Step

_SHOWN = 5  # ids named in one warning


Id = Annotated[str, Field(min_length=1, max_length=1024)]
Position = Annotated[int, Field(ge=1, le=1000, strict=True)]


@dataclass(frozen=True, slots=True)
class Pin:
    """Items at fixed positions; the others close up around them.

    A pin passes over the score and nothing else: an item that a filter, a list or the user's seen items leave out is not
    shown, and neither is one that the catalogue lacks; both give a warning. Where a list ends before a position, the item is
    its last. A rule that stands after this one sees a pinned item as any other.

    Attributes:
        items: position from 1 by id; each position once.
    """

    items: Annotated[Mapping[Id, Position], Field(min_length=1, max_length=100, examples=[{"12": 1, "7": 3}])]
    kind: Literal["pin"] = "pin"

    __pydantic_config__ = ConfigDict(extra="forbid", revalidate_instances="always")

    def step(self, pool: Pool, where: str) -> Step:
        """Return the rule as a step over the items of one request.

        Args:
            pool: the items.
            where: JSON pointer of the rule.

        Raises:
            RequestError: The rule does not fit the catalogue.
        """
        twice = [position for position in self.items.values() if list(self.items.values()).count(position) > 1]
        if twice:
            raise RequestError(
                f"two items are pinned to position {twice[0]}", where=f"{where}/items", hint="Give each a position of its own"
            )
        ids = sorted(self.items, key=self.items.__getitem__)
        rows = pool.rows(ids)
        allowed = rows >= 0
        allowed[allowed] = pool.eligible(rows[allowed])
        positions = np.array([self.items[one] for one in ids], dtype=np.int64)
        strangers = [one for one, row in zip(ids, rows.tolist(), strict=True) if row < 0]
        barred = [one for one, row, fine in zip(ids, rows.tolist(), allowed.tolist(), strict=True) if row >= 0 and not fine]
        rows = rows[allowed]
        return Pinned(rows, pool.scores(rows), positions[allowed], tuple(_warnings(strangers, barred)))


@dataclass(frozen=True, slots=True)
class Pinned:
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
    warnings: tuple[str, ...] = field(default=())

    def fetch_size(self, wanted: int) -> int:
        """Return as many as are wanted: a pin takes a place and may take a candidate."""
        return wanted + len(self.rows)

    def apply(self, candidates: Candidates, wanted: int) -> Candidates:  # noqa: ARG002
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

    def remaining_mask(self, candidates: Candidates) -> Mask | None:  # noqa: ARG002
        """Any."""
        return None


def _warnings(strangers: list[str], barred: list[str]) -> Iterator[str]:
    for ids, fault in ((strangers, "are not in the catalogue"), (barred, "are filtered or seen and are not shown")):
        if ids:
            shown = ", ".join(map(repr, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
            yield f"{len(ids)} pinned ids {fault}: {shown}"
