"""What contexts, items and features weigh in the square loss over all pairs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall.config import OpeningConfig
from recall.training.kernels.contract import Float32
from recall.training.pairs import ObservedPairs


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the rows that were observed; those of masked rows are made from them.

    Attributes:
        of_context, of_item: float32 [C] and [I], observed weight.
        a, b: float32 [C] and [I], how the weight of all pairs is shared out; the mean of each is 1.
        alpha: weight of a pair of a context and an item with a = b = 1.
        total: observed weight.
        total_a, total_b: sums.
    """

    of_context: Float32
    of_item: Float32
    a: Float32
    b: Float32
    alpha: float
    total: float
    total_a: float
    total_b: float

    @staticmethod
    def of(pairs: ObservedPairs, config: OpeningConfig) -> "Weights":
        """The weights that a configuration gives to observed pairs."""
        of_context = np.bincount(pairs.owners, pairs.weights, len(pairs.contexts)).astype(np.float32)
        of_item = np.bincount(pairs.observed, pairs.weights, len(pairs.items)).astype(np.float32)
        a, b = (
            _power(counts, power, pairs.observation)
            for counts, power in ((of_context, config.activity), (of_item, config.popularity))
        )
        total = float(of_context.sum(dtype=np.float64))
        total_a, total_b = float(a.sum(dtype=np.float64)), float(b.sum(dtype=np.float64))
        return Weights(of_context, of_item, a, b, config.unobserved * total / (total_a * total_b), total, total_a, total_b)


def penalty(sees: Float32, others: float, config: OpeningConfig) -> Tensor:
    """Regularisation of each feature [n, 1], from what it sees [n, 2] and the summed weight of the other side's rows.

    A feature that sees nothing has none: it stays where it is.
    """
    seen = torch.from_numpy(sees[:, :1] + np.float32(others) * sees[:, 1:])
    return torch.where(seen > 0, config.regularisation * seen.clamp_min(1e-6) ** config.nu, 0.0)


def _power(counts: Float32, power: float, observation: float) -> Float32:
    """counts^power [n], scaled to a mean of 1; less than one observation weighs as one, also where it has decayed."""
    weights = np.maximum(counts, np.float32(observation)) ** np.float32(power)
    return np.asarray(weights / weights.mean(dtype=np.float64), dtype=np.float32)
