"""Fast path for one-hot sides: each feature is a least-squares problem of its own."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Int32
from recall.features.csr import SparseRows
from recall.training.als import kernels
from recall.training.als.kernels import Entries, Rows
from recall.training.als.parameterization import Parameterization
from recall.training.als.shards import FeatureMatrix, Workers, shared_out

_RANGES = 64  # of features that may be solved for at the same time


@dataclass(frozen=True, slots=True)
class OneHotSide:
    """The features of one side with the pairs of all rows that have them.

    Attributes:
        features: int32 [m], rising.
        pairs: m rows; indices are partners on the other side.
        feature_of: int32 [n], the feature of each row of the side.
    """

    features: Int32
    pairs: Entries
    feature_of: Int32

    @staticmethod
    def fits(rows: SparseRows) -> bool:
        """Whether every row has exactly one feature, with a weight of 1."""
        return len(rows) > 0 and bool((np.diff(rows.indptr) == 1).all() and (rows.weights == 1).all())

    @staticmethod
    def of(rows: SparseRows, pairs: Entries, partners: int) -> "OneHotSide | None":
        """Return the features of `rows` with their pairs; None unless rows are one-hot.

        Args:
            rows: n rows of one side.
            pairs: n rows; indices are in [0, partners).
            partners: exclusive upper bound of the indices.
        """
        if not OneHotSide.fits(rows):
            return None
        if (np.diff(rows.indices) > 0).all():  # a row for each feature, in their order
            return OneHotSide(rows.indices, pairs, rows.indices)
        features, row = np.unique(rows.indices, return_inverse=True)
        owners = np.repeat(row, np.diff(pairs.indptr))
        # a pair that several rows of a feature have is one pair with their weights added
        merged = SparseRows.from_coo(owners, pairs.indices, pairs.weights, len(features), partners)
        return OneHotSide(features, Entries(merged.indptr, merged.indices, merged.weights), rows.indices)

    def summed(self, values: Float32) -> Float32:
        """Values of rows [n], summed for each feature [m]."""
        return np.bincount(self.feature_of, values)[self.features].astype(np.float32)

    def solve(self, rows: Rows, others: tuple[Float32, Float32], steps: int, workers: Workers) -> float:
        """Run `kernels.solve` for all features.

        Args:
            rows: `owners` and `share` have one entry for each feature.
            others: as for `kernels.solve`.
            steps: of conjugate gradients.
            workers: share it.
        """

        def solved(part: tuple[int, int]) -> float:
            first, last = part
            some = rows._replace(owners=rows.owners[first:last], share=rows.share[first:last])
            return kernels.solve(self.pairs.rows(first, last), some, others, steps)

        losses: Iterable[float] = workers.map(solved, shared_out(self.pairs.indptr, _RANGES))
        return sum(losses)


# The item side of the whole-catalogue square loss: item vectors, and how they move with the item table.

Vectors = tuple[Tensor, Tensor]
"""The first components of some vectors, [n], and the others, [n, dim]; both contiguous."""


def all_pairs_pull(psi: Vectors, gram: Tensor, scale: Tensor, diagonal: bool) -> Vectors:
    """Return scale o (psi gram), the pull of all pairs on item vectors.

    Args:
        psi: n vectors.
        gram: of the contexts, [1 + dim, 1 + dim].
        scale: [n].
        diagonal: whether the part of `gram` without its first row and column is diagonal.
    """
    own, vectors = psi
    border = gram[1:, 0]
    inner = vectors * gram.diagonal()[1:] if diagonal else vectors @ gram[1:, 1:]
    return scale * (own * gram[0, 0] + vectors @ border), inner.addr_(own, border).mul_(scale[:, None])


class ItemSide:
    """psi = [own ; vectors] for all items, around one table.

    A table here is [n_item_features, 1 + width]: the first-order weight of a feature, then its factors.

    Attributes:
        sums: of the factors of every item, [I, groups, width].
    """

    def __init__(self, form: Parameterization, items: FeatureMatrix, table: Tensor) -> None:
        self._form, self._items = form, items
        self._table = table
        self.sums, self._first_order = self._summed(table)
        self._met = form.within(self.sums)
        self._self = form.alone(table[:, 1:])

    def vectors(self) -> Vectors:
        """psi of all items."""
        pairs = self._paired(self.sums) - self._squares(self._table[:, 1:])
        return self._first_order + 0.5 * pairs, self._form.item_vectors(self.sums)

    def push(self, change: Tensor) -> Vectors:
        """Apply the Jacobian of psi to a change: [n_item_features, 1 + width]."""
        sums, own = self._summed(change)
        return own.add_(self._paired(sums)).sub_(self._squares(change[:, 1:])), self._form.item_vectors(sums)

    def pull(self, own: Tensor, vectors: Tensor) -> Tensor:
        """Apply the transposed Jacobian; return [n_item_features, 1 + width].

        Args:
            own: the first components, [I].
            vectors: the others, [I, dim].
        """
        groups, own = self._items.groups, own[:, None, None]
        rows = vectors.new_empty(len(vectors), groups, self._table.shape[1])
        rows[:, :, :1] = own
        torch.addcmul(self._form.item_sums(vectors), own, self._met, out=rows[:, :, 1:])
        table = self._transposed(rows)
        table[:, 1:].addcmul_(self._transposed(own.expand(-1, groups, 1), power=2), self._self, value=-1)
        return table

    def diagonal(self, curvature: Tensor, sees: Tensor, through: Tensor) -> Tensor:
        """About the diagonal of the side's operator.

        Args:
            curvature: of the loss by an item's vector for what `sees` counts, [2, 1 + dim].
            sees: what each feature sees, [n_item_features, 2].
            through: curvature by the own part of each item, [I].

        Returns:
            [n_item_features, 1 + width].
        """
        own, vectors = curvature[:, :1], curvature[:, 1:]
        by_group = self._form.item_sums(vectors)  # [2, groups, width]
        groups = self._items.groups
        weighted = through[:, None, None]
        # a factor v of a feature of weight x moves the own part by x (total - x alone(v))
        found = self._transposed(weighted * self._met.square(), power=2)
        found -= 2 * self._self * self._transposed(weighted * self._met, power=3)
        found += self._self.square() * self._transposed(weighted.expand(-1, groups, 1), power=4)
        return torch.cat([sees @ own, found + self._form.item_diagonal(sees, by_group)], dim=1)

    def squares(self) -> Tensor:
        """sum over the features j of a group of |x_j v_j|^2: [I, groups]."""
        norms = self._table[:, 1:].square().sum(1, keepdim=True)
        return torch.from_numpy(self._items.times(norms.numpy(), power=2)).view(self._items.n, self._items.groups)

    def _summed(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return sums [I, groups, width] of the factors of a table, and of its weights."""
        both = torch.from_numpy(self._items.times(table.contiguous().numpy()))
        both = both.view(self._items.n, self._items.groups, table.shape[1])
        return both[:, :, 1:].contiguous(), both[:, :, 0].sum(1)

    def _paired(self, sums: Tensor) -> Tensor:
        """Return <sums, within(S)> of every item: [I, groups, width] -> [I]."""
        found = torch.empty(len(sums))
        kernels.row_dots(sums.flatten(1).numpy(), self._met.flatten(1).numpy(), found.numpy())
        return found

    def _squares(self, factors: Tensor) -> Tensor:
        """sum_j x_j^2 <factors_j, alone_j> for every item: [I]."""
        inner = (factors * self._self).sum(1, keepdim=True)
        return torch.from_numpy(self._items.times(inner.numpy(), power=2)).view(self._items.n, -1).sum(1)

    def _transposed(self, rows: Tensor, power: int = 1) -> Tensor:
        """X' rows: [I, groups, d] -> [n_item_features, d]."""
        flat = rows.flatten(0, 1).contiguous()
        return torch.from_numpy(self._items.transposed_times(flat.numpy(), power))
