"""Recall against brute force, cheapest setting for a target, interleaved timing.

Times are CPU times of the searching thread: preemption by other programs does not count, but contention for memory does.
Contenders are interleaved, so that load on the machine affects all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from index.contenders import Contender
from recall._arrays import Float32, Int64
from recall.index.flat import brute_force


@dataclass(frozen=True)
class Truth:
    """The expected results.

    Attributes:
        users: float32 [q, dim].
        kth_score: float32 [q], the score of the n-th best item minus a rounding tolerance.
        items: float32 [items, dim].
        n: length of the lists.
    """

    users: Float32
    kth_score: Float32
    items: Float32
    n: int

    @classmethod
    def of(cls, items: Float32, users: Float32, n: int) -> "Truth":
        """Scan the catalogue for every user."""
        scores, _ = brute_force(items, users, n)
        kth_score = scores[:, -1] - 1e-5 * np.abs(scores[:, 0])
        return cls(users, kth_score.astype(np.float32), items, n)

    def shares(self, rows: Sequence[Int64]) -> npt.NDArray[np.float64]:
        """Return the recall for each user, float64 [q].

        `rows` are the results of the first users; ties count as found.
        """
        return np.array([
            np.mean(self.items[found[found >= 0]] @ self.users[at] >= self.kth_score[at]) * (found >= 0).sum() / self.n
            for at, found in enumerate(rows)
        ])  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A contender at one setting.

    Includes its recall on the tuning users, and whether it reaches the target.
    """

    contender: Contender
    setting: Any
    recall: float
    reached: bool


def recall_of(contender: Contender, setting: Any, truth: Truth, users: int) -> float:
    """Return the mean recall for the first `users`."""
    return float(truth.shares([contender.search(user, truth.n, setting) for user in truth.users[:users]]).mean())


def cheapest(contender: Contender, truth: Truth, target: float) -> Point:
    """Return the fastest setting that reaches a target, or else the best one."""
    settings = contender.settings

    def point(setting: Any) -> Point:
        recall = recall_of(contender, setting, truth, len(truth.users))
        return Point(contender, setting, recall, recall >= target)

    if isinstance(settings[0], tuple):
        tried = [point(setting) for setting in settings if recall_of(contender, setting, truth, 60) >= target - 0.02]
        reached = [one for one in tried if one.reached]
        if not reached:
            return max(map(point, settings[-4:]), key=lambda one: one.recall)
        return min(reached, key=lambda one: seconds_of(partial(_search, one, truth.n), truth.users[:100]))
    low, high = 0, len(settings) - 1
    if not (dearest := point(settings[high])).reached:
        return dearest
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if point(settings[middle]).reached else (middle + 1, high)
    return point(settings[low])


def _search(point: Point, n: int, user: Float32) -> Int64:
    return point.contender.search(user, n, point.setting)


def seconds_of(search: Callable[[Float32], object], users: Float32) -> float:
    """Return the mean CPU seconds of a search."""
    began = time.thread_time()
    for user in users:
        search(user)
    return (time.thread_time() - began) / len(users)


def in_turn(searches: Mapping[str, Callable[[Float32], object]], users: Float32, rounds: int = 5) -> dict[str, float]:
    """Measure median CPU seconds of a search over interleaved `rounds`.

    The first round is not counted.
    """
    spent: dict[str, list[float]] = {name: [] for name in searches}
    part = np.array_split(users, rounds + 1)
    for number in range(rounds + 1):
        for name, search in searches.items():
            spent[name].append(seconds_of(search, part[number]))
    return {name: median(times[1:]) for name, times in spent.items()}
