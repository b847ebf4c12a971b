"""Exact search: faiss scans every item."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64
from recall.index.base import ItemIndex, Params, Ranked, check_vectors
from recall.index.bitmap import RowBitmap
from recall.index.faiss_io import faiss_threads, selector, write_faiss
from recall.index.query import SearchQuery
from recall.index.topk import longest_of, pad, rank, rounding

_SPARE = 16  # candidates beyond those needed: room for a tie or two at the end of the list
_BATCH = 512  # queries given to faiss at once
_FEW = 0.05  # up to this share of all rows, scoring the eligible ones alone beats a scan that skips the others


class ExactIndex(ItemIndex):
    """Flat faiss index; a search is widened until all ties at its end are in it."""

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
        """Index item vectors.

        Args:
            vectors: float32 [size, dim].
            threads: threads that one search may use.

        Raises:
            ExportError: The vectors are not finite.
        """
        check_vectors(vectors)
        padded = pad(vectors)
        flat = faiss.IndexFlatIP(padded.shape[1])
        flat.add(padded)
        return cls(flat, vectors.shape[1], longest_of(vectors), threads)

    def holds(self, vectors: Float32) -> bool:
        """Return whether the first, middle and last of some vectors are those indexed.

        This distinguishes two exports of one size.
        """
        rows = [0, self.size // 2, self.size - 1]
        return np.array_equal(self._vectors[rows, : self.dim], vectors[rows])

    @property
    @override
    def params(self) -> Params:
        return {"longest": self._longest}  # which bounds how far rounding can move a score

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        padded = pad(np.stack([one.vector for one in queries]))
        slack = rounding(padded, self._longest)
        ranked: dict[int, Ranked] = {}
        pending = {position: n + len(one.excluded) + _SPARE for position, one in enumerate(queries)}
        while pending:
            found, pending = self._round(queries, padded, pending, n, slack), {}
            for position, one, width in found:
                if one is None:
                    pending[position] = 4 * width
                else:
                    ranked[position] = one
        return [ranked[position] for position in range(len(queries))]

    @override
    def write(self, path: Path) -> bool:
        write_faiss(self._flat, path)
        return True

    def _round(
        self, asked: Sequence[SearchQuery], padded: Float32, widths: dict[int, int], n: int, slack: Float32
    ) -> Iterator[tuple[int, Ranked | None, int]]:
        """Yield each position's list, or None if ties may extend beyond its width."""
        by_search = defaultdict(list)
        for position, width in widths.items():
            within = asked[position].within
            most = self.size if within is None else within.count
            if width >= most or most <= _FEW * self.size:
                rows = np.arange(self.size) if within is None else within.rows
                yield position, rank(self._vectors, padded[position], rows, asked[position].excluded, n, exact=True), width
            else:
                by_search[width, id(within)].append(position)
        for (width, _), positions in by_search.items():
            for first in range(0, len(positions), _BATCH):
                members = positions[first : first + _BATCH]
                scores, rows = self._flat_search(padded[members], width, asked[members[0]].within)
                for at, position in enumerate(members):
                    found = rank(self._vectors, padded[position], rows[at], asked[position].excluded, n, exact=True)
                    short = len(found.rows) < n  # numbers beyond float32 make faiss lose rows
                    tied = short or found.scores[-1] <= scores[at, -1] + slack[position]
                    yield position, None if tied else found, width

    def _flat_search(self, padded: Float32, width: int, within: RowBitmap | None) -> tuple[Float32, Int64]:
        params = faiss.SearchParameters() if within is not None else None
        if params is not None:
            params.sel = selector(within)
        with faiss_threads(self._threads):
            return self._flat.search(padded, width, params=params)
