"""Faiss as an engine: exact search for few items, an inverted file for many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import faiss
from typing_extensions import override

from recall._arrays import Float32
from recall.config import IndexConfig
from recall.errors import IndexFileError
from recall.index.base import Candidate, Engine, ItemIndex, Params
from recall.index.coarse import InvertedLists, lists_for
from recall.index.faiss_io import read_faiss
from recall.index.flat import ExactIndex
from recall.index.ivf import REFINE, Effort, IvfIndex
from recall.index.tuning.recall import spread

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
        return IvfIndex.build(InvertedLists.build(vectors, queries, self.count, seed, threads))


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
