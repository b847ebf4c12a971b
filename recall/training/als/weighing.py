"""Weights of contexts, items and features in the square loss over all pairs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32
from recall.config import OpeningConfig
from recall.training.pairs import ObservedPairs
from recall.training.ranges import Spread
from recall.training.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the rows that were observed; those of masked rows are made from them.

    Attributes:
        of_item: float32 [I], observed weight.
        a, b: float32 [C] and [I], how the weight of all pairs is shared out; the mean of each is 1.
        alpha: weight of a pair of a context and an item with a = b = 1.
        total: observed weight.
        total_a, total_b: sums.
    """

    of_item: Float32
    a: Float32
    b: Float32
    alpha: float
    total: float
    total_a: float
    total_b: float

    @staticmethod
    def of(pairs: ObservedPairs, config: OpeningConfig) -> "tuple[Weights, Float32]":
        """Return the weights of observed pairs by a configuration.

        Args:
            pairs: observed pairs.
            config: exponents and factors.

        Returns:
            The weights, and the observed weight of each context, float32 [C].
        """
        of_context = np.bincount(pairs.owners, pairs.weights, len(pairs.contexts)).astype(np.float32)
        by_item = np.bincount(pairs.observed, pairs.weights, len(pairs.items))
        pairs.ranks.add_up(by_item)
        of_item = by_item.astype(np.float32)
        a = _power(of_context, config.activity, pairs.observation, pairs.ranks)
        b = _power(of_item, config.popularity, pairs.observation, Ranks())
        total = pairs.ranks.total(of_context.sum(dtype=np.float64))
        total_a, total_b = pairs.ranks.total(a.sum(dtype=np.float64)), float(b.sum(dtype=np.float64))
        alpha = config.unobserved * total / (total_a * total_b)
        return Weights(of_item, a, b, alpha, total, total_a, total_b), of_context


@dataclass(frozen=True, slots=True)
class Frequencies:
    """Summed weights of the rows that have each feature of one side.

    Both arrays have one row for each feature and two columns: observed weight, and the weight of its rows' pairs with all
    rows of the other side. A row counts with the square of its feature weight.

    Attributes:
        plain: float32 [n_features, 2], of the unmasked rows.
        masked: float32 [n_features, 2], of masked rows.
    """

    plain: Float32
    masked: Float32

    @property
    def together(self) -> Float32:
        """Sum of both, float32 [n_features, 2]."""
        return self.plain + self.masked

    def with_masked(self, masked: Float32) -> "Frequencies":
        """Add those of further masked rows."""
        return Frequencies(self.plain, self.masked + masked)

    def shared(self, spread: Spread) -> "Frequencies":
        """Return those of shared rows, by way of all that are tied to them."""
        squared = spread.squared()
        parts = (torch.tensor(part) for part in (self.plain, self.masked))  # copies, which are used up
        return Frequencies(*(squared.back(part, torch.zeros_like(part)).numpy() for part in parts))


def penalty(frequencies: Frequencies, others: float, config: OpeningConfig) -> Tensor:
    """Return the frequency-scaled regularisation of each feature (Rendle et al. 2021).

    Masked rows have a separate loss, regularised as if its weight were 1, and enter with the weight `config.drop`.
    Without this, and with nu < 1, features that only masked rows have would be regularised more the less they weigh.

    Args:
        frequencies: of the side.
        others: summed weight of the other side's rows.
        config: of the loss.

    Returns:
        [n, 1]. A feature without data has 0: it stays where it is.
    """

    def of(part: Float32, weight: float) -> Tensor:
        summed = torch.from_numpy(part[:, :1] + np.float32(others) * part[:, 1:])
        scaled = weight * config.regularisation * (summed / weight).clamp_min(1e-6) ** config.nu
        return torch.where(summed > 0, scaled, 0.0)

    found = of(frequencies.plain, 1.0)
    return found + of(frequencies.masked, config.drop) if config.drop else found


def _power(counts: Float32, power: float, observation: float, ranks: Ranks) -> Float32:
    """Return counts^power [n], scaled to a mean of 1.

    A count below that of one observation, as after decay, is raised to it.
    """
    weights = np.maximum(counts, np.float32(observation)) ** np.float32(power)
    mean = np.float64(ranks.total(weights.sum(dtype=np.float64))) / ranks.total(len(weights))
    return np.asarray(weights / mean, dtype=np.float32)
