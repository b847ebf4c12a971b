"""95 % intervals by a cluster bootstrap over users.

See Efron 1979, and Field and Welsh 2007. Requests of one user are correlated, so they do not count as independent
evidence: a resample draws as many users as there are, with replacement, each with all of its requests. The interval runs
from the 2.5 % to the 97.5 % quantile of the resampled means.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from recall._arrays import Float64, Integers
from recall.errors import DataError

_BLOCK = 1 << 22  # drawn users counted at once: 32 MB


class Figures(BaseModel):
    """Base of the results in a report: frozen, unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Figures):
    """A figure and its 95 % interval.

    Both ends are None when no interval was requested, or there is only one user.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def interval(self, sign: str = "") -> str:
        """Return figure and interval as text; `sign` is "+" for differences."""
        shown = f"{self.value:{sign}.4f}"
        return shown if self.low is None or self.high is None else f"{shown} [{self.low:{sign}.4f}, {self.high:{sign}.4f}]"


class Comparison(Figures):
    """Paired difference of two sets of answers to the same requests."""

    difference: Estimate
    ratio: Estimate | None
    """None if the divisor is 0."""

    @property
    def verdict(self) -> Literal["higher", "lower", "undecided"]:
        """'undecided' when there is no interval or it contains 0."""
        low, high = self.difference.low, self.difference.high
        if low is not None and low > 0:
            return "higher"
        if high is not None and high < 0:
            return "lower"
        return "undecided"


@dataclass(frozen=True, slots=True)
class PerRequestMetrics:
    """One number for each request under each metric.

    Attributes:
        user: integer [q], the user of each request.
        values: float64 [q] by metric.
    """

    user: Integers
    values: Mapping[str, Float64]

    def take(self, rows: Integers) -> "PerRequestMetrics":
        """Return the requests at positions `rows`, integer [m], in that order."""
        return PerRequestMetrics(self.user[rows], {name: values[rows] for name, values in self.values.items()})

    def only(self, names: Iterable[str]) -> "PerRequestMetrics":
        """Return some of the metrics, in this order."""
        return PerRequestMetrics(self.user, {name: self.values[name] for name in names})


def estimate(by_request: PerRequestMetrics, resamples: int, seed: int) -> dict[str, Estimate]:
    """Mean over requests of every metric, with its interval.

    Args:
        by_request: at least one request.
        resamples: times that the users are drawn; 0 leaves the intervals out.
        seed: of the draws; equal seeds over equal users draw equally.
    """
    values = np.stack(list(by_request.values.values()), axis=1)
    drawn = _resampled_means(values, by_request.user, resamples, seed)
    return {
        name: interval(float(mean), drawn[:, column])
        for column, (name, mean) in enumerate(zip(by_request.values, values.mean(axis=0), strict=True))
    }


def compare(a: PerRequestMetrics, b: PerRequestMetrics, resamples: int, seed: int) -> dict[str, Comparison]:
    """Estimate a - b and a / b of every shared metric, by paired resamples.

    Args:
        a: one model.
        b: another model, on the same requests in the same order.
        resamples: number of bootstrap resamples.
        seed: of the draws.

    Raises:
        DataError: The requests differ.
    """
    if not np.array_equal(a.user, b.user):
        raise DataError(
            "two sets of answers cannot be compared",
            why=f"they are of {len(a.user)} and {len(b.user)} requests, not of the same users in the same order",
            hint="Evaluate both on one split under one protocol",
        )
    names = [name for name in a.values if name in b.values]
    values = np.stack([judged.values[name] for judged in (a, b) for name in names], axis=1)
    means, drawn = values.mean(axis=0), _resampled_means(values, a.user, resamples, seed)
    result = {}
    for column, name in enumerate(names):
        other = column + len(names)
        difference = interval(float(means[column] - means[other]), drawn[:, column] - drawn[:, other])
        result[name] = Comparison(difference=difference, ratio=_ratio(means[[column, other]], drawn[:, [column, other]]))
    return result


def _ratio(means: Float64, drawn: Float64) -> Estimate | None:
    if means[1] == 0:
        return None
    bounded = bool((drawn[:, 1] != 0).all())  # a resample that divides by 0 leaves the upper end without bound
    return interval(float(means[0] / means[1]), drawn[:, 0] / drawn[:, 1] if bounded else drawn[:0, 0])


def redrawn(users: int, resamples: int, seed: int) -> Iterator[Float64]:
    """Yield how often each user is drawn, float64 [lines, users], in batches.

    Nothing is yielded for a single user: the spread is unknown.

    Args:
        users: number of users.
        resamples: number of lines in total.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(users, 1))
    for first in range(0, resamples if users > 1 else 0, step):
        lines = min(step, resamples - first)
        drawn = random.integers(0, users, size=(lines, users)) + np.arange(lines)[:, None] * users
        times = np.bincount(drawn.reshape(-1), minlength=lines * users).reshape(lines, users)
        yield times.astype(np.float64)


def resampled_sums(values: Float64 | Integers, resamples: int, seed: int) -> Float64:
    """Return the sums over the drawn users of each resample.

    Args:
        values: numbers [users, m].
        resamples: number of resamples.
        seed: of the draws.

    Returns:
        float64 [resamples, m]; without rows for a single user.
    """
    numbers = np.asarray(values, dtype=np.float64)
    return np.concatenate([numbers[:0], *(times @ numbers for times in redrawn(len(numbers), resamples, seed))])


def interval(value: float, drawn: Float64) -> Estimate:
    """Return a figure with the interval of its resamples, if there are any.

    Args:
        value: the figure.
        drawn: float64 [resamples]; NaNs are ignored.
    """
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Estimate(value=value)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))


def _resampled_means(values: Float64, user: Integers, resamples: int, seed: int) -> Float64:
    """Means over requests in each resample of the users.

    Args:
        values: float64 [q, m].
        user: integer [q].
        resamples: number of resamples.
        seed: of the draws.

    Returns:
        float64 [resamples, m]; without rows for a single user.
    """
    _, code, requests = np.unique(user, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(code, weights=column) for column in values.T] + [requests], axis=1)
    totals = resampled_sums(sums, resamples, seed)
    means: Float64 = totals[:, :-1] / totals[:, -1:]
    return means
