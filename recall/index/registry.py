"""Building the index that a configuration asks for, and opening the one that a bundle holds."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np

from recall._arrays import Float32, Int32
from recall.config import CHOOSING, IndexConfig
from recall.errors import IndexFileError, did_you_mean
from recall.index.base import Effort, ItemIndex, Params
from recall.index.cells.index import CellIndex
from recall.index.coarse import InvertedLists, lists_for
from recall.index.faiss_io import brute_force, prepare_faiss, read_faiss
from recall.index.flat import ExactIndex
from recall.index.ivf import REFINE, IvfIndex
from recall.index.tuning.recall import calibrate, spread

FaissIndex = TypeVar("FaissIndex", bound=faiss.Index)

_CALIBRATING = 256  # user vectors for which the exact answer is found by brute force
_OTHER_EXPORT = "Index and vectors come from different exports; export again"


def build_index(vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int | None = None) -> ItemIndex:
    """Build the index that `config` asks for, without comparing it with others: `recall.index.tuning` does.

    Args:
        vectors: float32 [items, dim].
        queries: float32 [q, dim], vectors of real users, at least one; an approximate index is fitted to them.
        config: kind, threshold and target; 'auto' and 'faiss' are exact up to the threshold and an inverted file above.
        seed: the same vectors, queries and seed give the same index.
        threads: threads to build with; all cores when left out. A search uses one.

    Raises:
        ExportError: the vectors are not finite.
    """
    prepare_faiss()
    if config.kind == "cells":
        return CellIndex.build(vectors, queries, seed, threads or os.cpu_count() or 1)
    if config.kind == "exact" or (config.kind in CHOOSING and len(vectors) <= config.exact_up_to):
        return ExactIndex.build(vectors)
    lists = InvertedLists.build(vectors, queries, lists_for(len(vectors)), seed, threads or os.cpu_count() or 1)
    return calibrate(IvfIndex.build(lists), vectors, spread(queries, _CALIBRATING), config.n, config.target)


def engine_of(kind: str) -> str:
    """Return the name of the engine that opens an index of a kind, as the manifest records it."""
    return "cells" if kind == "cells" else "faiss"


def open_index(path: Path | None, engine: str, kind: str, params: Params, vectors: Float32, threads: int = 1) -> ItemIndex:
    """Open an index, its file memory-mapped.

    Args:
        path: the file that `ItemIndex.write` wrote; None if the engine keeps no local file, which none of today's does.
        engine: name of the engine.
        kind: the index's `kind`.
        params: the index's `params`.
        vectors: float32 [items, dim], the vectors it was built over.
        threads: threads that one call of `search` may use.

    Raises:
        IndexFileError: the engine is unknown or lacks its file, or the file is unreadable, of another kind, or over other
            vectors.
    """
    prepare_faiss()
    if engine not in _ENGINES:
        raise IndexFileError(
            f"no index engine {engine!r} is known",
            where=str(path) if path is not None else "manifest, index.engine",
            why=f"this version opens {' and '.join(_ENGINES)}",
            hint="Upgrade fm-recall, or make an index of another kind: recall tune-index BUNDLE",
        )
    if path is None:
        raise IndexFileError(
            f"the manifest names no index file, and engine {engine!r} needs one",
            where="manifest, index.file",
            hint="Copy the bundle again, or make another index for it: recall tune-index BUNDLE",
        )
    opener = _OPENERS.get(kind)
    if opener is None or engine_of(kind) != engine:
        hint = did_you_mean(kind, [one for one in _OPENERS if engine_of(one) == engine])
        raise IndexFileError(f"engine {engine!r} has no index of kind {kind!r}", where=str(path), hint=hint)
    return opener(path, params, vectors, threads)


def _open_exact(path: Path, params: Params, vectors: Float32, threads: int) -> ItemIndex:
    flat = _read(path, faiss.IndexFlatIP, vectors)
    index = ExactIndex(flat, vectors.shape[1], float(params["longest"]), threads)
    if not index.holds(vectors):
        raise IndexFileError("the index holds other vectors than the bundle", where=str(path), hint=_OTHER_EXPORT)
    return index


def _open_ivf(kind: str, path: Path, params: Params, vectors: Float32, threads: int) -> ItemIndex:
    effort = Effort(int(params["nprobe"]), float(params["growth"]), int(params["n"]))
    lists = _read(path, faiss.IndexPreTransform if kind == "pq" else faiss.IndexIVF, vectors)
    return IvfIndex(kind, lists, vectors, effort, params.get("refine"), threads)


def _open_cells(path: Path, params: Params, vectors: Float32, _threads: int) -> ItemIndex:
    return CellIndex.open(path, params, vectors)


_OPENERS: dict[str, Callable[[Path, Params, Float32, int], ItemIndex]] = {
    "cells": _open_cells,
    "exact": _open_exact,
    **{kind: partial(_open_ivf, kind) for kind in REFINE},
}

_ENGINES = tuple(dict.fromkeys(map(engine_of, _OPENERS)))


def _read(path: Path, kind: type[FaissIndex], vectors: Float32) -> FaissIndex:
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


# A few questions that an index is asked whenever it is opened: one that was damaged or swapped does not know the answers.

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
