"""Choose how much popularity weighs in the scores of unknown users.

A popularity factor (`recall.models.serving.popularity`) is added after training. The row of each item id holds the standardised
logarithm of its count; the row of an unknown id, and that of an empty history, get one length each. They are chosen on
training users treated as unknown: the first half of the interactions of each is given, the second half is to be
found. A length is in standard deviations of the score of an unknown user over the items that train.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from recall._arrays import Bool, Float32, Float64, Int64
from recall.config import RunConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import REMEMBERED
from recall.errors import TrainingError
from recall.evaluation.baselines import Popularity
from recall.evaluation.cold_start import unknown_user, upper_end
from recall.evaluation.exact_topk import ItemLists, top_of_scores
from recall.evaluation.metrics import ndcg
from recall.evaluation.protocol import HeldOutRequests, held_out
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.serving.popularity import PopularityFactor
from recall.models.torch.base import Model

_LIST_LENGTH = 20  # length of the lists that are judged: that of most published figures
_LENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 1000.0)  # the last one gives the list of popularity
_DEFAULT_LENGTH = 5.0  # with too few requests for a choice; good on ml-100k, toys, frappe and ml-1m
_REQUESTS = 1000
_FEWEST_REQUESTS = 30  # requests for a choice, at least
_MOST_SCORES = 20_000_000  # scores of one length that are computed, which bounds the requests over a large catalogue
_RARE = 20  # users; a value of fewer users predicts their training interactions better than those of new users
_BLOCK = 1 << 22  # scores in memory at once: 16 MB


class _RequestKind(NamedTuple):
    """Requests of unknown users with the same kinds of features known.

    Attributes:
        rows: of the user feature space; one row for each request, or one for all.
        carrier: index of the carriers whose length is chosen by them.
    """

    rows: SparseRows
    carrier: int


@dataclass(frozen=True, slots=True)
class PopularityFit:
    """Choose the lengths of the popularity factor of a model.

    Its requests come from training users who are treated as unknown.

    Attributes:
        encoder: of the model.
        items: one row in the item feature space for each item of the catalogue.
        trained: bool [items], items with training interactions.
        weights: float32 [n_item_features], p.
        levels: float32 [n_item_features], l.
        carriers: for each of the two lengths, the user features that hold it.
        kinds: the requests, once for each combination of known features.
        held: the requests, their relevant and their masked items.
        popular_ndcg: float64 [q], NDCG of the most popular items.
    """

    encoder: FeatureEncoder
    items: SparseRows
    trained: Bool
    weights: Float32
    levels: Float32
    carriers: tuple[Int64, Int64]
    kinds: tuple[_RequestKind, ...]
    held: HeldOutRequests
    popular_ndcg: Float64

    @staticmethod
    def of(dataset: Dataset, encoder: FeatureEncoder, config: RunConfig) -> "PopularityFit | None":
        """Prepare the requests.

        Args:
            dataset: its training part is taken; remembered interactions count towards popularity.
            encoder: of the model.
            config: the protocol and the seed.

        Returns:
            None where no feature of the user side or none of the items could hold the factor.
        """
        # with those that a bundle remembers, where the run continues from it with new interactions alone
        interactions = np.concatenate([dataset.select(REMEMBERED), dataset.training])
        counts = np.bincount(dataset.events["item"].to_numpy()[interactions], minlength=len(dataset.items))
        rows = encoder.encode_items(dataset.items)
        weights = _item_weights(encoder, rows, counts)
        carriers = _carriers(dataset, encoder)
        if weights is None or config.train.objective == "logistic" or not any(map(len, carriers)):
            return None
        held = _requests(dataset, config, len(rows))
        return PopularityFit(
            encoder,
            rows,
            counts > 0,
            weights,
            np.zeros_like(weights),
            carriers,
            _request_kinds(dataset, encoder, held, config.seed),
            held,
            _ndcg_of(Popularity.ranked(counts).top(held.masked, _LIST_LENGTH), held.relevant),
        )

    def sampled(self, most: int, seed: int) -> "PopularityFit":
        """Return a fit by some of the requests, drawn at random.

        Args:
            most: maximum number of requests.
            seed: of the draw.
        """
        if len(self.held) <= most:
            return self
        chosen = self.held.drawn(most, seed)
        kinds = tuple(kind if len(kind.rows) == 1 else kind._replace(rows=kind.rows.take(chosen)) for kind in self.kinds)
        return replace(self, kinds=kinds, held=self.held.take(chosen), popular_ndcg=self.popular_ndcg[chosen])

    def __call__(self, model: Model) -> tuple[PopularityFactor, str]:
        """Choose the lengths for a model.

        Returns:
            The factor, and a line for the report.

        Raises:
            TrainingError: A score is not finite.
        """
        users = np.zeros(self.encoder.user_fields.n_features, dtype=np.float32)
        psi = model.embed("item", self.items, self.encoder.item_fields)
        psi = PopularityFactor(users, np.zeros_like(self.weights), self.levels).beside_items(psi, self.items)[:, :-1]
        popularity = self.items.weighted_sum(self.weights[:, None])[:, 0]
        unit, chosen = self._score_deviation(model, psi), [_DEFAULT_LENGTH, _DEFAULT_LENGTH]
        for carrier, features in enumerate(self.carriers):
            kinds = [kind for kind in self.kinds if kind.carrier == carrier]
            if len(features) and len(self.held) >= _FEWEST_REQUESTS and kinds:
                found = [self._ndcg(model, kind.rows, psi, popularity, users, unit) for kind in kinds]
                nothing_known = len(kinds) == 1 and len(kinds[0].rows) == 1
                chosen[carrier] = _LENGTHS[self._longest_length(found[0]) if nothing_known else self._best_length(found)]
            users[features] = unit * chosen[carrier]
        named = zip(chosen, _NAMES, self.carriers, strict=True)
        weighs = " and ".join(f"{length:g} for {name}" for length, name, features in named if len(features))
        return PopularityFactor(
            users, self.weights, self.levels
        ), f"popularity weighs {weighs}, in standard deviations of a score"

    def _score_deviation(self, model: Model, psi: Float32) -> float:
        """Return the deviation of an unknown user's scores over the trained items."""
        first = min((kind.carrier for kind in self.kinds), default=0)
        phi = [model.embed("user", kind.rows, self.encoder.user_fields) for kind in self.kinds if kind.carrier == first]
        with np.errstate(over="ignore", invalid="ignore"):
            spread = float(
                np.mean([np.mean([(psi[self.trained] @ one).std() for one in part[:_FEWEST_REQUESTS]]) for part in phi])
            )
        if not np.isfinite(spread):
            raise TrainingError(
                "scores for an unknown user are not finite", hint="Lower the learning rate or raise the regularisation"
            )
        return spread or 1.0

    def _best_length(self, found: Sequence[Float64]) -> int:
        """Return the length of the best NDCG, less a significant deficit to popularity."""
        figures = np.zeros(len(_LENGTHS))
        for one in found:
            figures += one.mean(axis=1) + [min(0.0, upper_end(ndcgs - self.popular_ndcg, self.held.user)) for ndcgs in one]
        return len(figures) - 1 - int(figures[::-1].argmax())

    def _longest_length(self, found: Float64) -> int:
        """Return the longest length that is not significantly worse than the best.

        If unknown users have no known values, a shorter length is chosen only if it is significantly better.
        """
        best = found[int(found.mean(axis=1).argmax())]
        return max(place for place, ndcgs in enumerate(found) if upper_end(ndcgs - best, self.held.user) >= 0)

    def _ndcg(self, model: Model, rows: SparseRows, psi: Float32, popularity: Float32, users: Float32, unit: float) -> Float64:
        """Return the NDCG of each request by length: float64 [lengths, q]."""
        phi, base = model.embed("user", rows, self.encoder.user_fields), rows.weighted_sum(users[:, None])
        found = np.zeros((len(_LENGTHS), len(self.held)))
        if len(rows) == 1:
            for place, length in enumerate(_LENGTHS):
                order = Popularity.ranked(psi @ phi[0] + (base[0] + np.float32(unit * length)) * popularity)
                found[place] = _ndcg_of(order.top(self.held.masked, _LIST_LENGTH), self.held.relevant)
        else:
            step = max(1, _BLOCK // max(len(psi), 1))
            room = np.empty((2, min(step, len(phi)), len(psi)), dtype=np.float32)  # for the scores of every block
            for first, some in self.held.batches(step):
                part = slice(first, first + step)
                scores, moved = room[:, : len(some)]
                np.matmul(phi[part], psi.T, out=scores)
                for place, length in enumerate(_LENGTHS):
                    np.multiply(base[part] + np.float32(unit * length), popularity, out=moved)
                    moved += scores
                    found[place, part] = _ndcg_of(top_of_scores(moved, some.masked, min(_LIST_LENGTH, len(psi))), some.relevant)
        return found


_NAMES = ("unknown ids", "empty histories")


def without_factor(encoder: FeatureEncoder, config: RunConfig) -> str:
    """Describe how unknown users are scored where `PopularityFit.of` returns None.

    Args:
        encoder: of the model.
        config: of the run.
    """
    if config.train.objective == "logistic":
        reason = "scores are log-odds, which popularity would falsify"
    elif not encoder.id_blocks("item", alone=True):
        reason = "no field has a row for each item id, which could hold an item's popularity"
    else:
        reason = "no field distinguishes unknown users from known ones"
    return f"by the mean of the learnt users: {reason}"


def _item_weights(encoder: FeatureEncoder, rows: SparseRows, counts: Int64) -> Float32 | None:
    """Return p, zero except in the rows of item ids: float32 [n_item_features].

    None where no field has such rows.

    Items without a value of the field have their own mean; items without interactions the mean of all.
    """
    block, trained = next(iter(encoder.id_blocks("item", alone=True)), None), counts > 0
    if block is None or not trained.any():
        return None
    logs = np.log1p(counts.astype(np.float64))
    # the deviation of equal numbers is zero only up to rounding
    level = (logs - logs[trained].mean()) / (logs[trained].std() if np.ptp(counts[trained]) else 1.0)
    owner = rows.owners
    inside = FeatureBlock.union([block], rows.indices) & trained[owner]
    features = rows.indices[inside]
    sums = np.bincount(features, level[owner[inside]], rows.n_features)
    return (sums / np.maximum(np.bincount(features, minlength=rows.n_features), 1)).astype(np.float32)


def _carriers(dataset: Dataset, encoder: FeatureEncoder) -> tuple[Int64, Int64]:
    """Return features of unknown and missing ids, and of empty histories.

    None that training changes. Of several id or history fields the first carries the factor, because a request has the
    features of all of them at once.
    """
    ids = dataset.users[dataset.schema.user_id].gather(np.unique(dataset.events["user"].to_numpy()[dataset.training]))

    unknown = [
        block
        for block in encoder.id_blocks("user", alone=True)
        if (vocabulary := encoder.columns[block.field].vocabulary) is not None and not (vocabulary.rows(ids) == UNKNOWN).any()
    ]
    empty = [
        block
        for block in encoder.user_blocks
        if block.field in encoder.histories and encoder.histories[block.field].tells_empty
    ]
    return (
        np.array([block.offset + value for block in unknown[:1] for value in (UNKNOWN, MISSING)], dtype=np.int64),
        np.array([block.offset + MISSING for block in empty[:1]], dtype=np.int64),
    )


def _requests(dataset: Dataset, config: RunConfig, items: int) -> HeldOutRequests:
    """Return requests for the second half of the interactions of some training users."""
    training = dataset.training
    user = dataset.events["user"].to_numpy()[training]
    rng = np.random.default_rng(config.seed)
    several = np.flatnonzero(np.bincount(user, minlength=len(dataset.users)) > 1)
    most = min(_REQUESTS, max(_MOST_SCORES // max(items, 1), _FEWEST_REQUESTS))
    chosen = np.zeros(len(dataset.users), dtype=np.bool_)
    chosen[rng.permutation(several)[:most]] = True
    training, user = training[chosen[user]], user[chosen[user]]
    starts, lengths = np.unique(user, return_index=True, return_counts=True)[1:]
    place = np.arange(len(user)) - np.repeat(starts, lengths)
    later = place >= np.repeat(lengths // 2, lengths)
    # as where users are held out, all requests of a user have the history before the first that is judged
    as_held_out = replace(dataset, hold_out="users")
    held = held_out(as_held_out, config.evaluation, training[later], training[~later])
    held = held.take(rng.permutation(len(held)))
    # one request of each user, where users have several: a new user is like a user, not like a request
    return held.take(np.sort(np.unique(held.user, return_index=True)[1])[:most])


def _request_kinds(dataset: Dataset, encoder: FeatureEncoder, held: HeldOutRequests, seed: int) -> tuple[_RequestKind, ...]:
    """Encode the requests with fewer and with more known features."""
    histories = encoder.history_blocks
    nothing = unknown_user(encoder)
    of_nothing = _RequestKind(nothing, 1 if histories else 0)
    if not len(held):  # no user has two interactions
        return (of_nothing,)
    contexts = build_contexts(dataset, encoder, held.event, held.before)
    known = contexts.features.take(contexts.context)
    ids = encoder.id_blocks("user")
    columns = [block for block in encoder.user_blocks if block not in histories and block not in ids]
    kinds = [of_nothing]
    if columns:
        seen = _with_common_values(dataset, encoder, known, columns, seed)
        kinds.append(_RequestKind(seen.replaced([*ids, *histories], nothing), 1 if histories else 0))
        if histories:
            kinds.append(_RequestKind(seen.replaced(ids, nothing), 0))
    if histories:
        kinds.append(_RequestKind(known.replaced([*ids, *columns], nothing), 0))
    return tuple(kinds)


def _with_common_values(
    dataset: Dataset, encoder: FeatureEncoder, rows: SparseRows, blocks: Sequence[FeatureBlock], seed: int
) -> SparseRows:
    """Replace values that few users have by those of other users.

    The parameters of a rare value are trained on the very user that it describes, and predict that user better than new users.
    """
    training = dataset.training
    last = training[np.diff(dataset.events["user"].to_numpy()[training], append=-1) != 0]
    contexts = build_contexts(dataset, encoder, last)
    every = contexts.features.take(contexts.context)
    users = np.bincount(every.indices, minlength=every.n_features)
    rng = np.random.default_rng(seed)
    for block in blocks:
        own, donors = rows.only([block]), every.only([block])
        rare = np.flatnonzero(_has_rare(own, users))
        giving = np.flatnonzero(_has_rare(donors, users))
        if len(rare) and len(giving):
            both = SparseRows.vstack([own, donors])
            source = np.arange(len(own))
            source[rare] = len(own) + rng.choice(giving, len(rare))
            own = both.take(source)
        rows = SparseRows.hstack([rows.without([block]), own])
    return rows


def _has_rare(rows: SparseRows, users: Int64) -> Bool:
    rare = np.concatenate([[0], np.cumsum(users[rows.indices] < _RARE)])
    found: Bool = np.diff(rare[rows.indptr]) > 0
    return found


def _ndcg_of(rows: Int64, relevant: ItemLists) -> Float64:
    return ndcg(relevant.contains(rows), relevant.lengths, _LIST_LENGTH)
