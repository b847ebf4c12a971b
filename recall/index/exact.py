"""Exact search: faiss scans every item."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from recall.features.sparse import Float32, Int64
from recall.index.contract import Hits, Params, check_queries, check_vectors
from recall.index.engine import faiss_threads, write_faiss
from recall.index.ranking import Ranked, gather, longest_of, pad, rank, rounding

_SPARE = 16  # candidates beyond those needed: room for a tie or two at the end of the list
_BATCH = 512  # queries given to faiss at once


class ExactIndex:
    """All rows are scored; ties at the end of a list are settled by widening the search until they are all in it."""

    kind = "exact"
    exact = True

    def __init__(self, flat: faiss.IndexFlatIP, dim: int, longest: float, threads: int = 1) -> None:
        """Wrap a flat faiss index over padded vectors.

        Args:
            flat: index over float32 [size, dim padded to a multiple of 8].
            dim: length of a vector before padding.
            longest: the largest Euclidean length of a vector.
            threads: threads that faiss may use for one call of `search`.
        """
        self.size = int(flat.ntotal)
        self.dim = dim
        self._flat = flat
        self._threads = threads
        self._vectors: Float32 = faiss.rev_swig_ptr(flat.get_xb(), self.size * flat.d).reshape(self.size, flat.d)
        self._longest = longest

    @classmethod
    def build(cls, vectors: Float32, threads: int = 1) -> "ExactIndex":
        """Index item vectors, float32 [size, dim]. Raises ExportError when they are not finite."""
        check_vectors(vectors)
        padded = pad(vectors)
        flat = faiss.IndexFlatIP(padded.shape[1])
        flat.add(padded)
        return cls(flat, vectors.shape[1], longest_of(vectors), threads)

    def holds(self, vectors: Float32) -> bool:
        """Whether the first, middle and last of `vectors` are the ones indexed: tells two exports of one size apart."""
        rows = [0, self.size // 2, self.size - 1]
        return np.array_equal(self._vectors[rows, : self.dim], vectors[rows])

    @property
    def params(self) -> Params:
        """`longest`, which bounds how far rounding can move a score."""
        return {"longest": self._longest}

    def search(self, queries: Float32, n: int, exclude: Sequence[Int64] | None = None) -> Hits:
        """As `ItemIndex.search` promises."""
        excluded = check_queries(queries, n, self.dim, exclude)
        padded = pad(queries)
        slack = rounding(padded, self._longest)
        ranked: dict[int, Ranked] = {}
        pending = {position: n + len(rows) + _SPARE for position, rows in enumerate(excluded)}
        while pending:
            by_width = defaultdict(list)
            for position, width in pending.items():
                by_width[min(width, self.size)].append(position)
            pending = {}
            for width, positions in by_width.items():
                for first in range(0, len(positions), _BATCH):
                    members = positions[first : first + _BATCH]
                    for position, candidates, floor in self._candidates(padded, members, width):
                        found = rank(self._vectors, padded[position], candidates, excluded[position], n)
                        short = len(found.rows) < n  # numbers beyond float32 make faiss lose rows
                        if width < self.size and (short or found.scores[-1] <= floor + slack[position]):
                            pending[position] = 4 * width
                        else:
                            ranked[position] = found
        return gather([ranked[position] for position in range(len(queries))], n)

    def write(self, path: Path) -> None:
        """As `ItemIndex.write` promises."""
        write_faiss(self._flat, path)

    def _candidates(self, padded: Float32, members: list[int], width: int) -> list[tuple[int, Int64, float]]:
        """For each member: its position, `width` rows, and the score that no other row exceeds by more than rounding."""
        if width >= self.size:
            everything = np.arange(self.size)
            return [(position, everything, -np.inf) for position in members]
        with faiss_threads(self._threads):
            scores, rows = self._flat.search(padded[members], width)
        return [(position, rows[at], float(scores[at, -1])) for at, position in enumerate(members)]
