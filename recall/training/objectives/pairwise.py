"""Losses of each observed pair against its own negatives.

bpr       log(1 + exp(y_cj - y_ci)), averaged over the negatives j (Rendle et al. 2009)
warp      draws j until y_cj > y_ci - margin; on the n-th of at most m draws the rank of i among the J items not
          observed is estimated as J / n, and the loss is L(J // n) (margin - y_ci + y_cj) with
          L(r) = 1 + 1/2 + ... + 1/r (Weston, Bengio and Usunier 2011)
logistic  log(1 + exp(-y_ci)) + log(1 + exp(y_cj)), averaged over j; y with the user's offset, so that the logistic
          function of a score is a probability
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from recall._arrays import Int64
from recall.training.negatives import MinedNegatives, Negatives
from recall.training.objectives.base import Batch, BatchPart, Gradients, Objective
from recall.training.pairs import ObservedPairs, ShownPairs


@dataclass(frozen=True, slots=True)
class RivalBatch(Batch):
    """Observed pairs, each with its own negatives; contexts are distinct.

    Attributes:
        owner: int64 [P], the context of each pair as a place in `contexts`.
        place: int64 [P, 1 + n], the items of each pair as places in `items`, what was observed first.
        weights: [P].
        others: int64 [P], how many items each pair's context was not observed with.
    """

    owner: Tensor
    place: Tensor
    weights: Tensor
    others: Tensor


Loss = Callable[[Tensor, RivalBatch], Tensor]
"""The loss of each pair [P] from its scores [P, 1 + n], before its weight."""


class Pairwise(Objective[RivalBatch]):
    """Objective over pairs with sampled negatives."""

    def __init__(
        self, pairs: ObservedPairs, source: Negatives | MinedNegatives, negatives: int, loss: Loss, with_offset: bool
    ) -> None:
        self._pairs = pairs
        self._owners = pairs.owners
        self._source = source
        self._negatives = negatives
        self._loss = loss
        self.with_offset = with_offset
        self.size = len(pairs.observed)
        self.weight = pairs.ranks.total(pairs.weights.sum())

    @override
    def begin(self, epoch: int) -> None:
        if isinstance(self._source, MinedNegatives):
            self._source.begin(epoch)

    @override
    def draw(self, chosen: Int64, rng: np.random.Generator, part: BatchPart | None = None) -> RivalBatch:
        contexts, owner = np.unique(self._owners[chosen], return_inverse=True)
        negatives = self._source.draw(self._owners[chosen], self._negatives, rng, part)
        items, place = np.unique(
            np.concatenate([self._pairs.observed[chosen][:, None], negatives], axis=1), return_inverse=True
        )
        others = len(self._pairs.items) - np.diff(self._pairs.indptr)[contexts][owner]
        return RivalBatch(
            contexts,
            items,
            torch.from_numpy(owner),
            torch.from_numpy(place),
            torch.from_numpy(self._pairs.weights[chosen]),
            torch.from_numpy(others),
        )

    @override
    def gradients(self, batch: RivalBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        users, items = phi[batch.owner], psi[batch.place]  # [P, dim] and [P, 1 + n, dim]
        scores = torch.einsum("pd,pnd->pn", users, items)
        if self.with_offset:
            scores += offset[batch.owner][:, None]
        scores.requires_grad_()
        with torch.enable_grad():
            loss = (self._loss(scores, batch) * batch.weights).sum()
        (by_score,) = torch.autograd.grad(loss, scores)
        by_phi = torch.zeros_like(phi).index_add_(0, batch.owner, torch.einsum("pn,pnd->pd", by_score, items))
        by_items = (by_score[:, :, None] * users[:, None, :]).flatten(0, 1)
        by_psi = torch.zeros_like(psi).index_add_(0, batch.place.flatten(), by_items)
        by_offset = torch.zeros_like(offset).index_add_(0, batch.owner, by_score.sum(1)) if self.with_offset else None
        return Gradients(float(loss.detach()), by_phi, by_psi, by_offset)


def bpr(scores: Tensor, batch: RivalBatch) -> Tensor:  # noqa: ARG001 - one of several losses
    """Return the BPR loss.

    Args:
        scores: [P, 1 + n], what was observed first.
        batch: the pairs.
    """
    return functional.softplus(scores[:, 1:] - scores[:, :1]).mean(1)


def logistic(scores: Tensor, batch: RivalBatch) -> Tensor:  # noqa: ARG001 - one of several losses
    """Return the log loss.

    Args:
        scores: [P, 1 + n], what was observed first.
        batch: the pairs.
    """
    return functional.softplus(-scores[:, 0]) + functional.softplus(scores[:, 1:]).mean(1)


def warp(margin: float) -> Loss:
    """Return the WARP loss of a margin."""

    def loss(scores: Tensor, batch: RivalBatch) -> Tensor:
        hinges = margin - scores[:, :1] + scores[:, 1:]  # [P, n]
        broken = hinges.detach() > 0
        first = broken.to(torch.int8).argmax(1)  # the first that is; 0 when none is
        rank = batch.others // (first + 1)
        harmonic = torch.digamma(rank + 1.0) - torch.digamma(rank.new_ones((), dtype=torch.get_default_dtype()))
        chosen = hinges.gather(1, first[:, None])[:, 0]
        return torch.where(broken.any(1), harmonic * chosen, torch.zeros_like(chosen))

    return loss


# Log loss on what was shown: taken or not, by the data's own labels.
#
#     s log(1 + exp(-y)) for a row that was taken,  s log(1 + exp(y)) for one that was not
#
# No negative is drawn, so that the logistic function of a score, with the user's offset, is the probability that an item
# is taken when it is shown.


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


class LabelledLogLoss(Objective[LabelledBatch]):
    """Log loss over rows of label 1 and 0; the taken ones come first."""

    with_offset = True

    def __init__(self, pairs: ObservedPairs, shown: ShownPairs) -> None:
        self._owners = np.concatenate([pairs.owners, shown.contexts])
        self._items = np.concatenate([pairs.observed, shown.items]).astype(np.int64)
        self._weights = np.concatenate([pairs.weights, shown.weights])
        self._taken = np.repeat([1.0, 0.0], [len(pairs.observed), len(shown.items)]).astype(np.float32)
        self.size = len(self._items)
        self.weight = pairs.ranks.total(self._weights.sum(dtype=np.float64))

    @property
    @override
    def segments(self) -> tuple[int, ...]:
        taken = int(self._taken.sum())
        return taken, self.size - taken

    @override
    def draw(self, chosen: Int64, rng: np.random.Generator, part: BatchPart | None = None) -> LabelledBatch:
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

    @override
    def gradients(self, batch: LabelledBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
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
