"""The rows of a sweep: contexts, unmasked items and masked items.

Masked items are copies of item rows, masked as those of new items are, with a small weight. They train only the item side: a
step of the user side sees the unmasked items. Where masked rows merge into few, all of them are in every sweep. Where other
columns keep them distinct, a share of the rows is drawn for each sweep, at a larger weight.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recall._arrays import Float32, Int64
from recall.config import OpeningConfig
from recall.features.csr import SparseRows
from recall.training.als.one_hot import OneHotSide
from recall.training.als.parameterization import FMParameterization, Parameterization
from recall.training.als.shards import Chunk, FeatureMatrix, Workers, by_item, squared_sums, transposed
from recall.training.als.sparse_kernels import Entries
from recall.training.als.weighing import Frequencies, Weights
from recall.training.masking import NEWCOMER, Roles, merged, uniform
from recall.training.pairs import ObservedPairs
from recall.training.ranks import Ranks, RowShares

# Share and number of the rows drawn were chosen on held-out items of ml-100k and toys: with fewer, the figures of one seed
# differ from those of another; more cost time.
_DRAWN_SHARE = 0.2
_FEWEST_DRAWN = 500  # rows drawn, at least, or all if there are fewer
_BLOCK_ROWS = 1 << 16  # rows masked at a time: their entries are copied several times over
_CONSTANT_PAIRS = 0.25  # of all pairs: masked items with no more of them are in every sweep


@dataclass(frozen=True, slots=True)
class MaskedRows:
    """Masked rows, merged.

    Attributes:
        rows: m different rows.
        sources: int64 [n], rising: the rows that were masked.
        code: int64 [n], which of `rows` each became.
        weight: weight of each of the n; the unmasked row has 1.
    """

    rows: SparseRows
    sources: Int64
    code: Int64
    weight: float

    def summed(self, values: Float32) -> Float32:
        """Return weighted sums over the sources of each masked row: [N] -> float32 [m]."""
        sums = np.bincount(self.code, values[self.sources], len(self.rows))
        return (sums * self.weight).astype(np.float32)

    def pairs(self, pairs: Entries, n: int) -> Entries:
        """Return the pairs of the other side's rows with the masked rows.

        Args:
            pairs: of the other side's rows with the n rows of this one.
            n: rows of this side.

        Returns:
            As many rows as `pairs`, with indices in [0, m).
        """
        place = np.full(n, -1, dtype=np.int32)
        place[self.sources] = self.code
        start, stop = pairs.indptr[0], pairs.indptr[-1]
        found = place[pairs.indices[start:stop]]
        there = found >= 0
        owner = np.repeat(np.arange(pairs.n, dtype=np.int32), np.diff(pairs.indptr))[there]
        weights = pairs.weights[start:stop][there] * self.weight
        together = SparseRows.from_coo(owner, found[there], weights, pairs.n, len(self.rows))
        return Entries(together.indptr, together.indices, together.weights)


class MaskedItems:
    """Masks the rows of items."""

    def __init__(self, rows: SparseRows, roles: Roles, drop: float, seed: int) -> None:
        """Prepare to mask.

        Args:
            rows: of the items, as they train.
            roles: of their fields.
            drop: weight of all masked rows; the unmasked rows have 1.
            seed: of the draws.
        """
        self._rows, self._roles, self._seed = rows, roles, seed
        self._ways = {way: drop * share for way, share in roles.ways.items()}
        self._share = max(_DRAWN_SHARE, min(1.0, _FEWEST_DRAWN / max(len(rows), 1)))

    def take_constant(self, few: Callable[[MaskedRows], bool]) -> list[MaskedRows]:
        """Return the rows with unknown ids where they merge into few; draw them no more.

        Args:
            few: whether they are.
        """
        if NEWCOMER not in self._ways:
            return []
        every = np.arange(len(self._rows))
        masked = self._masked(every, np.full(len(every), NEWCOMER, np.int8), self._ways[NEWCOMER], 0)
        if not few(masked):
            return []
        del self._ways[NEWCOMER]
        return [masked]

    @property
    def one_field(self) -> bool:
        """Whether items have one field."""
        return len(self._roles.fields) == 1

    def draw(self, sweep: int) -> MaskedRows | None:
        """Return the random masked rows of one sweep, besides the fixed ones; or None."""
        if not self._ways:
            return None
        chosen = np.flatnonzero(uniform(np.arange(len(self._rows)), self._seed, sweep, 0) < self._share)
        if not len(chosen):
            return None
        total = sum(self._ways.values())
        bounds = np.cumsum(list(self._ways.values())) / total
        way = np.searchsorted(bounds[:-1], uniform(chosen, self._seed, sweep, 1), side="right")
        patterns = np.array(list(self._ways), dtype=np.int8)[way]
        return self._masked(chosen, patterns, total / self._share, sweep)

    def _masked(self, sources: Int64, patterns: npt.NDArray[np.int8], weight: float, sweep: int) -> MaskedRows:
        fields = len(self._roles.fields)
        parts: list[SparseRows] = []
        codes: list[Int64] = []
        n = 0
        for first in range(0, max(len(sources), 1), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            tossed = np.stack([uniform(sources[block], self._seed, sweep, 2 + field) for field in range(fields)], axis=1)
            rows, code = merged(self._roles.masked(self._rows.take(sources[block]), patterns[block], tossed))
            parts.append(rows)
            codes.append(code + n)
            n += len(rows)
        if len(parts) == 1:
            return MaskedRows(parts[0], sources, codes[0], weight)
        rows, code = merged(SparseRows.vstack(parts))
        return MaskedRows(rows, sources, code[np.concatenate(codes)], weight)


@dataclass(frozen=True, slots=True)
class ContextRows:
    """The contexts.

    Attributes:
        matrix: their features.
        pairs: with the items; a row for each context.
        a: float32 [n], how they share the weight of all pairs.
    """

    matrix: FeatureMatrix
    pairs: Entries
    a: Float32


@dataclass(frozen=True, slots=True)
class ItemRows:
    """Rows of items, unmasked and masked, in one sweep of the item side.

    Attributes:
        matrix: their features.
        chunks: their pairs with the contexts that both sides see.
        of_item: float32 [n], observed weight.
        alpha_b: float32 [n], weight of a row's pairs with all contexts.
        frequencies: of their features.
    """

    matrix: FeatureMatrix
    chunks: tuple[Chunk, ...]
    of_item: Float32
    alpha_b: Float32
    frequencies: Frequencies

    def vstack(self, other: "ItemRows") -> "ItemRows":
        """Append other rows."""
        n = len(self.of_item)
        return ItemRows(
            self.matrix.vstack(other.matrix),
            tuple(chunk.with_items(more, n) for chunk, more in zip(self.chunks, other.chunks, strict=True)),
            np.concatenate([self.of_item, other.of_item]),
            np.concatenate([self.alpha_b, other.alpha_b]),
            Frequencies(self.frequencies.plain + other.frequencies.plain, self.frequencies.masked + other.frequencies.masked),
        )


class SweepRows:
    """Contexts and items of every sweep; draws the masked items of each.

    Attributes:
        weights: of the observed pairs.
        contexts: all of them.
        items: feature matrix of the unmasked items.
        users_one_hot, items_one_hot: the sides by feature, where each row of both has one feature; the second only with the
            first.
        one_hot_b: float32 [n], weight of all pairs of each row behind `items_one_hot`.
        user_shares, item_shares: rows of the tables by ranks; the second only with `items_one_hot`.
        user_frequencies, item_frequencies: of the rows that are in every sweep.
    """

    def __init__(
        self, form: Parameterization, pairs: ObservedPairs, config: OpeningConfig, workers: Workers, seed: int
    ) -> None:
        self._form, self._workers = form, workers
        weights, of_context = Weights.of(pairs, config)
        self.weights = weights
        self._alpha, self._n_items = np.float32(weights.alpha), len(pairs.items)
        self._ranks = ranks = pairs.ranks
        self._items, ties, roles = None, pairs.untrained.ties, pairs.untrained.roles
        if config.drop and roles is not None:
            self._items = MaskedItems(pairs.items, roles, config.drop, seed)
        rows, observed = pairs.contexts, Entries(pairs.indptr, pairs.observed, pairs.weights)
        plain = squared_sums(rows, np.stack([of_context, self._alpha * weights.a], axis=1))
        ranks.add_up(plain)
        self.user_frequencies = Frequencies(plain, np.zeros_like(plain))
        counts = rows.counts() if ties is None else ties.summed(rows.counts())
        self.user_shares = RowShares.of(counts > 0, ranks)
        # a feature is solved for separately only on a rank with all of its contexts
        alone = isinstance(form, FMParameterization) and ties is None
        alone = alone and (ranks.count == 1 or not len(self.user_shares.shared))
        alone = alone and not ranks.any(not OneHotSide.fits(rows))
        self.users_one_hot = OneHotSide.of(rows, observed, self._n_items) if alone else None
        matrix = FeatureMatrix(
            form.split_users(rows),
            form.user_groups,
            np.diff(rows.indptr) + np.diff(observed.indptr),
            workers,
            delta_encoded=True,
        )
        self.contexts = ContextRows(matrix, observed, weights.a)

        self.items = self.item_matrix(pairs.items)
        self._start_items(pairs.items, rows.n_features)

    def of_items(self, sweep: int) -> ItemRows:
        """Return the items of one sweep of the item side, the unmasked ones first."""
        drawn = None if self._items is None else self._items.draw(sweep)
        return self._every_sweep if drawn is None else self._every_sweep.vstack(self._masked_items(drawn))

    def _start_items(self, items: SparseRows, n_user_features: int) -> None:
        weights, pairs, n = self.weights, self.contexts.pairs, len(items)
        of_item, alpha_b = weights.of_item, self._alpha * weights.b
        plain = squared_sums(items, np.stack([of_item, alpha_b], axis=1))
        frequencies = Frequencies(plain, np.zeros_like(plain))
        alone = self.users_one_hot is not None and (self._items is None or self._items.one_field) and OneHotSide.fits(items)
        total = self._ranks.total
        few = _CONSTANT_PAIRS * total(len(pairs.indices))
        masked = []
        if self._items is not None:
            masked = self._items.take_constant(
                lambda one: alone or (len(one.rows) == 1 and total(len(one.pairs(pairs, n).indices)) <= few)
            )
        self.items_one_hot: OneHotSide | None = None
        chunks: tuple[Chunk, ...] = ()
        self.one_hot_b = np.concatenate([alpha_b, *(self._alpha * one.summed(weights.b) for one in masked)])
        if alone and self.users_one_hot is not None:
            # user features are the partners of item features: phi is a row of the table
            item_pairs = transposed(pairs, n).vstack([transposed(one.pairs(pairs, n), len(one.rows)) for one in masked])
            item_pairs = item_pairs._replace(indices=self.users_one_hot.feature_of[item_pairs.indices])
            rows = SparseRows.vstack([items, *(one.rows for one in masked)])
            part, item_pairs = _of_rank(rows, item_pairs, self._ranks)
            side = OneHotSide.of(rows, item_pairs, n_user_features)
            of_feature, rank = part[side.features], self._ranks.rank
            none, all_of_them = np.empty(0, np.int64), side.features.astype(np.int64)
            self.item_shares = RowShares(self._ranks, none, all_of_them, of_feature == rank)
            first, last = np.searchsorted(of_feature, [rank, rank + 1]).tolist()
            self.items_one_hot = replace(side, features=side.features[first:last], pairs=side.pairs.rows(first, last))
        else:
            chunks = self._chunks(pairs, n)
        self._every_sweep = ItemRows(self.items, chunks, of_item, alpha_b, frequencies)
        self.item_frequencies = frequencies
        for one in masked:
            self.item_frequencies = self.item_frequencies.with_masked(self._frequencies_of(one))
            if self.items_one_hot is None:
                self._every_sweep = self._every_sweep.vstack(self._masked_items(one))

    def _masked_items(self, masked: MaskedRows) -> ItemRows:
        pairs = masked.pairs(self.contexts.pairs, self._n_items)
        of_item, alpha_b = masked.summed(self.weights.of_item), self._alpha * masked.summed(self.weights.b)
        chunks = self._chunks(pairs, len(masked.rows))
        shown = self._frequencies_of(masked)
        return ItemRows(self.item_matrix(masked.rows), chunks, of_item, alpha_b, Frequencies(np.zeros_like(shown), shown))

    def _frequencies_of(self, masked: MaskedRows) -> Float32:
        values = [masked.summed(self.weights.of_item), self._alpha * masked.summed(self.weights.b)]
        return squared_sums(masked.rows, np.stack(values, axis=1))

    def _chunks(self, pairs: Entries, items: int) -> tuple[Chunk, ...]:
        return tuple(by_item(pairs, items, self.contexts.matrix.shards, self._form.dim))

    def item_matrix(self, rows: SparseRows) -> FeatureMatrix:
        """Return the feature matrix of some items."""
        split = self._form.split_items(rows)
        return FeatureMatrix(split, self._form.item_groups, np.diff(rows.indptr), self._workers)


def _of_rank(rows: SparseRows, pairs: Entries, ranks: Ranks) -> tuple[Int64, Entries]:
    """Divide the features of one-hot rows, and their pairs, between ranks.

    Returns:
        The rank of each feature, int64 [n_features], and the pairs of the rows of this one, with the contexts of all ranks.
    """
    if ranks.count == 1:
        return np.zeros(rows.n_features, dtype=np.int64), pairs
    lengths = np.diff(pairs.indptr)
    # plus 1 in all, so that rows without pairs count, too
    counts = np.bincount(rows.indices, lengths + 1.0 / ranks.count, rows.n_features)
    ranks.add_up(counts)
    part = np.minimum((np.cumsum(counts) - counts / 2) * ranks.count / counts.sum(), ranks.count - 1).astype(np.int64)
    row = np.repeat(np.arange(len(rows)), lengths)
    found = pairs
    for rank in range(ranks.count):
        kept = part[rows.indices[row]] == rank
        owners, indices, weights = (ranks.joined(values[kept]) for values in (row, pairs.indices, pairs.weights))
        if rank == ranks.rank:
            order = np.argsort(owners, kind="stable")
            indptr = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(rows)))])
            found = Entries(indptr, indices[order], weights[order])
    return part, found
