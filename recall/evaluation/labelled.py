"""Held-out rows that were taken beside rows that were not, scored by a bundle as it was published."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from recall._arrays import Bool, Float32, Float64, Int64
from recall.bundle.bundle import Bundle
from recall.config import DataConfig
from recall.data.contexts import Contexts, build_contexts, negative_contexts
from recall.data.dataset import Dataset

_PIECE = 1 << 16  # pairs scored at once
_TRIES = 100  # draws before a user counts as one who has everything


@dataclass(frozen=True, slots=True)
class Labelled:
    """m rows.

    Attributes:
        source: whether the rows that were not taken are those of the data, or were drawn.
        power: items were drawn with this power of their training count; None when nothing was drawn.
        user: int64 [m].
        taken: bool [m].
        score: float64 [m], with the user's offset.
        left_out: rows that the bundle cannot score, for it lacks the item, or for which there was nothing to draw.
    """

    source: Literal["labels", "draws"]
    power: float | None
    user: Int64
    taken: Bool
    score: Float64
    left_out: int


def labelled(bundle: Bundle, dataset: Dataset, split: int, most: int, seed: int) -> Labelled:
    """The held-out rows of both kinds.

    Where that part of the data has rows of label 0, those are the ones that were not taken. Otherwise one item is drawn
    for each interaction, in its context, among the items that its user never took: from the distribution that the model's
    negatives were drawn from, or uniformly where the model knows of none.

    Args:
        bundle: the model.
        dataset: the interactions, split.
        split: the part to judge.
        most: all rows of so many users are taken as have at most this many, drawn at random; at least one user's.
        seed: of the draws.

    Raises:
        DataError: the data lack a column that the model reads.
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
    user, score = event_user[events], _scores(bundle, dataset, contexts, contexts.context, items)
    power = None
    if by_label and dataset.negatives is not None:
        others, shown = negative_contexts(dataset, bundle.encoder, negatives), dataset.negatives["item"].to_numpy()[negatives]
        other_user, other_score = negative_user[negatives], _scores(bundle, dataset, others, others.context, shown)
    else:
        power = _power(bundle)
        drawn = draw_untaken(dataset, user, power, rng)
        other_user, other_score = user, _scores(bundle, dataset, contexts, contexts.context, drawn)
    users = np.concatenate([user, other_user]).astype(np.int64)
    scores, taken = np.concatenate([score, other_score]), np.repeat([True, False], [len(score), len(other_score)])
    there = np.isfinite(scores)
    return Labelled("labels" if by_label else "draws", power, users[there], taken[there], scores[there], int((~there).sum()))


def draw_untaken(
    dataset: Dataset, user: npt.NDArray[np.int32], power: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """An item for each row that its user never took, in any part of the data.

    Args:
        dataset: the interactions.
        user: int32 [m].
        power: an item's chance goes with this power of its training count, 1 at least, among those its user never took.
        rng: draws.

    Returns:
        int64 [m], rows of the data set's items; -1 where chance found none.
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


def _users(user: npt.NDArray[np.integer], most: int, rng: np.random.Generator) -> Bool:
    """Which users are chosen, from the user of each row: bool, long enough to be asked for any of them."""
    rows = np.bincount(user)
    order = rng.permutation(len(rows))
    order = order[rows[order] > 0]
    chosen = np.zeros(max(len(rows), 1), dtype=np.bool_)
    chosen[order[: max(int(np.searchsorted(np.cumsum(rows[order]), most, side="right")), 1)]] = True
    return chosen


def _power(bundle: Bundle) -> float:
    """The power of an item's count with which negatives were drawn in training; 0 when none were."""
    train, data = bundle.manifest.config.get("train"), bundle.manifest.config.get("data")
    by_label = isinstance(data, dict) and DataConfig.model_validate(data).has_negatives
    power = train.get("popularity") if isinstance(train, dict) and bundle.manifest.objective == "logistic" else None
    return float(power) if isinstance(power, int | float) and not by_label else 0.0


def _scores(
    bundle: Bundle,
    dataset: Dataset,
    contexts: Contexts,
    context: npt.NDArray[np.int32],
    items: npt.NDArray[np.integer],
) -> Float64:
    """The model's score of pairs of a context and an item row of the data set; NaN where the bundle lacks the item: [m]."""
    row_of = np.append(bundle.item_ids.rows(dataset.items[dataset.schema.item_id].to_list()), -1)  # and -1 is nothing
    rows = row_of[items]
    phi: Float32 = bundle.tables.user_vectors(contexts.features)
    scores = np.full(len(rows), np.nan)
    known = np.flatnonzero(rows >= 0)
    for first in range(0, len(known), _PIECE):
        part = known[first : first + _PIECE]
        scores[part] = np.einsum("ij,ij->i", phi[context[part]], bundle.item_vectors[rows[part]])
    return scores + bundle.tables.user_offset(contexts.features)[context]
