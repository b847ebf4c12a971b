"""Faiss engine: exact search for few items, an inverted file (IVF) for many.

Vectors are partitioned into `nlist` cells, each with a list of codes; a query scans the lists of the `nprobe` cells with the
best centroids. Codes are rounded, so more candidates than results are scored again with the float32 vectors. Inverted files
with 8-bit codes (`ivf_int8`) and with product codes (`pq`) of older bundles are read and searched in the same way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from typing_extensions import override

from recall._arrays import Float32
from recall.config import IndexConfig
from recall.errors import IndexFileError
from recall.index.base import (
    OTHER_EXPORT_HINT,
    REPLACE_HINT,
    Candidate,
    Engine,
    ItemIndex,
    Params,
    Ranked,
    TunableIndex,
    check_vectors,
)
from recall.index.coarse import cut_into_cells, lists_for
from recall.index.flat import SCAN_SHARE, ExactIndex, faiss_threads, read_faiss, selector, write_faiss
from recall.index.query import SearchQuery
from recall.index.topk import LANES, pad, rank
from recall.index.tuning.recall import GroundTruth, calibrated, least_param, spread

REFINE = {"ivf": 1.25, "ivf_int8": 1.5, "pq": 6.0}
"""Kinds of inverted files, and the candidates that are scored again for each result, unless their parameters override it.
Only `ivf` is built: measured on 1,000 to 1,000,000 items, the two others were never the fastest at any recall."""

_LONGER_QUERIES = 64  # that show how effort grows with the length of a list; no bound depends on them
_SPARE = 16  # candidates beyond the results, at least: rounded codes may swap neighbours
_CHUNK = 1 << 16  # vectors added at once
_LARGEST = 2.0**12  # components are scaled to below this, well within float16's 65504, before they are encoded


@dataclass(frozen=True, slots=True)
class Effort:
    """Number of lists that a query scans, which grows with the number of results.

    Attributes:
        nprobe: lists for up to `n` results.
        growth: beyond `n` results, the lists grow as this power of the number of results.
        n: number of results that `nprobe` was tuned for.
    """

    nprobe: int
    growth: float
    n: int

    def at(self, results: int) -> int:
        """Return the number of lists for a number of results, excluded ones included."""
        return math.ceil(self.nprobe * math.pow(max(1.0, results / self.n), self.growth))


class IvfIndex(TunableIndex):
    """Inverted file; a search widens until exclusions leave enough results."""

    exact = False

    def __init__(
        self, kind: str, lists: faiss.Index, vectors: Float32, effort: Effort, refine: float | None = None, threads: int = 1
    ) -> None:
        """Wrap an inverted file.

        Args:
            kind: of the codes, a key of `REFINE`.
            lists: faiss index over the vectors, padded or behind a linear map, in the same order.
            vectors: float32 [size, dim], not copied: a memory-mapped array stays on disk.
            effort: number of lists that a query scans.
            refine: candidates that are scored again for each result; default: `REFINE`.
            threads: threads that faiss may use for one call of `search`.
        """
        self.kind = kind
        self.size, self.dim = vectors.shape
        self.effort = effort
        self.refine = REFINE[kind] if refine is None else refine
        self._lists = lists
        self._inverted, self._transform = _unwrapped(lists)
        self._vectors = vectors
        self._threads = threads

    @classmethod
    def build(cls, vectors: Float32, queries: Float32, count: int, seed: int, threads: int = 1) -> "IvfIndex":
        """Build an inverted file with half-precision codes; a query scans all lists.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one; the cells are fitted to them.
            count: number of lists, at most `size`.
            seed: seed of k-means.
            threads: threads that assign vectors to lists.

        Raises:
            ExportError: The vectors are not finite.
        """
        return cls("ivf", half_precision_lists(vectors, queries, count, seed, threads), vectors, Effort(count, 1.0, 1))

    def with_effort(self, effort: Effort) -> "IvfIndex":
        """Return the same lists with another effort."""
        return IvfIndex(self.kind, self._lists, self._vectors, effort, self.refine, self._threads)

    @override
    def with_search_param(self, value: float, n: int) -> "IvfIndex":
        return self.with_effort(Effort(int(value), 0.0, n))  # the same for longer lists, until `for_longer_lists`

    @override
    def with_short_param(self, value: float, short: int) -> "IvfIndex":
        return self.with_effort(Effort(int(value), self.effort.growth, self.effort.n))  # for all lengths up to n

    @override
    def for_longer_lists(self, vectors: Float32, queries: Float32, n: int, target: float) -> "IvfIndex":
        nprobe, longer = self.effort.nprobe, min(10 * n, len(vectors))
        if longer < 2 * n:
            return self.with_effort(Effort(nprobe, 1.0, n))
        more = GroundTruth.of(vectors, spread(queries, _LONGER_QUERIES), longer)
        # the recall of the same few queries with lists of n
        goal = min(float(GroundTruth.of(vectors, more.queries, n).recalls(self).mean()), target)
        most = least_param(self, more, goal, nprobe - 1)
        return self.with_effort(Effort(nprobe, math.log(most / nprobe) / math.log(longer / n), n))

    @property
    def nlist(self) -> int:
        """Number of lists."""
        return int(self._inverted.nlist)

    @property
    @override
    def param_grid(self) -> range:
        return range(1, self.nlist + 1)

    @property
    @override
    def params(self) -> Params:
        effort = {"nprobe": self.effort.nprobe, "growth": self.effort.growth, "n": self.effort.n}
        return {"nlist": self.nlist, **effort, "refine": self.refine}

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        # one by one: queries scan different lists, so a batch is not faster, and its rounding could choose other lists
        with faiss_threads(self._threads):
            return [self._search_one(one, n, exact) for one in queries]

    @override
    def write(self, path: Path) -> bool:
        write_faiss(self._lists, path)
        return True

    def _search_one(self, query: SearchQuery, n: int, exact: bool) -> Ranked:
        within, excluded = query.within, query.excluded
        eligible = self.size if within is None else within.count
        if exact or eligible <= SCAN_SHARE * self.size:
            return self._scan(query, n)
        wanted = n + len(excluded)
        width = min(eligible, wanted + max(math.ceil((self.refine - 1) * wanted), _SPARE))
        # this many lists have on average as many eligible rows as `effort` lists have rows
        nprobe = min(math.ceil(self.effort.at(wanted) * self.size / eligible), self.nlist)
        selected = selector(within)
        vector = pad(query.vector[None]) if self._transform is None else (self._transform @ query.vector)[None]
        while True:
            params = faiss.SearchParametersIVF()
            params.nprobe = nprobe
            params.sel = selected
            _, rows = self._inverted.search(vector, width, params=params)
            found = rank(self._vectors, query.vector, rows[0], excluded, n)
            if len(found.rows) == n:
                return found
            if nprobe >= self.nlist:  # all lists together have every row, but faiss's fast scan may drop the lowest scores
                return found if (rows >= 0).all() else self._scan(query, n)
            nprobe = min(4 * nprobe, self.nlist)

    def _scan(self, query: SearchQuery, n: int) -> Ranked:
        rows = np.arange(self.size) if query.within is None else query.within.rows
        return rank(self._vectors, query.vector, rows, query.excluded, n, exact=True)


def half_precision_lists(vectors: Float32, queries: Float32, count: int, seed: int, threads: int) -> faiss.IndexIVF:
    """Build an inverted file with float16 codes of the residuals.

    bfloat16 was not faster when measured, with 3 bits less.

    Args:
        vectors: float32 [size, dim].
        queries: float32 [q, dim], vectors of real users, at least one.
        count: number of lists, at most `size`.
        seed: seed of k-means.
        threads: threads that assign vectors to lists.

    Raises:
        ExportError: The vectors are not finite.
    """
    check_vectors(vectors)
    # scaling does not change the ranking; in 16 bits, scaled numbers neither overflow nor vanish
    scale = np.float32(2.0 ** np.floor(np.log2(_LARGEST / max(float(np.abs(vectors).max()), 1e-30))))
    centroids, cells = cut_into_cells(vectors, float(scale), queries, count, seed, threads)
    padded = pad(centroids)
    coarse = faiss.IndexFlatIP(padded.shape[1])
    coarse.add(padded)
    half = faiss.ScalarQuantizer.QT_fp16
    inverted = faiss.IndexIVFScalarQuantizer(coarse, coarse.d, count, half, faiss.METRIC_INNER_PRODUCT)
    inverted.is_trained = True
    with faiss_threads(1):
        for first in range(0, len(vectors), _CHUNK):
            padded, chunk = pad(vectors[first : first + _CHUNK] * scale), cells[first : first + _CHUNK]
            inverted.add_core(len(padded), faiss.swig_ptr(padded), None, faiss.swig_ptr(chunk))
    return inverted


def _unwrapped(lists: Any) -> tuple[Any, Float32 | None]:
    """Return the inverted file, and the matrix [d, dim] that transforms a query."""
    if not isinstance(lists, faiss.IndexPreTransform):
        return lists, None
    chain: Any = lists.chain  # a C++ vector, which faiss's stubs type as a list
    first: Any = faiss.downcast_VectorTransform(chain.at(0))
    return faiss.downcast_index(lists.index), faiss.vector_to_array(first.A).reshape(first.d_out, first.d_in)


FaissIndex = TypeVar("FaissIndex", bound=faiss.Index)


@dataclass(frozen=True, slots=True)
class InvertedFile(Candidate):
    """Candidate: an inverted file with half-precision codes.

    Attributes:
        count: number of lists.
    """

    count: int

    @property
    @override
    def name(self) -> str:
        return f"ivf {self.count}"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> IvfIndex:
        return IvfIndex.build(vectors, queries, self.count, seed, threads)


class FaissEngine(Engine):
    """Indexes of Faiss, stored in Faiss's files."""

    name = "faiss"
    kinds = ("exact", *REFINE)
    file = "index.faiss"

    @override
    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
        if kind == "exact":
            return ExactIndex.build(vectors)
        index = InvertedFile(lists_for(len(vectors))).build(vectors, queries, seed, threads)
        return calibrated(index, vectors, queries, config)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> ItemIndex:
        assert path is not None  # checked by the registry
        if kind == "exact":
            flat = _read(path, faiss.IndexFlatIP, vectors)
            index = ExactIndex(flat, vectors.shape[1], float(params["longest"]), threads)
            if not index.holds(vectors):
                raise IndexFileError("the index holds other vectors than the bundle", where=str(path), hint=OTHER_EXPORT_HINT)
            return index
        effort = Effort(int(params["nprobe"]), float(params["growth"]), int(params["n"]))
        lists = _read(path, faiss.IndexPreTransform if kind == "pq" else faiss.IndexIVF, vectors)
        refine = float(params["refine"]) if "refine" in params else None
        return IvfIndex(kind, lists, vectors, effort, refine, threads)

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        lists = lists_for(size)
        most = max(size // 8, 1)  # lists of fewer than 8 vectors on average are not worth their overhead
        return list(dict.fromkeys(InvertedFile(min(count, most)) for count in (2 * lists, lists, 4 * lists)))

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [] if kind == "exact" else [InvertedFile(int(params["nlist"]))]


def _read(path: Path, kind: type[FaissIndex], vectors: Float32) -> FaissIndex:
    """Read an index of a class over float32 [size, dim]. Raises IndexFileError."""
    index = read_faiss(path)
    if not isinstance(index, kind):
        what = f"the file must hold a faiss {kind.__name__}, got {type(index).__name__}"
        raise IndexFileError(what, where=str(path), hint=REPLACE_HINT)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    dim = vectors.shape[1] + -vectors.shape[1] % LANES
    if (index.ntotal, inner.d) != (len(vectors), dim) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise IndexFileError(
            f"the index holds {index.ntotal} vectors of {inner.d} numbers, the bundle {len(vectors)} of {dim} after padding",
            where=str(path),
            hint=OTHER_EXPORT_HINT,
        )
    return index
