"""The item side of the whole-catalogue square loss: item vectors, and how they move with the item table."""

import torch
from torch import Tensor

from recall.training.als.parameterization import Form
from recall.training.als.shards import FeatureMatrix


class ItemSide:
    """psi = [own ; vectors] for all items, around one table.

    A table here is [n_item_features, 1 + width]: the first-order weight of a feature, then its factors.

    Attributes:
        sums: of the factors of every item, [I, groups, width].
    """

    def __init__(self, form: Form, items: FeatureMatrix, table: Tensor) -> None:
        self._form, self._items = form, items
        self._table = table
        self.sums, self._first_order = self._summed(table)
        self._met = form.within(self.sums)
        self._self = form.alone(table[:, 1:])

    def vectors(self) -> Tensor:
        """psi, [I, 1 + dim]."""
        pairs = (self.sums * self._met).sum((1, 2)) - self._squares(self._table[:, 1:])
        return torch.cat([(self._first_order + 0.5 * pairs)[:, None], self._form.item_vectors(self.sums)], dim=1)

    def push(self, change: Tensor) -> Tensor:
        """The Jacobian of psi times a change of the table: [n_item_features, 1 + width] -> [I, 1 + dim]."""
        sums, own = self._summed(change)
        own = own + (sums * self._met).sum((1, 2)) - self._squares(change[:, 1:])
        return torch.cat([own[:, None], self._form.item_vectors(sums)], dim=1)

    def pull(self, rows: Tensor) -> Tensor:
        """The transposed Jacobian: [I, 1 + dim] -> [n_item_features, 1 + width]."""
        own = rows[:, :1]
        sums = own[:, :, None] * self._met + self._form.item_sums(rows[:, 1:])
        groups = self._items.groups
        table = self._transposed(torch.cat([own[:, None].expand(-1, groups, 1), sums], dim=2))
        table[:, 1:] -= self._transposed(own[:, None].expand(-1, groups, 1), power=2) * self._self
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
        # a factor v of a feature of weight x moves the own part by x (met - x alone(v))
        found = self._transposed(weighted * self._met.square(), power=2)
        found -= 2 * self._self * self._transposed(weighted * self._met, power=3)
        found += self._self.square() * self._transposed(weighted.expand(-1, groups, 1), power=4)
        return torch.cat([sees @ own, found + self._form.item_diagonal(sees, by_group)], dim=1)

    def squares(self) -> Tensor:
        """sum over the features j of a group of |x_j v_j|^2: [I, groups]."""
        norms = self._table[:, 1:].square().sum(1, keepdim=True)
        return torch.from_numpy(self._items.times(norms.numpy(), power=2)).view(self._items.n, self._items.groups)

    def _summed(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Sums [I, groups, width] of the factors of a table, and of its weights [I]."""
        both = torch.from_numpy(self._items.times(table.contiguous().numpy()))
        both = both.view(self._items.n, self._items.groups, table.shape[1])
        return both[:, :, 1:].contiguous(), both[:, :, 0].sum(1)

    def _squares(self, factors: Tensor) -> Tensor:
        """sum_j x_j^2 <factors_j, alone_j> for every item: [I]."""
        inner = (factors * self._self).sum(1, keepdim=True)
        return torch.from_numpy(self._items.times(inner.numpy(), power=2)).view(self._items.n, -1).sum(1)

    def _transposed(self, rows: Tensor, power: int = 1) -> Tensor:
        """X' rows: [I, groups, d] -> [n_item_features, d]."""
        flat = rows.flatten(0, 1).contiguous()
        return torch.from_numpy(self._items.transposed_times(flat.numpy(), power))
