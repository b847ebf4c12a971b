"""Recall against brute force, the cheapest setting that reaches a target, and times taken in turn.

Times are the processor's, of the thread that searches: preemption by other programs does not count, contention for memory
does. Contenders take turns, so what slows the machine down slows all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from index.contenders import Contender
from recall.index.engine import brute_force

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """What is right.

    Attributes:
        users: float32 [q, dim].
        worst: float32 [q], the score of the n-th best item, less a hair for rounding.
        items: float32 [items, dim].
        n: length of the lists.
    """

    users: Float32
    worst: Float32
    items: Float32
    n: int

    @classmethod
    def of(cls, items: Float32, users: Float32, n: int) -> "Truth":
        """Scan the catalogue for every user."""
        scores, _ = brute_force(items, users, n)
        return cls(users, scores[:, -1] - 1e-5 * np.abs(scores[:, 0]), items, n)

    def shares(self, rows: Sequence[Int64]) -> npt.NDArray[np.float64]:
        """The part of each user's list that was found, float64 [q]; rows of the first users, which ties may exceed."""
        return np.array([
            np.mean(self.items[found[found >= 0]] @ self.users[at] >= self.worst[at]) * (found >= 0).sum() / self.n
            for at, found in enumerate(rows)
        ])  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A contender at one setting: recall on the users it was chosen with."""

    contender: Contender
    setting: Any
    recall: float


def recall_of(contender: Contender, setting: Any, truth: Truth, users: int) -> float:
    """Mean share that is found for the first `users`."""
    return float(truth.shares([contender.search(user, truth.n, setting) for user in truth.users[:users]]).mean())


def cheapest(contender: Contender, truth: Truth, target: float) -> Point | None:
    """The cheapest setting that reaches a target, or None. A grid with two widths is gone through; a line is bisected."""
    settings = contender.settings
    if isinstance(settings[0], tuple):
        best: tuple[float, Point] | None = None
        for setting in settings:
            recall = recall_of(contender, setting, truth, 150)
            if recall >= target and recall_of(contender, setting, truth, len(truth.users)) >= target:
                seconds = seconds_of(lambda user, s=setting: contender.search(user, truth.n, s), truth.users[:150])
                if best is None or seconds < best[0]:
                    best = seconds, Point(contender, setting, recall_of(contender, setting, truth, len(truth.users)))
        return best[1] if best else None
    low, high = 0, len(settings) - 1
    if recall_of(contender, settings[high], truth, len(truth.users)) < target:
        return None
    while low < high:
        middle = (low + high) // 2
        if recall_of(contender, settings[middle], truth, len(truth.users)) >= target:
            high = middle
        else:
            low = middle + 1
    return Point(contender, settings[low], recall_of(contender, settings[low], truth, len(truth.users)))


def seconds_of(search: Callable[[Float32], object], users: Float32) -> float:
    """Mean processor seconds of a search."""
    began = time.thread_time()
    for user in users:
        search(user)
    return (time.thread_time() - began) / len(users)


def in_turn(searches: Mapping[str, Callable[[Float32], object]], users: Float32, rounds: int = 5) -> dict[str, float]:
    """Processor seconds of a search, the median of `rounds` in which all take turns. The first turn is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in searches}
    part = np.array_split(users, rounds + 1)
    for number in range(rounds + 1):
        for name, search in searches.items():
            spent[name].append(seconds_of(search, part[number]))
    return {name: median(times[1:]) for name, times in spent.items()}
