"""Softmax over the whole catalogue, computed in pieces that stay in the cache.

For every context c with observed items S_c of weights s, and all items j of the catalogue:

    L_c = sum_{i in S_c} s_ci (log sum_j exp(y_cj / t) - y_ci / t),      y_cj = <phi_c, psi_j>

A context is met once however many items it was observed with, so that a pass costs contexts x items products, not
interactions x items (Jean et al. 2015 and Blanc and Rendle 2018 sample to avoid it; a catalogue that fits need not).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Int64
from recall.training.objectives.contract import (
    Batch,
    Gradients,
)
from recall.training.pairs import ObservedPairs

_ROWS = 128  # contexts in one piece
_COLUMNS = 4096  # items in one piece: 128 x 4096 scores are 2 MB, the size of a core's second cache
_SAFE = 60.0  # exponents no larger than this neither overflow float32, summed over a catalogue, nor need a shift


@dataclass(frozen=True, slots=True)
class ContextBatch(Batch):
    """Contexts with all that each was observed with.

    Attributes:
        indptr: int64 [B + 1]; context r of the batch was observed with entries indptr[r] to indptr[r + 1].
        observed: int64 [nnz], rows of the catalogue.
        weights: [nnz].
    """

    indptr: Int64
    observed: Int64
    weights: Tensor


class ContextWeights:
    """What each context and its observed pairs weigh: observed weight to the power of an activity, shared among its pairs."""

    def __init__(self, pairs: ObservedPairs, activity: float) -> None:
        self._pairs = pairs
        sums = np.bincount(pairs.owners, pairs.weights, len(pairs.contexts))
        factors = sums ** (activity - 1)
        self._factors = (factors * (sums.sum() / (sums * factors).sum())).astype(np.float32)
        self.total = float(sums.sum())

    def batch(self, contexts: Int64) -> tuple[Int64, Int64, Tensor]:
        """Index pointers, observed items and weights of some contexts: int64 [B + 1], int64 [nnz], float [nnz]."""
        pairs = self._pairs
        lengths = np.diff(pairs.indptr)[contexts]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(pairs.indptr[contexts] - indptr[:-1], lengths) + np.arange(indptr[-1])
        weights = pairs.weights[source] * np.repeat(self._factors[contexts], lengths)
        return indptr, pairs.observed[source].astype(np.int64), torch.from_numpy(weights)


class FullSoftmax:
    """See the module; an `Objective` over contexts."""

    def __init__(self, pairs: ObservedPairs, temperature: float, activity: float) -> None:
        self._weights = ContextWeights(pairs, activity)
        self._temperature = temperature
        self.with_offset = False
        self.size = len(pairs.contexts)
        self.weight = self._weights.total

    def begin(self, epoch: int) -> None:
        """See Objective; every pass is alike."""

    def draw(self, chosen: Int64, rng: np.random.Generator) -> ContextBatch:  # noqa: ARG002 - nothing is left to chance
        """See Objective."""
        return ContextBatch(chosen, None, *self._weights.batch(chosen))

    def gradients(self, batch: ContextBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:  # noqa: ARG002
        """See Objective."""
        queries = phi / self._temperature
        shift_needed = float(queries.norm(dim=1).max() * psi.norm(dim=1).max()) > _SAFE
        by_phi, by_psi = torch.empty_like(phi), torch.zeros_like(psi)
        scratch = [phi.new_empty(_ROWS, len(part)) for part in _pieces(psi)]
        loss = 0.0
        for first in range(0, len(phi), _ROWS):
            rows = slice(first, min(first + _ROWS, len(phi)))
            entries = slice(int(batch.indptr[rows.start]), int(batch.indptr[rows.stop]))
            owner = torch.from_numpy(np.repeat(np.arange(rows.stop - first), np.diff(batch.indptr[first : rows.stop + 1])))
            observed, weights = torch.from_numpy(batch.observed[entries]), batch.weights[entries]
            loss += _piece(queries[rows], psi, (owner, observed, weights), scratch, shift_needed, by_phi[rows], by_psi)
        return Gradients(loss, by_phi.div_(self._temperature), by_psi)


def _piece(
    phi: Tensor,
    psi: Tensor,
    entries: tuple[Tensor, Tensor, Tensor],
    scratch: list[Tensor],
    shift_needed: bool,
    by_phi: Tensor,
    by_psi: Tensor,
) -> float:
    """The loss of a few contexts; writes its gradient by phi and adds that by psi.

    Args:
        phi: [r, dim].
        psi: [I, dim].
        entries: for every observed pair its context int64 [nnz] in 0..r, its item int64 [nnz], and its weight [nnz].
        scratch: [at least r, columns] for each piece of the catalogue.
        shift_needed: whether scores must be shifted by the largest of their row before they become exponents.
        by_phi: [r, dim].
        by_psi: [I, dim].
    """
    owner, observed, weights = entries
    tiles = [tile[: len(phi)] for tile in scratch]
    pieces = _pieces(psi)
    shift = phi.new_zeros(len(phi), 1)
    if shift_needed:
        shift -= torch.inf
        for tile, part in zip(tiles, pieces, strict=True):
            torch.maximum(shift, torch.mm(phi, part.t(), out=tile).amax(1, keepdim=True), out=shift)
    sums = phi.new_zeros(len(phi))
    by_phi.zero_()
    for tile, part in zip(tiles, pieces, strict=True):
        if shift_needed:
            tile.sub_(shift)
        else:
            torch.mm(phi, part.t(), out=tile)
        sums += tile.exp_().sum(1)
        by_phi.addmm_(tile, part)
    liked = psi[observed]
    total = phi.new_zeros(len(phi)).index_add_(0, owner, weights)
    share = (total / sums)[:, None]
    by_phi.mul_(share).index_add_(0, owner, liked * weights[:, None], alpha=-1)
    spread = phi * share
    for tile, part in zip(tiles, _pieces(by_psi), strict=True):
        part.addmm_(tile.t(), spread)
    own = phi[owner]
    by_psi.index_add_(0, observed, own * weights[:, None], alpha=-1)
    scores = (own * liked).sum(1)
    return float((total * (sums.log() + shift[:, 0])).sum() - (weights * scores).sum())


def _pieces(table: Tensor) -> list[Tensor]:
    return [table[first : first + _COLUMNS] for first in range(0, len(table), _COLUMNS)]
