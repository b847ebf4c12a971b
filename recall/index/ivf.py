"""Approximate search: an inverted file of cells, half-precision codes, and scores in single precision at the end.

Vectors are cut into `nlist` cells; a query looks into the lists of the `nprobe` cells whose centroids it likes best. Codes
are float16, so candidates are scored once more from the float32 vectors.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from recall.features.sparse import Float32, Int64
from recall.index.cells import POINTS, Cells
from recall.index.contract import Asked, Hits, Params, check_asked, check_vectors
from recall.index.engine import faiss_threads, selector, write_faiss
from recall.index.ranking import Ranked, gather, pad, rank
from recall.index.selection import Selection

_CHUNK = 1 << 16  # vectors padded and added at once
_FEW = 0.05  # up to this share of all rows, scoring the eligible ones alone is cheaper, and exact
_LARGEST = 2.0**12  # components are scaled to below this, well inside float16's 65504, before they become codes


@dataclass(frozen=True, slots=True)
class Effort:
    """How many lists a query looks into: more for longer results, for they lie in more lists.

    Attributes:
        nprobe: lists for up to `n` results.
        growth: lists grow as this power of the number of results beyond `n`.
        n: number of results that `nprobe` was set for.
    """

    nprobe: int
    growth: float
    n: int

    def at(self, results: int) -> int:
        """Lists for this many results, excluded ones counted in."""
        return math.ceil(self.nprobe * math.pow(max(1.0, results / self.n), self.growth))


class IvfIndex:
    """Most of the best rows at a fraction of the cost of a scan; lists cut short by exclusions are filled by looking wider."""

    kind = "ivf"
    exact = False

    def __init__(self, inverted: faiss.IndexIVF, vectors: Float32, effort: Effort, threads: int = 1) -> None:
        """Wrap an inverted file.

        Args:
            inverted: faiss index over the padded vectors, in the same order.
            vectors: float32 [size, dim], held as given: a memory-mapped array stays on disk.
            effort: how many lists a query looks into.
            threads: threads that faiss may use for one call of `search`.
        """
        self.size, self.dim = vectors.shape
        self.effort = effort
        self._inverted = inverted
        self._vectors = vectors
        self._threads = threads

    @classmethod
    def build(cls, vectors: Float32, queries: Float32, seed: int, threads: int = 1) -> "IvfIndex":
        """Cut a sample into cells and fill their lists. A query looks into all of them until `with_effort` says otherwise.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
            seed: of the sample and of k-means.
            threads: threads that fill the lists.

        Raises:
            ExportError: the vectors are not finite.
        """
        check_vectors(vectors)
        nlist = lists_for(len(vectors))
        # an inner product with a scaled vector ranks the same, and neither overflows nor loses small numbers in float16
        scale = np.float32(2.0 ** np.floor(np.log2(_LARGEST / max(float(np.abs(vectors).max()), 1e-30))))
        rows = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), nlist * POINTS), replace=False)
        cells = Cells.fit(vectors[np.sort(rows)] * scale, queries, nlist, seed)
        centroids = pad(cells.centroids)
        coarse = faiss.IndexFlatIP(centroids.shape[1])
        coarse.add(centroids)
        inverted = faiss.IndexIVFScalarQuantizer(
            coarse, coarse.d, nlist, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        inverted.is_trained = True  # float16 has nothing to learn
        _fill(inverted, cells, vectors, scale, threads)
        return cls(inverted, vectors, Effort(nlist, 1.0, 1))

    def with_effort(self, effort: Effort) -> "IvfIndex":
        """The same lists, looked into as `effort` says."""
        return IvfIndex(self._inverted, self._vectors, effort, self._threads)

    @property
    def nlist(self) -> int:
        """Number of lists."""
        return int(self._inverted.nlist)

    @property
    def params(self) -> Params:
        """`nlist`, for the record, and the `Effort`."""
        return {"nlist": self.nlist, "nprobe": self.effort.nprobe, "growth": self.effort.growth, "n": self.effort.n}

    def places(self, queries: Float32, rows: Int64) -> Int64:
        """How many lists a query looks into before the one that holds a row: int64 [q, n].

        Args:
            queries: float32 [q, dim].
            rows: int64 [q, n], rows to look for.
        """
        inverted = self._inverted.invlists
        assert inverted is not None  # faiss allows an inverted file without lists; these were built or read with them
        lists = np.empty(self.size, dtype=np.int64)
        for number in range(self.nlist):
            length = inverted.list_size(number)
            if length:
                lists[faiss.rev_swig_ptr(inverted.get_ids(number), length)] = number
        _, order = self._inverted.quantizer.search(pad(queries), self.nlist)
        places = np.argsort(order, axis=1)  # the inverse of each permutation
        return np.take_along_axis(places, lists[rows], axis=1)

    def search(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[Selection | None] | None = None,
        *,
        surely: bool = False,
    ) -> Hits:
        """As `ItemIndex.search` promises."""
        asked = check_asked(queries, n, (self.size, self.dim), exclude, within)
        padded = pad(queries)
        # one by one: a batch gains nothing in lists that differ, and could choose other lists by another rounding
        with faiss_threads(self._threads):
            return gather([self._search_one(one, padded[row], n, surely) for row, one in enumerate(asked)], n)

    def write(self, path: Path) -> None:
        """As `ItemIndex.write` promises."""
        write_faiss(self._inverted, path)

    def _search_one(self, asked: Asked, padded: Float32, n: int, surely: bool) -> Ranked:
        within, excluded = asked.within, asked.excluded
        eligible = self.size if within is None else within.count
        if surely or eligible <= _FEW * self.size:
            rows = np.arange(self.size) if within is None else within.rows
            return rank(self._vectors, asked.vector, rows, excluded, n, exact=True)
        width = min(eligible, n + len(excluded) + max(n // 4, 16))  # spare ones, for float16 may swap neighbours
        # the lists that hold the best n of one row in ten are those that hold the best 10 n of all
        nprobe = min(self.effort.at(math.ceil((n + len(excluded)) * self.size / eligible)), self.nlist)
        chosen = selector(within)
        while True:
            lists = faiss.SearchParametersIVF()
            lists.nprobe = nprobe
            lists.sel = chosen
            _, rows = self._inverted.search(padded[None], width, params=lists)
            found = rank(self._vectors, asked.vector, rows[0], excluded, n)
            if len(found.rows) == n or nprobe >= self.nlist:  # all lists together hold every row
                return found
            nprobe = min(4 * nprobe, self.nlist)


def _fill(inverted: faiss.IndexIVF, cells: Cells, vectors: Float32, scale: np.float32, threads: int) -> None:
    """Put every vector into the list of its cell, in order of rows.

    Chunks find their cells side by side, each in a thread of one: OpenMP's own threads spin while they wait for each
    other, which on a busy machine doubles the work.
    """

    def assigned(first: int) -> tuple[Float32, Int64]:
        scaled = vectors[first : first + _CHUNK] * scale
        return pad(scaled), cells.assign(scaled)

    with ThreadPoolExecutor(threads) as pool:
        for padded, lists in pool.map(assigned, range(0, len(vectors), _CHUNK)):
            with faiss_threads(1):
                inverted.add_core(len(padded), faiss.swig_ptr(padded), None, faiss.swig_ptr(lists))


def lists_for(size: int) -> int:
    """Number of lists for `size` vectors: the power of two next to sqrt(size), with at least 8 vectors for each list.

    Finding the lists of all vectors is most of the work of building, and grows with their number; twice as many would
    make a search over a million items no faster than its fixed costs allow.
    """
    return int(max(1, min(2 ** round(np.log2(np.sqrt(size))), size // 8)))
