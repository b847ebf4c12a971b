"""A model as a judge of given pairs: AUC, and for a model of probabilities log loss and calibration, by users."""

import time
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from recall._arrays import Float64, Int64
from recall.bundle.bundle import Bundle
from recall.config import EvaluationConfig
from recall.data.dataset import Dataset
from recall.evaluation.bootstrap import Estimate, Judgements, estimate, interval, redrawn
from recall.evaluation.labelled import (
    Labelled,
    labelled,
)
from recall.evaluation.probability import BINS, bins, calibration_error, log_losses, user_aucs, weighted_auc
from recall.scoring import logistic

_MOST = 200_000  # rows judged


class Bin(BaseModel):
    """A tenth of the rows, by rising probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    predicted: float
    """Mean probability."""
    observed: float
    """Share that was taken."""


class Calibration(BaseModel):
    """How well the logistic function of the score says how often a row is taken.

    A model that also learned from hard negatives, or from other labels than these, answers another question than is asked
    here, and its error says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_loss: Estimate
    """In nats."""
    constant: float
    """Log loss of saying the mean rate of every row: a model above it knows less than one number."""
    error: Estimate
    """Expected calibration error over the bins."""
    bins: tuple[Bin, ...]


class Discrimination(BaseModel):
    """Held-out rows that were taken against rows that were not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["labels", "draws"]
    """Whether those that were not taken are rows of label 0, or one draw for each interaction."""
    power: float | None
    """With 'draws': items that the user never took were drawn with this power of their training count; 0 is uniform."""
    rows: int
    taken: int
    users: int
    left_out: int
    """Rows that could not be scored, for the bundle lacks the item, or for which there was nothing to draw."""
    auc: Estimate
    """Over all rows, whoever's they are."""
    gauc: Estimate | None
    """Mean AUC within a user, by rows, over users with rows of both kinds; None when there is no such user."""
    gauc_users: int
    calibration: Calibration | None
    """None unless the model was trained by log loss."""
    seconds: float


def discriminate(bundle: Bundle, dataset: Dataset, split: int, config: EvaluationConfig, seed: int) -> Discrimination | None:
    """Judge a bundle as a judge of pairs.

    Args:
        bundle: the model.
        dataset: the interactions, split.
        split: the part to judge.
        config: how many resamples.
        seed: of the draws and resamples.

    Returns:
        None when the model was not trained by log loss and the data have no labels: nobody asks for it then.

    Raises:
        DataError: the data lack a column that the model reads.
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
    within = user_aucs(user, rows.score, rows.taken)
    return Discrimination(
        source=rows.source,
        power=rows.power,
        rows=len(rows.taken),
        taken=int(rows.taken.sum()),
        users=users,
        left_out=rows.left_out,
        auc=_auc(rows, user, users, config.intervals, seed),
        gauc=_weighted_mean(within.auc, within.rows.astype(np.float64), config.intervals, seed),
        gauc_users=len(within.user),
        calibration=_calibration(rows, user, users, config.intervals, seed) if probable else None,
        seconds=time.monotonic() - started,
    )


def _auc(rows: Labelled, user: Int64, users: int, resamples: int, seed: int) -> Estimate:
    _, level = np.unique(rows.score, return_inverse=True)
    drawn = [
        weighted_auc(level, rows.taken, line[user])
        for times in redrawn(users, resamples if users > 1 else 0, seed)
        for line in times
    ]
    return interval(weighted_auc(level, rows.taken, np.ones(len(level))), np.array(drawn))


def _weighted_mean(values: Float64, weights: Float64, resamples: int, seed: int) -> Estimate | None:
    if not len(values):
        return None
    sums = np.stack([values * weights, weights], axis=1)
    blocks = [times @ sums for times in redrawn(len(values), resamples if len(values) > 1 else 0, seed)]
    totals = np.concatenate([np.zeros((0, 2)), *blocks])
    return interval(float(sums[:, 0].sum() / sums[:, 1].sum()), totals[:, 0] / totals[:, 1])


def _calibration(rows: Labelled, user: Int64, users: int, resamples: int, seed: int) -> Calibration:
    probability, taken = logistic(rows.score), rows.taken.astype(np.float64)
    place = user * BINS + bins(probability)
    sums = np.stack(  # [users, 3, BINS]: of probabilities, of what was taken, of rows
        [np.bincount(place, weights=part, minlength=users * BINS).reshape(users, BINS) for part in (probability, taken)]
        + [np.bincount(place, minlength=users * BINS).reshape(users, BINS)],
        axis=1,
    )
    flat = sums.reshape(users, 3 * BINS)
    blocks = [(times @ flat).reshape(-1, 3, BINS) for times in redrawn(users, resamples if users > 1 else 0, seed)]
    totals = np.concatenate([np.zeros((0, 3, BINS)), *blocks])
    predicted, happened, count = sums.sum(axis=0)
    rate = taken.mean()
    return Calibration(
        log_loss=estimate(Judgements(user, {"log loss": log_losses(rows.score, rows.taken)}), resamples, seed)["log loss"],
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
