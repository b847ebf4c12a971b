"""Approximate search by Faiss: an inverted file (IVF) with half-precision codes, re-scored in single precision.

Vectors are cut into `nlist` cells; a query looks into the lists of the `nprobe` cells whose centroids it likes best. Codes
are rounded, so more candidates than were asked for are scored once more from the float32 vectors. Inverted files with 8-bit
codes (`ivf_int8`) and with product codes (`pq`) of older bundles are read and searched in the same way.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from recall._arrays import Float32, Int64
from recall.index.base import Effort, Hits, Params, Ranked, SearchQuery, check_asked, gather
from recall.index.bitmap import RowBitmap
from recall.index.coarse import InvertedLists
from recall.index.faiss_io import faiss_threads, selector, write_faiss
from recall.index.topk import pad, rank

REFINE = {"ivf": 1.25, "ivf_int8": 1.5, "pq": 6.0}
"""Kinds that are read, and how many times the results asked for are scored again where their parameters do not say. Only
`ivf` is built: measured on 1,000 to 1,000,000 items, the two others were never the fastest at any recall."""

_SPARE = 16  # scored again at least beyond those asked for, for codes may swap neighbours
_FEW = 0.05  # up to this share of all rows, scoring the eligible ones alone is cheaper, and exact


class IvfIndex:
    """Most of the best rows at a fraction of the cost of a scan; lists cut short by exclusions are filled by looking wider."""

    exact = False

    def __init__(
        self, kind: str, lists: faiss.Index, vectors: Float32, effort: Effort, refine: float | None = None, threads: int = 1
    ) -> None:
        """Wrap an inverted file.

        Args:
            kind: of the codes, a key of `REFINE`.
            lists: faiss index over the vectors, padded or behind a linear map, in the same order.
            vectors: float32 [size, dim], held as given: a memory-mapped array stays on disk.
            effort: how many lists a query looks into.
            refine: how many times the results asked for are scored again; as `REFINE` says when left out.
            threads: threads that faiss may use for one call of `search`.
        """
        self.kind = kind
        self.size, self.dim = vectors.shape
        self.effort = effort
        self.refine = REFINE[kind] if refine is None else refine
        self._lists = lists
        self._inverted, self._turn = _unwrapped(lists)
        self._vectors = vectors
        self._threads = threads

    @classmethod
    def build(cls, lists: InvertedLists) -> "IvfIndex":
        """Fill lists with half-precision codes. A query looks into all of them until `with_effort` says otherwise."""
        return cls("ivf", half_precision_lists(lists), lists.vectors, Effort(lists.count, 1.0, 1))

    def with_effort(self, effort: Effort) -> "IvfIndex":
        """The same lists, looked into as `effort` says."""
        return IvfIndex(self.kind, self._lists, self._vectors, effort, self.refine, self._threads)

    def tuned(self, effort: float, n: int) -> "IvfIndex":
        """As `TunableIndex.tuned` promises: that many lists for n results, and as many for more."""
        return self.with_effort(Effort(int(effort), 0.0, n))

    @property
    def nlist(self) -> int:
        """Number of lists."""
        return int(self._inverted.nlist)

    @property
    def efforts(self) -> range:
        """As `TunableIndex.efforts` promises: from one list to all."""
        return range(1, self.nlist + 1)

    @property
    def params(self) -> Params:
        """`nlist`, for the record, the `Effort`, and how many results are scored again."""
        effort = {"nprobe": self.effort.nprobe, "growth": self.effort.growth, "n": self.effort.n}
        return {"nlist": self.nlist, **effort, "refine": self.refine}

    def search(
        self,
        queries: Float32,
        n: int,
        exclude: Sequence[Int64] | None = None,
        within: Sequence[RowBitmap | None] | None = None,
        *,
        exact: bool = False,
    ) -> Hits:
        """As `ItemIndex.search` promises."""
        asked = check_asked(queries, n, (self.size, self.dim), exclude, within)
        # one by one: a batch gains nothing in lists that differ, and could choose other lists by another rounding
        with faiss_threads(self._threads):
            return gather([self._search_one(one, n, exact) for one in asked], n)

    def write(self, path: Path) -> None:
        """As `ItemIndex.write` promises."""
        write_faiss(self._lists, path)

    def _search_one(self, asked: SearchQuery, n: int, exact: bool) -> Ranked:
        within, excluded = asked.within, asked.excluded
        eligible = self.size if within is None else within.count
        if exact or eligible <= _FEW * self.size:
            return self._scan(asked, n)
        wanted = n + len(excluded)
        width = min(eligible, wanted + max(math.ceil((self.refine - 1) * wanted), _SPARE))
        # as many eligible rows are met as there would be rows without a selection: what is eligible may lie anywhere
        nprobe = min(math.ceil(self.effort.at(wanted) * self.size / eligible), self.nlist)
        chosen = selector(within)
        given = pad(asked.vector[None]) if self._turn is None else (self._turn @ asked.vector)[None]
        while True:
            lists = faiss.SearchParametersIVF()
            lists.nprobe = nprobe
            lists.sel = chosen
            _, rows = self._inverted.search(given, width, params=lists)
            found = rank(self._vectors, asked.vector, rows[0], excluded, n)
            if len(found.rows) == n:
                return found
            if nprobe >= self.nlist:  # all lists together hold every row, but fast scan may drop those it scores lowest
                return found if (rows >= 0).all() else self._scan(asked, n)
            nprobe = min(4 * nprobe, self.nlist)

    def _scan(self, asked: SearchQuery, n: int) -> Ranked:
        rows = np.arange(self.size) if asked.within is None else asked.within.rows
        return rank(self._vectors, asked.vector, rows, asked.excluded, n, exact=True)


def half_precision_lists(lists: InvertedLists) -> faiss.IndexIVF:
    """An inverted file of the padded vectors, with float16 codes of their residuals. bfloat16 was no faster, at 3 bits less."""
    coarse = lists.coarse()
    half = faiss.ScalarQuantizer.QT_fp16
    inverted = faiss.IndexIVFScalarQuantizer(coarse, coarse.d, lists.count, half, faiss.METRIC_INNER_PRODUCT)
    inverted.is_trained = True
    with faiss_threads(1):
        for vectors, cells in lists.chunks():
            padded = pad(vectors)
            inverted.add_core(len(padded), faiss.swig_ptr(padded), None, faiss.swig_ptr(cells))
    return inverted


def _unwrapped(lists: Any) -> tuple[Any, Float32 | None]:
    """The inverted file, and the matrix [d, dim] that a query is multiplied by before it gets there."""
    if not isinstance(lists, faiss.IndexPreTransform):
        return lists, None
    chain: Any = lists.chain  # a vector of C++, which faiss's stubs call a list
    first: Any = faiss.downcast_VectorTransform(chain.at(0))
    return faiss.downcast_index(lists.index), faiss.vector_to_array(first.A).reshape(first.d_out, first.d_in)
