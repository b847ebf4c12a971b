"""Softmax of each observed pair against the items of the other pairs in its batch.

An item stands in a batch as often as it is observed, which would push popular items down; dividing its term by its share
q of all pairs mends that (Yi et al. 2019). Items of other pairs that the context was observed with too are accidental
hits and left out. So, with B pairs in a batch and the pair's own item counted as it is,

    Z_ci = exp(y_ci / t) + sum over other pairs' items j not in S_c of exp(y_cj / t) / ((B - 1) q_j)

estimates the sum over the item itself and all that the context was not observed with, without bias.
"""

from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Int64
from recall.training.negatives import Negatives
from recall.training.objectives.contract import (
    Batch,
    Gradients,
)
from recall.training.pairs import ObservedPairs


@dataclass(frozen=True, slots=True)
class PairBatch(Batch):
    """Observed pairs.

    Attributes:
        place: int64 [B], the item of each pair as a place in `items`.
        weights: [B].
        hits: bool [B, B]; column c is left out of row r.
        correction: [B], what is taken from the scores of each column, but for the pair's own.
    """

    place: Int64
    weights: Tensor
    hits: Tensor
    correction: Tensor


class InBatchSoftmax:
    """See the module; an `Objective` over pairs."""

    def __init__(self, pairs: ObservedPairs, temperature: float, correct: bool) -> None:
        self._pairs = pairs
        self._owners = pairs.owners
        self._negatives = Negatives(pairs, 0.0)
        self._temperature = temperature
        shares = np.bincount(pairs.observed, minlength=len(pairs.items)).clip(1) / len(pairs.observed)
        self._log_q = np.log(shares) if correct else None
        self.with_offset = False
        self.size = len(pairs.observed)
        self.weight = float(pairs.weights.sum())

    def begin(self, epoch: int) -> None:
        """See Objective; every pass is alike."""

    def draw(self, chosen: Int64, rng: np.random.Generator) -> PairBatch:  # noqa: ARG002 - the batch is its own sample
        """See Objective."""
        contexts, observed = self._owners[chosen], self._pairs.observed[chosen].astype(np.int64)
        items, place = np.unique(observed, return_inverse=True)
        hits = self._negatives.observed(contexts[:, None], observed[None, :])
        np.fill_diagonal(hits, False)
        return PairBatch(
            contexts,
            items,
            place,
            torch.from_numpy(self._pairs.weights[chosen]),
            torch.from_numpy(hits),
            torch.from_numpy(self._correction(observed)),
        )

    def _correction(self, observed: Int64) -> npt.NDArray[np.float32]:
        if self._log_q is None:
            return np.zeros(len(observed), dtype=np.float32)
        return (self._log_q[observed] + log(max(len(observed) - 1, 1))).astype(np.float32)

    def gradients(self, batch: PairBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:  # noqa: ARG002
        """See Objective."""
        queries, place = phi / self._temperature, torch.from_numpy(batch.place)
        items = psi[place]
        logits = (queries @ items.t()).sub_(batch.correction).masked_fill_(batch.hits, -torch.inf)  # [B, B]
        logits.diagonal().add_(batch.correction)
        shares = logits.log_softmax(1)
        loss = -float((batch.weights * shares.diagonal()).sum())
        by_logits = shares.exp_()
        by_logits.diagonal().sub_(1)
        by_logits.mul_(batch.weights[:, None])
        by_psi = torch.zeros_like(psi).index_add_(0, place, by_logits.t() @ queries)
        return Gradients(loss, (by_logits @ items).div_(self._temperature), by_psi)
