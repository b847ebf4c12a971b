"""Lists of items per request, and exact top-k over the whole catalogue in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Bool, Float32, Float64, Int32, Int64, Integers
from recall.errors import DataError, TrainingError
from recall.evaluation.metrics import per_request
from recall.features.csr import take_lists
from recall.index.topk import top_k

# One list of items for each request: the relevant ones, or the masked ones.


@dataclass(frozen=True, slots=True)
class ItemLists:
    """Item rows in CSR form: list r is `items[indptr[r]:indptr[r + 1]]`.

    Attributes:
        indptr: int64 [n + 1], starts at 0 and never falls.
        items: int32 [nnz], item rows; rising within each list and without repeats when built by `from_pairs`.
    """

    indptr: Int64
    items: Int32

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Int64:
        """int64 [n]."""
        return np.diff(self.indptr)

    @property
    def owners(self) -> Int64:
        """int64 [nnz], the list of each item."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def __getitem__(self, row: int) -> Int32:
        return self.items[self.indptr[row] : self.indptr[row + 1]]

    def between(self, first: int, last: int) -> "ItemLists":
        """Return lists first, ..., last - 1.

        Args:
            first: position of the first list.
            last: position after the last list.
        """
        start, stop = self.indptr[first], self.indptr[last]
        return ItemLists(self.indptr[first : last + 1] - start, self.items[start:stop])

    def take(self, rows: Integers) -> "ItemLists":
        """Return the lists at positions `rows`, integer [m], in that order, with repeats."""
        indptr, source = take_lists(self.indptr, rows)
        return ItemLists(indptr, self.items[source])

    def contains(self, rows: Integers) -> Bool:
        """Whether list r holds `rows[r, p]`.

        Args:
            rows: integer [n, m] item rows; negative ones are padding, in no list.

        Returns:
            bool [n, m].
        """
        span = int(max(self.items.max(initial=0), rows.max(initial=0))) + 1
        asked = np.arange(len(rows))[:, None] * span + rows
        return np.isin(asked, self._pairs(span)) & (rows >= 0)

    def shared(self, others: "ItemLists") -> Bool:
        """Whether each item of list r is in list r of `others` too; bool [nnz]."""
        span = max(int(self.items.max(initial=0)), int(others.items.max(initial=0))) + 1
        return np.isin(self._pairs(span), others._pairs(span))  # noqa: SLF001 - of the same class

    def among(self, chosen: Integers) -> "ItemLists":
        """Restrict each list to `chosen`, integer [m], rising, as positions in it."""
        place = np.searchsorted(chosen, self.items).clip(max=len(chosen) - 1)
        there: Bool = chosen[place] == self.items
        return ItemLists.from_pairs(self.owners[there], place[there], len(self))

    @staticmethod
    def from_pairs(owners: Integers, items: Integers, n: int) -> "ItemLists":
        """Build n lists from pairs of list and item in any order; duplicates are dropped.

        Args:
            owners: integer [m], the list of each pair.
            items: integer [m], the item of each pair.
            n: number of lists.
        """
        span = int(items.max(initial=0)) + 1
        pairs = np.sort(owners.astype(np.int64) * span + items)
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique hashes, and takes far longer over millions
        indptr = np.searchsorted(pairs, np.arange(n + 1) * span).astype(np.int64)
        return ItemLists(indptr, (pairs % span).astype(np.int32))

    @staticmethod
    def empty(n: int) -> "ItemLists":
        """n lists without items."""
        return ItemLists(np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))

    def _pairs(self, span: int) -> Int64:
        """Return list * span + item of each entry, int64 [nnz]."""
        pairs: Int64 = self.owners * span + self.items
        return pairs


_BLOCK = 1 << 22  # scores in memory at once: 16 MB
_CROWDED = 16  # times n candidates for a place in a list of n


@dataclass(frozen=True, slots=True)
class Replaced:
    """Scores of some (query, item) pairs that are not the product of their vectors.

    Attributes:
        items: q lists of item rows.
        scores: float32 [nnz], one for each of `items.items`.
    """

    items: ItemLists
    scores: Float32


def top_rows(phi: Float32, psi: Float32, masked: ItemLists, n: int, replaced: Replaced | None = None) -> Int64:
    """Return the n items of the highest inner product for each query.

    Args:
        phi: float32 [q, d] queries.
        psi: float32 [items, d].
        masked: q lists of item rows that cannot be returned.
        n: length of the lists.
        replaced: scores of some pairs that replace the inner product.

    Returns:
        int64 [q, min(n, items)], best first, equal scores by rising row; -1 where fewer items are eligible.

    Raises:
        TrainingError: A vector is not finite, so that its scores cannot be ranked.
    """
    for name, vectors in (("phi", phi), ("psi", psi)):
        if not np.isfinite(vectors).all():
            raise TrainingError(
                "vectors to be ranked are not finite", where=name, hint="Lower the learning rate or raise the regularisation"
            )
    n = min(n, len(psi))
    result = np.full((len(phi), n), -1, dtype=np.int64)
    step = max(1, _BLOCK // max(len(psi), 1))
    buffer = np.empty((min(step, len(phi)), len(psi)), dtype=np.result_type(phi, psi))  # of the scores, for all blocks
    for first in range(0, len(phi) if n else 0, step):
        last = min(first + step, len(phi))
        scores = np.matmul(phi[first:last], psi.T, out=buffer[: last - first])  # [block, items]
        if replaced is not None:
            pairs, ends = replaced.items.between(first, last), replaced.items.indptr
            scores[pairs.owners, pairs.items] = replaced.scores[ends[first] : ends[last]]
        result[first:last] = top_of_scores(scores, masked.between(first, last), n)
    return result


def top_of_scores(scores: Float32, masked: ItemLists, n: int) -> Int64:
    """Return the n items of the highest score on each line that are not masked.

    Args:
        scores: float32 [q, items], overwritten where masked; -inf also excludes an item.
        masked: q lists of item rows.
        n: at most `items`.

    Returns:
        As `top_rows`.
    """
    scores[masked.owners, masked.items] = -np.inf
    items = scores.shape[1]
    # every item level with the bound is a candidate, so that ties at the border are settled by row and not by chance
    bound = np.maximum(_lower_bound(scores, n), np.finfo(np.float32).min)
    place = np.flatnonzero(scores >= bound[:, None])  # several times faster than two-dimensional nonzero
    line, row = np.divmod(place, items)
    result = np.full((len(scores), n), -1, dtype=np.int64)
    crowded = np.bincount(line, minlength=len(scores)) > _CROWDED * n
    for one in np.flatnonzero(crowded):  # most items score the same, and to sort them all would take a thousand times longer
        rows, _ = top_k(scores[one], n)
        result[one, : len(rows)] = rows
    few = ~crowded[line]
    place, line, row = place[few], line[few], row[few]
    order = np.lexsort((row, -scores.reshape(-1)[place], line))
    line, row = line[order], row[order]
    rank = np.arange(len(line)) - np.searchsorted(line, line)
    kept = rank < n
    result[line[kept], rank[kept]] = row[kept]
    return result


def pair_scores(phi: Float32, psi: Float32, pairs: ItemLists) -> Float32:
    """Return the inner products of queries with the items of their lists.

    Args:
        phi: float32 [q, d].
        psi: float32 [items, d].
        pairs: q lists of rows of `psi`.

    Returns:
        float32 [nnz].
    """
    scores = np.empty(len(pairs.items), dtype=np.float32)
    owners, step = pairs.owners, max(1, _BLOCK // max(phi.shape[1], 1))
    for first in range(0, len(scores), step):
        part = slice(first, first + step)
        scores[part] = np.einsum("ij,ij->i", phi[owners[part]], psi[pairs.items[part]])
    return scores


def rank_metrics(phi: Float32, psi: Float32, relevant: ItemLists, masked: ItemLists, at: Sequence[int]) -> dict[str, float]:
    """Return the means over requests of `rank_values`.

    Args:
        phi: as for `rank_values`.
        psi: as for `rank_values`.
        relevant: as for `rank_values`.
        masked: as for `rank_values`.
        at: as for `rank_values`.
    """
    return {name: float(value.mean()) for name, value in rank_values(phi, psi, relevant, masked, at).items()}


def rank_values(phi: Float32, psi: Float32, relevant: ItemLists, masked: ItemLists, at: Sequence[int]) -> dict[str, Float64]:
    """Return the metrics of the exact list of each request, to monitor training.

    Args:
        phi: float32 [q, d] one query for each request.
        psi: float32 [items, d].
        relevant: q lists, none empty.
        masked: q lists of items left out of the answers; a relevant item that is masked is a miss.
        at: list lengths k.

    Raises:
        DataError: The requests are empty.
        TrainingError: A number of a vector is not finite.

    Returns:
        float64 [q] under the names of `metrics.per_request`, such as `ndcg@10`.
    """
    if not len(relevant):
        raise DataError("no interaction is held out to evaluate on", hint="Set data.split or data.carve so that some are")
    rows = top_rows(phi, psi, masked, max(at))
    return per_request(relevant.contains(rows), relevant.lengths, at)


def _lower_bound(scores: Float32, n: int) -> Float32:
    """Return a tight lower bound of the n-th highest of each line; float32 [b].

    The n-th highest of the maxima of disjoint groups of items is reached by n items, one in each of those groups, and
    taking maxima is ten times cheaper than selecting among all scores.
    """
    lines, items = scores.shape
    width = max(1, items // (8 * n))
    groups = items // width
    highest = scores[:, : groups * width].reshape(lines, width, groups).max(axis=1)
    bound: Float32 = np.partition(highest, groups - n, axis=1)[:, groups - n]
    return bound
