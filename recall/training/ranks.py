"""Sums over contexts, which an all-reduce completes in distributed training.

Each rank holds some of the contexts with their pairs, and a whole copy of the items and of the model. What is summed over
contexts is summed over ranks here; all else is done by every rank alike, so that the copies stay equal to the bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Int64
from recall.errors import TrainingError


class RankLostError(TrainingError):
    """Another rank ended or does not answer."""

    def after(self, sweep: int) -> "RankLostError":
        """Return the error with the last whole sweep."""
        hint = "Add --continue to the same command, on any number of ranks" if sweep else "Start it again"
        return type(self)(self.what, where=f"after sweep {sweep}", hint=hint)


class RankEndedError(RankLostError):
    """Another rank reported the error that ends all of them."""


class Ranks:
    """One rank, which holds all contexts: every sum is complete as it is.

    `recall.training.process_ranks` derives processes from it; see docs/development/distribute-training.md.

    Attributes:
        rank: number of this one.
        count: how many there are.
        bytes: of all sums so far.
    """

    rank: int = 0
    count: int = 1
    bytes: int = 0

    def add_up(self, *sums: npt.NDArray[Any]) -> None:
        """Replace arrays, in place, by their sums over all ranks.

        Each rank passes arrays of the same shapes and types.
        """

    def total(self, value: float) -> float:
        """Return the sum of a number over all ranks."""
        found = np.array([value], dtype=np.float64)
        self.add_up(found)
        return float(found[0])

    def any(self, value: bool) -> bool:
        """Return whether something holds on any rank."""
        return self.total(value) > 0

    def once(self, table: Tensor) -> Tensor:
        """Return a term that does not depend on contexts, and zeros on all ranks but one."""
        return table if self.rank == 0 else torch.zeros_like(table)

    def of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of rank 0; names, shapes and types are alike on all."""
        found = {}
        for name, tensor in sorted(tensors.items()):
            whole = self.once(tensor).to(torch.float64 if tensor.is_floating_point() else torch.int64, copy=True).reshape(-1)
            self.add_up(whole.numpy())
            found[name] = whole.to(tensor.dtype).view(tensor.shape)
        return found

    def share(self, count: int) -> tuple[int, int]:
        """Return the first context, or pair, of this rank, and the total over all ranks.

        Args:
            count: how many this rank has.
        """
        counts = self.gathered(count)[:, 0]
        return int(counts[: self.rank].sum()), int(counts.sum())

    def gathered(self, *numbers: int) -> Int64:
        """Return some numbers of each rank: int64 [count, n]."""
        found = np.zeros((self.count, len(numbers)), dtype=np.int64)
        found[self.rank] = numbers
        self.add_up(found)
        return found

    def told(self, text: str) -> str:
        """Return the text of rank 0, however long it takes to come."""
        return text

    def summed_rows(self, rows: Tensor | None, gradient: Tensor, size: int) -> tuple[Tensor | None, Tensor]:
        """Sum a gradient whose rows differ from rank to rank.

        Args:
            rows: int64 [n], distinct rows of the table; None for the whole table.
            gradient: float32 [n, ...].
            size: rows of the table.

        Returns:
            The rows of any rank, rising, and the sum of their gradients.
        """
        if self.count == 1:
            return rows, gradient
        if rows is None:
            gradient = gradient.clone()
            self.add_up(gradient.numpy())
            return None, gradient
        whole, used = gradient.new_zeros(size, *gradient.shape[1:]), np.zeros(size, dtype=np.int64)
        whole[rows], used[rows.numpy()] = gradient, 1
        self.add_up(whole.numpy(), used)
        found = torch.from_numpy(np.flatnonzero(used))
        return found, whole[found]


ALONE = Ranks()
"""The only rank of training in one process."""
