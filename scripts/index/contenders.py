"""The compared indexes: this project's and those of popular libraries.

A contender is built once over item vectors and has settings from fast to slow. Those that search by distance or cosine get a
further component that makes it equivalent to inner products: sqrt(M^2 - |v|^2) for items, 0 for users (Bachrach et al. 2014).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import faiss
import numpy as np

from recall._arrays import Float32, Int64
from recall.index.cells.index import CellIndex


class Contender(Protocol):
    """One index over one catalogue."""

    @property
    def name(self) -> str:
        """Return the name in reports."""

    @property
    def settings(self) -> Sequence[Any]:
        """Return the settings from fast to slow."""

    def search(self, query: Float32, n: int, setting: Any) -> Int64:
        """Return rows of the n best items, int64 [n], for float32 [dim]."""


class Cells:
    """This project's index: codes in cells."""

    def __init__(self, items: Float32, users: Float32, threads: int) -> None:
        self.name = "recall cells"
        index = CellIndex.build(items, users, 0, threads)
        self.settings = [index.with_search_param(effort, 1) for effort in np.geomspace(1, 12, 40)]

    def search(self, query: Float32, n: int, setting: CellIndex) -> Int64:
        """Return the rows of the n best items."""
        rows: Int64 = setting.search(query[None], n).rows[0]
        return rows


class HnswLib:
    """hnswlib over augmented vectors, M = 16, ef_construction = 200."""

    def __init__(self, items: Float32, users: Float32, threads: int) -> None:  # noqa: ARG002
        self.name = "hnswlib"
        import hnswlib

        self._index = hnswlib.Index(space="l2", dim=items.shape[1] + 1)
        self._index.init_index(max_elements=len(items), M=16, ef_construction=200, random_seed=0)
        self._index.set_num_threads(threads)
        self._index.add_items(augmented(items))
        self._index.set_num_threads(1)
        self._dim = items.shape[1]
        self.settings = [round(ef) for ef in np.geomspace(100, 6000, 24)]

    def search(self, query: Float32, n: int, setting: int) -> Int64:
        """Return the rows of the n best items."""
        self._index.set_ef(max(setting, n))
        return np.asarray(self._index.knn_query(np.append(query, np.float32(0)), k=n)[0][0], dtype=np.int64)


class USearch:
    """usearch over augmented vectors in single precision."""

    def __init__(self, items: Float32, users: Float32, threads: int) -> None:  # noqa: ARG002
        self.name = "usearch"
        Index = import_module("usearch.index").Index
        self._index = Index(ndim=items.shape[1] + 1, metric="l2sq", dtype="f32", connectivity=16, expansion_add=200)
        self._index.add(np.arange(len(items)), augmented(items), threads=threads)
        self.settings = [round(ef) for ef in np.geomspace(100, 6000, 24)]

    def search(self, query: Float32, n: int, setting: int) -> Int64:
        """Return the rows of the n best items."""
        self._index.expansion_search = setting
        return np.asarray(self._index.search(np.append(query, np.float32(0)), n, threads=1).keys, dtype=np.int64)


class Voyager:
    """voyager with its inner product space."""

    def __init__(self, items: Float32, users: Float32, threads: int) -> None:  # noqa: ARG002
        self.name = "voyager"
        voyager = import_module("voyager")
        self._index = voyager.Index(voyager.Space.InnerProduct, num_dimensions=items.shape[1], M=16, ef_construction=200)
        self._index.add_items(items, num_threads=threads)
        self.settings = [round(ef) for ef in np.geomspace(100, 6000, 24)]

    def search(self, query: Float32, n: int, setting: int) -> Int64:
        """Return the rows of the n best items."""
        return np.asarray(self._index.query(query, k=n, num_threads=1, query_ef=max(setting, n))[0], dtype=np.int64)


class Scann:
    """ScaNN: tree, asymmetric hashing and reordering, over a grid of both widths."""

    def __init__(self, items: Float32, users: Float32, threads: int) -> None:  # noqa: ARG002
        self.name = "ScaNN"
        builder = import_module("scann").scann_ops_pybind.builder(items, 100, "dot_product")
        leaves = 2 ** round(np.log2(2 * np.sqrt(len(items))))
        sample = min(len(items), 250_000)
        tree = builder.tree(num_leaves=leaves, num_leaves_to_search=leaves // 10, training_sample_size=sample)
        self._index = (
            tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(1000).set_n_training_threads(threads).build()
        )
        shares, widths = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0), (150, 300, 600, 1200, 2500, 5000, 10000)
        self.settings = [(max(1, round(leaves * share)), width) for share in shares for width in widths]

    def search(self, query: Float32, n: int, setting: tuple[int, int]) -> Int64:
        """Return the rows of the n best items."""
        found = self._index.search(
            query, final_num_neighbors=n, pre_reorder_num_neighbors=setting[1], leaves_to_search=setting[0]
        )
        return np.asarray(found[0], dtype=np.int64)


class FaissIvf:
    """Faiss inverted file with half-precision codes."""

    def __init__(self, items: Float32, users: Float32, threads: int) -> None:  # noqa: ARG002
        lists = 2 ** round(np.log2(2 * np.sqrt(len(items))))
        self.name = f"faiss IVF{lists},SQfp16"
        padded = np.pad(items, ((0, 0), (0, -items.shape[1] % 8)))
        self._index = faiss.index_factory(padded.shape[1], f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        self._inverted = faiss.extract_index_ivf(self._index)
        with threads_of_faiss(threads):
            self._index.train(padded[np.random.default_rng(0).choice(len(padded), min(len(padded), 40 * lists), replace=False)])
            self._index.add(padded)
        self.settings = sorted({max(1, round(lists * share)) for share in np.geomspace(0.003, 1.0, 24)})

    def search(self, query: Float32, n: int, setting: int) -> Int64:
        """Return the rows of the n best items."""
        self._inverted.nprobe = setting
        rows: Int64 = self._index.search(np.pad(query, (0, -len(query) % 8))[None], n)[1][0]
        return rows


KINDS: dict[str, tuple[str | None, Callable[[Float32, Float32, int], Contender]]] = {
    "cells": (None, Cells),
    "faiss": (None, FaissIvf),
    "scann": ("scann", Scann),
    "hnswlib": ("hnswlib", HnswLib),
    "usearch": ("usearch", USearch),
    "voyager": ("voyager", Voyager),
}
"""The required module of each contender, and how to build it from items, training users and threads."""


def installed() -> list[str]:
    """Return the names of the kinds whose library is installed."""
    return [name for name, (module, _) in KINDS.items() if module is None or find_spec(module) is not None]


def augmented(items: Float32) -> Float32:
    """Return items with the component that turns inner products into distances.

    Returns:
        float32 [items, dim + 1].
    """
    squares = np.einsum("ij,ij->i", items, items, dtype=np.float64)
    return np.column_stack([items, np.sqrt(squares.max() - squares)]).astype(np.float32)


@contextmanager
def threads_of_faiss(count: int) -> Iterator[None]:
    """Set the number of threads of Faiss."""
    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(usual)
