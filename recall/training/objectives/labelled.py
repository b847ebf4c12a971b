"""Log loss on what was shown: taken or not, by the data's own labels.

    s log(1 + exp(-y)) for a row that was taken,  s log(1 + exp(y)) for one that was not

No negative is drawn, so that the logistic function of a score, with the user's offset, is the probability that an item
is taken when it is shown.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recall._arrays import Int64
from recall.training.objectives.contract import (
    Batch,
    Gradients,
)
from recall.training.pairs import ObservedPairs, ShownPairs


@dataclass(frozen=True, slots=True)
class LabelledBatch(Batch):
    """Rows that were shown. `contexts` holds no context twice.

    Attributes:
        owner: int64 [R], the context of each row as a place in `contexts`.
        place: int64 [R], its item as a place in `items`.
        taken: [R], 1 or 0.
        weights: [R].
    """

    owner: Tensor
    place: Tensor
    taken: Tensor
    weights: Tensor


class LabelledLogLoss:
    """See the module; an `Objective` over rows, those that were taken first."""

    def __init__(self, pairs: ObservedPairs, shown: ShownPairs) -> None:
        self._owners = np.concatenate([pairs.owners, shown.contexts])
        self._items = np.concatenate([pairs.observed, shown.items]).astype(np.int64)
        self._weights = np.concatenate([pairs.weights, shown.weights])
        self._taken = np.repeat([1.0, 0.0], [len(pairs.observed), len(shown.items)]).astype(np.float32)
        self.with_offset = True
        self.size = len(self._items)
        self.weight = float(self._weights.sum(dtype=np.float64))

    def begin(self, epoch: int) -> None:
        """See Objective; every pass is alike."""

    def draw(self, chosen: Int64, rng: np.random.Generator) -> LabelledBatch:  # noqa: ARG002 - nothing is drawn
        """See Objective."""
        contexts, owner = np.unique(self._owners[chosen], return_inverse=True)
        items, place = np.unique(self._items[chosen], return_inverse=True)
        return LabelledBatch(
            contexts,
            items,
            torch.from_numpy(owner),
            torch.from_numpy(place),
            torch.from_numpy(self._taken[chosen]),
            torch.from_numpy(self._weights[chosen]),
        )

    def gradients(self, batch: LabelledBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        """See Objective."""
        users, items = phi[batch.owner], psi[batch.place]
        scores = (users * items).sum(1) + offset[batch.owner]
        loss = functional.binary_cross_entropy_with_logits(scores, batch.taken, batch.weights, reduction="sum")
        by_score = (scores.sigmoid() - batch.taken) * batch.weights
        return Gradients(
            float(loss),
            torch.zeros_like(phi).index_add_(0, batch.owner, by_score[:, None] * items),
            torch.zeros_like(psi).index_add_(0, batch.place, by_score[:, None] * users),
            torch.zeros_like(offset).index_add_(0, batch.owner, by_score),
        )
