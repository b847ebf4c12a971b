"""Interface of objectives to the gradient learner."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recall._arrays import Int64
from recall.training.ranks import Ranks


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
class BatchPart:
    """Part of a batch that one of several ranks has.

    All ranks draw the random numbers of the whole batch alike, and use those at their own places.

    Attributes:
        places: int64 [m], where the contexts or pairs of this rank are in the batch.
        size: of the batch.
        ranks: of the process.
    """

    places: Int64
    size: int
    ranks: Ranks

    def rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the rows of this rank from those of the batch: [size, ...] -> [m, ...]."""
        return values[self.places]

    def whole(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the rows of the batch from those of all ranks: [m, ...] -> [size, ...]."""
        found = np.zeros((self.size, *values.shape[1:]), dtype=values.dtype)
        found[self.places] = values
        self.ranks.add_up(found)
        return found


@dataclass(frozen=True, slots=True)
class Gradients:
    """The loss of a batch and how it changes with the vectors.

    Attributes:
        loss: summed over the batch.
        phi: [B, dim], the gradient by the user vectors.
        psi: [M, dim], by the item vectors.
        offset: [B], by the user offsets; None when the objective does not use them, as in losses of the order of items.
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

    @property
    def segments(self) -> tuple[int, ...]:
        """Sizes of kinds of pairs; over all ranks, those of the first kind come first."""
        return (self.size,)

    def begin(self, epoch: int) -> None:
        """Get ready for a pass over the data."""

    @abstractmethod
    def draw(self, chosen: Int64, rng: np.random.Generator, part: BatchPart | None = None) -> BatchT:
        """Return the batch of contexts or pairs, with random draws.

        Args:
            chosen: int64 [m], positions of contexts or pairs.
            rng: random generator.
            part: their positions in the batch, on one of several ranks; default: the whole batch.
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
