"""Start factors from the leading singular vectors of the normalised interactions.

With X and Z the feature rows of contexts and items, and S the observed weights between them, N = X' S Z is how often each user
feature was observed with each item feature; of ids alone it is the interaction matrix. Factors begin as the leading singular
vectors of D_u^-1/2 N D_z^-1/2, D being the sums of rows and of columns. Before any learning, a history then scores items by a
smoothed item graph (as GF-CF, Shen et al. 2021). N is never built: they come from subspace iteration (Halko et al. 2011).
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from recall._arrays import Float32
from recall.errors import TrainingError
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.masking import id_blocks
from recall.models.torch.base import Model
from recall.training.als.kernels import Entries, Kernels
from recall.training.pairs import ObservedPairs

_BEYOND = 16  # vectors besides those wanted, which make the wanted ones converge sooner
_ITERATIONS = 4  # of multiplying by the matrix and its transpose
_LENGTH = 0.3  # mean length of an embedding: on toys, 0.1 takes a sweep longer; beside it the other features begin at `scale`


class _Interactions:
    """N = X' S Z, [user features, item features], as an operator."""

    def __init__(self, pairs: ObservedPairs) -> None:
        self._users, self._items = pairs.contexts, pairs.items
        self._observed = SparseRows(pairs.indptr, pairs.observed, pairs.weights, len(pairs.items))
        self._kernels, self._ranks = Kernels(), pairs.ranks

    def times(self, vectors: Float32) -> Float32:
        """N vectors."""
        out = self._pushed(self._users, self._pulled(self._observed, self._pulled(self._items, vectors)))
        self._ranks.add_up(out)
        return out

    def transposed_times(self, vectors: Float32) -> Float32:
        """N' vectors."""
        out = self._pushed(self._items, self._pushed(self._observed, self._pulled(self._users, vectors)))
        self._ranks.add_up(out)
        return out

    def _pulled(self, rows: SparseRows, vectors: Float32) -> Float32:
        out = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
        features = np.arange(rows.n_features, dtype=np.int32)
        self._kernels.gather(_entries(rows), np.zeros(len(rows), dtype=np.uint8), features, vectors, out)
        return out

    def _pushed(self, rows: SparseRows, vectors: Float32) -> Float32:
        out = np.zeros((rows.n_features, vectors.shape[1]), dtype=np.float32)
        self._kernels.scatter(_entries(rows), np.zeros(len(rows), dtype=np.uint8), vectors, out)
        return out


def of_ids(pairs: ObservedPairs, encoder: FeatureEncoder) -> ObservedPairs:
    """Return the pairs with ids and histories as their only features.

    Args:
        pairs: observed pairs.
        encoder: of their features.

    Raises:
        TrainingError: No field tells the items apart, or none the users.
    """
    histories = [block for block in encoder.user_blocks if block.field in encoder.histories]
    users, items = [*id_blocks(encoder, "user"), *histories], id_blocks(encoder, "item")
    if not users or not items:
        raise TrainingError(
            "no field of the user's id or history" if items else "no field of the item's id",
            why='start = "singular" begins with the singular vectors of the interactions between the two',
            hint='Add the field, or set start = "random"',
        )
    return replace(pairs, contexts=_only(pairs.contexts, users), items=_only(pairs.items, items))


@torch.no_grad()
def start_from_singular_vectors(model: Model, pairs: ObservedPairs, seed: int) -> None:
    """Set the factors of all features that some pair has; others stay as they are.

    Args:
        model: initialised; a field-aware one begins with the same factors for every field.
        pairs: observed pairs, such as `of_ids`.
        seed: of the first subspace.
    """
    if model.k == 0:
        return
    matrix, (n_users, n_items) = _Interactions(pairs), (pairs.contexts.n_features, pairs.items.n_features)
    of_users = _inverse_roots(matrix.times(np.ones((n_items, 1), dtype=np.float32)))
    of_items = _inverse_roots(matrix.transposed_times(np.ones((n_users, 1), dtype=np.float32)))
    width = min(model.k + _BEYOND, n_users, n_items)
    right = of_items * np.random.default_rng(seed).standard_normal((n_items, width), dtype=np.float32)
    for _ in range(_ITERATIONS):
        left = np.linalg.qr(of_users * matrix.times(of_items * right))[0]
        right = np.linalg.qr(of_items * matrix.transposed_times(of_users * left))[0]
    left, _, turn = np.linalg.svd(of_users * matrix.times(of_items * right), full_matrices=False)
    for factors, vectors, roots in ((model.user_factors, left, of_users), (model.item_factors, right @ turn.T, of_items)):
        there, kept = np.flatnonzero(roots), vectors[:, : model.k]
        kept = torch.from_numpy(kept[there] * (_LENGTH / np.linalg.norm(kept[there], axis=1).mean()))
        between = factors.shape[1:-1]  # the fields of a field-aware machine
        factors[torch.from_numpy(there), ..., : kept.shape[1]] = kept.view(len(there), *(1 for _ in between), -1)


def _inverse_roots(sums: Float32) -> Float32:
    """Return sums^-1/2, and 0 for sums of 0."""
    return np.where(sums > 0, np.maximum(sums, np.finfo(np.float32).tiny) ** -0.5, 0).astype(np.float32)


def _only(rows: SparseRows, blocks: Iterable[FeatureBlock]) -> SparseRows:
    """Return the rows without the features of other blocks."""
    of_blocks = np.zeros(rows.n_features, dtype=np.bool_)
    for block in blocks:
        of_blocks[block.offset : block.offset + block.size] = True
    kept = of_blocks[rows.indices]
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    return SparseRows(indptr, rows.indices[kept], rows.weights[kept], rows.n_features)


def _entries(rows: SparseRows) -> Entries:
    return Entries(rows.indptr, rows.indices, rows.weights)
