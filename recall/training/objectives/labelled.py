"""Log loss of rows that the data label: taken, or shown and not taken. Nothing is drawn.

    sum over rows r of s_r log(1 + exp(-y_r)) where it was taken, and of s_r log(1 + exp(y_r)) where it was not

y is with the user's offset, so that the logistic function of a score is a probability.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recall.training.labelled import LabelledNegatives
from recall.training.objectives.contract import Batch, Gradients, Int64
from recall.training.pairs import ObservedPairs


@dataclass(frozen=True, slots=True)
class LabelledBatch(Batch):
    """Rows of both kinds. `contexts` holds no context twice.

    Attributes:
        owner: int64 [R], the context of each row as a place in `contexts`.
        place: int64 [R], its item as a place in `items`.
        signs: [R], 1 where it was taken and -1 where it was not.
        weights: [R].
    """

    owner: Tensor
    place: Tensor
    signs: Tensor
    weights: Tensor


class LabelledLogistic:
    """See the module; an `Objective` over rows."""

    def __init__(self, pairs: ObservedPairs, negatives: LabelledNegatives) -> None:
        """Join both kinds.

        Args:
            pairs: from `negatives.beside`, so that its last contexts are those of the negatives.
            negatives: rows of label 0.
        """
        first = len(pairs.contexts) - len(negatives.contexts)
        self._owners = np.concatenate([pairs.owners, first + negatives.owners.astype(np.int64)])
        self._items = np.concatenate([pairs.observed, negatives.items])
        self._weights = np.concatenate([pairs.weights, negatives.weights])
        self._signs = np.repeat(np.array([1.0, -1.0], dtype=np.float32), [len(pairs.observed), len(negatives)])
        self.size = len(self._items)
        self.weight = float(self._weights.sum())

    def begin(self, epoch: int) -> None:
        """See Objective."""

    def draw(self, chosen: Int64, rng: np.random.Generator) -> LabelledBatch:  # noqa: ARG002 - nothing is drawn
        """See Objective."""
        contexts, owner = np.unique(self._owners[chosen], return_inverse=True)
        items, place = np.unique(self._items[chosen].astype(np.int64), return_inverse=True)
        return LabelledBatch(
            contexts,
            items,
            torch.from_numpy(owner),
            torch.from_numpy(place),
            torch.from_numpy(self._signs[chosen]),
            torch.from_numpy(self._weights[chosen]),
        )

    def gradients(self, batch: LabelledBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        """See Objective."""
        users, items = phi[batch.owner], psi[batch.place]
        margins = batch.signs * ((users * items).sum(1) + offset[batch.owner])
        by_score = -batch.signs * batch.weights * torch.sigmoid(-margins)
        return Gradients(
            float((functional.softplus(-margins) * batch.weights).sum()),
            torch.zeros_like(phi).index_add_(0, batch.owner, by_score[:, None] * items),
            torch.zeros_like(psi).index_add_(0, batch.place, by_score[:, None] * users),
            torch.zeros_like(offset).index_add_(0, batch.owner, by_score),
        )
