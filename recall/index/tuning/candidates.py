"""The indexes that tuning tries. A new kind is added to `candidates`, and nothing else changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from recall._arrays import Float32
from recall.index.base import Params, TunableIndex
from recall.index.cells.index import CERTAIN, CellIndex, cells_for
from recall.index.coarse import InvertedLists, lists_for
from recall.index.ivf import REFINE, IvfIndex


class Candidate(Protocol):
    """Something that can be built over item vectors in one or more variants."""

    @property
    def name(self) -> str:
        """What it is, and of what size."""

    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> Iterator[tuple[str, TunableIndex]]:
        """Its variants by name, each built when it is asked for; what they have in common is built once.

        Args:
            vectors: float32 [size, dim], finite.
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
            seed: of whatever is drawn.
            threads: to build with; a search uses one.
        """


@dataclass(frozen=True, slots=True)
class CellCodes(Candidate):
    """Eight-bit codes in this many cells, with bounds."""

    count: int

    @property
    @override
    def name(self) -> str:
        return f"cells {self.count}"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> Iterator[tuple[str, TunableIndex]]:
        yield self.name, CellIndex.build(vectors, queries, seed, threads, self.count)


@dataclass(frozen=True, slots=True)
class InvertedFile(Candidate):
    """This many lists, with half-precision codes."""

    count: int

    @property
    @override
    def name(self) -> str:
        return f"ivf {self.count}"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> Iterator[tuple[str, TunableIndex]]:
        yield self.name, IvfIndex.build(InvertedLists.build(vectors, queries, self.count, seed, threads))


def candidates(size: int, kind: str = "auto") -> list[Candidate]:
    """What is tried for `size` items, the most promising first: the time may be short. Kind 'faiss' leaves out the cells."""
    cells, lists = cells_for(size), lists_for(size)
    few = max(size // 8, 1)  # fewer vectors than that in a cell make no cell
    found: list[Candidate] = []
    if kind != "faiss":
        found += [CellCodes(cells), CellCodes(min(2 * cells, few)), CellCodes(max(cells // 2, 1))]
    found += [InvertedFile(min(count, few)) for count in (2 * lists, lists, 4 * lists)]
    return list(dict.fromkeys(found))


def like(kind: str, params: Params) -> list[Candidate]:
    """What makes another index of this kind and shape over other vectors; nothing for a kind that is exact."""
    if kind == "cells" and float(params["effort"]) < CERTAIN:
        return [CellCodes(int(params["cells"]))]
    return [InvertedFile(int(params["nlist"]))] if kind in REFINE else []
