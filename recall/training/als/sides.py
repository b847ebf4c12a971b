"""Both sides of the square loss: their vectors, and the gradients by their tables.

The user side goes over contexts in chunks that bound memory; its vectors are linear in its table. The item side goes over all
items at once; its vectors are quadratic in its table, and it has their Jacobian.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Float64, UInt8
from recall.training.als import linear_algebra, sparse_kernels
from recall.training.als.parameterization import Parameterization, mixed
from recall.training.als.shards import Chunk, FeatureMatrix, Shard
from recall.training.als.sparse_kernels import Entries
from recall.training.ranges import Spread

RESIDUAL = (1.0, -1.0)
SCORE = (0.0, 1.0)
"""Constant and slope of `sparse_kernels.pair_gradients`."""


@dataclass(frozen=True, slots=True)
class ItemSums:
    """Items as the user side needs them: vectors, and sums over all of them.

    With phi_c a user vector without its leading 1, half the negative gradient of the loss by it is

        sum over observed i of s_ci (1 - own_i - <phi_c, vector_i>) vector_i  -  alpha a_c (base + gram phi_c)

    Attributes:
        own: float32 [I], first components of the items.
        vectors: float32 [I, dim], the others.
        base: float32 [dim], sum_i b_i own_i vector_i.
        gram: sum_i b_i vector_i vector_i', float32 [dim, dim], or its diagonal [dim] where it is diagonal.
        curvature: float32 [2, dim], of the loss by a context's vector: mean of squared vectors over observed pairs, and the
            diagonal of the Gram matrix.
        signs: `RESIDUAL`; `SCORE` in `derivative`.
    """

    own: Tensor
    vectors: Tensor
    base: Tensor
    gram: Tensor
    curvature: Tensor
    signs: tuple[float, float] = RESIDUAL

    @property
    def derivative(self) -> "ItemSums":
        """The sums for a change of the user table.

        With them the gradient has only its linear part, with the sign of the operator.
        """
        return replace(self, own=torch.zeros_like(self.own), base=torch.zeros_like(self.base), signs=SCORE)


class _Block(NamedTuple):
    """A block of contexts: entries, delta flags, sums [n groups, width], range."""

    x: Entries
    is_delta: UInt8
    sums: Float32
    rows: slice


class UserSide:
    """Contexts: phi = [1 ; X table, mapped by the form], and their gradients."""

    def __init__(
        self, form: Parameterization, contexts: FeatureMatrix, pairs: Entries, alpha_a: Float32, spread: Spread | None = None
    ) -> None:
        self._form, self._contexts, self._pairs, self._alpha_a, self._spread = form, contexts, pairs, alpha_a, spread
        self._room = None if spread is None else torch.empty(2, *form.user_table().shape)  # for every gradient

    def tied(self, spread: Spread) -> "UserSide":
        """Return the side as a function of the rows that others are tied to."""
        return UserSide(self._form, self._contexts, self._pairs, self._alpha_a, spread)

    def add_gradient(self, total: Tensor, table: Tensor, items: ItemSums) -> None:
        """Add half the negative gradient by the user table.

        For a change of the table and `items.derivative` it is the product with the solver's operator. With a spread, the table
        is that of shared rows.

        Args:
            total: [n_user_features, width], added to.
            table: [n_user_features, width].
            items: the item vectors, or their derivative.
        """
        width, spread, out = table.shape[1], self._spread, total
        if spread is not None and self._room is not None:
            table, out = spread.out(table, self._room[0]), self._room[1].zero_()

        def of_shard(shard: Shard) -> Float32:
            part = np.zeros((len(shard.features), width), dtype=np.float32)
            for block in self._blocks(shard, table.numpy()):
                gradients = self._gradients(block, self._form.user_vectors(block.sums), items)
                sparse_kernels.scatter(*block.x, block.is_delta, self._form.user_sums(gradients), part)
            return part

        self._contexts.add(of_shard, out.numpy())
        if spread is not None:
            spread.back(out, total)

    def weights_gradient(self, weights: Tensor, items: ItemSums) -> Tensor:
        """Return the same by the weights in phi_b = sum_a weights_ab S_a.

        Args:
            weights: [user fields, item fields].
            items: the item vectors, or their derivative for a change of the weights.

        Returns:
            [user fields, item fields].
        """
        table = self._form.user_table().numpy()
        a, b = weights.shape
        k = table.shape[1]

        def of_shard(shard: Shard) -> Float64:
            part = np.zeros((a, b))
            for block in self._blocks(shard, table):
                n = block.rows.stop - block.rows.start
                gradients = self._gradients(block, mixed(block.sums, weights).reshape(n, b * k), items)
                sums = block.sums.reshape(n, a, k)
                for field in range(a):
                    part[field] += (sums[:, field, None] * gradients.reshape(n, b, k)).sum((0, 2), dtype=np.float64)
            return part

        return torch.from_numpy(sum(self._contexts.mapped(of_shard), np.zeros((a, b)))).float()

    def _blocks(self, shard: Shard, table: Float32) -> Iterator[_Block]:
        for first, last in shard.blocks(max(self._form.dim, table.shape[1])):
            x, is_delta = shard.rows(first, last)
            sums = np.empty((x.n, table.shape[1]), dtype=np.float32)
            sparse_kernels.gather(*x, is_delta, shard.features, table, sums)
            yield _Block(x, is_delta, sums, slice(shard.first + first, shard.first + last))

    def _gradients(self, block: _Block, phi: Float32, items: ItemSums) -> Float32:
        """Return half the negative gradient by context vectors, [n, dim]."""
        rows, gradients = block.rows, np.empty_like(phi)
        all_pairs = linear_algebra.diagonal_map if items.gram.dim() == 1 else linear_algebra.affine_map
        scale = np.float32(items.signs[1]) * self._alpha_a[rows]
        all_pairs(scale, items.base.numpy(), items.gram.numpy(), phi, gradients)
        own, owners = np.zeros((2, len(phi)), dtype=np.float32), np.arange(len(phi), dtype=np.int32)
        pairs, psi = self._pairs.rows(rows.start, rows.stop), (items.own.numpy(), items.vectors.numpy())
        sparse_kernels.pair_gradients(*pairs, owners, *items.signs, own[0], phi, *psi, own[1], gradients)
        return gradients


class Phi:
    """Vectors of contexts by chunk, recomputed for each unless there is only one."""

    def __init__(self, form: Parameterization, contexts: FeatureMatrix, chunks: Sequence[Chunk]) -> None:
        self._form, self._contexts = form, contexts
        self._table = form.user_table().numpy()
        longest = max((chunk.last - chunk.first for chunk in chunks), default=0)
        self._sums = np.empty((longest * contexts.groups, self._table.shape[1]), dtype=np.float32)
        self._held: tuple[Chunk, Float32] | None = None

    def of(self, chunk: Chunk) -> Float32:
        """Return phi without its first component, float32, valid until the next call."""
        if self._held is None or self._held[0] is not chunk:
            sums = self._sums[: (chunk.last - chunk.first) * self._contexts.groups]
            self._contexts.fill(chunk.shards, self._table, sums)
            self._held = chunk, self._form.user_vectors(sums)
        return self._held[1]


Vectors = tuple[Tensor, Tensor]
"""The first components of some vectors, [n], and the others, [n, dim]; both contiguous."""


def all_pairs_gradient(psi: Vectors, gram: Tensor, scale: Tensor, diagonal: bool) -> Vectors:
    """Return scale o (psi gram): half the gradient of the loss over all pairs.

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


def all_pairs_loss(psi: Vectors, gradient: Vectors) -> float:
    """Return the loss over all pairs.

    Args:
        psi: item vectors.
        gradient: `all_pairs_gradient` of them.
    """
    own = float((psi[0] * gradient[0]).double().sum())
    return own + float(linear_algebra.table_dot(psi[1].numpy(), gradient[1].numpy()))


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
        self._within = form.within(self.sums)
        self._alone = form.alone(table[:, 1:])

    def vectors(self) -> Vectors:
        """psi of all items."""
        pairs = self._paired(self.sums) - self._squares(self._table[:, 1:])
        return self._first_order + 0.5 * pairs, self._form.item_vectors(self.sums)

    def jvp(self, change: Tensor) -> Vectors:
        """Return the Jacobian of psi times a change: [n_item_features, 1 + width]."""
        sums, own = self._summed(change)
        return own.add_(self._paired(sums)).sub_(self._squares(change[:, 1:])), self._form.item_vectors(sums)

    def vjp(self, own: Tensor, vectors: Tensor) -> Tensor:
        """Return the transposed Jacobian times vectors: [n_item_features, 1 + width].

        Args:
            own: the first components, [I].
            vectors: the others, [I, dim].
        """
        groups, own = self._items.groups, own[:, None, None]
        rows = vectors.new_empty(len(vectors), groups, self._table.shape[1])
        rows[:, :, :1] = own
        torch.addcmul(self._form.item_sums(vectors), own, self._within, out=rows[:, :, 1:])
        table = self._transposed(rows)
        table[:, 1:].addcmul_(self._transposed(own.expand(-1, groups, 1), power=2), self._alone, value=-1)
        return table

    def diagonal(self, curvature: Tensor, frequencies: Tensor, own_curvature: Tensor) -> Tensor:
        """Return about the diagonal of the side's Gauss-Newton operator.

        Args:
            curvature: of the loss by an item's vector, for one unit of either weight in `frequencies`, [2, 1 + dim].
            frequencies: weights of each feature, [n_item_features, 2]; see `weighing.Frequencies`.
            own_curvature: by the own part of each item, [I].

        Returns:
            [n_item_features, 1 + width].
        """
        own, vectors = curvature[:, :1], curvature[:, 1:]
        by_group = self._form.item_sums(vectors)  # [2, groups, width]
        groups = self._items.groups
        weighted = own_curvature[:, None, None]
        # a factor v of a feature of weight x moves the own part by x (total - x alone(v))
        found = self._transposed(weighted * self._within.square(), power=2)
        found -= 2 * self._alone * self._transposed(weighted * self._within, power=3)
        found += self._alone.square() * self._transposed(weighted.expand(-1, groups, 1), power=4)
        return torch.cat([frequencies @ own, found + self._form.item_diagonal(frequencies, by_group)], dim=1)

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
        linear_algebra.row_dots(sums.flatten(1).numpy(), self._within.flatten(1).numpy(), found.numpy())
        return found

    def _squares(self, factors: Tensor) -> Tensor:
        """sum_j x_j^2 <factors_j, alone_j> for every item: [I]."""
        inner = (factors * self._alone).sum(1, keepdim=True)
        return torch.from_numpy(self._items.times(inner.numpy(), power=2)).view(self._items.n, -1).sum(1)

    def _transposed(self, rows: Tensor, power: int = 1) -> Tensor:
        """X' rows: [I, groups, d] -> [n_item_features, d]."""
        flat = rows.flatten(0, 1).contiguous()
        return torch.from_numpy(self._items.transposed_times(flat.numpy(), power))
