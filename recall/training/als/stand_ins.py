"""User features of masked rows only, such as that of an unknown id.

These few rows stand for all unknown users. They are in no score of an observed pair, so that they are solved for separately,
with all other features fixed. What they see is compact: masked contexts differ little in them, and are merged by the features
that may move.
"""

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Int64
from recall.features.csr import SparseRows
from recall.training.als.conjugate_gradient import conjugate_gradients
from recall.training.als.kernels import Kernels
from recall.training.als.newcomers import summed_pairs
from recall.training.als.parameterization import Parameterization
from recall.training.als.shards import FeatureMatrix, Workers
from recall.training.als.sweep_rows import MaskedContexts
from recall.training.als.user_side import ItemsSeen, UserSide, user_operator
from recall.training.als.weighing import Seen
from recall.training.masking import merged
from recall.training.ranks import Ranks

_STEPS = 30  # of conjugate gradients: they cost little, and the factors are not turned to suit them; chosen, not tuned
_PENALTY = 0.01  # times the regularisation: these rows stand for all users; on ml-100k 1 halves NDCG without history


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
    sides = [_merged(form, part, features, len(items.own), alpha, kernels, workers) for part in parts]
    full = [UserSide(form, part.matrix, part.pairs, alpha * part.a, kernels) for part in parts]
    pulled = torch.zeros_like(table)
    for side in full:
        side.pull(pulled, table, *items.residual)
    ranks.add_up(pulled.numpy())
    target = items.but_reserved(pulled[free] - weight * table[free])
    diagonal = positive(curvature[free].add_(weight))

    operator = user_operator(sides, weight, items, ranks)
    step, _ = conjugate_gradients(operator, target, diagonal, _STEPS, kernels, workers)
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


def positive(diagonal: Tensor) -> Tensor:
    """Make a diagonal divisible: a feature that sees nothing stays where it is."""
    return torch.where(diagonal > 0, diagonal, 1.0)
