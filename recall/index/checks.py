"""Load checks: queries that are repeated whenever an index is opened.

A damaged or exchanged index answers them differently.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recall._arrays import Float32, Int32
from recall.errors import IndexFileError
from recall.index.base import REPLACE_HINT, ItemIndex
from recall.index.flat import brute_force

CHECKS = 8
"""Number of queries: some milliseconds of searching, and enough rows to distinguish a worse index from rounding."""
_SLACK = 0.02  # share of all rows: other processors sum in another order, which moves a few rows at the end of a list


@dataclass(frozen=True, slots=True, eq=False)
class Checks:
    """Queries and their exact answers, repeated when an index is opened.

    Attributes:
        queries: float32 [c, dim].
        rows: int32 [c, n], the exact answer.
    """

    queries: Float32
    rows: Int32

    @classmethod
    def of(cls, vectors: Float32, queries: Float32, n: int) -> "Checks":
        """Find the exact answers to the first `CHECKS` queries.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim].
            n: length of the lists; cut to the number of vectors.
        """
        some = queries[:CHECKS]
        return cls(some, brute_force(vectors, some, min(n, len(vectors)))[1].astype(np.int32))

    def found(self, index: ItemIndex) -> float:
        """Return the share of the expected rows that an index finds.

        Only one query is repeated with an exact index, which reads all vectors for each.
        """
        count = 1 if index.exact else len(self.queries)
        rows = self.rows[:count]
        hits = index.search(self.queries[:count], rows.shape[1])
        pairs = zip(hits.rows, rows, strict=True)
        return sum(int(np.isin(expected, found).sum()) for found, expected in pairs) / rows.size


def recheck(index: ItemIndex, checks: Checks, before: float, path: Path) -> None:
    """Check that an opened index answers as well as when it was published.

    Args:
        index: the opened index.
        checks: the stored queries and answers.
        before: share of the expected rows that it found when it was published.
        path: its file, for the message.

    Raises:
        IndexFileError: It finds less, or does not have the expected rows.
    """
    if checks.rows.size and not (checks.rows.min() >= 0 and checks.rows.max() < index.size):
        what = f"the stored checks expect rows outside of the {index.size} of the index"
        raise IndexFileError(what, where=str(path), hint=REPLACE_HINT)
    found = checks.found(index)
    if found < before - _SLACK:
        raise IndexFileError(
            f"the index finds {found:.1%} of what its stored checks expect, and found {before:.1%} when it was published",
            where=str(path),
            why="the file or its settings are not those that were published",
            hint=REPLACE_HINT,
        )
