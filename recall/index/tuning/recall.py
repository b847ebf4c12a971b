"""Measure recall: exact lists, confidence bounds, search parameters, user samples."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Float64
from recall.config import IndexConfig
from recall.index.base import ItemIndex, TunableIndex
from recall.index.flat import brute_force
from recall.index.topk import longest_of, rounding


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """Exact answers to some queries.

    Attributes:
        queries: float32 [q, dim].
        n: length of the lists.
        kth_score: float32 [q], the n-th largest score less the bound of rounding: a row with this score counts as found.
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
        """Find the exact answers for several lengths by one pass of brute force.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim].
            lengths: of the lists, each cut to the number of vectors.
        """
        cut = [min(n, len(vectors)) for n in lengths]
        scores, _ = brute_force(vectors, queries, max(cut))
        error = rounding(queries, longest_of(vectors))
        return [cls(queries, n, scores[:, n - 1] - error) for n in cut]

    def recalls(self, index: ItemIndex) -> Float64:
        """Return the share of each query's exact list that the index finds: float64 [q]."""
        return self._shares(index.search(self.queries, self.n).scores)

    def timed(self, index: ItemIndex) -> tuple[Float64, float]:
        """Measure recall and latency with single queries.

        Args:
            index: any index over the same vectors.

        Returns:
            The shares of `recalls`, float64 [q], and the wall-clock microseconds of a query: the mean without the slowest
            tenth, which other processes may have slowed. Processor time would leave out the work of an engine on a server.
        """
        scores = np.empty((len(self.queries), self.n), dtype=np.float32)
        times = np.empty(len(self.queries))
        for position in range(len(self.queries)):
            began = time.perf_counter()
            scores[position] = index.search(self.queries[position : position + 1], self.n).scores[0]
            times[position] = time.perf_counter() - began
        return self._shares(scores), 1e6 * float(np.sort(times)[: len(times) - len(times) // 10].mean())

    def _shares(self, scores: Float32) -> Float64:
        """Return the shares of scores [q, n] that are among the n best: float64 [q]."""
        return np.asarray((scores >= self.kth_score[:, None]).mean(axis=1), dtype=np.float64)


SHORT = 10
"""Lists of this length are tuned and verified, too: an index may find most of a long list, but miss items at its head."""


def verified_lengths(n: int) -> list[int]:
    """Return the lengths of lists that are verified for an index of lists of n."""
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
    """Find the least sufficient effort by exponential search and bisection.

    Few efforts are tried, and mostly small ones. Above a sufficient effort, all are assumed to be sufficient.

    Args:
        efforts: ascending.
        enough: whether an effort is sufficient; None stops the search.
        first: position of the first effort to try.

    Returns:
        The effort; None if the largest is not sufficient, or if `enough` stopped the search.
    """
    low, high = first - 1, first
    while not (answer := enough(efforts[high])):
        if answer is None or high == len(efforts) - 1:
            return None
        low, high = high, min(2 * (high + 1) - 1, len(efforts) - 1)
    while high - low > max(1, high // 32):  # another sample of users moves the result by more than that
        middle = (low + high) // 2
        if enough(efforts[middle]):
            high = middle
        else:
            low = middle
    return efforts[high]


def least_param(index: TunableIndex, truth: GroundTruth, target: float, first: int = 0) -> float:
    """Return the least search parameter with a mean recall of at least a target.

    If none reaches it, return the largest.

    Args:
        index: over the vectors of `truth`.
        truth: exact lists.
        target: mean share of the exact list to find.
        first: position in the index's `param_grid` of the first parameter to try.
    """

    def enough(value: float) -> bool:
        return bool(truth.recalls(index.with_search_param(value, truth.n)).mean() >= target)

    found = bisect(index.param_grid, enough, first)
    return index.param_grid[-1] if found is None else found


_CALIBRATION_QUERIES = 256  # that the effort of a prescribed kind is set with


def calibrated(index: TunableIndex, vectors: Float32, queries: Float32, config: IndexConfig) -> TunableIndex:
    """Return an index with the least effort that reaches the target recall.

    If no effort does, the index has the largest.

    Args:
        index: over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        config: target, and length of the lists; cut to the number of items.
    """
    truth = GroundTruth.of(vectors, spread(queries, _CALIBRATION_QUERIES), config.n)
    tuned = index.with_search_param(least_param(index, truth, config.target), truth.n)
    return tuned.for_longer_lists(vectors, truth.queries, truth.n, config.target)


def spread(queries: Float32, count: int) -> Float32:
    """Return queries at evenly spaced positions.

    Args:
        queries: float32 [q, dim].
        count: maximum number to return.
    """
    return queries[np.unique(np.linspace(0, len(queries) - 1, count).astype(np.int64))]


# A lower confidence bound on the mean of shares, valid for any number of users and any distribution.
#
# Shares of lists are in [0, 1], and most are near 1. There the coverage of Student's interval and of the bootstrap is too low
# (a sample without the rare bad user has almost no variance), while Hoeffding's bound is far too wide. The bound here is by
# betting (Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting): bets that the mean exceeds
# m have, after t users, the capital
#
#     K_t(m) = prod over i <= t of (1 + b_i (x_i - m)),    0 <= b_i < 1 / m, chosen before x_i is seen,
#
# a supermartingale that begins at 1 if the mean is at most m. By Ville's inequality, the probability that it ever reaches
# 1 / alpha is at most alpha, so every m for which it did is rejected. The bets depend on the variance: where shares vary
# little, the bound is as close as Bernstein's, and where all are 1, as close as that of Clopper and Pearson.

_LARGEST_BET = 0.95  # as a part of 1 / m: a share of 0 then costs most of the capital, but never all of it
_HALVINGS = 50


def lower_bound(shares: Float64, confidence: float, earlier: Float64 | None = None) -> float:
    """Return a lower confidence bound on the mean of a distribution.

    Args:
        shares: float64 [t], independent draws in [0, 1], in an order that does not depend on their values.
        confidence: probability with which the bound holds, in (0, 1).
        earlier: float64 [e], draws independent of `shares`, which determine the first bets. The bound holds for any of them,
            and is closer if they have about the same distribution.

    Returns:
        The bound, in [0, 1].
    """
    threshold = -math.log1p(-confidence)
    bets = _bets(shares, threshold, np.empty(0) if earlier is None else earlier)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):  # the capital decreases with m
        middle = (low + high) / 2
        if _capital(shares, bets, middle) >= threshold:
            low = middle
        else:
            high = middle
    return min(low, float(shares.mean())) if len(shares) else 0.0


def best_bound(count: int, confidence: float) -> float:
    """Return the largest bound that a sample of a given size can have.

    Args:
        count: size of the sample.
        confidence: probability with which the bound holds.
    """
    return lower_bound(np.ones(count), confidence, np.ones(count))


def alpha_spending(confidence: float, look: int, bounds: int = 1) -> float:
    """Return the confidence of one of several bounds that hold together.

    The error is divided among the rounds as 1 / 2, 1 / 6, 1 / 12, ..., 1 / (j (j + 1)), which sum to 1 (Bonferroni, with most
    for the first round, which usually is the only one), and equally among the bounds of a round.

    Args:
        confidence: with which all of them hold.
        look: number of the round, from 1.
        bounds: number of bounds in each round.
    """
    return 1.0 - (1.0 - confidence) / (look * (look + 1) * bounds)


def _bets(shares: Float64, threshold: float, earlier: Float64) -> Float64:
    """Return the bets that increase the capital fastest: float64 [t]."""
    before = np.concatenate([[0.5], earlier, shares])[: len(earlier) + len(shares)]  # with one pseudo-observation
    counts = np.arange(1, len(before) + 1)
    means = np.cumsum(before) / counts
    squares = np.cumsum(np.square(before - means))
    variances = ((0.25 + squares) / counts)[len(earlier) :]
    return np.asarray(np.sqrt(2 * threshold / (variances * max(len(shares), 1))), dtype=np.float64)


def _capital(shares: Float64, bets: Float64, mean: float) -> float:
    """Return the largest log capital, over time, of bets that the mean exceeds `mean`."""
    stakes = np.minimum(bets, _LARGEST_BET / mean)
    return float(np.cumsum(np.log1p(stakes * (shares - mean))).max(initial=0.0))


# Samples of users: an index is verified with other users than it was built and tuned with.

_FITTING = 1024  # users to build with, at most: enough for their second moments
_TUNING = 512  # users to tune with, at most: each candidate answers each of them about ten times
_PART = 8  # both are at most one in so many of all users, so that most are left for the verification


@dataclass(frozen=True, slots=True, eq=False)
class QuerySplit:
    """Vectors of users in three parts; no user is in two of them.

    Attributes:
        fitting: float32 [f, dim], to build an index with; at least one.
        tuning: float32 [t, dim], to set its effort and time it.
        verification: float32 [v, dim], to measure its recall.
        seed: of the random order before the split.
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
            seed: of the random order.
        """
        drawn = vectors[np.random.default_rng(seed).permutation(len(vectors))]
        fitting = max(min(_FITTING, len(drawn) // _PART), 1)
        tuning = min(_TUNING, len(drawn) // _PART)
        return cls(drawn[:fitting], drawn[fitting : fitting + tuning], drawn[fitting + tuning :], seed)

    @property
    def test_rounds(self) -> list[Float32]:
        """Queries of the verification in three rounds, half of them in the first."""
        quarter = len(self.verification) // 4
        first = len(self.verification) - 2 * quarter
        return [self.verification[:first], *np.split(self.verification[first:], 2)]
