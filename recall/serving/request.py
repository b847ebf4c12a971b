"""What one caller asks, and the checks that need no bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recall._ids import check_id, check_ids
from recall.errors import RequestError
from recall.serving.rerank.channels import Channels
from recall.serving.rerank.rules import AnyRule

MOST = 1000
"""The largest n that a request may ask for."""

MOST_EXPLAINED = 100
"""The largest n of a request that asks for explanations: each costs more than it does to find an item."""

LARGEST_POPULARITY = 10.0
"""The largest weight that a request may give to what items score for everyone."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one caller asks.

    Attributes:
        user_id: external id; None when nobody is named.
        features: values by column of the users table; each replaces what is stored of the user.
        context: values by context column, such as the hour.
        history: ids of previous items, most recent first; replaces the stored history, None leaves it. Ids that the
            model has not learnt give a warning.
        n: results wanted, 1 to 1000.
        exclude_seen: leave out every item that the user is known to have interacted with, those in `history` included.
        exclude: ids of further items to leave out; ids that the catalogue lacks give a warning.
        popularity: weight of the part of a score that an item has for everyone, the first component of its vector, in
            which its popularity lies: the first component of the request's vector is multiplied by it. 1 ranks
            as the model does, 0 by what this user and this item have with each other alone; up to 10. An index that is
            not exact was calibrated at 1, and may find less away from it.
        filter: what the items' columns must say, in the form that `recall.serving.filters.parse` describes; None lets every
            item in. The answer holds the best of the items that match, as many as there are up to n.
        allow: ids of the only items that may be returned; ids that the catalogue lacks give a warning, and an empty list
            allows nothing. None allows all.
        rules: quotas, duplicates, diversity and pins, one after another in this order; see `recall.serving.rerank.rules`. The
            answer holds what the rules leave of the whole ranking, up to n.
        channels: lists that are merged with the model's, before any rule; None asks the model alone.
        boosts: weights of further coordinates of items, by the names that `index.boosts` of the configuration gives: each
            item's score gains the sum of weight times coordinate, and the answer holds surely the best by that score.
        explain: say of every item in the answer what its score comes from; for an n of at most 100.
    """

    user_id: str | None = None
    features: Mapping[str, object] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    history: Sequence[str] | None = None
    n: int = 10
    exclude_seen: bool = True
    exclude: Sequence[str] = ()
    popularity: float = 1.0
    filter: Mapping[str, object] | None = None
    allow: Sequence[str] | None = None
    rules: Sequence[AnyRule] = ()
    channels: Channels | None = None
    boosts: Mapping[str, float] = field(default_factory=dict)
    explain: bool = False

    @property
    def shaped(self) -> bool:
        """Whether it asks for more than the best items by the model's score."""
        return bool(self.rules or self.boosts) or self.channels is not None


def check_request(request: Request) -> None:
    """Raise RequestError when a part of the request cannot be what it says."""
    if isinstance(request.n, bool) or not isinstance(request.n, int) or not 1 <= request.n <= MOST:
        raise RequestError(f"n is {request.n!r}", where="/n", hint=f"Ask for 1 to {MOST} results")
    if request.explain and request.n > MOST_EXPLAINED:
        raise RequestError(f"{request.n} items to explain", where="/n", hint=f"Ask for at most {MOST_EXPLAINED} with `explain`")
    _check_popularity(request.popularity)
    if request.user_id is not None:
        check_id(request.user_id, "/user_id")
    for name, ids in (("history", request.history or ()), ("exclude", request.exclude), ("allow", request.allow or ())):
        if isinstance(ids, str):
            raise RequestError(f"{name} is one text", where=f"/{name}", hint="Give a list of ids")
        if len(ids):
            check_ids(ids, f"/{name}")


def check_unchanged(request: Request) -> None:
    """Raise RequestError when a request asks for other scores or lists than the model's own."""
    if request.popularity != 1:
        raise RequestError("a prediction is the model's own, without a dial", where="/popularity", hint="Leave popularity out")
    for name, asked in (("rules", request.rules), ("channels", request.channels), ("boosts", request.boosts)):
        if asked:
            raise RequestError(f"a prediction is the model's own, without {name}", where=f"/{name}", hint=f"Leave {name} out")


def _check_popularity(value: object) -> None:
    # NaN lies within no bounds
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_POPULARITY:
        raise RequestError(
            f"popularity is {value!r}", where="/popularity", hint=f"Give a number from 0 to {LARGEST_POPULARITY:g}; 1 is usual"
        )
