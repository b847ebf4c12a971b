"""Sums over contexts, which an all-reduce completes in distributed training.

Each rank holds some of the contexts with their pairs, and a whole copy of the items and of the model. What is summed over
contexts is summed over ranks here; all else is done by every rank alike, so that the copies stay equal to the bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Bool, Int64
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
    """One rank, which holds all contexts: every sum is complete.

    `recall.training.process_ranks` derives processes from it; see docs/development/distribute-training.md.

    Attributes:
        rank: number of this one.
        count: how many there are.
        summed: bytes of all sums so far.
    """

    rank: int = 0
    count: int = 1
    summed: int = 0

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

    def of_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of rank 0; names, shapes and types are alike on all."""
        found = {}
        for name, tensor in sorted(tensors.items()):
            own = tensor if self.rank == 0 else torch.zeros_like(tensor)
            whole = own.to(torch.float64 if tensor.is_floating_point() else torch.int64, copy=True).reshape(-1)
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

    def wait(self) -> None:
        """Wait without a time limit until every rank has called this."""

    def copied(self, data: bytes) -> bytes:
        """Return the bytes of rank 0."""
        return data

    def told(self, text: str) -> str:
        """Return the text of rank 0; waits for it without a time limit."""
        return self.copied(text.encode()).decode()

    def summed_rows(self, rows: Tensor | None, gradient: Tensor, size: int) -> tuple[Tensor | None, Tensor]:
        """Sum a gradient with different rows on each rank.

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
        used = np.zeros(size, dtype=np.int32)
        used[rows.numpy()] = 1
        self.add_up(used)
        found = np.flatnonzero(used)
        whole = gradient.new_zeros(len(found), *gradient.shape[1:])
        whole[torch.from_numpy(np.searchsorted(found, rows.numpy()))] = gradient
        self.add_up(whole.numpy())
        return torch.from_numpy(found), whole

    def joined(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of all ranks, in their order: [total]."""
        first, size = self.share(len(values))
        whole = np.zeros(size, dtype=values.dtype)
        whole[first : first + len(values)] = values
        self.add_up(whole)
        return whole


ALONE = Ranks()
"""The only rank of training in one process."""


@dataclass(frozen=True, slots=True)
class RowShares:
    """Rows of a table by the ranks with contexts that have them.

    A row of one rank alone, such as that of a user id, is solved for there, and given to the others once.

    Attributes:
        ranks: of the process.
        shared: int64, rows of several ranks.
        alone: int64, rows of one rank.
        own: bool, which of `alone` are of this rank.
    """

    ranks: Ranks
    shared: Int64
    alone: Int64
    own: Bool

    @staticmethod
    def of(there: Bool, ranks: Ranks) -> "RowShares":
        """Return the shares of rows.

        Args:
            there: bool [n], rows that the contexts of this rank have.
            ranks: of the process.
        """
        holders = there.astype(np.int64)
        ranks.add_up(holders)
        alone = np.flatnonzero(holders == 1)
        return RowShares(ranks, np.flatnonzero(holders > 1), alone, there[alone])

    def once(self, table: Tensor) -> Tensor:
        """Return each row of a term on one rank, and zeros on the others."""
        if self.ranks.count == 1:
            return table
        kept = np.concatenate([self.alone[self.own], self.shared if self.ranks.rank == 0 else self.shared[:0]])
        rows, found = torch.from_numpy(kept), torch.zeros_like(table)
        found[rows] = table[rows]
        return found

    def add_up(self, table: Tensor) -> None:
        """Sum the rows of several ranks, in place."""
        if self.ranks.count > 1 and len(self.shared):
            rows = torch.from_numpy(self.shared)
            sums = table[rows]
            self.ranks.add_up(sums.numpy())
            table[rows] = sums

    def whole(self, local: float, common: Callable[[Int64], float]) -> float:
        """Return a sum over the rows of all ranks.

        Args:
            local: sum over the rows of this rank.
            common: sum over given rows.
        """
        if self.ranks.count == 1:
            return local
        shared = common(self.shared) if len(self.shared) else 0.0
        return self.ranks.total(local - shared) + shared

    def complete(self, table: Tensor) -> None:
        """Set the rows that other ranks have alone, in place."""
        if self.ranks.count > 1:
            rows = torch.from_numpy(self.alone)
            found = table[rows]
            found[torch.from_numpy(~self.own)] = 0
            self.ranks.add_up(found.numpy())
            table[rows] = found
