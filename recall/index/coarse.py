"""Coarse quantizer: cells of item vectors by k-means in the users' metric.

A query q ranks a cell by its centroid c. For a member v of the cell, the score is then wrong by q.(v - c). Over all users the
mean square of this error is (v - c)' S (v - c) with S = E[q q'], so cells are computed by k-means in the metric S: directions
with a large second moment of the users have a large weight. Spherical k-means, the usual choice for inner products, uses
neither the users nor the lengths of vectors; on factorization machines its cells made queries scan two to twenty times as
many items for the same recall. (Guo et al. 2020, Accelerating Large-Scale Inference with Anisotropic Vector Quantization,
weigh errors by direction for the same reason.)
"""

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np

from recall._arrays import Float32, Float64, Int64
from recall.index.flat import faiss_threads

# more points or iterations change the cost of a search by less than another sample does
_POINTS = 40  # vectors that k-means samples for each cell
_ITERATIONS = 4  # of k-means
_FLOOR = 1e-4  # least eigenvalue of S, as a share of the mean: with few users some are 0, and the metric must be invertible
_CHUNK = 1 << 15  # vectors assigned at once


def cells_for(size: int) -> int:
    """Return the number of cells for `size` vectors.

    It is the power of two nearest to 1.5 sqrt(size), limited to one cell for 64 vectors. With fewer cells a search scans more
    items; each further cell costs a cache miss.
    """
    return int(max(1, min(2 ** round(np.log2(1.5 * np.sqrt(size))), size // 64)))


def lists_for(size: int) -> int:
    """Return the number of cells of an inverted file for `size` vectors.

    It is the power of two nearest to sqrt(size), limited to one cell for 8 vectors. The assignment of vectors to cells is most
    of the build, and grows with the number of cells; twice as many would hardly speed up a search over a million items.
    """
    return int(max(1, min(2 ** round(np.log2(max(size, 1)) / 2), size // 8)))


def cut_into_cells(
    vectors: Float32, scale: float, queries: Float32, count: int, seed: int, threads: int
) -> tuple[Float32, Int64]:
    """Partition scaled vectors into cells by k-means of a sample.

    Chunks are assigned in parallel, each by one thread: OpenMP's threads spin while they wait for each other, which doubles
    the processor time on a busy machine.

    Args:
        vectors: float32 [size, dim], finite; may be mapped from a file.
        scale: power of two that the vectors are multiplied by.
        queries: float32 [q, dim], vectors of real users, at least one.
        count: number of cells, at most `size`.
        seed: seed of the sample and of k-means.
        threads: number of chunks that are assigned in parallel.

    Returns:
        Centroids of the cells, float32 [count, dim], and the cell of each vector, int64 [size].
    """
    metric, inverse = (root.astype(np.float32) for root in moment_roots(queries, _FLOOR))
    rows = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), count * _POINTS), replace=False)
    factor = np.float32(scale)
    clustering = faiss.Clustering(vectors.shape[1], count)
    clustering.seed = seed % (1 << 31)
    clustering.niter = _ITERATIONS
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = _POINTS
    nearest = faiss.IndexFlatL2(vectors.shape[1])
    with faiss_threads(1):
        clustering.train(np.ascontiguousarray(vectors[np.sort(rows)] * factor @ metric), nearest)
    centroids = faiss.vector_to_array(clustering.centroids).reshape(count, -1) @ inverse.T

    def assign(first: int) -> Int64:
        with faiss_threads(1):
            return nearest.assign(np.ascontiguousarray(vectors[first : first + _CHUNK] * factor @ metric), 1)[:, 0]

    with ThreadPoolExecutor(threads) as pool:
        return centroids, np.concatenate(list(pool.map(assign, range(0, len(vectors), _CHUNK))))


def moment_roots(queries: Float32, floor: float) -> tuple[Float64, Float64]:
    """Return a root L of the users' second moments, and its inverse transposed.

    L L' = E[q q'] up to a factor; both are float64 [dim, dim].

    Args:
        queries: float32 [q, dim], at least one.
        floor: least eigenvalue, as a share of the mean; bounds the factor by which the inverse stretches a direction.
    """
    dim = queries.shape[1]
    scaled = queries.astype(np.float64)
    scaled /= np.maximum(np.abs(scaled).max(), 1e-300)
    moments = scaled.T @ scaled
    trace = float(np.trace(moments))  # 0 if all queries are zero: then all directions have the same weight
    values, directions = np.linalg.eigh(moments / trace * dim) if trace > 0 else (np.ones(dim), np.eye(dim))
    roots = np.sqrt(np.maximum(values, floor))
    return directions * roots, directions / roots
