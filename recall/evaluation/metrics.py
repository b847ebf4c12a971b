"""Ranking metrics of requests and lists; AUC, log loss and calibration of pairs.

Ranking metrics take the answers as arrays. `hits[r, p]` says whether the item at place p (0 is best) of the answer to
request r is relevant; `relevant[r]` is how many items are relevant to request r, whether or not they could be returned,
and is at least 1; `rows[r, p]` is the item row at that place, or -1 past the end of a short list.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recall._arrays import Bool, Float64, Int64, Integers


def recall(hits: Bool, relevant: Int64, k: int) -> Float64:
    """Return the hits among the first k over ALL relevant items, float64 [q].

    A request with more than k relevant items cannot reach 1.

    Args:
        hits: bool [q, places].
        relevant: int64 [q].
        k: length of the list.
    """
    share: Float64 = hits[:, :k].sum(axis=1) / relevant
    return share


def hit_rate(hits: Bool, k: int) -> Float64:
    """Return 1 for a hit among the first k, else 0, float64 [q].

    With one relevant item for each request this equals `recall`.

    Args:
        hits: bool [q, places].
        k: length of the list.
    """
    found: Int64 = hits[:, :k].sum(axis=1)
    return (found > 0).astype(np.float64)


def ndcg(hits: Bool, relevant: Int64, k: int) -> Float64:
    """Return the normalised discounted cumulative gain with binary gains, float64 [q].

    See Jarvelin and Kekalainen 2002. A hit at place p gains 1 / log2(p + 2). The ideal list holds min(k, relevant) hits at
    its head; normalising by the hits that were retrieved instead would inflate the figure.

    Args:
        hits: bool [q, places].
        relevant: int64 [q].
        k: length of the list.
    """
    ideal = np.cumsum(_discounts(k))[np.minimum(relevant, k) - 1]
    gain: Float64 = hits[:, :k] @ _discounts(k)[: hits.shape[1]] / ideal
    return gain


def reciprocal_rank(hits: Bool, k: int) -> Float64:
    """Return 1 / (1 + place of the first hit), float64 [q]; its mean is MRR@k.

    Args:
        hits: bool [q, places].
        k: length of the list; 0 is returned when it has no hit.
    """
    head = hits[:, :k]
    return np.where(head.any(axis=1), 1.0 / (1.0 + head.argmax(axis=1)), 0.0) if head.shape[1] else np.zeros(len(hits))


def average_precision(hits: Bool, relevant: Int64, k: int) -> Float64:
    """Return the average precision, float64 [q]; its mean is MAP@k.

    The precision at the place of each hit among the first k is summed and divided by min(k, relevant).

    Args:
        hits: bool [q, places].
        relevant: int64 [q].
        k: length of the list.
    """
    head = hits[:, :k]
    precision = np.cumsum(head, axis=1) / np.arange(1, head.shape[1] + 1)
    average: Float64 = (precision * head).sum(axis=1) / np.minimum(relevant, k)
    return average


def per_request(hits: Bool, relevant: Int64, at: Sequence[int]) -> dict[str, Float64]:
    """All of the above.

    Args:
        hits: bool [n, m], m at least max(at) unless every list is shorter.
        relevant: int64 [n], each at least 1.
        at: lengths k to judge at.

    Returns:
        float64 [n] under `recall@k`, `hit_rate@k`, `ndcg@k`, `mrr@k` and `map@k`, metric by metric.
    """
    return (
        {f"recall@{k}": recall(hits, relevant, k) for k in at}
        | {f"hit_rate@{k}": hit_rate(hits, k) for k in at}
        | {f"ndcg@{k}": ndcg(hits, relevant, k) for k in at}
        | {f"mrr@{k}": reciprocal_rank(hits, k) for k in at}
        | {f"map@{k}": average_precision(hits, relevant, k) for k in at}
    )


def exposure(rows: Integers, n_items: int, k: int) -> Int64:
    """Count how often each item is among the first k of a list: int64 [n_items].

    Args:
        rows: integer [q, places].
        n_items: size of the catalogue.
        k: length of the lists.
    """
    head = rows[:, :k]
    return np.bincount(head[head >= 0], minlength=n_items)


def coverage(exposed: Int64) -> float:
    """Return the share of the catalogue in at least one list.

    Args:
        exposed: int64 [n_items] from `exposure`.
    """
    return float((exposed > 0).mean()) if len(exposed) else 0.0


def gini(exposed: Int64) -> float:
    """Gini coefficient of exposure over the whole catalogue.

    0 when all items are shown equally often, 1 - 1 / n_items when one has it all; 0 when nothing is shown.
    """
    total = exposed.sum()
    if not total:
        return 0.0
    n = len(exposed)
    return float(((2 * np.arange(1, n + 1) - n - 1) * np.sort(exposed)).sum() / (n * total))


def self_information(counts: Int64) -> Float64:
    """Return -log2 of each item's share of training interactions (Zhou et al. 2010).

    Args:
        counts: int64 [n_items] training interactions; 0 counts as 1, so that all are finite.

    Returns:
        float64 [n_items], in bits.
    """
    information: Float64 = np.log2(max(int(counts.sum()), 1)) - np.log2(np.maximum(counts, 1))
    return information


def novelty(rows: Integers, information: Float64, k: int) -> Float64:
    """Return the mean self-information of the first k items, float64 [n], in bits.

    Args:
        rows: integer [n, places].
        information: float64 [n_items] from `self_information`.
        k: length of the lists; an empty list counts 0.
    """
    head = rows[:, :k]
    shown = head >= 0
    mean: Float64 = np.where(shown, information[head], 0.0).sum(axis=1) / np.maximum(shown.sum(axis=1), 1)
    return mean


def _discounts(k: int) -> Float64:
    discounts: Float64 = 1.0 / np.log2(np.arange(2, k + 2))
    return discounts


# Discrimination: whether scores separate rows with an interaction from rows without. Calibration: whether probabilities are
# the frequencies of interactions.
#
# All functions have arguments of m rows: `score` or `probability` float64 [m], `taken` bool [m], and perhaps weights,
# `weight` float64 [m].

BINS = 10


def weighted_auc(level: Int64, taken: Bool, weight: Float64) -> float:
    """Return the chance that a taken row scores above another row.

    See Hanley and McNeil 1982.

    Args:
        level: int64 [m], the rank of each score among the distinct scores.
        taken: bool [m].
        weight: float64 [m].
    """
    ups = np.bincount(level, weights=weight * taken)
    downs = np.bincount(level, weights=weight * ~taken)
    below = np.cumsum(downs) - downs
    total = ups.sum() * downs.sum()
    return float(ups @ (below + 0.5 * downs) / total) if total > 0 else float("nan")


def user_aucs(user: Integers, score: Float64, taken: Bool) -> tuple[Float64, Int64]:
    """Return the AUC and the number of rows of each user with rows of both kinds.

    The mean AUC by rows is the GAUC of Zhu et al. 2017.

    Args:
        user: integer [m].
        score: float64 [m].
        taken: bool [m].

    Returns:
        float64 [u] and int64 [u], by rising user.
    """
    rows = pl.DataFrame({"user": user, "score": score, "taken": taken})
    ranked = rows.with_columns(rank=pl.col("score").rank("average").over("user"))  # from 1 within the user, ties share one
    sums = ranked.group_by("user").agg(n=pl.len(), ups=pl.col("taken").sum(), ranks=pl.col("rank").filter("taken").sum())
    both = sums.filter(pl.col("ups").is_between(1, pl.col("n") - 1)).sort("user").cast(pl.Float64)
    n, ups, ranks = (both[name].to_numpy() for name in ("n", "ups", "ranks"))
    return (ranks - ups * (ups + 1) / 2) / (ups * (n - ups)), n.astype(np.int64)


def log_losses(score: Float64, taken: Bool) -> Float64:
    """Return the log loss of each row in nats, float64 [m].

    Args:
        score: float64 [m], logits.
        taken: bool [m].
    """
    return np.asarray(np.logaddexp(0.0, np.where(taken, -score, score)), dtype=np.float64)


def bins(probability: Float64) -> Int64:
    """Return the decile of each row by probability, int64 [m]; ties share a bin."""
    _, level, counts = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # of the ranks from 0 of each level
    return (middle[level] * BINS // max(len(probability), 1)).astype(np.int64)


def calibration_error(predicted: Float64, happened: Float64, weight: Float64) -> Float64:
    """Return the expected calibration error: the weighted mean gap over bins.

    See Naeini, Cooper and Hauskrecht 2015.

    Args:
        predicted: float64 [..., BINS], sums of weighted probabilities.
        happened: float64 [..., BINS], sums of the weight of taken rows.
        weight: float64 [..., BINS], sums of weight.

    Returns:
        float64 [...].
    """
    return np.asarray(np.abs(predicted - happened).sum(axis=-1) / weight.sum(axis=-1), dtype=np.float64)
