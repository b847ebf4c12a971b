"""Requests and answers, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Literal, NamedTuple

from recall.serving.rerank.channels import Channels, Source
from recall.serving.rerank.rules import AnyRule
from recall.store.items.snapshot import CatalogSnapshot
from recall.store.items.snapshot import Degraded as Degraded

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


class ScoredItem(NamedTuple):
    """One result: the inner product of the request's vector and the item's.

    Where the request leaves `popularity` at 1, the model's score is this plus the answer's `user_offset`. Boosts are part of
    it; and where channels were merged it is their sum, as `recall.serving.rerank.channels.Channels` has it.

    Attributes:
        sources: the channels that hold the item, with its rank in each; None unless the request named channels.
    """

    item_id: str
    score: float
    sources: tuple[Source, ...] | None = None


class Prediction(NamedTuple):
    """Score and explanation of one item for one request.

    Attributes:
        score: the model's own, the user's offset included.
        probability: the logistic function of the score, that the item is taken; None unless the model was trained by log
            loss. It speaks of data in which as much was not taken as in training.
    """

    score: float
    probability: float | None


class Contribution(NamedTuple):
    """Contribution of fields to a score: user and item, or one or two of the item."""

    user_field: str | None
    item_fields: tuple[str, ...]
    value: float


class FeatureValue(NamedTuple):
    """One feature of a user or an item.

    Attributes:
        field: its name; a history has a field for each range of lags.
        value: in writing, such as a word, an item's id or "[10, 20)"; None where `state` says that there is none.
        weight: how much of it there is, as the model has it.
        state: whether the model has learnt the value, has not, or there is none.
    """

    field: str
    value: str | None
    weight: float
    state: Literal["learnt", "unknown", "missing"]


class ValueContribution(NamedTuple):
    """Contribution of values to a score: user and item, or one or two of the item."""

    user: FeatureValue | None
    items: tuple[FeatureValue, ...]
    value: float


class Row(NamedTuple):
    """A further list of an answer: items like one that the user took.

    Attributes:
        because: the item that the user took.
        title: in words, with the value of the first of the request's fields, or the id.
        items: most alike first, with cosines as scores; none is in another list of the answer.
        fields: as in `Recommendations`.
    """

    because: str
    title: str
    items: tuple[ScoredItem, ...]
    fields: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Recommendations:
    """The answer to one request.

    Attributes:
        ids: of the items, best first; fewer than asked only when fewer are eligible.
        scores: theirs; see `ScoredItem`.
        user: whether the named user is stored or not, or the request is anonymous.
        unknown: columns with a value that the model has not learnt and that fell to its field's unknown row.
        warnings: what was odd about the request, in sentences.
        exact: whether these are known to be the best items, or an approximate search found them. Rules and channels are
            always exact: with them it says whether the model's ranking that they were given is.
        bundle: version of the bundle that answered.
        sequence: the last live change of items that the answer has seen; 0 before the first.
        user_offset: the part of the model's score that is the same for every item, regardless of the request's `popularity`.
        degraded: what the answer had to do without; empty when all is well.
        sources: theirs, where the request named channels.
        contributions: for each item, what its score comes from, as `Explanation.contributions`; empty unless the request
            asked for it. Where channels were merged they add up to the model's score, with boosts.
        fields: for each item, the values of the columns that the request names, without missing ones; empty if it names none.
        rows: further lists, if the request asked for them.
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
    contributions: tuple[tuple[Contribution, ...], ...] = ()
    fields: tuple[Mapping[str, object], ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def items(self) -> tuple[ScoredItem, ...]:
        """The items, best first; a new tuple at each access."""
        return tuple(map(ScoredItem, self.ids, self.scores, self.sources or repeat(None)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Snapshot and bundle of an answer.

    Attributes:
        bundle: version of the bundle that answered.
        sequence: the last live change of items that the answer has seen; 0 before the first.
        degraded: what it had to do without; empty when all is well.
    """

    bundle: str
    sequence: int
    degraded: tuple[Degraded, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation(Basis):
    """Contributions to the score of one item.

    Attributes:
        item_id: the item.
        score: what the item would be listed with.
        contributions: those that are not zero, the largest first, regardless of their sign; they add up to the score. Those
            without a user field are the item's own part, the same for everyone: one field is its first order, two
            fields its second, and a field with itself the pairs of its values. A boost of the request is under the user
            field "boosts", with its name as the item field.
        user_offset: the part of the model's score that is the same for every item, and no part of `score`.
        values: the same by values, the largest first; boosts are not among them. None unless they were asked for.
        rest: what `values` leaves out: boosts, and what is beyond the longest list; `values` and this add up to the score.
    """

    item_id: str
    score: float
    contributions: tuple[Contribution, ...]
    user_offset: float
    values: tuple[ValueContribution, ...] | None = None
    rest: float = 0.0


class Reason(NamedTuple):
    """Something that keeps an item out of a list.

    Attributes:
        kind: "excluded", "seen", "allow" and "filter" make the item ineligible. "score": enough others score higher. "rule" and
            "channels": without this one rule, or without channels, it would be listed; "rules": without all of them
            together. "search": an approximate search has not found it.
        where: JSON pointer to the part of the request, empty where there is none.
        text: in a sentence.
    """

    kind: Literal["excluded", "seen", "allow", "filter", "score", "rule", "rules", "channels", "search"]
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Absence(Basis):
    """Rank of one item for a request, and what keeps it out of the answer.

    The ranking meant here is that of all eligible items by the model's score with boosts, which rules and channels are given;
    the item is counted among them whether it is eligible or not.

    Attributes:
        item_id: the item.
        listed: its place in the answer, from 1; None when it is not there.
        reasons: all that keep it out; empty when it is listed.
        score: by which it is ranked.
        rank: its place in the ranking, from 1.
        eligible: number of items that are ranked, this one included.
        last: the other item that it has to overtake to be among the first n; None when there are fewer than n others.
        missing: the score of `last` less its own: what it lacks, or, below 0, what it is ahead; None without `last`.
        contributions: what `last` has of each pair of fields more than it; they add up to `missing`.
        exact: whether the answer, not the ranking, is known to hold the best items.
    """

    item_id: str
    listed: int | None
    reasons: tuple[Reason, ...]
    score: float
    rank: int
    eligible: int
    last: ScoredItem | None
    missing: float | None
    contributions: tuple[Contribution, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class Similar(Basis):
    """The items most like one item.

    Attributes:
        item_id: that item; it is not among `items`.
        items: most alike first, each with the cosine of the two items' vectors, what an item scores for everyone left out.
        warnings: what was odd about the request, in sentences.
        fields: as in `Recommendations`.
    """

    item_id: str
    items: tuple[ScoredItem, ...]
    warnings: tuple[str, ...]
    fields: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBasis(Basis):
    """Basis of an answer about a user.

    Attributes:
        user_offset: the part of the model's score that is the same for every item.
        user, unknown, warnings: as in `Recommendations`.
    """

    user_offset: float
    user: Literal["known", "unknown", "anonymous"]
    unknown: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scores(UserBasis):
    """Scores of given items for one request.

    Attributes:
        items: in the order given, those left out that the catalogue lacks; scores are those that `recommend` lists them with.
        missing: ids that the catalogue lacks.
        probabilities: of each item, as `Prediction` has them; None unless the model was trained by log loss and the request
            turns neither dial nor boosts.
        fields: as in `Recommendations`.
    """

    items: tuple[ScoredItem, ...]
    missing: tuple[str, ...]
    probabilities: tuple[float, ...] | None
    fields: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class UserVector(UserBasis):
    """Query vector of a request.

    Attributes:
        vector: [dim]; its inner product with an item's vector is the item's score.
    """

    vector: tuple[float, ...]


class CatalogueItem(NamedTuple):
    """One item of the catalogue.

    Attributes:
        item_id: its id.
        features: by column, as the catalogue holds them; what is missing is left out.
    """

    item_id: str
    features: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Page(Basis):
    """Some items of the catalogue in order of their ids.

    Attributes:
        items: at least one, unless there are no more.
        after: the id that the next page begins after; None when nothing follows.
    """

    items: tuple[CatalogueItem, ...]
    after: str | None

    @classmethod
    def of(cls, catalogue: CatalogSnapshot, ids: Sequence[str], after: str | None = None) -> "Page":
        """Return some items of a catalogue.

        Args:
            catalogue: as it is now.
            ids: of the items, which are in the catalogue.
            after: cursor of the next page; None on the last page.
        """
        manifest = catalogue.bundle.manifest
        key = manifest.schema_.item_id
        return cls(
            items=tuple(
                CatalogueItem(values.pop(key), {name: value for name, value in values.items() if value is not None})
                for values in (catalogue.table(catalogue.rows(ids)).to_dicts() if ids else ())
            ),
            after=after,
            bundle=manifest.version,
            sequence=catalogue.sequence,
            degraded=catalogue.degraded,
        )
