"""What a request is answered with."""

from dataclasses import dataclass
from itertools import repeat
from typing import Literal, NamedTuple

from recall.channels.merging import Source


class ScoredItem(NamedTuple):
    """One result: the inner product of the request's vector and the item's.

    Where the request leaves `popularity` at 1, the model's score is this plus the answer's `user_offset`. Boosts are part of
    it; and where channels were merged it is their sum, as `recall.channels.kinds.Channels` has it.

    Attributes:
        sources: the channels that hold the item, with its rank in each; None unless the request named channels.
    """

    item_id: str
    score: float
    sources: tuple[Source, ...] | None = None


class Prediction(NamedTuple):
    """What the model says of one request and one item.

    Attributes:
        score: the model's own, the user's offset included.
        probability: the logistic function of the score, that the item is taken; None unless the model was trained by log
            loss. It speaks of data in which as much was not taken as in training.
    """

    score: float
    probability: float | None


class Degraded(NamedTuple):
    """What an answer had to do without, or with less of.

    Attributes:
        part: of the service, in one word: "items" when later changes of items are not known.
        reason: why, in a sentence.
    """

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recommendations:
    """The answer to one request.

    Attributes:
        ids: of the items, best first; fewer than asked only when fewer are eligible.
        scores: theirs; see `ScoredItem`.
        user: whether the named user is stored, is not, or nobody was named.
        unknown: columns with a value that the model has not learnt and that fell to its field's unknown row.
        warnings: what was odd about the request, in sentences.
        exact: whether these are surely the best items, or an approximate search found them. Rules and channels are carried out
            to the letter: with them it says whether the model's ranking that they were given is surely right.
        bundle: version of the bundle that answered.
        sequence: the last live change of items that the answer has seen; 0 before the first.
        user_offset: the part of the model's score that is the same for every item, whatever the request's `popularity`.
        degraded: what the answer had to do without; empty when all is well.
        sources: theirs, where the request named channels.
    """

    ids: tuple[str, ...]
    scores: tuple[float, ...]
    user: Literal["known", "unknown", "anonymous"]
    unknown: tuple[str, ...]
    warnings: tuple[str, ...]
    exact: bool
    bundle: str
    sequence: int
    user_offset: float
    degraded: tuple[Degraded, ...] = ()
    sources: tuple[tuple[Source, ...], ...] | None = None

    @property
    def items(self) -> tuple[ScoredItem, ...]:
        """The items, best first; made anew each time that they are asked for."""
        return tuple(map(ScoredItem, self.ids, self.scores, self.sources or repeat(None)))
