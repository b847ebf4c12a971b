"""One list of items for each request: the relevant ones, or the masked ones."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall._arrays import Bool, Int32, Int64

Integers = npt.NDArray[np.integer]


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
        lengths = self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.indptr[:-1][rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
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
        held: Bool = _among(asked, self._pairs(span)) & (rows >= 0)
        return held

    def shared(self, others: "ItemLists") -> Bool:
        """Whether each item of list r is in list r of `others` too; bool [nnz]."""
        span = max(int(self.items.max(initial=0)), int(others.items.max(initial=0))) + 1
        return _among(self._pairs(span), others._pairs(span))

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


def _among(asked: Int64, known: Int64) -> Bool:
    """Return whether each number of `asked` is one of `known`, int64 [m], unsorted."""
    if not len(known):
        return np.zeros(asked.shape, dtype=np.bool_)
    known = np.sort(known)
    found: Bool = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
    return found
