"""Faiss as an engine: exact search for few items, an inverted file (IVF) for many.

Vectors are cut into `nlist` cells; a query looks into the lists of the `nprobe` cells whose centroids it likes best. Codes
are rounded, so more candidates than were asked for are scored once more from the float32 vectors. Inverted files with 8-bit
codes (`ivf_int8`) and with product codes (`pq`) of older bundles are read and searched in the same way.
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
from recall.index.base import Candidate, Engine, ItemIndex, Params, Ranked, TunableIndex, check_vectors
from recall.index.coarse import cut_into_cells, lists_for
from recall.index.flat import ExactIndex, faiss_threads, read_faiss, selector, write_faiss
from recall.index.query import SearchQuery
from recall.index.topk import pad, rank
from recall.index.tuning.recall import GroundTruth, least_param, spread

REFINE = {"ivf": 1.25, "ivf_int8": 1.5, "pq": 6.0}
"""Kinds that are read, and how many times the results asked for are scored again where their parameters do not say. Only
`ivf` is built: measured on 1,000 to 1,000,000 items, the two others were never the fastest at any recall."""

_FOR_LONGER = 64  # queries that show how effort grows with the length of a list: no bound rests on them
_SPARE = 16  # scored again at least beyond those asked for, for codes may swap neighbours
_CHUNK = 1 << 16  # vectors added at once
_LARGEST = 2.0**12  # components are scaled to below this, well inside float16's 65504, before they become codes
_FEW = 0.05  # up to this share of all rows, scoring the eligible ones alone is cheaper, and exact


@dataclass(frozen=True, slots=True)
class Effort:
    """Lists that a query looks into: more for longer results.

    Attributes:
        nprobe: lists for up to `n` results.
        growth: lists grow as this power of the number of results beyond `n`.
        n: number of results that `nprobe` was set for.
    """

    nprobe: int
    growth: float
    n: int

    def at(self, results: int) -> int:
        """Return the lists for this many results, excluded ones included."""
        return math.ceil(self.nprobe * math.pow(max(1.0, results / self.n), self.growth))


class IvfIndex(TunableIndex):
    """Inverted file; lists cut short by exclusions are filled by looking wider."""

    exact = False

    def __init__(
        self, kind: str, lists: faiss.Index, vectors: Float32, effort: Effort, refine: float | None = None, threads: int = 1
    ) -> None:
        """Wrap an inverted file.

        Args:
            kind: of the codes, a key of `REFINE`.
            lists: faiss index over the vectors, padded or behind a linear map, in the same order.
            vectors: float32 [size, dim], not copied: a memory-mapped array stays on disk.
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
    def build(cls, vectors: Float32, queries: Float32, count: int, seed: int, threads: int = 1) -> "IvfIndex":
        """Build an inverted file with half-precision codes; a query looks into all lists.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
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
        return self.with_effort(Effort(int(value), 0.0, n))  # as many lists for longer results

    @override
    def with_short_param(self, value: float, short: int) -> "IvfIndex":
        return self.with_effort(Effort(int(value), self.effort.growth, self.effort.n))  # whatever the length

    @override
    def for_longer_lists(self, vectors: Float32, queries: Float32, n: int, target: float) -> "IvfIndex":
        nprobe, longer = self.effort.nprobe, min(10 * n, len(vectors))
        if longer < 2 * n:
            return self.with_effort(Effort(nprobe, 1.0, n))
        more = GroundTruth.of(vectors, spread(queries, _FOR_LONGER), longer)
        # what these few queries take for short lists, so that like is compared with like
        goal = min(float(GroundTruth.of(vectors, more.queries, n).recalls(self).mean()), target)
        most = least_param(self, more, goal, nprobe - 1)
        return self.with_effort(Effort(nprobe, math.log(most / nprobe) / math.log(longer / n), n))

    def calibrated(self, vectors: Float32, queries: Float32, n: int, target: float) -> "IvfIndex":
        """Return the index with the least effort that reaches a target.

        If none does, it looks into all lists.

        Args:
            vectors: float32 [size, dim], that it was built over.
            queries: float32 [q, dim], at least one, to reach it over.
            n: length of the lists; cut to the number of items.
            target: mean share of the exact list to find.
        """
        truth = GroundTruth.of(vectors, queries, n)
        least = least_param(self, truth, target)
        return self.with_search_param(least, truth.n).for_longer_lists(vectors, truth.queries, truth.n, target)

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
        # one by one: a batch gains nothing in lists that differ, and could choose other lists by another rounding
        with faiss_threads(self._threads):
            return [self._search_one(one, n, exact) for one in queries]

    @override
    def write(self, path: Path) -> bool:
        write_faiss(self._lists, path)
        return True

    def _search_one(self, asked: SearchQuery, n: int, exact: bool) -> Ranked:
        within, excluded = asked.within, asked.excluded
        eligible = self.size if within is None else within.count
        if exact or eligible <= _FEW * self.size:
            return self._scan(asked, n)
        wanted = n + len(excluded)
        width = min(eligible, wanted + max(math.ceil((self.refine - 1) * wanted), _SPARE))
        # so many lists hold as many eligible rows as `nprobe` lists hold rows, wherever the eligible ones are
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
    # inner products with scaled vectors rank the same, and neither overflow nor lose small numbers in 16 bits
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
    """Return the inverted file, and the matrix [d, dim] applied to a query before it."""
    if not isinstance(lists, faiss.IndexPreTransform):
        return lists, None
    chain: Any = lists.chain  # a vector of C++, which faiss's stubs call a list
    first: Any = faiss.downcast_VectorTransform(chain.at(0))
    return faiss.downcast_index(lists.index), faiss.vector_to_array(first.A).reshape(first.d_out, first.d_in)


# The engine.

FaissIndex = TypeVar("FaissIndex", bound=faiss.Index)

_CALIBRATING = 256  # user vectors for which the exact answer is found by brute force
_OTHER_EXPORT = "Index and vectors come from different exports; export again"


@dataclass(frozen=True, slots=True)
class InvertedFile(Candidate):
    """This many lists, with half-precision codes."""

    count: int

    @property
    @override
    def name(self) -> str:
        return f"ivf {self.count}"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> IvfIndex:
        return IvfIndex.build(vectors, queries, self.count, seed, threads)


class FaissEngine(Engine):
    """Indexes of Faiss, in its own files."""

    name = "faiss"
    kinds = ("exact", *REFINE)
    file = "index.faiss"

    @override
    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
        if kind == "exact":
            return ExactIndex.build(vectors)
        index = InvertedFile(lists_for(len(vectors))).build(vectors, queries, seed, threads)
        return index.calibrated(vectors, spread(queries, _CALIBRATING), config.n, config.target)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> ItemIndex:
        assert path is not None  # the registry has refused it
        if kind == "exact":
            flat = _read(path, faiss.IndexFlatIP, vectors)
            index = ExactIndex(flat, vectors.shape[1], float(params["longest"]), threads)
            if not index.holds(vectors):
                raise IndexFileError("the index holds other vectors than the bundle", where=str(path), hint=_OTHER_EXPORT)
            return index
        effort = Effort(int(params["nprobe"]), float(params["growth"]), int(params["n"]))
        lists = _read(path, faiss.IndexPreTransform if kind == "pq" else faiss.IndexIVF, vectors)
        refine = float(params["refine"]) if "refine" in params else None
        return IvfIndex(kind, lists, vectors, effort, refine, threads)

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        lists = lists_for(size)
        few = max(size // 8, 1)  # fewer vectors than that in a list make no list
        return list(dict.fromkeys(InvertedFile(min(count, few)) for count in (2 * lists, lists, 4 * lists)))

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [] if kind == "exact" else [InvertedFile(int(params["nlist"]))]


def _read(path: Path, kind: type[FaissIndex], vectors: Float32) -> FaissIndex:
    """Read an index of one class over certain vectors. Raises IndexFileError."""
    index = read_faiss(path)
    if not isinstance(index, kind):
        raise IndexFileError(f"the file holds a faiss {type(index).__name__}, not a {kind.__name__}", where=str(path))
    within = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    dim = vectors.shape[1] + -vectors.shape[1] % 8
    if (index.ntotal, within.d) != (len(vectors), dim) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise IndexFileError(
            f"the index holds {index.ntotal} vectors of {within.d} numbers, the bundle {len(vectors)} of {dim} after padding",
            where=str(path),
            hint=_OTHER_EXPORT,
        )
    return index
