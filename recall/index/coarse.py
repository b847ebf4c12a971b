"""Coarse quantizer: cut item vectors into cells by k-means in the users' metric.

A query q judges a cell by its centroid c, and is wrong about a member v by q.(v - c). Over all users that error has the
mean square (v - c)' S (v - c) with S = E[q q'], so cells are those of k-means in the metric S: directions in which users
differ count for much, those in which they agree or say nothing for little. Spherical k-means, the usual choice for inner
products, knows neither users nor lengths; on factorization machines it made queries look at two to twenty times as many
items for the same recall. (Guo et al. 2020, Accelerating Large-Scale Inference with Anisotropic Vector Quantization,
weigh errors by direction for the same reason.)
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np

from recall._arrays import Float32, Int64
from recall.index.base import check_vectors
from recall.index.flat import faiss_threads
from recall.index.topk import pad

POINTS = 40
"""Vectors that k-means samples for each cell, and"""
ITERATIONS = 4
"""rounds that it takes: more of either changes the cost of a search by less than the draw of the sample does."""
_FLOOR = 1e-4  # of the mean eigenvalue of S: few users leave some directions unseen, and the metric must stay invertible


def cells_for(size: int) -> int:
    """Return the number of cells for `size` vectors.

    It is the power of two next to 1.5 sqrt(size), with at least 64 vectors for each cell.
    Fewer cells make a search look at more items, more cells cost a cache miss each.
    """
    return int(max(1, min(2 ** round(np.log2(1.5 * np.sqrt(size))), size // 64)))


@dataclass(frozen=True, slots=True, eq=False)
class CoarseQuantizer:
    """Cells around centroids.

    Attributes:
        centroids: float32 [cells, dim], the mean of each cell's members in the sample.
        metric: float32 [dim, dim], L with S = L L': distances between rows of v L are those of S.
    """

    centroids: Float32
    metric: Float32
    _nearest: faiss.IndexFlatL2  # over centroids L

    @classmethod
    def fit(cls, sample: Float32, queries: Float32, count: int, seed: int) -> "CoarseQuantizer":
        """Find centroids.

        Args:
            sample: float32 [m, dim] item vectors, at least `count`.
            queries: float32 [q, dim] user vectors, at least one.
            count: number of cells.
            seed: of k-means.
        """
        metric, inverse = _roots(queries)
        clustering = faiss.Clustering(sample.shape[1], count)
        clustering.seed = seed % (1 << 31)
        clustering.niter = ITERATIONS
        clustering.min_points_per_centroid = 1
        clustering.max_points_per_centroid = POINTS
        nearest = faiss.IndexFlatL2(sample.shape[1])
        with faiss_threads(1):
            clustering.train(np.ascontiguousarray(sample @ metric), nearest)
        found = faiss.vector_to_array(clustering.centroids).reshape(count, -1)
        return cls(np.asarray(found @ inverse, dtype=np.float32), metric, nearest)

    def assign(self, vectors: Float32) -> Int64:
        """Return the cell of each vector: float32 [n, dim] -> int64 [n]. Thread-safe."""
        with faiss_threads(1):
            return np.ascontiguousarray(self._nearest.assign(np.ascontiguousarray(vectors @ self.metric), 1)[:, 0])


def _roots(queries: Float32) -> tuple[Float32, Float32]:
    """Return L and its inverse, with L L' = E[q q'].

    Directions that these queries hardly have get a floor.
    """
    moments = queries.astype(np.float64).T @ queries.astype(np.float64)
    trace = float(np.trace(moments))
    scaled = moments / trace * len(moments) if trace > 0 else np.eye(len(moments))  # users of zeros prefer no direction
    values, directions = np.linalg.eigh(scaled)
    roots = np.sqrt(np.maximum(values, _FLOOR))
    return (directions * roots).astype(np.float32), (directions / roots).T.astype(np.float32)


# Which cell every vector of a catalogue belongs to: the most costly part of an inverted file, shared by all its codes.

_CHUNK = 1 << 16  # vectors assigned together
_LARGEST = 2.0**12  # components are scaled to below this, well inside float16's 65504, before they become codes


@dataclass(frozen=True, slots=True, eq=False)
class InvertedLists:
    """The vectors of a catalogue, cut into cells.

    Attributes:
        vectors: float32 [size, dim], as they were given.
        cells: of the vectors times `scale`.
        assigned: int64 [size], the cell of each.
        scale: an inner product with a scaled vector ranks the same, and neither overflows nor loses small numbers in
            16 bits.
    """

    vectors: Float32
    cells: CoarseQuantizer
    assigned: Int64
    scale: np.float32

    @classmethod
    def build(cls, vectors: Float32, queries: Float32, count: int, seed: int, threads: int = 1) -> "InvertedLists":
        """Cut a sample into cells and find the cell of every vector.

        Chunks find their cells side by side, each in a thread of one: OpenMP's own threads spin while they wait for each
        other, which on a busy machine doubles the work.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
            count: number of cells, at most `size`.
            seed: of the sample and of k-means.
            threads: threads that find cells.

        Raises:
            ExportError: the vectors are not finite.
        """
        check_vectors(vectors)
        scale = np.float32(2.0 ** np.floor(np.log2(_LARGEST / max(float(np.abs(vectors).max()), 1e-30))))
        rows = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), count * POINTS), replace=False)
        cells = CoarseQuantizer.fit(vectors[np.sort(rows)] * scale, queries, count, seed)

        def assigned(first: int) -> Int64:
            return cells.assign(vectors[first : first + _CHUNK] * scale)

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(assigned, range(0, len(vectors), _CHUNK)))
        return cls(vectors, cells, np.concatenate(found), scale)

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.cells.centroids)

    def coarse(self) -> faiss.IndexFlatIP:
        """Faiss's index of the padded centroids."""
        padded = pad(self.cells.centroids)
        coarse = faiss.IndexFlatIP(padded.shape[1])
        coarse.add(padded)
        return coarse

    def chunks(self) -> Iterator[tuple[Float32, Int64]]:
        """Yield scaled vectors in order of rows, and their cells.

        They are float32 [m, dim] and int64 [m].
        """
        for first in range(0, len(self.vectors), _CHUNK):
            yield self.vectors[first : first + _CHUNK] * self.scale, self.assigned[first : first + _CHUNK]


def lists_for(size: int) -> int:
    """Return the number of lists for `size` vectors.

    It is the power of two next to sqrt(size), with at least 8 vectors for each list.
    Finding the lists of all vectors is most of the work of building, and grows with their number; twice as many would
    make a search over a million items no faster than its fixed costs allow.
    """
    return int(max(1, min(2 ** round(np.log2(max(size, 1)) / 2), size // 8)))
