"""Request: what one caller asks, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recall.serving.rerank.channels import Channels
from recall.serving.rerank.rules import AnyRule

LARGEST_POPULARITY = 10.0
"""The largest weight that a request may give to what items score for everyone."""


@dataclass(frozen=True, slots=True)
class Request:
    """Request of one caller.

    Attributes:
        user_id: external id; None for an anonymous request.
        features: values by column of the users table; each replaces what is stored of the user.
        context: values by context column, such as the hour.
        history: ids of previous items, most recent first; replaces the stored history, None leaves it. Ids that the
            model has not learnt give a warning.
        n: results wanted, 1 to 1000.
        exclude_seen: leave out every item that the user is known to have interacted with, those in `history` included.
        exclude: ids of further items to leave out; ids that the catalogue lacks give a warning.
        popularity: weight of the part of a score that an item has for everyone, the first component of its vector, in
            which contains its popularity: the first component of the request's vector is multiplied by it. 1 ranks
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
            item's score gains the sum of weight times coordinate, and the answer holds the best by that score, found exactly.
        explain: say of every item in the answer what its score comes from; for an n of at most 100.
        fields: columns of the items whose values the answer holds, such as titles.
        because: number of further lists, each of items like one that the user took, the latest first.
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
    fields: Sequence[str] = ()
    because: int = 0
