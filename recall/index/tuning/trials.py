"""Trials of candidates: the least effort that reaches a target, and its latency."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recall._arrays import Float64
from recall.config import IndexConfig
from recall.index.base import ItemIndex, TunableIndex
from recall.index.record import IndexTrial, Point
from recall.index.tuning.recall import GroundTruth, alpha_spending, bisect, lower_bound

EXACT = "exact"
"""Name of the candidate that searches exactly."""

_GIVE_UP = 3.0  # a candidate this many times slower than the fastest is given up
_RETIMED = 1.6  # candidates up to this many times slower than the fastest are timed again beside it
# Recall has a plateau, limited by the codes and not by the effort, if four times the effort
_PLATEAU_GAIN = 0.001  # gained less recall than this,
_PLATEAU_COST = 1.5  # took this many times longer (at small efforts, neither changes),
_PLATEAU_FROM = 0.9  # and recall was above this share of the target (far below it, recall rises unevenly)
_ROUNDS = 5  # rounds of timing, in each of which all candidates take turns, so that a busy moment affects all of them
_TIMED = 96  # queries in a round


@dataclass(slots=True)
class CandidateState:
    """A candidate that may still be chosen.

    Attributes:
        index: the index with the effort that was set.
        tunable: the index as it was built; None for exact search, which has no effort.
        microseconds: time of one query.
        shares: recall of each user, float64 [t], for each length of lists.
        curve: mean recall and microseconds by effort.
        effort: the effort that was set.
    """

    index: ItemIndex
    tunable: TunableIndex | None
    microseconds: float
    shares: list[Float64]
    curve: dict[float, tuple[float, float]]
    effort: float = 0.0

    @property
    def points(self) -> tuple[Point, ...]:
        """The curve by ascending effort."""
        return tuple(Point(effort, *self.curve[effort]) for effort in sorted(self.curve))


class IndexTuner:
    """Tunes candidates with the same users, and keeps those that may still be chosen.

    Attributes:
        truth: exact lists of these users, of the length that is timed.
        shorter: exact lists of further lengths.
        trials: outcome of every candidate.
        running: candidates that may still be chosen, by name, with exact search always among them.
    """

    def __init__(self, truths: Sequence[GroundTruth], config: IndexConfig, fresh: int) -> None:
        """Begin without candidates.

        Args:
            truths: exact lists of the users that candidates are tuned with, for each length; the first length is timed.
            config: target and confidence.
            fresh: number of users of the first verification.
        """
        self.truth, *self.shorter = truths
        self.config = config
        self.trials: list[IndexTrial] = []
        self.running: dict[str, CandidateState] = {}
        self._fresh = fresh

    @property
    def fastest(self) -> str:
        """Name of the candidate that takes the least time."""
        return min(self.running, key=lambda name: self.running[name].microseconds)

    def add_exact(self, index: ItemIndex, seconds: float) -> None:
        """Add exact search, the first candidate.

        Args:
            index: an exact index.
            seconds: time of its build.
        """
        few = GroundTruth(self.truth.queries[:32], self.truth.n, self.truth.kth_score[:32])
        few.timed(index)
        _, microseconds = few.timed(index)
        running = CandidateState(index, None, microseconds, [], {0.0: (1.0, microseconds)})
        self.running[EXACT] = running
        note = "exact by construction"
        self.trials.append(IndexTrial(EXACT, index.kind, _bytes(index), seconds, running.points, 0.0, note))

    def add(self, name: str, index: TunableIndex, seconds: float) -> IndexTrial:
        """Add a candidate and set its effort.

        Args:
            name: of the candidate.
            index: its index.
            seconds: time of the build.
        """
        running = CandidateState(index, index, 0.0, [], {})
        self.running[name] = running
        limit = _GIVE_UP * min(one.microseconds for one in self.running.values() if one is not running)
        note = self.set_effort(name, [0.0] * (1 + len(self.shorter)), limit)
        chosen = None if note else running.effort
        trial = IndexTrial(name, index.kind, _bytes(index), seconds, running.points, chosen, note)
        self.trials.append(trial)
        if note:
            self.drop(name)
        slow = _GIVE_UP * self.running[self.fastest].microseconds
        for key in [key for key, one in self.running.items() if key != EXACT and one.microseconds > slow]:
            self.drop(key)  # an index of a million items takes a hundred megabytes
        return trial

    def drop(self, name: str) -> None:
        """Give a candidate up, and discard its index."""
        self.running.pop(name).index.discard()

    def set_effort(self, name: str, slack: Sequence[float], limit: float = np.inf) -> str:
        """Find the least effort of a candidate that is expected to reach the target.

        Args:
            name: of the candidate.
            slack: margin above the target that its expected bound must have, for each length of lists.
            limit: microseconds above which the candidate is given up.

        Returns:
            Empty if an effort was set; else why not, in a sentence.
        """
        running = self.running[name]
        tunable = running.tunable
        assert tunable is not None  # only exact search has no effort, and reaches every target
        found: dict[float, Float64] = {}
        note = f"no effort reaches {self.config.target:g}"

        def enough(effort: float) -> bool | None:
            nonlocal note
            shares, microseconds = self.truth.timed(tunable.with_search_param(effort, self.truth.n))
            if microseconds > limit:  # once more: the first run may be slow, or disturbed
                microseconds = min(microseconds, self.truth.timed(tunable.with_search_param(effort, self.truth.n))[1])
            found[effort] = shares
            running.curve[effort] = (float(shares.mean()), microseconds)
            if microseconds > limit:
                note = "given up: much slower than the fastest"
                return None
            if self.suffices(shares, slack[0]):
                return True
            if self.has_plateaued(running.curve, effort):
                note = "its codes are too coarse"
                return None
            return False

        effort = bisect(tunable.param_grid, enough)
        if effort is None:
            return note
        index, shares = tunable.with_search_param(effort, self.truth.n), [found[effort]]
        for short, further in zip(self.shorter, slack[1:], strict=True):
            enough_for = self._set_short(index, effort, short, further)
            if enough_for is None:
                return f"no effort reaches {self.config.target:g} for lists of {short.n}"
            index = enough_for[0]
            shares.append(enough_for[1])
        running.index, running.effort = index, effort
        running.shares, running.microseconds = shares, running.curve[effort][1]
        return ""

    def suffices(self, shares: Float64, slack: float) -> bool:
        """Return whether a verification is likely to certify the target.

        Args:
            shares: float64 [t], recall of the users that the candidate is tuned with.
            slack: margin above the target that the expected bound must have.
        """
        target = self.config.target
        return bool(shares.mean() >= target and self.expected_bound(shares) >= target + slack)

    def has_plateaued(self, curve: Mapping[float, tuple[float, float]], effort: float) -> bool:
        """Return whether four times the effort took longer and did not find more.

        Args:
            curve: mean recall and microseconds by effort.
            effort: the last effort that was tried.
        """
        quarter = max((one for one in curve if one <= effort / 4), default=None)
        if quarter is None:
            return False
        (recall_before, time_before), (recall, time) = curve[quarter], curve[effort]
        target = self.config.target
        near = _PLATEAU_FROM * target < recall < target
        return near and recall < recall_before + _PLATEAU_GAIN and time > _PLATEAU_COST * time_before

    def compare(self) -> None:
        """Time the fastest candidates again, in turns, and keep the least time of each."""
        close = _RETIMED * self.running[self.fastest].microseconds
        some = GroundTruth(self.truth.queries[:_TIMED], self.truth.n, self.truth.kth_score[:_TIMED])
        times: dict[str, list[float]] = {name: [] for name, one in self.running.items() if one.microseconds <= close}
        for _ in range(_ROUNDS):
            for name, measured in times.items():
                measured.append(some.timed(self.running[name].index)[1])
        for name, measured in times.items():
            running = self.running[name]
            running.microseconds = min(measured)
            running.curve[running.effort] = (running.curve[running.effort][0], running.microseconds)

    def report(self) -> tuple[IndexTrial, ...]:
        """All trials in their current state."""
        return tuple(
            replace(one, curve=self.running[one.name].points, tuned=self.running[one.name].effort)
            if one.name in self.running
            else one
            for one in self.trials
        )

    def _set_short(
        self, index: TunableIndex, effort: float, short: GroundTruth, slack: float
    ) -> tuple[TunableIndex, Float64] | None:
        """Find the least effort for short lists, at least that for long ones.

        Returns:
            The index with this effort, and the recall of each user, float64 [t]; None if no effort reaches the target.
        """
        found: dict[float, tuple[TunableIndex, Float64]] = {}

        def enough(value: float) -> bool:
            tuned = index if value == effort else index.with_short_param(value, short.n)
            found[value] = tuned, short.recalls(tuned)
            return self.suffices(found[value][1], slack)

        grid = index.param_grid
        value = bisect(grid, enough, next(at for at, one in enumerate(grid) if one >= effort))
        return None if value is None else found[value]

    def expected_bound(self, shares: Float64) -> float:
        """Return the bound that a verification with other users is likely to give.

        It is the bound of as many users with these recalls, less one standard deviation of the difference of the means.

        Args:
            shares: float64 [t], recall of the users that the candidate is tuned with.
        """
        resampled = np.resize(np.random.default_rng(0).permutation(shares), self._fresh)
        deviation = float(shares.std()) * np.sqrt(1 / len(shares) + 1 / self._fresh)
        confidence = alpha_spending(self.config.confidence, 1, 1 + len(self.shorter))
        return float(lower_bound(resampled, confidence, shares) - deviation)


def _bytes(index: ItemIndex) -> int:
    """Return the size of the index's file; 0 without a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        return path.stat().st_size if index.write(path) else 0
