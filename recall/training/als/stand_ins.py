"""Features of masked rows only, such as that of an unknown id.

These few rows stand for all unknown users. They are in no score of an observed pair, so that they are solved for separately,
with all other features fixed. What they see is compact: masked contexts differ little in them, and are merged by the features
that may move.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Int32, Int64
from recall.features.csr import SparseRows
from recall.training.als.conjugate_gradient import conjugate_gradients
from recall.training.als.kernels import Entries, Kernels
from recall.training.als.newcomers import summed_pairs
from recall.training.als.parameterization import Parameterization
from recall.training.als.shards import Chunk, FeatureMatrix, ItemRange, Workers
from recall.training.als.sweep_rows import ItemRows, MaskedContexts
from recall.training.als.user_side import ItemsSeen, Phi, UserSide
from recall.training.als.weighing import Seen
from recall.training.masking import merged
from recall.training.ranks import Ranks

STEPS = 10  # of conjugate gradients; more changed no figure on ml-100k and toys
USER_STEPS = 30  # these cost little, and the factors are not turned to suit them
_PENALTY = 0.01  # times the regularisation: these rows stand for all users; on ml-100k 1 halves NDCG without history
_HELD_VALUES = 1 << 23  # vector components of contexts that are held, 32 MB


def only_masked(sees: Seen) -> Int64:
    """Return the features that only masked rows have, rising."""
    return np.flatnonzero((sees.plain.sum(axis=1) == 0) & (sees.masked.sum(axis=1) > 0))


def move_users(
    form: Parameterization,
    parts: list[MaskedContexts],
    features: Int64,
    penalty: Tensor,
    curvature: Tensor,
    items: ItemsSeen,
    alpha: np.float32,
    kernels: Kernels,
    workers: Workers,
    ranks: Ranks,
) -> None:
    """Solve for some user features with all others held fixed.

    Args:
        form: the model; its user table changes.
        parts: masked contexts.
        features: rising, those to solve for.
        penalty: float32 [n_user_features, 1], regularisation of features that stand for themselves.
        curvature: float32 [n_user_features, width], about the diagonal of the operator without the regularisation.
        items: what the contexts meet.
        alpha: weight of all pairs.
        kernels: do the sums.
        workers: share them.
        ranks: hold the contexts.
    """
    free = torch.from_numpy(features)
    table, weight = form.user_table(), penalty[free] * _PENALTY
    full = [UserSide(form, part.matrix, part.pairs, alpha * part.a, kernels) for part in parts]
    pulled, score = torch.zeros_like(table), items.score
    for side in full:
        side.pull(pulled, table, *items.residual)
    ranks.add_up(pulled.numpy())
    target = items.but_reserved(pulled[free] - weight * table[free])
    diagonal = positive(curvature[free].add_(weight))
    sides = [_merged(form, part, features, len(items.own), alpha, kernels, workers) for part in parts]

    def operator(change: Tensor) -> Tensor:
        total = ranks.once(weight * change)
        for side in sides:
            side.pull(total, change, *score)
        ranks.add_up(total.numpy())
        return items.but_reserved(total)

    step, _ = conjugate_gradients(operator, target, diagonal, USER_STEPS, kernels, workers)
    form.set_user_table(table.index_add(0, free, step))


def _merged(
    form: Parameterization,
    part: MaskedContexts,
    features: Int64,
    n_items: int,
    alpha: np.float32,
    kernels: Kernels,
    workers: Workers,
) -> UserSide:
    """Merge contexts that share the features that move; their pairs are added up."""
    rows, code = merged(part.rows.narrowed(features))
    pairs = summed_pairs(part.pairs, code, len(rows), n_items)
    a = (alpha * np.bincount(code, part.a, len(rows))).astype(np.float32)
    named = SparseRows(rows.indptr, features[rows.indices].astype(np.int32), rows.weights, part.rows.n_features)
    split = form.split_users(named).narrowed(features)
    work = np.diff(rows.indptr) + np.diff(pairs.indptr)
    return UserSide(form, FeatureMatrix(split, form.user_groups, work, kernels, workers), pairs, a, kernels)


@dataclass(frozen=True, slots=True)
class HeldPhi:
    """Vectors of contexts that were worked out once.

    Attributes:
        vectors: float32 [n, dim] for each chunk.
        chunks: in the same order.
    """

    vectors: tuple[Float32, ...]
    chunks: tuple[Chunk, ...]

    def of(self, chunk: Chunk) -> Float32:
        """Return the vectors of a chunk's contexts."""
        return next(vectors for vectors, own in zip(self.vectors, self.chunks, strict=True) if own is chunk)


def reached(items: ItemRows, phi: Phi | HeldPhi, dim: int) -> tuple[tuple[Chunk, ...], Phi | HeldPhi]:
    """Return the chunks of some items with the contexts of their pairs only.

    Unchanged where there are too many such contexts to hold in memory.

    Args:
        items: the items.
        phi: vectors of all contexts.
        dim: of the vectors.

    Returns:
        The chunks, and the vectors of their contexts.
    """
    contexts = [_contexts_of(chunk) for chunk in items.chunks]
    if sum(map(len, contexts)) * dim > _HELD_VALUES:
        return items.chunks, phi
    vectors, chunks = [], []
    for chunk, own in zip(items.chunks, contexts, strict=True):
        vectors.append(phi.of(chunk)[own])
        number = np.zeros(chunk.last - chunk.first, dtype=np.int32)
        number[own] = np.arange(len(own), dtype=np.int32)
        ranges = (ItemRange(part.items, _indexed(part.pairs, number)) for part in chunk.ranges)
        chunks.append(Chunk((), tuple(ranges)))
    return tuple(chunks), HeldPhi(tuple(vectors), tuple(chunks))


def _contexts_of(chunk: Chunk) -> Int64:
    """Return the contexts of a chunk that have pairs, counted from its first one."""
    there = np.zeros(chunk.last - chunk.first, dtype=np.bool_)
    for part in chunk.ranges:
        there[part.pairs.indices[part.pairs.indptr[0] : part.pairs.indptr[-1]]] = True
    return np.flatnonzero(there)


def _indexed(pairs: Entries, number: Int32) -> Entries:
    """Return pairs with other numbers for their contexts."""
    entries = slice(pairs.indptr[0], pairs.indptr[-1])
    return Entries(pairs.indptr - pairs.indptr[0], number[pairs.indices[entries]], pairs.weights[entries])


def positive(diagonal: Tensor) -> Tensor:
    """Make a diagonal divisible: a feature that sees nothing stays where it is."""
    return torch.where(diagonal > 0, diagonal, 1.0)
