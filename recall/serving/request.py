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
"""The largest `popularity` of a request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for recommendations.

    Attributes:
        user_id: external id; None for an anonymous request.
        features: values by column of the users table; they replace the stored values of the user.
        context: values by context column, such as the hour.
        history: ids of previous items, most recent first, in place of the stored history; None for the stored history. Ids
            that the model has not learnt give a warning.
        n: results wanted, 1 to 1000.
        exclude_seen: exclude all items that the user has interacted with, including those in `history`.
        exclude: ids of further items to exclude; ids that the catalogue lacks give a warning.
        popularity: weight of the part of a score that is the same for all users, which contains the item's popularity: the
            first component of the query vector is multiplied by it. 1 ranks as the model does, and 0 only by the interaction
            of user and item; at most 10. An approximate index was tuned with 1, and may find less with other weights.
        filter: condition on the items' columns, in the language of `recall.serving.filters.parse`; None for all items. The
            answer has the best of the matching items.
        allow: ids of the only items that may be returned; ids that the catalogue lacks give a warning, and an empty list
            allows nothing. None allows all.
        rules: quotas, deduplication, diversity and pins, applied in this order to the whole ranking; see
            `recall.serving.rerank.rules`. The answer has the first n items that they leave.
        channels: lists to merge with the model's, before all rules; None for the model's list.
        boosts: weights by the names in `index.boosts` of the configuration. The sum of weight times number of the item is
            added to its score; the search is then exact.
        explain: explain the score of each item in the answer; n must be at most 100.
        fields: columns of the items to return, such as titles.
        because: number of further lists, each of items similar to one item of the user's history, latest first.
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
    """One result.

    The score is the inner product of the query vector and the item's, plus boosts; or, if channels were merged, the merged
    score of `recall.serving.rerank.channels.Channels`. With a `popularity` of 1 and without boosts and channels, the model's
    score is this score plus the answer's `user_offset`.

    Attributes:
        sources: channels with the item, and its rank in each; None unless the request has channels.
    """

    item_id: str
    score: float
    sources: tuple[Source, ...] | None = None


class Prediction(NamedTuple):
    """Score and explanation of one item for one request.

    Attributes:
        score: the model's score, including the user's offset.
        probability: predicted probability of an interaction, the logistic function of the score; None unless the model was
            trained by log loss. It assumes the ratio of positive to negative examples of the training data.
    """

    score: float
    probability: float | None


class Contribution(NamedTuple):
    """Contribution of fields to a score: of user and item, or one or two of the item."""

    user_field: str | None
    item_fields: tuple[str, ...]
    value: float


class FeatureValue(NamedTuple):
    """One feature of a user or an item.

    Attributes:
        field: name of the field; a history has a field for each range of lags.
        value: as text, such as a word, an item's id or "[10, 20)"; None unless `state` is "learnt".
        weight: of the feature in the model.
        state: whether the model has learnt the value, has not learnt it, or the value is missing.
    """

    field: str
    value: str | None
    weight: float
    state: Literal["learnt", "unknown", "missing"]


class ValueContribution(NamedTuple):
    """Contribution of values to a score: of user and item, or one or two of the item."""

    user: FeatureValue | None
    items: tuple[FeatureValue, ...]
    value: float


class Row(NamedTuple):
    """A further list of an answer: items similar to one of the user's history.

    Attributes:
        because: id of the item of the history.
        title: heading with the item's value of the first of the request's fields, or with its id.
        items: most similar first, with cosines as scores; none of them is in another list of the answer.
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
        ids: ids of the items, best first; fewer than n only if fewer are eligible.
        scores: scores of the items; see `ScoredItem`.
        user: whether the named user is stored or not, or the request is anonymous.
        unknown: columns with a value that the model has not learnt; it used the field's embedding for unknown values.
        warnings: parts of the request without effect, in sentences.
        exact: whether these are known to be the best items; an approximate search may have missed some. Re-ranking is always
            exact: with rules or channels, it refers to the model's ranking that they were applied to.
        bundle: version of the bundle that answered.
        sequence: sequence of the last live change of items that the answer reflects; 0 before the first change.
        user_offset: the part of the model's score that is the same for all items, regardless of the request's `popularity`.
        degraded: parts of the service that did not work; empty if all did.
        sources: for each item, its channels and ranks; None unless the request has channels.
        contributions: for each item, the contributions to its score, as in `Explanation`; empty unless the request has
            `explain`. If channels were merged, they sum to the model's score with boosts.
        fields: for each item, the values of the request's `fields`, without missing values; empty if the request has none.
        rows: the further lists of the request's `because`.
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
        sequence: sequence of the last live change of items that the answer reflects; 0 before the first change.
        degraded: parts of the service that did not work; empty if all did.
    """

    bundle: str
    sequence: int
    degraded: tuple[Degraded, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation(Basis):
    """Contributions to the score of one item.

    Attributes:
        item_id: id of the item.
        score: score with which the item would be listed.
        contributions: contributions other than zero, by descending absolute value; they sum to the score. Contributions
            without a user field are the same for all users: with one item field it is of first order, with two of second
            order, and with the same field twice of pairs of its values. A boost is listed under the user field "boosts", with
            its name as the item field.
        user_offset: the part of the model's score that is the same for all items; `score` does not include it.
        values: the same by values, by descending absolute value, without boosts; None unless requested.
        rest: sum of what `values` leaves out: boosts, and contributions beyond the longest list. `values` and `rest` sum to
            the score.
    """

    item_id: str
    score: float
    contributions: tuple[Contribution, ...]
    user_offset: float
    values: tuple[ValueContribution, ...] | None = None
    rest: float = 0.0


class Reason(NamedTuple):
    """Reason why an item is not in a list.

    Attributes:
        kind: "excluded", "seen", "allow" and "filter" make the item ineligible. "score": at least n others score higher. "rule"
            and "channels": without this rule, or without channels, it would be listed; "rules": without all of them together.
            "search": an approximate search has not found it.
        where: JSON pointer to the part of the request; empty if it is not a part of the request.
        text: explanation in a sentence.
    """

    kind: Literal["excluded", "seen", "allow", "filter", "score", "rule", "rules", "channels", "search"]
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Absence(Basis):
    """Rank of one item for a request, and the reasons why it is not in the answer.

    The ranking is that of all eligible items by the model's score with boosts, before rules and channels. It includes the item
    even if the item is not eligible.

    Attributes:
        item_id: id of the item.
        listed: its position in the answer, from 1; None if it is not listed.
        reasons: all reasons why it is not listed; empty if it is.
        score: its score in the ranking.
        rank: its rank, from 1.
        eligible: number of ranked items, including this one.
        last: the n-th of the other items, which it has to overtake to be among the first n; None with fewer than n others.
        missing: score of `last` minus its own; negative if it is ahead, None without `last`.
        contributions: for each pair of fields, the contribution to `last` minus that to the item; they sum to `missing`.
        exact: whether the answer (not the ranking) is known to have the best items.
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
    """The items most similar to one item.

    Attributes:
        item_id: that item; it is not among `items`.
        items: most similar first, each with the cosine of the two vectors without the component that is the same for all users.
        warnings: parts of the request without effect, in sentences.
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
        user_offset: the part of the model's score that is the same for all items.
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
        items: items in the given order, without those that the catalogue lacks; scores as `recommend` would list them.
        missing: ids that the catalogue lacks.
        probabilities: of each item, as in `Prediction`; None unless the model was trained by log loss and the request has a
            `popularity` of 1 and no boosts.
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
        features: values by column, without missing values.
    """

    item_id: str
    features: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Page(Basis):
    """Some items of the catalogue, sorted by id.

    Attributes:
        items: empty only after the last item.
        after: id after which the next page begins; None on the last page.
    """

    items: tuple[CatalogueItem, ...]
    after: str | None

    @classmethod
    def of(cls, catalogue: CatalogSnapshot, ids: Sequence[str], after: str | None = None) -> "Page":
        """Return some items of a catalogue.

        Args:
            catalogue: snapshot of the catalogue.
            ids: ids of the items; all must be in the catalogue.
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
