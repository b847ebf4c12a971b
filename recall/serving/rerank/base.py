"""What a rule is, and what it may ask about the items of a request.

A rule is said of the whole ranking of all eligible items. It is carried out on the first of them, as many as it turns out
to need: a step gives back only what cannot change however many more candidates follow, so that the answer is the one that
the whole ranking would have given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int64
from recall.serving.rerank.groups import Groups

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The first of a ranking, best first.

    Attributes:
        rows: int64 [m], distinct.
        scores: floats [m], what each is listed with; they need not fall once a step has moved items.
        complete: whether nothing follows.
    """

    rows: Int64
    scores: Scores
    complete: bool

    def __len__(self) -> int:
        return len(self.rows)

    def followed(self, rest: "Candidates") -> "Candidates":
        """These and those that come after them."""
        rows, scores = np.concatenate([self.rows, rest.rows]), np.concatenate([self.scores, rest.scores])
        return Candidates(rows, scores, rest.complete)

    def take(self, places: Int64 | Mask | slice, *, complete: bool) -> "Candidates":
        """Those at some places, in the order of the places."""
        return Candidates(self.rows[places], self.scores[places], complete)


class Pool(Protocol):
    """The items that one request may be answered with."""

    def rows(self, ids: Sequence[str]) -> Int64:
        """Rows of ids: int64 [m], -1 where the catalogue lacks one."""

    def eligible(self, rows: Int64) -> Mask:
        """Whether filters, lists and seen items let these rows through: bool [m]."""

    def everything(self) -> Mask:
        """Whether each row of the catalogue is eligible: bool [size]."""

    def scores(self, rows: Int64) -> Scores:
        """What these rows score for the request: floats [m]."""

    def vectors(self, rows: Int64) -> Float32:
        """Item vectors: float32 [m, dim]."""

    def groups(self, column: str, where: str) -> Groups:
        """What the items hold in a column. Raises RequestError at `where` when the catalogue has no such column."""


class Step(Protocol):
    """A rule over the items of one request."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What had no effect, in sentences."""

    def needs(self, wanted: int) -> int:
        """How many candidates to begin with where `wanted` are to come out; a guess that may prove too low."""

    def apply(self, candidates: Candidates, wanted: int) -> Candidates:
        """The first of the ranking that this step makes, none of which would change if more candidates followed.

        Args:
            candidates: the first of the ranking before.
            wanted: at least this many, where the candidates allow; work beyond them may be left out.
        """

    def beyond(self, candidates: Candidates) -> Mask | None:
        """The rows beyond these candidates that the step may let through; None where it may be any that is eligible.

        Left out is only what the step drops without its making any difference to others.
        """


class Rule(Protocol):
    """What a request says; every part of it can be checked without a catalogue."""

    def step(self, pool: Pool, where: str) -> Step:
        """The rule over the items of one request. Raises RequestError, whose pointer begins with `where`."""


# Steps one after another, over as much of the ranking as the answer takes.

_WIDER = 4
"""How many times as many candidates go through the steps when too few came out."""


def shaped(fetch: Callable[[int, Mask | None], Candidates], steps: Sequence[Step], n: int, size: int) -> Candidates:
    """The first n of the ranking that the steps make of the whole one.

    Args:
        fetch: the first w of the ranking, or of its rows that a mask lets in; `complete` when there are no more.
        steps: in order.
        n: results wanted.
        size: rows of the catalogue; no fetch asks for more than one row beyond them.

    Returns:
        Exactly min(n, what the steps leave of the whole ranking), complete when it is all that they leave.
    """
    # one more than there are, so that a fetch of everything learns that nothing follows
    most = size + 1
    wants = list(accumulate(reversed(steps), lambda wanted, step: min(step.needs(wanted), most), initial=n))[::-1]
    factor, fetched = 1, fetch(wants[0], None)
    while True:
        found = fetched
        for step, wanted in zip(steps, wants[1:], strict=True):
            found = step.apply(found, wanted * factor)
        if found.complete or len(found) >= n:
            return found if len(found) <= n else found.take(slice(n), complete=False)
        factor *= _WIDER
        if not fetched.complete:
            # what the first step drops for certain need not be fetched: where quotas are full, nearly nothing is left
            left = steps[0].beyond(fetched)
            more = fetch(min(wants[0] * factor, most), left)
            fetched = more if left is None else fetched.followed(more)
