"""A lower confidence bound on a mean of shares that holds for any number of users and whatever the distribution.

Shares of lists lie in [0, 1] and crowd at 1: there Student's interval and the bootstrap promise more than they keep (a
sample without the rare bad user has next to no variance), while Hoeffding's bound wastes most of a sample. The bound here
is by betting (Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting): whoever bets that
the mean exceeds m holds, after t users, the capital

    K_t(m) = prod over i <= t of (1 + b_i (x_i - m)),    0 <= b_i < 1 / m, chosen before x_i is seen,

a supermartingale from 1 if the mean is at most m. By Ville's inequality it ever reaches 1 / alpha with a probability of at
most alpha, so every m at which it did is given up. The bets use the variance, so that where shares vary little the bound
is as close as Bernstein's, and where all are 1 it is as close as that of Clopper and Pearson.
"""

import math

import numpy as np

from recall._arrays import Float64

_BOLD = 0.95  # part of 1 / m that is bet at most: a share of 0 costs most of the capital, but never all of it
_HALVINGS = 50


def lower_bound(shares: Float64, confidence: float, earlier: Float64 | None = None) -> float:
    """What the mean of the distribution is at least.

    Args:
        shares: float64 [t], independent draws in [0, 1], in an order that says nothing of their values.
        confidence: probability with which the bound holds, in (0, 1).
        earlier: float64 [e], draws independent of `shares`, of about the same distribution: they say how much to bet at
            the start. Whatever they are, the bound holds; when they are alike it is closer.

    Returns:
        The bound, in [0, 1].
    """
    threshold = -math.log1p(-confidence)
    bets = _bets(shares, threshold, np.empty(0) if earlier is None else earlier)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):  # the capital falls as m rises
        middle = (low + high) / 2
        if _capital(shares, bets, middle) >= threshold:
            low = middle
        else:
            high = middle
    return min(low, float(shares.mean())) if len(shares) else 0.0


def best_bound(count: int, confidence: float) -> float:
    """The bound that `count` shares of 1 would give, above which no sample of that size can get."""
    return lower_bound(np.ones(count), confidence, np.ones(count))


def share_of_error(confidence: float, look: int) -> float:
    """The confidence of the look-th of any number of bounds, counted from 1, so that all hold together with `confidence`.

    The error is shared out as 1 / 2, 1 / 6, 1 / 12, ..., 1 / (j (j + 1)), which sum to 1 (Bonferroni, with the most for the
    first look, which is mostly the only one).
    """
    return 1.0 - (1.0 - confidence) / (look * (look + 1))


def _bets(shares: Float64, threshold: float, earlier: Float64) -> Float64:
    """What would grow capital fastest over all draws if the variance were that of the draws before each: [t]."""
    before = np.concatenate([[0.5], earlier, shares])[: len(earlier) + len(shares)]  # and one draw that nobody made
    counts = np.arange(1, len(before) + 1)
    means = np.cumsum(before) / counts
    apart = np.cumsum(np.square(before - means))
    variances = ((0.25 + apart) / counts)[len(earlier) :]
    return np.asarray(np.sqrt(2 * threshold / (variances * max(len(shares), 1))), dtype=np.float64)


def _capital(shares: Float64, bets: Float64, mean: float) -> float:
    """The largest logarithm that the capital of a bet against `mean` ever has."""
    stakes = np.minimum(bets, _BOLD / mean)
    return float(np.cumsum(np.log1p(stakes * (shares - mean))).max(initial=0.0))
