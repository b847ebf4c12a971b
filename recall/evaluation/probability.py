"""How well scores tell what is taken from what is not, and how well probabilities say how often.

Every function takes m rows beside each other: `score` or `probability` float64 [m], `taken` bool [m], and where rows count
differently `weight` float64 [m].
"""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Bool, Float64, Int64
from recall.evaluation.lists import (
    Integers,
)

BINS = 10


def auc(score: Float64, taken: Bool, weight: Float64 | None = None) -> float:
    """Chance that a row that was taken scores above one that was not; a tie counts half (Hanley and McNeil 1982).

    NaN unless there is weight on both.
    """
    _, level = np.unique(score, return_inverse=True)
    return weighted_auc(level, taken, np.ones(len(score)) if weight is None else weight)


def weighted_auc(level: Int64, taken: Bool, weight: Float64) -> float:
    """The same from levels, int64 [m]: the rank of each score among the different scores."""
    ups = np.bincount(level, weights=weight * taken)
    downs = np.bincount(level, weights=weight * ~taken)
    below = np.cumsum(downs) - downs
    total = ups.sum() * downs.sum()
    return float(ups @ (below + 0.5 * downs) / total) if total > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class UserAucs:
    """The AUC within each user who has rows of both kinds.

    Attributes:
        user: int64 [u], those users.
        auc: float64 [u].
        rows: int64 [u], how many rows each has.
    """

    user: Int64
    auc: Float64
    rows: Int64


def user_aucs(user: Integers, score: Float64, taken: Bool) -> UserAucs:
    """AUC of each user's rows among themselves; their mean by rows is the GAUC of Zhu et al. 2017.

    Args:
        user: integer [m].
        score: float64 [m].
        taken: bool [m].
    """
    order = np.lexsort((score, user))
    user, score, taken = user[order], score[order], taken[order]
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]])) if len(user) else np.zeros(0, dtype=np.int64)
    rows = np.diff(np.append(starts, len(user)))
    new = np.concatenate([[True], (user[1:] != user[:-1]) | (score[1:] != score[:-1])])[: len(user)]
    tied = np.flatnonzero(new)
    lengths = np.diff(np.append(tied, len(user)))
    middle = np.repeat(tied + (lengths - 1) / 2, lengths) - np.repeat(starts, rows)  # from 0 within the user, ties share one
    ups = np.add.reduceat(taken.astype(np.float64), starts) if len(starts) else np.zeros(0)
    ranks = np.add.reduceat(middle * taken, starts) if len(starts) else np.zeros(0)
    downs = rows - ups
    both = (ups > 0) & (downs > 0)
    ups, downs = ups[both], downs[both]
    return UserAucs(user[starts][both].astype(np.int64), (ranks[both] - ups * (ups - 1) / 2) / (ups * downs), rows[both])


def log_losses(score: Float64, taken: Bool) -> Float64:
    """-log of the probability that the logistic function of the score gives to what happened: float64 [m], in nats."""
    return np.asarray(np.logaddexp(0.0, np.where(taken, -score, score)), dtype=np.float64)


def bins(probability: Float64) -> Int64:
    """The bin of each row, of ten with as many rows each, by rising probability: int64 [m]. Ties share a bin."""
    _, level, counts = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # of the ranks from 0 of each level
    return (middle[level] * BINS // max(len(probability), 1)).astype(np.int64)


def calibration_error(predicted: Float64, happened: Float64, weight: Float64) -> Float64:
    """Expected calibration error (Naeini, Cooper and Hauskrecht 2015): mean gap of a bin, by its weight.

    Args:
        predicted: float64 [..., BINS], sums of weighted probabilities.
        happened: float64 [..., BINS], sums of the weight of what was taken.
        weight: float64 [..., BINS], sums of weight.

    Returns:
        float64 [...].
    """
    return np.asarray(np.abs(predicted - happened).sum(axis=-1) / weight.sum(axis=-1), dtype=np.float64)
