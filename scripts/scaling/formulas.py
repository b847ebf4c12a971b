"""Formulas that are printed and evaluated as the same text, and simulated tails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np

_FUNCTIONS = {"max": max, "min": min, "ceil": ceil}


@dataclass(frozen=True)
class Formula:
    """A number as an expression of sizes.

    Attributes:
        name: such as F3.
        text: an expression in Python.
        unit: of its value, as of `shown`.
        about: its meaning, and the measurements that its numbers are from.
    """

    name: str
    text: str
    unit: str
    about: str

    def __call__(self, **sizes: float) -> float:
        """Evaluate the text."""
        return float(eval(self.text, {"__builtins__": {}, **_FUNCTIONS}, sizes))

    def shown(self, **sizes: float) -> str:
        """Return the value with a sign that it is computed, and the formula's name."""
        return f"≈ {shown(self(**sizes), self.unit)} ({self.name})"


@dataclass
class Book:
    """The formulas of a page, numbered in the order in which they are added."""

    formulas: list[Formula] = field(default_factory=list)

    def add(self, text: str, unit: str, about: str) -> Formula:
        """Add a formula."""
        self.formulas.append(Formula(f"F{len(self.formulas) + 1}", text, unit, about))
        return self.formulas[-1]


_UNITS = {
    "B": (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
    "us": (("s", 1e6), ("ms", 1e3), ("us", 1.0)),
    "s": (("h", 3600.0), ("s", 1.0)),
    "": (("billion", 1e9), ("million", 1e6)),
}


def shown(value: float, unit: str) -> str:
    """Return a number of three digits with its unit.

    Args:
        value: in bytes, microseconds, seconds, or another unit.
        unit: "B", "us", "s", or "" for a count.
    """
    for name, size in _UNITS[unit]:
        if value >= size:
            return f"{_three(value / size)} {name}"
    return f"{_three(value)} {unit}" if unit else f"{value:,.0f}"


def _three(value: float) -> str:
    if value == 0 or value >= 1e15:
        return f"{value:.3g}"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{round(value, 2 - int(np.floor(np.log10(abs(value))))):,.{digits}f}"


def linear(values: Mapping[int, float], name: str = "N") -> str:
    """Return a straight line from the smallest to the largest size."""
    (first, low), (last, high) = min(values.items()), max(values.items())
    slope = (high - low) / (last - first)
    return f"{low - slope * first:.4g} + {slope:.4g} * {name}"


def slope(values: Mapping[int, float], name: str = "N") -> str:
    """Return that line without its intercept."""
    return linear(values, name).partition(" + ")[2]


def power(values: Mapping[int, float], name: str = "N") -> str:
    """Return the power law that is nearest to the logarithms of all values."""
    largest = max(values)
    exponent, at_largest = np.polyfit(np.log([size / largest for size in values]), np.log(list(values.values())), 1)
    return f"{np.exp(at_largest):.4g} * ({name} / {largest:.4g}) ** {exponent:.3f}"


def tails(quantiles: Sequence[float], shards: Sequence[int], seed: int = 0) -> dict[int, tuple[float, float, float]]:
    """Simulate requests that wait for the slowest of several shards.

    Args:
        quantiles: latencies of one shard at p = (0 ... 1) ** (1/4), equally spaced.
        shards: numbers of shards.
        seed: of the draws.

    Returns:
        By number: p50, p99, and p99 if a shard that has not answered at its p95 is asked again elsewhere.
    """
    rng = np.random.default_rng(seed)
    at = np.linspace(0, 1, len(quantiles)) ** (1 / 4)
    late = float(np.interp(0.95, at, quantiles))
    found = {}
    for count in shards:
        first, second = (np.interp(rng.random((100_000, count)), at, quantiles) for _ in range(2))
        plain, hedged = first.max(axis=1), np.where(first > late, np.minimum(first, late + second), first).max(axis=1)
        found[count] = (float(np.median(plain)), float(np.quantile(plain, 0.99)), float(np.quantile(hedged, 0.99)))
    return found
