"""AUC, log loss and calibration on pairs with labels."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recall._arrays import Bool, Float32, Float64, Int32, Int64, Integers
from recall.bundle.reader import Bundle
from recall.config import DataConfig, EvaluationConfig
from recall.data.contexts import Contexts, build_contexts, negative_contexts
from recall.data.dataset import Dataset
from recall.evaluation.bootstrap import Estimate, Figures, PerRequestMetrics, estimate, interval, redrawn, resampled_sums
from recall.evaluation.metrics import BINS, bins, calibration_error, log_losses, user_aucs, weighted_auc
from recall.serving.scoring import logistic

# Held-out rows with and without an interaction, scored by the published bundle.

_PIECE = 1 << 16  # pairs scored at once
_TRIES = 100  # draws before a user counts as having everything


@dataclass(frozen=True, slots=True)
class Labelled:
    """m rows.

    Attributes:
        source: whether the rows that were not taken are those of the data, or were drawn.
        power: items were drawn with this power of their training count; None when nothing was drawn.
        user: int64 [m].
        taken: bool [m].
        score: float64 [m], with the user's offset.
        left_out: rows that cannot be scored, because the bundle lacks the item or no item could be drawn.
    """

    source: Literal["labels", "draws"]
    power: float | None
    user: Int64
    taken: Bool
    score: Float64
    left_out: int


def labelled(bundle: Bundle, dataset: Dataset, split: int, most: int, seed: int) -> Labelled:
    """Return held-out rows that were taken, and rows that were not.

    Rows of label 0 are used where that part of the data has some. Otherwise one item is drawn for each interaction, in its
    context, among the items that its user never took: from the distribution of the model's negatives, or uniformly where
    there were none.

    Args:
        bundle: the model.
        dataset: the interactions, split.
        split: the part to evaluate on.
        most: maximum number of rows; whole users are drawn at random up to it, at least one.
        seed: of the draws.

    Raises:
        DataError: The data lack a column that the model reads.
    """
    rng = np.random.default_rng(seed)
    events, negatives = dataset.select(split), np.empty(0, dtype=np.int64)
    if dataset.negatives is not None:
        negatives = np.flatnonzero(dataset.negatives["split"].to_numpy() == split)
    by_label = dataset.negatives is not None and len(negatives) > 0
    event_user = dataset.events["user"].to_numpy()
    negative_user = dataset.negatives["user"].to_numpy() if dataset.negatives is not None else event_user[:0]
    twice = 1 if by_label else 2
    chosen = _users(np.concatenate([np.repeat(event_user[events], twice), negative_user[negatives]]), most, rng)
    events, negatives = events[chosen[event_user[events]]], negatives[chosen[negative_user[negatives]]]

    contexts, items = build_contexts(dataset, bundle.encoder, events), dataset.events["item"].to_numpy()[events]
    user, score = event_user[events], _scores(bundle, dataset, contexts, items)
    power = None
    if by_label and dataset.negatives is not None:
        others, shown = negative_contexts(dataset, bundle.encoder, negatives), dataset.negatives["item"].to_numpy()[negatives]
        other_user, other_score = negative_user[negatives], _scores(bundle, dataset, others, shown)
    else:
        power = _power(bundle)
        drawn = draw_untaken(dataset, user, power, rng)
        other_user, other_score = user, _scores(bundle, dataset, contexts, drawn)
    users = np.concatenate([user, other_user]).astype(np.int64)
    scores, taken = np.concatenate([score, other_score]), np.repeat([True, False], [len(score), len(other_score)])
    there = np.isfinite(scores)
    return Labelled("labels" if by_label else "draws", power, users[there], taken[there], scores[there], int((~there).sum()))


def draw_untaken(dataset: Dataset, user: Int32, power: float, rng: np.random.Generator) -> Int64:
    """Draw an item for each row that its user never took, in any part of the data.

    Args:
        dataset: the interactions.
        user: int32 [m].
        power: an item is drawn in proportion to this power of its training count, at least 1.
        rng: random generator.

    Returns:
        int64 [m], rows of the data set's items; -1 where no draw succeeded.
    """
    n_items, item = len(dataset.items), dataset.events["item"].to_numpy()
    counts = np.bincount(item[dataset.training], minlength=n_items)
    cumulative = np.cumsum(np.maximum(counts, 1.0) ** power)
    had = np.unique(dataset.events["user"].to_numpy().astype(np.int64) * n_items + item)
    drawn = np.full(len(user), -1, dtype=np.int64)
    left = np.arange(len(user))
    for _ in range(_TRIES):
        if not len(left):
            break
        tried = np.searchsorted(cumulative, rng.random(len(left)) * cumulative[-1], side="right").clip(max=n_items - 1)
        keys = user[left].astype(np.int64) * n_items + tried
        new = had[np.minimum(np.searchsorted(had, keys), len(had) - 1)] != keys
        drawn[left[new]] = tried[new]
        left = left[~new]
    return drawn


def _users(user: Integers, most: int, rng: np.random.Generator) -> Bool:
    """Choose users at random; bool, indexed by user."""
    rows = np.bincount(user)
    order = rng.permutation(len(rows))
    order = order[rows[order] > 0]
    chosen = np.zeros(max(len(rows), 1), dtype=np.bool_)
    chosen[order[: max(int(np.searchsorted(np.cumsum(rows[order]), most, side="right")), 1)]] = True
    return chosen


def _power(bundle: Bundle) -> float:
    """Return the power of the item count of training negatives; 0 without any."""
    train, data = bundle.manifest.config.get("train"), bundle.manifest.config.get("data")
    by_label = isinstance(data, dict) and DataConfig.model_validate(data).has_negatives
    power = train.get("popularity") if isinstance(train, dict) and bundle.manifest.objective == "logistic" else None
    return float(power) if isinstance(power, int | float) and not by_label else 0.0


def _scores(bundle: Bundle, dataset: Dataset, contexts: Contexts, items: Integers) -> Float64:
    """Return the score of each context with its item row, [m]; NaN where unknown."""
    context = contexts.context
    row_of = np.append(bundle.item_ids.rows(dataset.items[dataset.schema.item_id].to_list()), -1)  # and -1 is nothing
    rows = row_of[items]
    phi: Float32 = bundle.tables.user_vectors(contexts.features)
    scores = np.full(len(rows), np.nan)
    known = np.flatnonzero(rows >= 0)
    for first in range(0, len(known), _PIECE):
        part = known[first : first + _PIECE]
        scores[part] = np.einsum("ij,ij->i", phi[context[part]], bundle.item_vectors[rows[part]])
    return scores + bundle.tables.user_offset(contexts.features)[context]


_MOST = 200_000  # rows judged


class Bin(Figures):
    """A tenth of the rows, by rising probability."""

    rows: int
    predicted: float
    """Mean probability."""
    observed: float
    """Share that was taken."""


class Calibration(Figures):
    """Calibration of the logistic function of the score as a probability.

    A model that also learned from hard negatives, or from other labels than these, estimates another probability
    here, and its error says so.
    """

    log_loss: Estimate
    """In nats."""
    constant: float
    """Log loss of saying the mean rate of every row: a model above it knows less than one number."""
    error: Estimate
    """Expected calibration error over the bins."""
    bins: tuple[Bin, ...]


class Discrimination(Figures):
    """AUC and calibration on held-out rows with labels, drawn or recorded."""

    source: Literal["labels", "draws"]
    """Whether those that were not taken are rows of label 0, or one draw for each interaction."""
    power: float | None
    """With 'draws': items that the user never took were drawn with this power of their training count; 0 is uniform."""
    rows: int
    taken: int
    users: int
    left_out: int
    """Rows without a score: the bundle lacks the item, or no item could be drawn."""
    auc: Estimate
    """Over all rows of all users."""
    gauc: Estimate | None
    """Mean AUC within a user, by rows, over users with rows of both kinds; None when there is no such user."""
    gauc_users: int
    calibration: Calibration | None
    """None unless the model was trained by log loss."""
    seconds: float


def discriminate(bundle: Bundle, dataset: Dataset, split: int, config: EvaluationConfig, seed: int) -> Discrimination | None:
    """Evaluate a bundle as a classifier of pairs.

    Args:
        bundle: the model.
        dataset: the interactions, split.
        split: the part to evaluate on.
        config: number of resamples.
        seed: of the draws and resamples.

    Returns:
        None when the model was not trained by log loss and the data have no labels, where it would mean nothing.

    Raises:
        DataError: The data lack a column that the model reads.
    """
    started = time.monotonic()
    probable = bundle.manifest.objective == "logistic"
    if not probable and dataset.negatives is None:
        return None
    rows = labelled(bundle, dataset, split, _MOST, seed)
    if rows.taken.all() or not rows.taken.any():
        return None
    _, user = np.unique(rows.user, return_inverse=True)
    users = int(user.max()) + 1
    aucs, rows_of_users = user_aucs(user, rows.score, rows.taken)
    return Discrimination(
        source=rows.source,
        power=rows.power,
        rows=len(rows.taken),
        taken=int(rows.taken.sum()),
        users=users,
        left_out=rows.left_out,
        auc=_auc(rows, user, users, config.intervals, seed),
        gauc=_weighted_mean(aucs, rows_of_users.astype(np.float64), config.intervals, seed),
        gauc_users=len(aucs),
        calibration=_calibration(rows, user, users, config.intervals, seed) if probable else None,
        seconds=time.monotonic() - started,
    )


def _auc(rows: Labelled, user: Int64, users: int, resamples: int, seed: int) -> Estimate:
    _, level = np.unique(rows.score, return_inverse=True)
    drawn = [weighted_auc(level, rows.taken, line[user]) for times in redrawn(users, resamples, seed) for line in times]
    return interval(weighted_auc(level, rows.taken, np.ones(len(level))), np.array(drawn))


def _weighted_mean(values: Float64, weights: Float64, resamples: int, seed: int) -> Estimate | None:
    if not len(values):
        return None
    sums = np.stack([values * weights, weights], axis=1)
    totals = resampled_sums(sums, resamples, seed)
    return interval(float(sums[:, 0].sum() / sums[:, 1].sum()), totals[:, 0] / totals[:, 1])


def _calibration(rows: Labelled, user: Int64, users: int, resamples: int, seed: int) -> Calibration:
    probability, taken = logistic(rows.score), rows.taken.astype(np.float64)
    place = user * BINS + bins(probability)
    sums = np.stack(  # [users, 3, BINS]: of probabilities, of taken rows, of all rows
        [np.bincount(place, weights=part, minlength=users * BINS).reshape(users, BINS) for part in (probability, taken)]
        + [np.bincount(place, minlength=users * BINS).reshape(users, BINS)],
        axis=1,
    )
    totals = resampled_sums(sums.reshape(users, 3 * BINS), resamples, seed).reshape(-1, 3, BINS)
    predicted, happened, count = sums.sum(axis=0)
    rate = taken.mean()
    return Calibration(
        log_loss=estimate(PerRequestMetrics(user, {"log loss": log_losses(rows.score, rows.taken)}), resamples, seed)[
            "log loss"
        ],
        constant=float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))),
        error=interval(
            float(calibration_error(predicted, happened, count)),
            calibration_error(totals[:, 0], totals[:, 1], totals[:, 2]),
        ),
        bins=tuple(
            Bin(rows=int(count[number]), predicted=predicted[number] / count[number], observed=happened[number] / count[number])
            for number in range(BINS)
            if count[number]
        ),
    )
