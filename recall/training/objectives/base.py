"""Interface of objectives to the gradient learner."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from recall._arrays import Int64


@dataclass(frozen=True, slots=True)
class Batch:
    """Input of one step.

    Attributes:
        contexts: int64 [B], rows of the contexts; with repetitions.
        items: int64 [M], rows of the catalogue, rising and without repeats; None for the whole catalogue.
    """

    contexts: Int64
    items: Int64 | None


@dataclass(frozen=True, slots=True)
class Gradients:
    """The loss of a batch and how it changes with the vectors.

    Attributes:
        loss: summed over the batch.
        phi: [B, dim], the gradient by the user vectors.
        psi: [M, dim], by the item vectors.
        offset: [B], by the user offsets; None when the objective does not look at them, because they do not rank.
    """

    loss: float
    phi: Tensor
    psi: Tensor
    offset: Tensor | None = None


BatchT = TypeVar("BatchT", bound=Batch)


class Objective(ABC, Generic[BatchT]):
    """A loss over contexts or over observed pairs, a batch at a time.

    Attributes:
        size: number of contexts or pairs that one pass goes over.
        weight: observed weight of one epoch, which the loss is divided by.
        with_offset: whether the loss uses user offsets, unlike losses of the order of items.
    """

    size: int
    weight: float
    with_offset: bool = False

    def begin(self, epoch: int) -> None:
        """Get ready for a pass over the data."""

    @abstractmethod
    def draw(self, chosen: Int64, rng: np.random.Generator) -> BatchT:
        """Return the batch of contexts or pairs, with random draws.

        Args:
            chosen: int64 [m], positions of contexts or pairs.
            rng: random generator.
        """

    @abstractmethod
    def gradients(self, batch: BatchT, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        """Return the loss of a batch, and its gradients by the vectors.

        Args:
            batch: drawn by this objective.
            phi: [B, dim], user vectors.
            psi: [M, dim], item vectors.
            offset: [B], user offsets.
        """
