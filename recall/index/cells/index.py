"""Index of eight-bit codes in cells, for approximate and exact search.

A query scans cells in the order of the assumed score of their best item: the score of the centre plus `effort` times the
spread of the cell. It stops when no other cell is assumed to have an item above the n-th best found so far. So a query scans
more cells for a long list, or if a filter leaves few items, without a fixed number of cells. With a bound that always holds,
by Cauchy and Schwarz from the cell's radius, the answer is exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet, ref

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64, UInt8
from recall._cache import Cache
from recall._tensors import map_tensors, write_tensors
from recall.config import IndexConfig
from recall.errors import BundleError, IndexFileError, raising
from recall.index.base import OTHER_EXPORT_HINT, REPLACE_HINT, Candidate, Engine, Params, Ranked, TunableIndex, check_vectors
from recall.index.bitmap import RowBitmap
from recall.index.cells.quantize import LANES, Codes, ErrorBounds, FilteredCodes, pack
from recall.index.coarse import cells_for
from recall.index.query import SearchQuery
from recall.index.topk import rank

_MAX_CACHED = 4096  # bitmaps


class FilteredCodesCache:
    """LRU cache of the codes of the rows of bitmaps, packed at their second use.

    Packing takes a pass over all rows, which is not worth it for a bitmap that is used once, such as one user's allow list.
    """

    def __init__(self, pack: Callable[[RowBitmap], FilteredCodes], budget: int) -> None:
        """Create an empty cache.

        Args:
            pack: packs the codes of a bitmap.
            budget: maximum bytes of all codes together.
        """
        self._pack = pack
        self._budget = budget
        self._used_once: WeakSet[RowBitmap] = WeakSet()
        self._packed: Cache[ref[RowBitmap], FilteredCodes] = Cache(_MAX_CACHED, budget, lambda _, packed: packed.nbytes)
        self._lock = Lock()

    def of(self, bitmap: RowBitmap) -> FilteredCodes | None:
        """Return the packed codes; None at the first use of a bitmap."""
        key = ref(bitmap, self._packed.discard)
        found = self._packed.get(key)
        if found is not None:
            return found
        with self._lock:
            if bitmap not in self._used_once:
                self._used_once.add(bitmap)
                return None
        packed = self._pack(bitmap)
        return self._packed.setdefault(key, packed) if packed.nbytes <= self._budget else packed


CERTAIN = 3e38
"""The effort of an exact search: the bound of a cell is that of its radius."""

_EFFORTS = tuple(step / 32 for step in range(1, 257))
_FEW = 512  # eligible rows beyond n, up to which all are scored one by one
# Codes of a filter are packed if it leaves at most this share of the rows, or this many rows: a scan of the packed codes is
# then faster than a search of the cells.
_PACKED_SHARE = 0.2
_PACKED_ROWS = 1 << 16
_BUDGET = 64 << 20  # bytes of packed codes, of which one filter may take a quarter
_CHUNK = 256  # blocks that a batch scans for one query before the next: they stay in the second-level cache
_ALL_ROWS: UInt8 = np.empty(0, dtype=np.uint8)  # for the kernels


class CellIndex(TunableIndex):
    """Codes in cells; the candidates that they leave are scored in float32."""

    kind = "cells"

    def __init__(self, codes: Codes, vectors: Float32, effort: float, n: int = 1, shorter: float = 0.0) -> None:
        """Wrap packed codes.

        Args:
            codes: of the vectors.
            vectors: float32 [size, dim], not copied: a memory-mapped array stays on disk.
            effort: assumed distance of a cell's best item beyond its centre, in spreads; CERTAIN for exact search.
            n: length of the lists that the effort was tuned for. Longer lists need no more: their last item scores less, so
                that more cells are scanned.
            shorter: added to the effort for each factor of e by which a list is shorter than n.
        """
        from recall.index.cells import kernels  # imported here: numba takes half a second

        self.size, self.dim = vectors.shape
        self.effort = effort
        self.n = n
        self.shorter = shorter
        self.codes = codes
        self._vectors = vectors
        self._kernels = kernels
        limits = codes.limits
        self._scaled_efforts = [self._scaled(effort + shorter * math.log(n / length)) for length in range(1, n + 1)]
        self._limits = tuple(np.float32(one) for one in (limits.rho, limits.reach, limits.rounding))
        cells = (codes.starts, codes.centres, codes.centre_scales, codes.spreads, codes.radii)
        self._all: tuple[Any, ...] = (codes.codes, codes.scales, codes.rows, *cells)
        row_bytes = codes.codes[0].nbytes // LANES + 8
        self._max_packed = min(max(_PACKED_SHARE * self.size, _PACKED_ROWS), _BUDGET // 4 // row_bytes)
        # not a method of this object: in a reference cycle, the index and its files would stay until a garbage collection
        self._filtered = FilteredCodesCache(partial(_packed, kernels, codes), _BUDGET)

    @classmethod
    def build(cls, vectors: Float32, queries: Float32, seed: int, threads: int = 1, cells: int | None = None) -> "CellIndex":
        """Partition vectors into cells; the index is exact until an effort is set.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one; the codes are fitted to them.
            seed: of the rotation, the sample and k-means.
            threads: to build with.
            cells: number of cells; default: `cells_for`.

        Raises:
            ExportError: The vectors are not finite.
        """
        check_vectors(vectors)
        return cls(pack(vectors, queries, cells or cells_for(len(vectors)), seed, threads), vectors, CERTAIN)

    @property
    @override
    def param_grid(self) -> tuple[float, ...]:
        return _EFFORTS  # up to 8 spreads beyond the centre, where almost nothing is missed

    @override
    def with_search_param(self, value: float, n: int) -> "CellIndex":
        return CellIndex(self.codes, self._vectors, value, n)

    @override
    def with_short_param(self, value: float, short: int) -> "CellIndex":
        shorter = (value - self.effort) / math.log(self.n / short)
        return CellIndex(self.codes, self._vectors, self.effort, self.n, shorter)

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

    def moment_root(self) -> Float32:
        """Return a root of the fitted queries' second moments.

        Returns:
            R, float32 [dim, dim]: R' R are the second moments, up to a factor.
        """
        back = self.codes.basis[:, : self.dim].astype(np.float64)
        return np.linalg.cholesky(np.linalg.inv(back @ back.T)).T.astype(np.float32)

    def scanned(self, query: Float32, n: int) -> tuple[int, int]:
        """Return the numbers of cells and of items that one search scans.

        Args:
            query: float32 [dim].
            n: length of the list.
        """
        _, _, cells, items = self._search(query, n, self._all, _ALL_ROWS, np.empty(0, dtype=np.int64), self.effort)
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
            params: the index's `params`.
            vectors: float32 [size, dim], the vectors that it was built over.

        Raises:
            IndexFileError: The file is of another kind, damaged, or of other vectors.
        """
        dim = vectors.shape[1]
        cells, blocks, groups = int(params["cells"]), int(params["blocks"]), -(-dim // 4)
        cell_blocks = 2 * -(-cells // (2 * LANES))
        floats = {"basis": (dim, 4 * groups), "scales": (LANES * blocks,)}
        floats |= dict.fromkeys(("centre_scales", "spreads", "radii"), (LANES * cell_blocks,))
        ints = {"codes": (blocks, groups, LANES), "rows": (LANES * blocks,), "starts": (cells + 1,)}
        ints["centres"] = (cell_blocks, groups, LANES)
        with raising(IndexFileError, "the index cannot be read", where=str(path), hint=REPLACE_HINT, of=BundleError):
            arrays = map_tensors(path, floats, ints)
        limits = ErrorBounds(float(params["rho"]), float(params["reach"]), float(params["rounding"]))
        codes = Codes(**arrays, limits=limits, magnitude=float(params["magnitude"]))
        effort, n, shorter = float(params["effort"]), int(params.get("n", 1)), float(params.get("shorter", 0.0))
        index = cls(codes, vectors, effort, n, shorter)  # bundles of earlier versions have one effort for all lengths
        index._check(path)
        return index

    def _search_one(self, query: SearchQuery, n: int, effort: float) -> Ranked:
        within = query.within
        if within is None:
            return self._ranked(query, n, self._all, _ALL_ROWS, effort)
        if within.count <= _FEW + n:
            return rank(self._vectors, query.vector, within.rows, query.excluded, n, exact=True)
        if within.count <= self._max_packed:
            filtered = self._filtered.of(within)
            if filtered is not None:
                return self._ranked(query, n, _as_one_cell(filtered), _ALL_ROWS, CERTAIN)
        return self._ranked(query, n, self._all, within.bits, effort)

    def _ranked(self, query: SearchQuery, n: int, of: tuple[Any, ...], bits: UInt8, effort: float) -> Ranked:
        rows, scores, _, _ = self._search(query.vector, n, of, bits, query.excluded, effort)
        return Ranked(rows, scores, effort >= CERTAIN)

    def _search(self, vector: Float32, n: int, of: tuple[Any, ...], bits: UInt8, excluded: Int64, effort: float) -> Any:
        scaled = self._scaled_efforts[min(n, self.n) - 1] if effort == self.effort else self._scaled(effort)
        return self._kernels.search(vector, n, self.codes.basis, *of, self._vectors, bits, excluded, scaled, self._limits)

    def _scaled(self, effort: float) -> np.float32:
        """Scale an effort to queries of length 1.

        Transformed users have a mean square length of dim.
        """
        return np.float32(min(effort / np.sqrt(self.dim), CERTAIN))

    def _search_together(self, queries: Sequence[SearchQuery], n: int) -> list[Ranked]:
        ends = np.concatenate([[0], np.cumsum([len(one.excluded) for one in queries])])
        codes = self.codes
        rows, scores, done = self._kernels.search_together(
            np.stack([one.vector for one in queries]),
            n,
            codes.basis,
            codes.codes,
            codes.scales,
            codes.rows,
            self._vectors,
            np.concatenate([one.excluded for one in queries]),
            ends,
            self._limits,
            _CHUNK,
        )
        ranked = []
        for at, one in enumerate(queries):
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
        last = codes.starts[1:][np.diff(codes.starts) > 0] - 1  # last block of each cell: only these may not be full
        if int(codes.starts[-1]) != len(of_blocks) - 1 or not len(last):
            raise IndexFileError("the cells do not end where the codes end", where=str(path), hint=REPLACE_HINT)
        filled = LANES * (len(of_blocks) - 1 - len(last)) + int(np.count_nonzero(of_blocks[last] >= 0))
        if filled != self.size:
            raise IndexFileError(
                f"the index holds {filled} vectors, the bundle {self.size}", where=str(path), hint=OTHER_EXPORT_HINT
            )
        blocks = len(of_blocks) - 1  # without the empty block at the end
        for block in (0, blocks // 2, blocks - 1):
            row = int(of_blocks[block, 0])
            if not 0 <= row < self.size:
                raise IndexFileError(f"the index names row {row} of {self.size}", where=str(path), hint=OTHER_EXPORT_HINT)
            vector = self._vectors[row].astype(np.float64)
            turned = vector @ codes.basis
            code = codes.codes[block, :, 0].copy().view(np.uint8).astype(np.float64) - 128
            scale = float(codes.scales[LANES * block]) * codes.magnitude
            allowed = scale * float(np.linalg.norm(turned)) * (codes.limits.rho + codes.limits.rounding)
            if abs(scale * float(code @ turned) - float(vector @ vector)) > allowed:
                raise IndexFileError("the index holds other vectors than the bundle", where=str(path), hint=OTHER_EXPORT_HINT)


_FLOATS = ("basis", "scales", "centre_scales", "spreads", "radii")
_INTS = ("codes", "rows", "starts", "centres")


def _packed(kernels: Any, codes: Codes, bitmap: RowBitmap) -> FilteredCodes:
    return FilteredCodes(*kernels.packed_rows(codes.codes, codes.scales, codes.rows, bitmap.bits, bitmap.count))


def _as_one_cell(filtered: FilteredCodes) -> tuple[Any, ...]:
    """Return arguments of the kernel for all blocks as one cell, always scanned."""
    groups = filtered.codes.shape[1]
    starts = np.array([0, len(filtered.codes) - 1], dtype=np.int32)
    spreads, radii = np.zeros(2 * LANES, dtype=np.float32), np.full(2 * LANES, -np.inf, dtype=np.float32)
    spreads[0], radii[0] = 1.0, CERTAIN
    centre = np.zeros((2, groups, LANES), dtype=np.int32)
    centre_scales = np.zeros(2 * LANES, dtype=np.float32)
    return filtered.codes, filtered.scales, filtered.rows, starts, centre, centre_scales, spreads, radii


@dataclass(frozen=True, slots=True)
class CellCodes(Candidate):
    """Candidate: eight-bit codes in cells.

    Attributes:
        count: number of cells.
    """

    count: int

    @property
    @override
    def name(self) -> str:
        return f"cells {self.count}"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> CellIndex:
        return CellIndex.build(vectors, queries, seed, threads, self.count)


class CellsEngine(Engine):
    """The engine of `CellIndex`."""

    name = "cells"
    kinds = ("cells",)
    file = "cells.safetensors"

    @override
    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> CellIndex:
        return CellIndex.build(vectors, queries, seed, threads)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> CellIndex:
        assert path is not None  # checked by the registry
        return CellIndex.open(path, params, vectors)

    @override
    def candidates(self, size: int) -> list[CellCodes]:
        cells = cells_for(size)
        most = max(size // 8, 1)  # cells of fewer than 8 vectors on average are not worth their overhead
        return [CellCodes(cells), CellCodes(min(2 * cells, most)), CellCodes(max(cells // 2, 1))]

    @override
    def like(self, kind: str, params: Params) -> list[CellCodes]:
        return [CellCodes(int(params["cells"]))] if float(params["effort"]) < CERTAIN else []
