"""Softmax over the whole catalogue, computed in pieces that stay in the cache.

For every context c with observed items S_c of weights s, and all items j of the catalogue:

    L_c = sum_{i in S_c} s_ci (log sum_j exp(y_cj / t) - y_ci / t),      y_cj = <phi_c, psi_j>

Each context is processed once, with all of its observed items, so that an epoch costs contexts x items products, not
interactions x items (Jean et al. 2015 and Blanc and Rendle 2018 sample to avoid it; a catalogue that fits need not).
"""

from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from recall._arrays import Float64, Int64
from recall.features.csr import take_lists
from recall.training.negatives import Negatives
from recall.training.objectives.base import Batch, BatchPart, Gradients, Objective
from recall.training.pairs import ObservedPairs

_ROWS = 128  # contexts in one piece
_COLUMNS = 4096  # items in one piece: 128 x 4096 scores are 2 MB, the size of a core's second cache
_SAFE = 60.0  # exponents no larger than this neither overflow float32, summed over a catalogue, nor need a shift


@dataclass(frozen=True, slots=True)
class ContextBatch(Batch):
    """Contexts with their observed items.

    Attributes:
        indptr: int64 [B + 1]; context r of the batch was observed with entries indptr[r] to indptr[r + 1].
        observed: int64 [nnz], rows of the catalogue.
        weights: [nnz].
    """

    indptr: Int64
    observed: Int64
    weights: Tensor


class ContextWeights:
    """Weights of contexts and their pairs.

    Observed weight to the power of an activity, shared among the pairs of a context.
    """

    def __init__(self, pairs: ObservedPairs, activity: float) -> None:
        self._pairs = pairs
        sums = np.bincount(pairs.owners, pairs.weights, len(pairs.contexts))
        factors = sums ** (activity - 1)
        total = pairs.ranks.total
        self.total = total(sums.sum())
        self._factors = (factors * (self.total / total((sums * factors).sum()))).astype(np.float32)

    def batch(self, contexts: Int64) -> tuple[Int64, Int64, Tensor]:
        """Return index pointers, observed items and weights of some contexts.

        Returns:
            int64 [B + 1], int64 [nnz], float [nnz].
        """
        pairs = self._pairs
        indptr, source = take_lists(pairs.indptr, contexts)
        weights = pairs.weights[source] * np.repeat(self._factors[contexts], np.diff(indptr))
        return indptr, pairs.observed[source].astype(np.int64), torch.from_numpy(weights)


class FullSoftmax(Objective[ContextBatch]):
    """Softmax over the whole catalogue."""

    _top = 0  # place whose score `_weigh` needs; finding it takes time

    def __init__(self, pairs: ObservedPairs, temperature: float, activity: float) -> None:
        self._weights = ContextWeights(pairs, activity)
        self._temperature = temperature
        self.size, self.weight = len(pairs.contexts), self._weights.total

    @override
    def draw(self, chosen: Int64, rng: np.random.Generator, part: BatchPart | None = None) -> ContextBatch:
        return ContextBatch(chosen, None, *self._weights.batch(chosen))

    @override
    def gradients(self, batch: ContextBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        queries = phi / self._temperature
        longest = float(queries.norm(dim=1).max()) if len(queries) else 0.0  # a rank may have no context of a batch
        shift_needed = longest * float(psi.norm(dim=1).max()) > _SAFE
        by_phi, by_psi = torch.empty_like(phi), torch.zeros_like(psi)
        scratch = [phi.new_empty(_ROWS, len(part)) for part in _pieces(psi)]
        loss = 0.0
        for first in range(0, len(phi), _ROWS):
            rows = slice(first, min(first + _ROWS, len(phi)))
            entries = slice(int(batch.indptr[rows.start]), int(batch.indptr[rows.stop]))
            owner = torch.from_numpy(np.repeat(np.arange(rows.stop - first), np.diff(batch.indptr[first : rows.stop + 1])))
            pairs = owner, torch.from_numpy(batch.observed[entries]), batch.weights[entries]
            loss += self._piece(queries[rows], psi, pairs, scratch, shift_needed, by_phi[rows], by_psi)
        return Gradients(loss, by_phi.div_(self._temperature), by_psi)

    def _weigh(self, scores: Tensor, bar: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002
        """Return what observed pairs weigh, a constant in the gradient.

        Args:
            scores: y_ci / t of each pair, [nnz].
            bar: the `top`-th largest score of the pair's context, [nnz]; -inf without `top`.
            weights: of each pair, [nnz].
        """
        return weights

    def _piece(
        self,
        phi: Tensor,
        psi: Tensor,
        entries: tuple[Tensor, Tensor, Tensor],
        scratch: list[Tensor],
        shift_needed: bool,
        by_phi: Tensor,
        by_psi: Tensor,
    ) -> float:
        """Return the loss of a few contexts; write its gradient by phi, add that by psi.

        Args:
            phi: [r, dim].
            psi: [I, dim].
            entries: for every observed pair its context int64 [nnz] in 0..r, its item int64 [nnz], and its weight [nnz].
            scratch: [at least r, columns] for each piece of the catalogue.
            shift_needed: whether scores must be shifted by the largest of their row before they become exponents.
            by_phi: [r, dim].
            by_psi: [I, dim].
        """
        (owner, observed, weights), top = entries, self._top
        tiles = [tile[: len(phi)] for tile in scratch]
        pieces = _pieces(psi)
        shift = phi.new_zeros(len(phi), 1)
        if shift_needed:
            shift -= torch.inf
            for tile, part in zip(tiles, pieces, strict=True):
                torch.maximum(shift, torch.mm(phi, part.t(), out=tile).amax(1, keepdim=True), out=shift)
        sums, best = phi.new_zeros(len(phi)), phi.new_empty(len(phi), 0)
        by_phi.zero_()
        for tile, part in zip(tiles, pieces, strict=True):
            if shift_needed:
                tile.sub_(shift)
            else:
                torch.mm(phi, part.t(), out=tile)
            if top:
                best = torch.cat([best, tile], dim=1).topk(min(top, best.shape[1] + tile.shape[1])).values
            sums += tile.exp_().sum(1)
            by_phi.addmm_(tile, part)
        liked, own = psi[observed], phi[owner]
        scores = (own * liked).sum(1)
        bar = best[:, -1] + shift[:, 0] if top else torch.full_like(sums, -torch.inf)
        weights = self._weigh(scores, bar[owner], weights)
        total = phi.new_zeros(len(phi)).index_add_(0, owner, weights)
        share = (total / sums)[:, None]
        by_phi.mul_(share).index_add_(0, owner, liked * weights[:, None], alpha=-1)
        spread = phi * share
        for tile, part in zip(tiles, _pieces(by_psi), strict=True):
            part.addmm_(tile.t(), spread)
        by_psi.index_add_(0, observed, own * weights[:, None], alpha=-1)
        return float((total * (sums.log() + shift[:, 0])).sum() - (weights * scores).sum())


def _pieces(table: Tensor) -> list[Tensor]:
    return [table[first : first + _COLUMNS] for first in range(0, len(table), _COLUMNS)]


# Softmax against a sample of the catalogue that a whole batch shares, for catalogues too large to go over.
#
# The sum over all items is estimated without bias: the observed items of a context enter exactly, every draw j of q
# that it was not observed with counts as 1 / (m q_j) items (the logQ correction of Bengio and Senecal 2003, Jean et
# al. 2015), and accidental hits are left out, being counted already:
#
#     Z_c = sum_{i in S_c} exp(y_ci / t) + sum over m draws j not in S_c of exp(y_cj / t) / (m q_j)


@dataclass(frozen=True, slots=True)
class SharedBatch(ContextBatch):
    """Contexts, their observed items, and the draws that they share.

    `observed` has places in `items`.

    Attributes:
        drawn: int64 [m], places in `items`.
        correction: [m], what is taken from the logarithm of each draw's term.
        hits: int64 [h, 2], (context of the batch, draw) that were observed together.
    """

    drawn: Int64
    correction: Tensor
    hits: Int64


class SampledSoftmax(Objective[SharedBatch]):
    """Softmax over sampled items, with a correction by their probability."""

    def __init__(self, pairs: ObservedPairs, temperature: float, activity: float, samples: int, popularity: float) -> None:
        self._weights = ContextWeights(pairs, activity)
        self._negatives = Negatives(pairs, popularity)
        self._temperature = temperature
        self._samples = samples
        self.size, self.weight = len(pairs.contexts), self._weights.total

    @override
    def draw(self, chosen: Int64, rng: np.random.Generator, part: BatchPart | None = None) -> SharedBatch:
        indptr, observed, weights = self._weights.batch(chosen)
        drawn = self._negatives.any(self._samples, rng)
        items, place = np.unique(np.concatenate([observed, drawn]), return_inverse=True)
        hits = self._negatives.hits(chosen, drawn)
        correction = torch.from_numpy((self._negatives.log_q[drawn] + log(self._samples)).astype(np.float32))
        own, shared = place[: len(observed)], place[len(observed) :]
        return SharedBatch(chosen, items, indptr, own, weights, shared, correction, hits)

    @override
    def gradients(self, batch: SharedBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        queries = phi / self._temperature
        owner = torch.from_numpy(np.repeat(np.arange(len(phi)), np.diff(batch.indptr)))
        observed, drawn = torch.from_numpy(batch.observed), torch.from_numpy(batch.drawn)
        liked, others = psi[observed], psi[drawn]
        own = queries[owner]
        positive = (own * liked).sum(1)  # [nnz]
        negative = queries @ others.t() - batch.correction  # [B, m]
        negative[torch.from_numpy(batch.hits[:, 0]), torch.from_numpy(batch.hits[:, 1])] = -torch.inf
        peak = negative.amax(1).scatter_reduce_(0, owner, positive, "amax")
        negative = negative.sub_(peak[:, None]).exp_()
        likely = (positive - peak[owner]).exp()
        sums = negative.sum(1).index_add_(0, owner, likely)
        total = phi.new_zeros(len(phi)).index_add_(0, owner, batch.weights)
        share = total / sums
        loss = float((total * (sums.log() + peak)).sum() - (batch.weights * positive).sum())
        by_negative = negative.mul_(share[:, None])
        by_positive = (likely * share[owner] - batch.weights)[:, None]
        by_phi = (by_negative @ others).index_add_(0, owner, by_positive * liked)
        by_psi = torch.zeros_like(psi).index_add_(0, observed, by_positive * own)
        by_psi.index_add_(0, drawn, by_negative.t() @ queries)
        return Gradients(loss, by_phi.div_(self._temperature), by_psi)


# Softmax of each observed pair against the items of the other pairs in its batch.
#
# An item occurs in batches as often as it is observed, which would lower the scores of popular items; the logQ correction
# divides its term by its share q of all pairs (Yi et al. 2019). Items of other pairs that the context was also observed with
# are accidental hits, and left out. With B pairs in a batch, and the pair's own item without a correction,
#
#     Z_ci = exp(y_ci / t) + sum over other pairs' items j not in S_c of exp(y_cj / t) / ((B - 1) q_j)
#
# is an unbiased estimate of the sum over the item itself and all items that the context was not observed with.


@dataclass(frozen=True, slots=True)
class PairBatch(Batch):
    """Observed pairs.

    Attributes:
        place: int64 [C], the item of each pair of the batch as a place in `items`; C = B on a single rank.
        diagonal: int64 [B], the column of the pair of each row.
        weights: [B].
        hits: bool [B, C]; column c is left out of row r.
        correction: [C], subtracted from the scores of each column, except the pair's own.
    """

    place: Int64
    diagonal: Tensor
    weights: Tensor
    hits: Tensor
    correction: Tensor


class InBatchSoftmax(Objective[PairBatch]):
    """Softmax over the items of a batch."""

    def __init__(self, pairs: ObservedPairs, temperature: float, correct: bool) -> None:
        self._pairs = pairs
        self._owners = pairs.owners
        self._negatives = Negatives(pairs, 0.0)
        self._temperature = temperature
        counts = pairs.item_counts()
        shares: Float64 = counts.clip(1) / counts.sum()
        self._log_q = np.log(shares) if correct else None
        self.size = len(pairs.observed)
        self.weight = pairs.ranks.total(pairs.weights.sum())

    @override
    def draw(self, chosen: Int64, rng: np.random.Generator, part: BatchPart | None = None) -> PairBatch:
        contexts, observed = self._owners[chosen], self._pairs.observed[chosen].astype(np.int64)
        diagonal = np.arange(len(contexts)) if part is None else part.places
        observed = observed if part is None else part.whole(observed)
        items, place = np.unique(observed, return_inverse=True)
        hits = np.zeros((len(contexts), len(observed)), dtype=bool)
        rows, columns = self._negatives.hits(contexts, observed).T
        hits[rows, columns] = True
        hits[np.arange(len(contexts)), diagonal] = False
        return PairBatch(
            contexts,
            items,
            place,
            torch.from_numpy(diagonal),
            torch.from_numpy(self._pairs.weights[chosen]),
            torch.from_numpy(hits),
            torch.from_numpy(self._correction(observed)),
        )

    def _correction(self, observed: Int64) -> npt.NDArray[np.float32]:
        if self._log_q is None:
            return np.zeros(len(observed), dtype=np.float32)
        return (self._log_q[observed] + log(max(len(observed) - 1, 1))).astype(np.float32)

    @override
    def gradients(self, batch: PairBatch, phi: Tensor, psi: Tensor, offset: Tensor) -> Gradients:
        queries, place = phi / self._temperature, torch.from_numpy(batch.place)
        items = psi[place]
        logits = (queries @ items.t()).sub_(batch.correction).masked_fill_(batch.hits, -torch.inf)  # [B, C]
        own = torch.arange(len(logits)), batch.diagonal
        logits[own] += batch.correction[batch.diagonal]
        shares = logits.log_softmax(1)
        loss = -float((batch.weights * shares[own]).sum())
        by_logits = shares.exp_()
        by_logits[own] -= 1
        by_logits.mul_(batch.weights[:, None])
        by_psi = torch.zeros_like(psi).index_add_(0, place, by_logits.t() @ queries)
        return Gradients(loss, (by_logits @ items).div_(self._temperature), by_psi)


class SoftmaxAtK(FullSoftmax):
    """SL@K: observed items above the top-K threshold weigh more.

    The loss of Yang et al. (KDD 2025). For every context c with observed items S_c of weights s, and all items j of the
    catalogue:

        L_c = sum_{i in S_c} s_ci w_ci (log sum_j exp(y_cj / t) - y_ci / t)
        w_ci = sigmoid((y_ci - beta_c) / t_w),      beta_c = the K-th largest y_cj

    It bounds -log DCG@K from above, where the softmax bounds that of whole lists. beta is exact, since all scores of the
    catalogue are at hand; the paper estimates it from samples. w is a constant in the gradient: through it, the loss would fall
    as an observed item drops out of the list.
    """

    def __init__(self, pairs: ObservedPairs, temperature: float, activity: float, top: int, top_temperature: float) -> None:
        """Prepare the loss of some pairs.

        Args:
            pairs: the observed pairs.
            temperature: t.
            activity: a context weighs as this power of its observed weight.
            top: K; the whole catalogue where it is smaller.
            top_temperature: t_w.
        """
        super().__init__(pairs, temperature, activity)
        self._top, self._slope = top, temperature / top_temperature

    @override
    def _weigh(self, scores: Tensor, bar: Tensor, weights: Tensor) -> Tensor:
        return weights * (self._slope * (scores - bar)).sigmoid()
