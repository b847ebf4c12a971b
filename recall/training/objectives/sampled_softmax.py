"""Softmax against a sample of the catalogue that a whole batch shares, for catalogues too large to go over.

The sum over all items is estimated without bias: what a context was observed with enters exactly, every draw j of q
that it was not observed with stands for 1 / (m q_j) items (the logQ correction of Bengio and Senecal 2003, Jean et
al. 2015), and accidental hits are left out, being counted already:

    Z_c = sum_{i in S_c} exp(y_ci / t) + sum over m draws j not in S_c of exp(y_cj / t) / (m q_j)
"""

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Int64
from recall.training.negatives import Negatives
from recall.training.objectives.contract import (
    Gradients,
)
from recall.training.objectives.softmax import ContextBatch, ContextWeights
from recall.training.pairs import ObservedPairs


@dataclass(frozen=True, slots=True)
class SharedBatch(ContextBatch):
    """Contexts, what they were observed with (`observed` holds places in `items`), and the draws they share.

    Attributes:
        drawn: int64 [m], places in `items`.
        correction: [m], what is taken from the logarithm of each draw's term.
        hits: int64 [h, 2], (context of the batch, draw) that were observed together.
    """

    drawn: Int64
    correction: Tensor
    hits: Int64


class SampledSoftmax:
    """See the module; an `Objective` over contexts."""

    def __init__(self, pairs: ObservedPairs, temperature: float, activity: float, samples: int, popularity: float) -> None:
        self._weights = ContextWeights(pairs, activity)
        self._negatives = Negatives(pairs, popularity)
        self._temperature = temperature
        self._samples = samples
        self.with_offset = False
        self.size = len(pairs.contexts)
        self.weight = self._weights.total

    def begin(self, epoch: int) -> None:
        """See Objective; every pass is alike."""

    def draw(self, chosen: Int64, rng: np.random.Generator) -> SharedBatch:
        """See Objective."""
        indptr, observed, weights = self._weights.batch(chosen)
        drawn = self._negatives.any(self._samples, rng)
        items, place = np.unique(np.concatenate([observed, drawn]), return_inverse=True)
        hits = np.argwhere(self._negatives.observed(chosen[:, None], drawn[None, :]))
        correction = torch.from_numpy((self._negatives.log_q[drawn] + log(self._samples)).astype(np.float32))
        own, shared = place[: len(observed)], place[len(observed) :]
        return SharedBatch(chosen, items, indptr, own, weights, shared, correction, hits)

    def gradients(self, batch: SharedBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:  # noqa: ARG002
        """See Objective."""
        queries = phi / self._temperature
        owner = torch.from_numpy(np.repeat(np.arange(len(phi)), np.diff(batch.indptr)))
        observed, drawn = torch.from_numpy(batch.observed), torch.from_numpy(batch.drawn)
        liked, others = psi[observed], psi[drawn]
        own = queries[owner]
        positive = (own * liked).sum(1)  # [nnz]
        negative = queries @ others.t() - batch.correction  # [B, m]
        negative[torch.from_numpy(batch.hits[:, 0]), torch.from_numpy(batch.hits[:, 1])] = -torch.inf
        peak = negative.amax(1).scatter_reduce_(0, owner, positive, "amax")
        negative = negative.sub_(peak[:, None]).exp_()
        likely = (positive - peak[owner]).exp()
        sums = negative.sum(1).index_add_(0, owner, likely)
        total = phi.new_zeros(len(phi)).index_add_(0, owner, batch.weights)
        share = total / sums
        loss = float((total * (sums.log() + peak)).sum() - (batch.weights * positive).sum())
        by_negative = negative.mul_(share[:, None])
        by_positive = (likely * share[owner] - batch.weights)[:, None]
        by_phi = (by_negative @ others).index_add_(0, owner, by_positive * liked)
        by_psi = torch.zeros_like(psi).index_add_(0, observed, by_positive * own)
        by_psi.index_add_(0, drawn, by_negative.t() @ queries)
        return Gradients(loss, by_phi.div_(self._temperature), by_psi)
