"""A few questions that an index is asked whenever it is opened: one that was damaged or swapped does not know the answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recall._arrays import Float32, Int32
from recall.errors import IndexFileError
from recall.index.base import ItemIndex
from recall.index.faiss_io import brute_force

CHECKS = 8
"""Questions: some milliseconds of searching, and enough rows to tell a worse index from rounding."""
_SLACK = 0.02  # of all rows: processors add up in other orders, which moves a few rows at the end of a list


@dataclass(frozen=True, slots=True, eq=False)
class Checks:
    """User vectors and the best rows of each.

    Attributes:
        queries: float32 [c, dim].
        rows: int32 [c, n], the exact answer.
    """

    queries: Float32
    rows: Int32

    @classmethod
    def of(cls, vectors: Float32, queries: Float32, n: int) -> "Checks":
        """Checks of any index over float32 vectors [size, dim]: at most `CHECKS` of the queries, float32 [q, dim]."""
        some = queries[:CHECKS]
        return cls(some, brute_force(vectors, some, min(n, len(vectors)))[1].astype(np.int32))

    def found(self, index: ItemIndex) -> float:
        """Share of the rows expected that the index finds; an exact index is asked one of the queries, for it reads all."""
        count = 1 if index.exact else len(self.queries)
        rows = self.rows[:count]
        hits = index.search(self.queries[:count], rows.shape[1])
        pairs = zip(hits.rows, rows, strict=True)
        return sum(int(np.isin(expected, found).sum()) for found, expected in pairs) / rows.size


def recheck(index: ItemIndex, checks: Checks, before: float, path: Path) -> None:
    """Refuse an index that answers worse than it did.

    Args:
        index: as it was opened.
        checks: what to ask.
        before: the share that it found when it was published.
        path: its file, for the message.

    Raises:
        IndexFileError: it finds less, or the rows expected are none of its.
    """
    if checks.rows.size and not (checks.rows.min() >= 0 and checks.rows.max() < index.size):
        raise IndexFileError(
            f"the stored checks expect rows outside of the {index.size} of the index", where=str(path), hint=_MEND
        )
    found = checks.found(index)
    if found < before - _SLACK:
        raise IndexFileError(
            f"the index finds {found:.1%} of what its stored checks expect, and found {before:.1%} when it was published",
            where=str(path),
            why="the file or its settings are not those that were published",
            hint=_MEND,
        )


_MEND = "Copy the bundle again, or make another index for it: recall tune-index BUNDLE"
