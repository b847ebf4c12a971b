"""Sums over contexts, which an all-reduce completes in distributed training.

Each rank holds some of the contexts with their pairs, and a whole copy of the items and of the model. What is summed over
contexts is summed over ranks here; all else is done by every rank alike, so that the copies stay equal to the bit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Ranks:
    """One rank, which holds all contexts: every sum is complete as it is.

    To train on several, derive from this class, set `rank` and `count`, and override `add_up` with an all-reduce; see
    docs/development/distribute-training.md.

    Attributes:
        rank: number of this one.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

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

    def share(self, count: int) -> tuple[int, int]:
        """Return the first context, or pair, of this rank, and the total over all ranks.

        Args:
            count: how many this rank has.
        """
        counts = np.zeros(self.count, dtype=np.int64)
        counts[self.rank] = count
        self.add_up(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())

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
