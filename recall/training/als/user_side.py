"""User side of the square loss: sums over contexts, in chunks that bound memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Float32, Float64, Int64, UInt8
from recall.training.als import kernels
from recall.training.als.kernels import Entries
from recall.training.als.parameterization import Parameterization, mixed
from recall.training.als.shards import Chunk, FeatureMatrix, Shard, Workers
from recall.training.ranges import Spread
from recall.training.ranks import RowShares

# Conjugate gradients on a table of unknowns, without ever forming the matrix.

_RANGES = 64  # of rows; the cut, and so the sum, is the same for any number of threads
_ROWS = 2048  # or fewer ranges of at least this many rows


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    target: Tensor,
    diagonal: Tensor,
    steps: int,
    workers: Workers,
    solution: Tensor,
    shares: RowShares | None = None,
) -> float:
    """Add about A^-1 target to a table, for a symmetric positive definite A.

    Hestenes and Stiefel 1952, preconditioned by a diagonal.

    Args:
        operator: D -> A D, both shaped as target; may return the same memory every time.
        target: [n, d]; is used up.
        diagonal: the preconditioner's diagonal, positive, [n, d].
        steps: products with A; each shrinks the error further.
        workers: share the sums over tables.
        solution: [n, d], contiguous; changed in place.
        shares: of the rows, where each rank solves for its own; default: every rank solves for all of them alike.

    Returns:
        By how much the change D is lower than nothing on <D, A D> - 2 <D, target>.
    """
    direction, below = target / diagonal, diagonal.contiguous().numpy()
    x, left, along = solution.numpy(), target.numpy(), direction.numpy()
    size = max(_ROWS, -(-len(target) // _RANGES))
    parts = [slice(first, first + size) for first in range(0, len(target), size)]

    def whole(local: float, common: Callable[[Int64], float]) -> float:
        return local if shares is None else shares.whole(local, common)

    def curved(product: Float32, part: slice | Int64) -> float:
        return kernels.dot(along[part], product[part])

    def advanced(product: Float32, length: float, part: slice) -> float:
        return kernels.advance(x[part], left[part], along[part], product[part], below[part], length)

    energy = sum(workers.map(lambda part: kernels.dot(left[part], along[part]), parts))
    energy = whole(energy, lambda rows: kernels.dot(left[rows], along[rows]))
    decrease = 0.0
    for _ in range(steps):
        product = operator(direction).contiguous().numpy()

        curvature = whole(sum(workers.map(partial(curved, product), parts)), partial(curved, product))
        if curvature == 0:  # solved already, as for a table without data; what is not a number continues, to be reported
            break
        length = energy / curvature
        decrease += length * energy
        advances = workers.map(partial(advanced, product, length), parts)
        following = whole(sum(advances), lambda rows: kernels.dot(left[rows], left[rows] / below[rows]))
        ratio = following / energy if energy else 0.0

        def redirected(part: slice, ratio: float = ratio) -> None:
            kernels.redirect(along[part], left[part], below[part], ratio)

        workers.run(redirected, parts)
        energy = following
        del product, advances  # as large as the table, before there is another
    return decrease


# Gram matrices of many rows.

_PIECE = 2048  # rows multiplied at a time: the cut, and so the sum, is the same for any number of threads


def bordered_gram(weights: Float32, rows: Float32, workers: Workers) -> npt.NDArray[np.float64]:
    """Return [1 ; rows]' diag(weights) [1 ; rows], float64 [d + 1, d + 1].

    Args:
        weights: float32 [n].
        rows: float32 [n, d].
        workers: share the sums.
    """
    d = rows.shape[1]

    def piece(first: int) -> tuple[Float32, Float32]:
        border, square = np.zeros(d, dtype=np.float32), np.zeros((d, d), dtype=np.float32)
        kernels.gram(weights[first : first + _PIECE], rows[first : first + _PIECE], border, square)
        return border, square

    gram = np.zeros((d + 1, d + 1))
    for border, square in workers.map(piece, range(0, len(rows), _PIECE)):
        gram[1:, 0] += border
        gram[1:, 1:] += square
    gram[0, 0] = weights.sum(dtype=np.float64)
    below = np.tril(gram)
    return below + np.tril(gram, -1).T


RESIDUAL = (1.0, -1.0)
SCORE = (0.0, 1.0)
"""Signs of `kernels.fit`."""


@dataclass(frozen=True, slots=True)
class AllPairsTerm:
    """Unobserved part of the loss: a pull of alpha a_c scale (base + gram phi_c).

    Attributes:
        scale: 1 or -1.
        base: float32 [dim].
        gram: float32 [dim, dim], or its diagonal [dim] where it is diagonal.
    """

    scale: float
    base: Tensor
    gram: Tensor


@dataclass(frozen=True, slots=True)
class ItemsSeen:
    """Sums over all items that the user side needs.

    Attributes:
        own: float32 [I], first components of the items.
        vectors: float32 [I, dim], the others.
        base: float32 [dim], sum_i b_i own_i vector_i.
        gram: as in `AllPairsTerm`.
        curvature: float32 [2, dim], of the loss by a context's vector: mean of squared vectors over observed pairs, and the
            diagonal of the Gram matrix.
    """

    own: Tensor
    vectors: Tensor
    base: Tensor
    gram: Tensor
    curvature: Tensor

    @property
    def residual(self) -> "Pull":
        """Return the input of `UserSide.pull` for the residuals of contexts."""
        return RESIDUAL, AllPairsTerm(-1.0, self.base, self.gram), (self.own, self.vectors)

    @property
    def score(self) -> "Pull":
        """The pull of a change of the user table."""
        all_pairs = AllPairsTerm(1.0, torch.zeros_like(self.base), self.gram)
        return SCORE, all_pairs, (torch.zeros_like(self.own), self.vectors)


Pull = tuple[tuple[float, float], AllPairsTerm, tuple[Tensor, Tensor]]
"""Arguments of `UserSide.pull` beside the table."""


class _Block(NamedTuple):
    """A block of contexts: entries, follows, sums by group [n groups, width], range."""

    x: Entries
    follows: UInt8
    sums: Float32
    rows: slice


class UserSide:
    """Contexts: phi = [1 ; X table, mapped by the form], and their gradients."""

    def __init__(
        self, form: Parameterization, contexts: FeatureMatrix, pairs: Entries, alpha_a: Float32, spread: Spread | None = None
    ) -> None:
        self._form, self._contexts, self._pairs, self._alpha_a, self._spread = form, contexts, pairs, alpha_a, spread
        self._room = None if spread is None else torch.empty(2, *form.user_table().shape)  # for every pull

    def tied(self, spread: Spread) -> "UserSide":
        """Return the side as a function of the rows that others are tied to."""
        return UserSide(self._form, self._contexts, self._pairs, self._alpha_a, spread)

    def pull(
        self, total: Tensor, table: Tensor, signs: tuple[float, float], all_pairs: AllPairsTerm, psi: tuple[Tensor, Tensor]
    ) -> None:
        """Add the transpose of table -> phi times the pulls on contexts.

        With a spread, the table is that of shared rows.

        Args:
            total: [n_user_features, width], added to.
            table: [n_user_features, width].
            signs: see `kernels.fit`.
            all_pairs: the unobserved part.
            psi: own parts [I] and vectors [I, dim].
        """
        width, spread, out = table.shape[1], self._spread, total
        if spread is not None and self._room is not None:
            table, out = spread.out(table, self._room[0]), self._room[1].zero_()

        def pulled(shard: Shard) -> Float32:
            part = np.zeros((len(shard.features), width), dtype=np.float32)
            for block in self._blocks(shard, table.numpy()):
                pulls = self._pulls(block, self._form.user_vectors(block.sums), signs, all_pairs, psi)
                kernels.scatter(block.x, block.follows, self._form.user_sums(pulls), part)
            return part

        self._contexts.add(pulled, out.numpy())
        if spread is not None:
            spread.back(out, total)

    def pull_weights(
        self, weights: Tensor, signs: tuple[float, float], all_pairs: AllPairsTerm, psi: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the same for phi_b = sum_a weights_ab S_a, linear in the weights.

        Args:
            weights: [user fields, item fields].
            signs: as for `pull`.
            all_pairs: as for `pull`.
            psi: as for `pull`.

        Returns:
            [user fields, item fields].
        """
        table = self._form.user_table().numpy()
        a, b = weights.shape
        k = table.shape[1]

        def pulled(shard: Shard) -> Float64:
            part = np.zeros((a, b))
            for block in self._blocks(shard, table):
                n = block.rows.stop - block.rows.start
                pulls = self._pulls(block, mixed(block.sums, weights).reshape(n, b * k), signs, all_pairs, psi)
                sums = block.sums.reshape(n, a, k)
                for field in range(a):
                    part[field] += (sums[:, field, None] * pulls.reshape(n, b, k)).sum((0, 2), dtype=np.float64)
            return part

        return torch.from_numpy(sum(self._contexts.mapped(pulled), np.zeros((a, b)))).float()

    def _blocks(self, shard: Shard, table: Float32) -> Iterator[_Block]:
        for first, last in shard.blocks(max(self._form.dim, table.shape[1])):
            x, follows = shard.rows(first, last)
            sums = np.empty((x.n, table.shape[1]), dtype=np.float32)
            kernels.gather(x, follows, shard.features, table, sums)
            yield _Block(x, follows, sums, slice(shard.first + first, shard.first + last))

    def _pulls(
        self, block: _Block, phi: Float32, signs: tuple[float, float], all_pairs: AllPairsTerm, psi: tuple[Tensor, Tensor]
    ) -> Float32:
        """Return the pulls on contexts with vectors phi: [n, dim] -> [n, dim]."""
        rows, pulls = block.rows, np.empty_like(phi)
        draw = kernels.shade if all_pairs.gram.dim() == 1 else kernels.blend
        scale = np.float32(all_pairs.scale) * self._alpha_a[rows]
        draw(scale, all_pairs.base.numpy(), all_pairs.gram.numpy(), phi, pulls)
        beside, owners = np.zeros((2, len(phi)), dtype=np.float32), np.arange(len(phi), dtype=np.int32)
        items = psi[0].numpy(), psi[1].numpy()
        pairs = self._pairs.rows(rows.start, rows.stop)
        kernels.fit(pairs, owners, signs, (beside[0], phi), items, (beside[1], pulls))
        return pulls


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
