"""Faiss: its files and settings, and exact search by a scan of all items."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64
from recall.errors import IndexFileError
from recall.index.base import REPLACE_HINT, ItemIndex, Params, Ranked, check_vectors
from recall.index.bitmap import RowBitmap
from recall.index.query import SearchQuery
from recall.index.topk import longest_of, pad, rank, rounding, scan

SCAN_SHARE = 0.05
"""Share of all rows up to which scoring the eligible rows alone is faster than a search that skips the others, and exact."""

_BLAS_FROM = 800  # queries x dim from which faiss multiplies matrices; its default, 128000, makes batches 6 to 8 times slower
_READING = Lock()  # the limit set in read_faiss belongs to the whole process
_SPARE = 16  # candidates beyond those needed, for ties at the end of the list
_BATCH = 512  # queries passed to faiss at once


def prepare_faiss() -> None:
    """Set the settings of faiss that belong to the whole process."""
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let faiss use `count` threads for calls from this thread.

    OpenMP keeps the number for each calling thread and may share it with torch, so it is restored afterwards.
    """
    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(usual)


def brute_force(vectors: Float32, queries: Float32, n: int) -> tuple[Float32, Int64]:
    """Return the n largest inner products of each query and their rows, by a scan.

    Args:
        vectors: float32 [size, dim].
        queries: float32 [q, dim].
        n: at most size.

    Returns:
        Scores float32 [q, n] and rows int64 [q, n].
    """
    with faiss_threads(1):  # one matrix product at a time is fast; a second thread mostly waits for the first
        return faiss.knn(np.ascontiguousarray(queries), np.ascontiguousarray(vectors), n, metric=faiss.METRIC_INNER_PRODUCT)


def selector(within: RowBitmap | None) -> Any:
    """Return a bitmap as `sel` of faiss's search parameters.

    Faiss does not hold a reference to the bits: keep the bitmap alive during the search.
    """
    if within is None:
        return None
    return faiss.IDSelectorBitmap(within.size, faiss.swig_ptr(within.bits))


def write_faiss(index: faiss.Index, path: Path) -> None:
    """Write an index to a new file.

    Args:
        index: any index of faiss.
        path: the file.

    Raises:
        IndexFileError: The file cannot be written.
    """
    try:
        faiss.write_index(index, os.fspath(path))
    except RuntimeError as error:
        raise IndexFileError("the index could not be written", where=str(path), why=_reason(error)) from None


def write_flat(path: Path, parts: Iterable[Float32], dim: int) -> None:
    """Write an inner-product index of vectors to a new file. Raises IndexFileError.

    Args:
        path: the file.
        parts: the vectors in order, in parts of float32 [m, dim].
        dim: length of a vector.
    """
    flat = faiss.IndexFlatIP(dim)
    for part in parts:
        flat.add(np.ascontiguousarray(part))
    write_faiss(flat, path)


def read_faiss(path: Path) -> faiss.Index:
    """Memory-map an index, one copy for all processes.

    Raises:
        IndexFileError: The file cannot be read.
    """
    with _READING:
        usual = faiss.get_deserialization_vector_byte_limit()
        try:
            # an array cannot be longer than its file: faiss refuses such a header before it allocates memory
            faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, 1))
            return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, OSError) as error:
            raise IndexFileError("the index cannot be read", where=str(path), why=_reason(error), hint=REPLACE_HINT) from None
        finally:
            faiss.set_deserialization_vector_byte_limit(usual)


def _reason(error: Exception) -> str:
    """Return the message of an error of faiss, without the C++ file and line."""
    text = str(error).strip()
    return text.rpartition("Error: ")[2] or text


class ExactIndex(ItemIndex):
    """Exact index: a flat faiss index; its results are scored again."""

    kind = "exact"
    exact = True

    def __init__(self, flat: faiss.IndexFlatIP, dim: int, longest: float, threads: int = 1) -> None:
        """Wrap a flat faiss index over padded vectors.

        Args:
            flat: index over float32 [size, dim padded to a multiple of 8].
            dim: length of a vector before padding.
            longest: largest Euclidean length of a vector.
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
        """Return whether the first, middle and last of float32 [size, dim] are indexed.

        This distinguishes two exports of the same size.
        """
        rows = [0, self.size // 2, self.size - 1]
        return np.array_equal(self._vectors[rows, : self.dim], vectors[rows])

    @property
    @override
    def params(self) -> Params:
        return {"longest": self._longest}  # bounds the rounding of scores

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        ranked: dict[int, Ranked] = {}
        batches = defaultdict(list)
        for position, query in enumerate(queries):
            width = n + len(query.excluded) + _SPARE
            eligible = self.size if query.within is None else query.within.count
            if width >= eligible or eligible <= SCAN_SHARE * self.size:
                ranked[position] = self._scan(query, n)
            else:
                batches[width, id(query.within)].append(position)
        for (width, _), positions in batches.items():
            for first in range(0, len(positions), _BATCH):
                members = positions[first : first + _BATCH]
                found = self._find_together([queries[position] for position in members], n, width)
                ranked |= zip(members, found, strict=True)
        return [ranked[position] for position in range(len(queries))]

    @override
    def write(self, path: Path) -> bool:
        write_faiss(self._flat, path)
        return True

    def _find_together(self, queries: Sequence[SearchQuery], n: int, width: int) -> list[Ranked]:
        """Answer queries that share a filter from the `width` best rows that faiss finds.

        If rows beyond these may tie with a result, the query is answered by a scan.
        """
        padded = pad(np.stack([query.vector for query in queries]))
        within = queries[0].within
        params: Any = None if within is None else faiss.SearchParameters()
        if within is not None:
            params.sel = selector(within)
        with faiss_threads(self._threads):
            scores, rows = self._flat.search(padded, width, params=params)
        found = []
        for query, candidates, lowest, slack in zip(queries, rows, scores[:, -1], rounding(padded, self._longest), strict=True):
            ranked = rank(self._vectors, query.vector, candidates, query.excluded, n, exact=True)
            whole = len(ranked.rows) == n and ranked.scores[-1] > lowest + slack  # faiss loses rows if scores overflow
            found.append(ranked if whole else self._scan(query, n))
        return found

    def _scan(self, query: SearchQuery, n: int) -> Ranked:
        padded = pad(query.vector[None])[0]
        return scan(self._vectors, padded, n, self._longest, within=query.within, excluded=query.excluded)
