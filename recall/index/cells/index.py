"""Index over eight-bit codes in cells; its recall is a parameter of the search.

A query looks into cells in the order of what their best item is taken to score: the score of the centre plus `effort` times
the spread of the cell. It stops when no cell left promises more than the n-th best item found so far. So every query looks
as far as it needs to: further for long lists and where a filter leaves few items, without a number of cells to set. With a
bound that always holds, that of Cauchy and Schwarz with the cell's radius, the answer is exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64, UInt8
from recall._cache import Cache
from recall._tensors import map_tensors, write_tensors
from recall.config import IndexConfig
from recall.errors import BundleError, IndexFileError, raising
from recall.index.base import Candidate, Engine, Params, Ranked, TunableIndex, check_vectors
from recall.index.bitmap import RowBitmap
from recall.index.cells.quantize import LANES, Codes, ErrorBounds, FilteredCodes, pack
from recall.index.coarse import cells_for
from recall.index.query import SearchQuery
from recall.index.topk import rank

# Codes of a filter's rows alone, for filters that come again.

_MOST = 4096  # selections


class FilteredCodesCache:
    """LRU cache of the codes of bitmaps, which are packed at their second use.

    A bitmap that is used once, such as one user's list, is not worth the pass over all rows that packing takes.
    """

    def __init__(self, pack: Callable[[RowBitmap], FilteredCodes], budget: int) -> None:
        """`pack` does the work; at most about `budget` bytes are kept."""
        self._pack = pack
        self._budget = budget
        self._met: WeakKeyDictionary[RowBitmap, None] = WeakKeyDictionary()
        self._kept: Cache[ref[RowBitmap], FilteredCodes] = Cache(_MOST, budget, lambda _, packed: packed.nbytes)
        self._lock = Lock()

    def of(self, selection: RowBitmap) -> FilteredCodes | None:
        """Return the packed rows, or None at the first use of a bitmap."""
        key = ref(selection, self._kept.discard)
        found = self._kept.get(key)
        if found is not None:
            return found
        with self._lock:
            if selection not in self._met:
                self._met[selection] = None
                return None
        packed = self._pack(selection)
        return self._kept.setdefault(key, packed) if packed.nbytes <= self._budget else packed


CERTAIN = 3e38
"""The effort at which a cell's bound is its radius, and the answer exact."""

_EFFORTS = tuple(step / 32 for step in range(1, 257))
_FEW = 512  # eligible rows, and as many for each result, that are scored one by one
_NARROW = 0.2  # share of the rows up to which a filter that comes again is worth codes of its own,
_NARROW_ROWS = 1 << 16  # or so many rows: scanning all of them is faster than choosing cells among those without;
_BUDGET = 64 << 20  # bytes for such codes, of which one filter may take a quarter
_CHUNK = 256  # blocks that a batch scans before the next query: they stay in the second-level cache
_EVERYTHING: UInt8 = np.empty(0, dtype=np.uint8)
_OTHER_EXPORT = "Index and vectors come from different exports; export again"


class CellIndex(TunableIndex):
    """Codes in cells; candidates are scored in float32 at the end."""

    kind = "cells"

    def __init__(self, codes: Codes, vectors: Float32, effort: float, n: int = 1, shorter: float = 0.0) -> None:
        """Wrap packed codes.

        Args:
            codes: of the vectors.
            vectors: float32 [size, dim], not copied: a memory-mapped array stays on disk.
            effort: assumed distance of a cell's best item beyond its centre, in spreads; CERTAIN for exact search.
            n: length of the lists that the effort is for. Longer ones look further by themselves, because their last item
                scores less; for shorter ones, which end among the first cells,
            shorter: is added to the effort for each time that the length is divided by e.
        """
        from recall.index.cells import kernels  # numba takes half a second to import

        self.size, self.dim = vectors.shape
        self.effort = effort
        self.n = n
        self.shorter = shorter
        self.codes = codes
        self._vectors = vectors
        self._kernels = kernels
        limits = codes.limits
        self._usual = [self._limit_of(effort + shorter * math.log(n / length)) for length in range(1, n + 1)]
        self._limits = tuple(np.float32(one) for one in (limits.rho, limits.reach, limits.rounding))
        cells = (codes.starts, codes.centres, codes.centre_scales, codes.spreads, codes.radii)
        self._all: tuple[Any, ...] = (codes.codes, codes.scales, codes.rows, *cells)
        # not a method of this object, which would then live until a collector finds the circle, and its files with it
        of_row = codes.codes[0].nbytes // LANES + 8
        self._narrow = min(max(_NARROW * self.size, _NARROW_ROWS), _BUDGET // 4 // of_row)
        self._narrowing = FilteredCodesCache(partial(_narrowed, kernels, codes), _BUDGET)

    @classmethod
    def build(cls, vectors: Float32, queries: Float32, seed: int, threads: int = 1, cells: int | None = None) -> "CellIndex":
        """Cut vectors into cells; the index is exact until `with_effort` says otherwise.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
            seed: of the rotation, the sample and k-means.
            threads: that work side by side.
            cells: how many; `cells_for` when left out.

        Raises:
            ExportError: the vectors are not finite.
        """
        check_vectors(vectors)
        return cls(pack(vectors, queries, cells or cells_for(len(vectors)), seed, threads), vectors, CERTAIN)

    def with_effort(self, effort: float, n: int = 1, shorter: float = 0.0) -> "CellIndex":
        """Return the same cells with another effort.

        Args:
            effort: for lists of n.
            n: length of the lists that it is for.
            shorter: added to it for shorter lists, as for the constructor.
        """
        return CellIndex(self.codes, self._vectors, effort, n, shorter)

    @property
    @override
    def param_grid(self) -> tuple[float, ...]:
        return _EFFORTS  # from a cell's centre to so far beyond it that almost nothing is missed

    @override
    def with_search_param(self, value: float, n: int) -> "CellIndex":
        return self.with_effort(value, n)

    @override
    def with_short_param(self, value: float, short: int) -> "CellIndex":
        return self.with_effort(self.effort, self.n, (value - self.effort) / math.log(self.n / short))

    @property
    @override
    def exact(self) -> bool:
        return self.effort >= CERTAIN

    @property
    @override
    def params(self) -> Params:
        limits = self.codes.limits
        return {
            "effort": self.effort,
            "n": self.n,
            "shorter": self.shorter,
            "rho": limits.rho,
            "reach": limits.reach,
            "rounding": limits.rounding,
            "magnitude": self.codes.magnitude,
            "cells": self.codes.cells,
            "blocks": len(self.codes.codes),
        }

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        wanted, effort = min(n, self.size), CERTAIN if exact else self.effort
        if effort >= CERTAIN and len(queries) > 1 and all(one.within is None for one in queries):
            return self._search_together(queries, wanted)
        return [self._search_one(one, wanted, effort) for one in queries]

    def moments(self) -> Float32:
        """Return float32 [dim, dim] with the fitted queries' moments, but for a factor."""
        back = self.codes.basis[:, : self.dim].astype(np.float64)
        return np.linalg.cholesky(np.linalg.inv(back @ back.T)).T.astype(np.float32)

    def looked_at(self, query: Float32, n: int) -> tuple[int, int]:
        """Count the work of one search.

        Args:
            query: float32 [dim].
            n: length of the list.

        Returns:
            Cells scanned and items scanned.
        """
        _, _, cells, items = self._search(query, n, self._all, _EVERYTHING, np.empty(0, dtype=np.int64), self.effort)
        return cells, items

    @override
    def write(self, path: Path) -> bool:
        # safetensors raises its own errors and the file system's
        with raising(IndexFileError, "the index could not be written", where=str(path), of=Exception):
            write_tensors(path, {name: getattr(self.codes, name) for name in (*_FLOATS, *_INTS)})
        return True

    @classmethod
    def open(cls, path: Path, params: Params, vectors: Float32) -> "CellIndex":
        """Memory-map a file that `write` wrote.

        Args:
            path: the file.
            params: of the index that wrote it.
            vectors: float32 [size, dim], that it was built over.

        Raises:
            IndexFileError: The file is of another kind, damaged, or over other vectors.
        """
        dim = vectors.shape[1]
        cells, blocks, groups = int(params["cells"]), int(params["blocks"]), -(-dim // 4)
        cell_blocks = 2 * -(-cells // (2 * LANES))
        floats = {"basis": (dim, 4 * groups), "scales": (LANES * blocks,)}
        floats |= dict.fromkeys(("centre_scales", "spreads", "radii"), (LANES * cell_blocks,))
        ints = {"codes": (blocks, groups, LANES), "rows": (LANES * blocks,), "starts": (cells + 1,)}
        ints["centres"] = (cell_blocks, groups, LANES)
        with raising(IndexFileError, "the index cannot be read", where=str(path), hint=_OTHER_EXPORT, of=BundleError):
            arrays = map_tensors(path, floats, ints)
        limits = ErrorBounds(float(params["rho"]), float(params["reach"]), float(params["rounding"]))
        codes = Codes(**arrays, limits=limits, magnitude=float(params["magnitude"]))
        effort, n, shorter = float(params["effort"]), int(params.get("n", 1)), float(params.get("shorter", 0.0))
        index = cls(codes, vectors, effort, n, shorter)  # bundles of before have one effort for all lengths
        index._check(path)
        return index

    def _search_one(self, asked: SearchQuery, n: int, effort: float) -> Ranked:
        within, excluded = asked.within, asked.excluded
        if within is None:
            return self._ranked(asked, n, self._all, _EVERYTHING, effort)
        if within.count <= _FEW + n:
            return rank(self._vectors, asked.vector, within.rows, excluded, n, exact=True)
        if within.count <= self._narrow:
            narrow = self._narrowing.of(within)
            if narrow is not None:
                return self._ranked(asked, n, _alone(narrow), _EVERYTHING, CERTAIN)
        return self._ranked(asked, n, self._all, within.bits, effort)

    def _ranked(self, asked: SearchQuery, n: int, of: tuple[Any, ...], bits: UInt8, effort: float) -> Ranked:
        rows, scores, _, _ = self._search(asked.vector, n, of, bits, asked.excluded, effort)
        return Ranked(rows, scores, effort >= CERTAIN)

    def _search(self, query: Float32, n: int, of: tuple[Any, ...], bits: UInt8, excluded: Int64, effort: float) -> Any:
        limit = self._usual[min(n, self.n) - 1] if effort == self.effort else self._limit_of(effort)
        return self._kernels.search(query, n, self.codes.basis, *of, self._vectors, bits, excluded, limit, self._limits)

    def _limit_of(self, effort: float) -> np.float32:
        """Scale an effort from a query as long as the users' to one of length 1."""
        return np.float32(min(effort / np.sqrt(self.dim), CERTAIN))

    def _search_together(self, asked: Sequence[SearchQuery], n: int) -> list[Ranked]:
        ends = np.concatenate([[0], np.cumsum([len(one.excluded) for one in asked])])
        codes = self.codes
        rows, scores, done = self._kernels.search_together(
            np.stack([one.vector for one in asked]),
            n,
            codes.basis,
            codes.codes,
            codes.scales,
            codes.rows,
            self._vectors,
            np.concatenate([one.excluded for one in asked]),
            ends,
            self._limits,
            _CHUNK,
        )
        ranked = []
        for at, one in enumerate(asked):
            if done[at]:
                found = rows[at] >= 0
                ranked.append(Ranked(rows[at][found], scores[at][found], True))
            else:
                ranked.append(self._search_one(one, n, CERTAIN))
        return ranked

    def _check(self, path: Path) -> None:
        """Raise IndexFileError unless the codes of a few items fit their vectors."""
        codes = self.codes
        of_blocks = codes.rows.reshape(-1, LANES)
        last = codes.starts[1:][np.diff(codes.starts) > 0] - 1  # of a cell: the only block that may not be full
        if int(codes.starts[-1]) != len(of_blocks) - 1 or not len(last):
            raise IndexFileError("the cells do not end where the codes end", where=str(path), hint=_OTHER_EXPORT)
        filled = LANES * (len(of_blocks) - 1 - len(last)) + int(np.count_nonzero(of_blocks[last] >= 0))
        if filled != self.size:
            raise IndexFileError(
                f"the index holds {filled} vectors, the bundle {self.size}", where=str(path), hint=_OTHER_EXPORT
            )
        blocks = len(of_blocks) - 1  # the one after them is empty, and none of them is
        for block in (0, blocks // 2, blocks - 1):
            row = int(of_blocks[block, 0])
            if not 0 <= row < self.size:
                raise IndexFileError(f"the index names row {row} of {self.size}", where=str(path), hint=_OTHER_EXPORT)
            vector = self._vectors[row].astype(np.float64)
            turned = vector @ codes.basis
            code = codes.codes[block, :, 0].copy().view(np.uint8).astype(np.float64) - 128
            scale = float(codes.scales[LANES * block]) * codes.magnitude
            allowed = scale * float(np.linalg.norm(turned)) * (codes.limits.rho + codes.limits.rounding)
            if abs(scale * float(code @ turned) - float(vector @ vector)) > allowed:
                raise IndexFileError("the index holds other vectors than the bundle", where=str(path), hint=_OTHER_EXPORT)


_FLOATS = ("basis", "scales", "centre_scales", "spreads", "radii")
_INTS = ("codes", "rows", "starts", "centres")


def _narrowed(kernels: Any, codes: Codes, selection: RowBitmap) -> FilteredCodes:
    return FilteredCodes(*kernels.narrowed(codes.codes, codes.scales, codes.rows, selection.bits, selection.count))


def _alone(narrow: FilteredCodes) -> tuple[Any, ...]:
    """Return all blocks as one cell that is always scanned."""
    groups = narrow.codes.shape[1]
    starts = np.array([0, len(narrow.codes) - 1], dtype=np.int32)
    spreads, radii = np.zeros(2 * LANES, dtype=np.float32), np.full(2 * LANES, -np.inf, dtype=np.float32)
    spreads[0], radii[0] = 1.0, CERTAIN
    centre = np.zeros((2, groups, LANES), dtype=np.int32)
    return narrow.codes, narrow.scales, narrow.rows, starts, centre, np.zeros(2 * LANES, dtype=np.float32), spreads, radii


@dataclass(frozen=True, slots=True)
class CellCodes(Candidate):
    """Eight-bit codes in this many cells, with bounds."""

    count: int

    @property
    @override
    def name(self) -> str:
        return f"cells {self.count}"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> CellIndex:
        return CellIndex.build(vectors, queries, seed, threads, self.count)


class CellsEngine(Engine):
    """This project's own index."""

    name = "cells"
    kinds = ("cells",)
    file = "cells.safetensors"

    @override
    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> CellIndex:
        return CellIndex.build(vectors, queries, seed, threads)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> CellIndex:
        assert path is not None  # the registry has refused it
        return CellIndex.open(path, params, vectors)

    @override
    def candidates(self, size: int) -> list[CellCodes]:
        cells = cells_for(size)
        few = max(size // 8, 1)  # fewer vectors than that in a cell make no cell
        return [CellCodes(cells), CellCodes(min(2 * cells, few)), CellCodes(max(cells // 2, 1))]

    @override
    def like(self, kind: str, params: Params) -> list[CellCodes]:
        return [CellCodes(int(params["cells"]))] if float(params["effort"]) < CERTAIN else []
