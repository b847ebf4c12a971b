"""Simulate cold start: how well the model finds items and users without their ids.

Held-out requests are repeated with the rows of ids masked, so that an item or a user is known by its other fields
only. Nothing is retrained: the unknown row replaces the id's own row. All other rows (features, histories, the other
side) were trained on interactions with these very items and users. So the figures compare what fields and ids carry
within one model. They cannot show how training treats an item without interactions, nor features that were never trained
on it: a split by "users" or "items" measures that, and `recall.evaluation.hold_out` reports it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recall._arrays import Float32, Float64, Integers
from recall.bundle.reader import Bundle
from recall.config import EvaluationConfig
from recall.data.dataset import Dataset
from recall.errors import TrainingError
from recall.evaluation import metrics
from recall.evaluation.baselines import Popularity
from recall.evaluation.bootstrap import Comparison, Estimate, Figures, PerRequestMetrics, compare, estimate
from recall.evaluation.exact_topk import ItemLists, Replaced, pair_scores
from recall.evaluation.offline import OfflineReplay
from recall.evaluation.protocol import HeldOutRequests
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN


class Masked(Figures):
    """Metrics of the model with some of its fields masked."""

    fields: tuple[str, ...]
    """Fields that are masked."""
    metrics: dict[str, Estimate]
    comparison: dict[str, Comparison]
    """The masked model compared with the whole model, on the same requests."""


class ColdStart(Figures):
    """Metrics of exact lists on the same requests: recall, hit_rate, ndcg as `name@k`."""

    simulated: Literal[True] = True
    """Ids are masked in a model that was trained on these very items and users. The figures of new ones need a training of
    their own, with `data.split` by "users" or "items"."""

    requests: int
    users: int
    whole: dict[str, Estimate]
    """The model with nothing masked."""
    popularity: dict[str, Estimate]
    """The popularity baseline, with the training counts of all items."""
    new_items: Masked | None
    """The ids of all relevant items of a request are masked, and no others; None if no item field reads the id, as a new item
    is then scored like any other with its features."""
    new_users: Masked | None
    """The id of the user is masked; None if no user field reads the id."""
    history_only: Masked | None
    """All user fields except the history are missing; None if there is no history field, or no other field."""
    seconds: float

    def parts(self) -> dict[str, Masked]:
        """Return the evaluated parts, by name."""
        parts = {"new items": self.new_items, "new users": self.new_users, "history only": self.history_only}
        return {part: masked for part, masked in parts.items() if masked is not None}


def evaluate_cold_start(
    replay: OfflineReplay, bundle: Bundle, popularity: PerRequestMetrics, config: EvaluationConfig, seed: int
) -> ColdStart:
    """Evaluate the model again with masked ids.

    Args:
        replay: replay of the held-out requests.
        bundle: bundle of the replayed model.
        popularity: metrics of the popularity baseline on the same requests, in the same order.
        config: configuration with the lengths of lists and the number of resamples.
        seed: seed of the resamples.
    """
    started = time.monotonic()
    at, encoder = sorted(set(config.at)), bundle.encoder
    whole = replay.metrics_of(replay.lists(at[-1]), at)

    def masked(blocks: tuple[FeatureBlock, ...], judged: PerRequestMetrics) -> Masked:
        return Masked(
            fields=tuple(dict.fromkeys(block.field for block in blocks)),
            metrics=estimate(judged, config.intervals, seed),
            comparison=compare(judged, whole, config.intervals, seed),
        )

    def evaluate_masked(blocks: tuple[FeatureBlock, ...], value: int) -> Masked:
        vectors = bundle.tables.user_vectors(replace_blocks(replay.users, blocks, value))
        return masked(blocks, replay.metrics_of(replay.lists(at[-1], user_vectors=vectors), at))

    item_ids, user_ids = encoder.id_blocks("item"), encoder.id_blocks("user")
    other_blocks = tuple(block for block in encoder.user_blocks if block.field in encoder.columns)
    new_items = replay.lists(at[-1], replaced=_scores_without_ids(replay, bundle, item_ids)) if item_ids else None
    return ColdStart(
        requests=len(replay),
        users=len(np.unique(replay.user)),
        whole=estimate(whole, config.intervals, seed),
        popularity=estimate(popularity.only(whole.values), config.intervals, seed),
        new_items=None if new_items is None else masked(item_ids, replay.metrics_of(new_items, at)),
        new_users=evaluate_masked(user_ids, UNKNOWN) if user_ids else None,
        history_only=evaluate_masked(other_blocks, MISSING) if encoder.histories and other_blocks else None,
        seconds=time.monotonic() - started,
    )


def replace_blocks(rows: SparseRows, blocks: Sequence[FeatureBlock], value: int) -> SparseRows:
    """Replace the features of some blocks by one of weight 1 in each.

    Args:
        rows: n rows of features.
        blocks: the blocks to replace.
        value: index of the feature in each block, such as UNKNOWN or MISSING.
    """
    ones = np.ones(len(rows), dtype=np.int32)
    return SparseRows.hstack(
        [rows.without(blocks), *(SparseRows.one_hot((block.offset + value) * ones, rows.n_features) for block in blocks)]
    )


def _scores_without_ids(replay: OfflineReplay, bundle: Bundle, blocks: tuple[FeatureBlock, ...]) -> Replaced:
    """Return the scores of relevant items with masked ids."""
    relevant, size = replay.relevant, len(replay.item_vectors)
    there = relevant.items < size
    pairs = ItemLists.from_pairs(relevant.owners[there], relevant.items[there], len(relevant))
    items, place = np.unique(pairs.items, return_inverse=True)
    rows = bundle.encoder.encode_items(bundle.items()[items])
    vectors: Float32 = bundle.tables.item_vectors(replace_blocks(rows, blocks, UNKNOWN))
    return Replaced(pairs, pair_scores(replay.user_vectors, vectors, ItemLists(pairs.indptr, place.astype(np.int32))))


# Held-out requests sent as by an unknown user, compared with the most popular items under the same masks.

_STANDARD_ERRORS = 1.96  # half the width of a 95 % interval of a mean


def unknown_user(encoder: FeatureEncoder) -> SparseRows:
    """Encode the request of an unknown user: an unknown id, and nothing else.

    All other columns are missing and the history is empty. A hashed id field has no unknown row; the id then shares the
    row of its bucket, as the id of a new user does when served.

    Returns:
        One row in the user feature space.
    """
    column = encoder.schema.user_id
    learnt = [
        field.vocabulary
        for field in encoder.columns.values()
        if column in field.columns and field.vocabulary is not None and len(field.columns) == 1
    ]
    name = "unknown"
    while any(vocabulary.row(name) != UNKNOWN for vocabulary in learnt):
        name += "_"
    read = {*encoder.users.columns, *encoder.contexts.columns}
    return encoder.encode_user({column: name} if column in read else {}).rows


@dataclass(frozen=True, slots=True)
class UnknownUsers:
    """Held-out requests sent as by an unknown user, so that one ranking answers all.

    Attributes:
        features: one row in the user feature space, from `unknown_user`.
        held: the requests; rows of items are those of the evaluated catalogue.
        popularity: metrics of the most popular training items, on the same requests under the same masks.
        at: lengths of the lists.
    """

    features: SparseRows
    held: HeldOutRequests
    popularity: PerRequestMetrics
    at: tuple[int, ...]

    @staticmethod
    def of(dataset: Dataset, encoder: FeatureEncoder, held: HeldOutRequests, at: Sequence[int]) -> "UnknownUsers":
        """Send held-out requests as by an unknown user.

        Args:
            dataset: data set, whose training part popularity counts.
            encoder: encoder of the evaluated model.
            held: the requests; rows are those of `dataset.items`.
            at: lengths of the lists.
        """
        counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))
        popular = _judged(Popularity.ranked(counts), held, at)
        return UnknownUsers(unknown_user(encoder), held, popular, tuple(at))

    def take(self, rows: Integers) -> "UnknownUsers":
        """Keep the requests at positions `rows`, integer [m], in that order."""
        return replace(self, held=self.held.take(rows), popularity=self.popularity.take(rows))

    def metrics_of(self, user_vector: Float32, item_vectors: Float32) -> PerRequestMetrics:
        """Return the metrics of the ranking that an unknown user gets, for each request.

        Args:
            user_vector: float32 [1, dim], of `features`.
            item_vectors: float32 [items, dim].

        Raises:
            TrainingError: A score is not finite.
        """
        scores = item_vectors @ user_vector[0]
        if not np.isfinite(scores).all():
            raise TrainingError(
                "scores for an unknown user are not finite", hint="Lower the learning rate or raise the regularisation"
            )
        return _judged(Popularity.ranked(scores), self.held, self.at)

    def figures(self, user_vector: Float32, item_vectors: Float32) -> dict[str, float]:
        """Summarise `metrics_of`, to monitor a model during training.

        Args:
            user_vector: as for `metrics_of`.
            item_vectors: as for `metrics_of`.

        Returns:
            For each metric, such as `ndcg@10`: `unknown_ndcg@10`, its mean over requests, and `unknown_margin_ndcg@10`,
            the upper end of the 95 % interval of its difference to popularity. A negative margin means that unknown users are
            served significantly worse than by popularity.
        """
        judged = self.metrics_of(user_vector, item_vectors)
        result = {}
        for name, values in judged.values.items():
            result[f"unknown_{name}"] = float(values.mean())
            result[f"unknown_margin_{name}"] = upper_end(values - self.popularity.values[name], judged.user)
        return result


def fair_figure(figures: Mapping[str, float], metric: str) -> float:
    """Return a metric less its significant deficit to popularity for unknown users.

    Early stopping uses it: a deficit for unknown users must be outweighed by a gain on the requests of known users.

    Args:
        figures: from a validation: the metric, and its `unknown_margin_` of `UnknownUsers.figures` where there is one.
        metric: such as `ndcg@10`.
    """
    return figures[metric] + min(0.0, figures.get(f"unknown_margin_{metric}", 0.0))


def upper_end(differences: Float64, user: Integers) -> float:
    """Return the upper end of the 95 % interval of a mean difference.

    Requests of one user are correlated and count as one observation (cluster-robust standard error, Cameron and Miller
    2015). Bootstrap intervals, as in reports, would take longer than a sweep over small data.

    Args:
        differences: float64 [q].
        user: integer [q], the user of each request.
    """
    mean = float(differences.mean())
    _, code = np.unique(user, return_inverse=True)
    sums = np.bincount(code, weights=differences - mean)
    if len(sums) < 2:
        return mean
    error = np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(differences)
    return mean + _STANDARD_ERRORS * float(error)


def _judged(ranking: Popularity, held: HeldOutRequests, at: Sequence[int]) -> PerRequestMetrics:
    hits = held.relevant.contains(ranking.top(held.masked, max(at)))
    return PerRequestMetrics(held.user, metrics.per_request(hits, held.relevant.lengths, at))
