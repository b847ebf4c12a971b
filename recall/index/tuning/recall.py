"""Measure recall: on which users, with which bound, at which search parameter."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Float64
from recall.index.base import ItemIndex, TunableIndex
from recall.index.flat import brute_force
from recall.index.topk import longest_of, rounding


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """Exact answers to some queries.

    Attributes:
        queries: float32 [q, dim].
        n: length of the lists.
        kth_score: float32 [q], what a row must score to be among the n best, less what rounding may take.
    """

    queries: Float32
    n: int
    kth_score: Float32

    @classmethod
    def of(cls, vectors: Float32, queries: Float32, n: int) -> "GroundTruth":
        """Find the exact answers by brute force.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim].
            n: length of the lists; cut to the number of vectors.
        """
        return cls.of_lengths(vectors, queries, [n])[0]

    @classmethod
    def of_lengths(cls, vectors: Float32, queries: Float32, lengths: Sequence[int]) -> "list[GroundTruth]":
        """Find the exact answers of several lengths by one pass of brute force.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim].
            lengths: of the lists, each cut to the number of vectors.
        """
        cut = [min(n, len(vectors)) for n in lengths]
        scores, _ = brute_force(vectors, queries, max(cut))
        doubt = rounding(queries, longest_of(vectors))
        return [cls(queries, n, scores[:, n - 1] - doubt) for n in cut]

    def recalls(self, index: ItemIndex) -> Float64:
        """Share of the exact list of each query that the index returns: float64 [q]."""
        return np.asarray((index.search(self.queries, self.n).scores >= self.kth_score[:, None]).mean(axis=1), dtype=np.float64)

    def timed(self, index: ItemIndex) -> tuple[Float64, float]:
        """Measure recall and latency with queries asked one by one.

        Args:
            index: any index over the same vectors.

        Returns:
            The shares, float64 [q], and the microseconds of a query by the wall clock, for processor time would make an
            engine on another machine look free: the mean of all but the slowest tenth, which is where other processes show.
        """
        scores = np.empty((len(self.queries), self.n), dtype=np.float32)
        times = np.empty(len(self.queries))
        for position in range(len(self.queries)):
            began = time.perf_counter()
            scores[position] = index.search(self.queries[position : position + 1], self.n).scores[0]
            times[position] = time.perf_counter() - began
        shares = np.asarray((scores >= self.kth_score[:, None]).mean(axis=1), dtype=np.float64)
        return shares, 1e6 * float(np.sort(times)[: len(times) - len(times) // 10].mean())


SHORT = 10
"""Lists of this length are tuned for and verified as well: an index may find most of a long list, and less of its head."""


def judged_lengths(n: int) -> list[int]:
    """Return the lengths of lists that an index for lists of n is judged at, n first."""
    return [n, SHORT] if n > SHORT else [n]


def recalls_found(index: ItemIndex, vectors: Float32, queries: Float32, n: int) -> Float64:
    """Return the share of each query's exact list that an index finds: float64 [q].

    Args:
        index: any index over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        n: length of the lists; cut to the number of items.
    """
    return GroundTruth.of(vectors, queries, n).recalls(index)


def bisect(efforts: Sequence[float], enough: Callable[[float], bool | None], first: int = 0) -> float | None:
    """Find the least effort that is enough, where more is never too little.

    Efforts are doubled until one is enough, and then halved between; so few of them are tried, and mostly small ones.

    Args:
        efforts: rising.
        enough: says whether one is; None gives up.
        first: position among the efforts to begin at.

    Returns:
        The effort; None when the largest is not enough, or when `enough` gave up.
    """
    low, high = first - 1, first
    while not (answer := enough(efforts[high])):
        if answer is None or high == len(efforts) - 1:
            return None
        low, high = high, min(2 * (high + 1) - 1, len(efforts) - 1)
    while high - low > max(1, high // 32):  # closer than that is closer than users agree
        middle = (low + high) // 2
        if enough(efforts[middle]):
            high = middle
        else:
            low = middle
    return efforts[high]


def least_param(index: TunableIndex, truth: GroundTruth, target: float, first: int = 0) -> float:
    """Return the least search parameter whose mean recall reaches a target.

    It is the largest of all where none does.

    Args:
        index: over the vectors of `truth`.
        truth: exact lists.
        target: mean share of them to find.
        first: position in the index's `param_grid` to begin at.
    """

    def enough(value: float) -> bool:
        return bool(truth.recalls(index.with_search_param(value, truth.n)).mean() >= target)

    return bisect(index.param_grid, enough, first) or index.param_grid[-1]


def spread(queries: Float32, count: int) -> Float32:
    """Return some queries, evenly spread over all.

    Args:
        queries: float32 [q, dim].
        count: of them at most.
    """
    return queries[np.unique(np.linspace(0, len(queries) - 1, count).astype(np.int64))]


# A lower confidence bound on a mean of shares that holds for any number of users and any distribution.
#
# Shares of lists are in [0, 1] and crowd at 1: there Student's interval and the bootstrap promise more than they keep (a
# sample without the rare bad user has almost no variance), while Hoeffding's bound wastes most of a sample. The bound here
# is by betting (Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting): bets that the mean
# exceeds m have, after t users, the capital
#
#     K_t(m) = prod over i <= t of (1 + b_i (x_i - m)),    0 <= b_i < 1 / m, chosen before x_i is seen,
#
# a supermartingale from 1 if the mean is at most m. By Ville's inequality it ever reaches 1 / alpha with a probability of at
# most alpha, so every m at which it did is given up. The bets use the variance, so that where shares vary little the bound
# is as close as Bernstein's, and where all are 1 it is as close as that of Clopper and Pearson.

_BOLD = 0.95  # part of 1 / m that is bet at most: a share of 0 costs most of the capital, but never all of it
_HALVINGS = 50


def lower_bound(shares: Float64, confidence: float, earlier: Float64 | None = None) -> float:
    """Bound the mean of the distribution from below.

    Args:
        shares: float64 [t], independent draws in [0, 1], in an order that says nothing of their values.
        confidence: probability with which the bound holds, in (0, 1).
        earlier: float64 [e], draws independent of `shares`, of about the same distribution: they say how much to bet at
            the start. The bound holds for any of them; when they are alike it is closer.

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
    """Return the largest bound that a sample of some size can give.

    Args:
        count: of the sample.
        confidence: probability with which the bound holds.
    """
    return lower_bound(np.ones(count), confidence, np.ones(count))


def alpha_spending(confidence: float, look: int, bounds: int = 1) -> float:
    """Return the confidence of one of several bounds that hold together.

    Args:
        confidence: with which all of them hold.
        look: number of the look, from 1.
        bounds: found at each look.

    The error is shared out as 1 / 2, 1 / 6, 1 / 12, ..., 1 / (j (j + 1)), which sum to 1 (Bonferroni, with the most for the
    first look, which is mostly the only one), and equally among the bounds of a look.
    """
    return 1.0 - (1.0 - confidence) / (look * (look + 1) * bounds)


def _bets(shares: Float64, threshold: float, earlier: Float64) -> Float64:
    """Return the bets that grow capital fastest by the variance so far: [t]."""
    before = np.concatenate([[0.5], earlier, shares])[: len(earlier) + len(shares)]  # and one imagined draw
    counts = np.arange(1, len(before) + 1)
    means = np.cumsum(before) / counts
    apart = np.cumsum(np.square(before - means))
    variances = ((0.25 + apart) / counts)[len(earlier) :]
    return np.asarray(np.sqrt(2 * threshold / (variances * max(len(shares), 1))), dtype=np.float64)


def _capital(shares: Float64, bets: Float64, mean: float) -> float:
    """Return the largest log capital of bets against `mean` over time."""
    stakes = np.minimum(bets, _BOLD / mean)
    return float(np.cumsum(np.log1p(stakes * (shares - mean))).max(initial=0.0))


# Users' vectors, parted so that what sets an index up does not judge it.

_FITTING = 1024  # at most, for the directions in which users differ
_TUNING = 512  # at most: every candidate answers each, some ten times
_PART = 8  # and at most one in so many of all, so that most are left to verify with


@dataclass(frozen=True, slots=True, eq=False)
class QuerySplit:
    """Vectors of users, no user in two parts.

    Attributes:
        fitting: float32 [f, dim], that an index is built with; at least one.
        tuning: float32 [t, dim], that its effort is set and timed with.
        verification: float32 [v, dim], that show what it finds.
        seed: of the order that they were parted in.
    """

    fitting: Float32
    tuning: Float32
    verification: Float32
    seed: int

    @classmethod
    def make(cls, vectors: Float32, seed: int) -> "QuerySplit":
        """Split vectors at random.

        Args:
            vectors: float32 [q, dim], one of each user, at least one.
            seed: of the order.
        """
        drawn = vectors[np.random.default_rng(seed).permutation(len(vectors))]
        fitting = max(min(_FITTING, len(drawn) // _PART), 1)
        tuning = min(_TUNING, len(drawn) // _PART)
        return cls(drawn[:fitting], drawn[fitting : fitting + tuning], drawn[fitting + tuning :], seed)

    @property
    def test_rounds(self) -> list[Float32]:
        """Queries of the verification in three parts, one for each look at a setting.

        Half of them are in the first.
        """
        quarter = len(self.verification) // 4
        first = len(self.verification) - 2 * quarter
        return [self.verification[:first], *np.split(self.verification[first:], 2)]
