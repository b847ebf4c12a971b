"""Cutting item vectors into cells, so that a query finds its best items in few of them.

A query q judges a cell by its centroid c, and is wrong about a member v by q.(v - c). Over all users that error has the
mean square (v - c)' S (v - c) with S = E[q q'], so cells are those of k-means in the metric S: directions in which users
differ count for much, those in which they agree or say nothing for little. Spherical k-means, the usual choice for inner
products, knows neither users nor lengths; on factorization machines it made queries look at two to twenty times as many
items for the same recall. (Guo et al. 2020, Accelerating Large-Scale Inference with Anisotropic Vector Quantization,
weigh errors by direction for the same reason.)
"""

from dataclasses import dataclass

import faiss
import numpy as np

from recall._arrays import Float32, Int64
from recall.index.engine import faiss_threads

POINTS = 40
"""Vectors that k-means looks at for each cell, and"""
ITERATIONS = 4
"""rounds that it takes: more of either changes the cost of a search by less than the draw of the sample does."""
_FLOOR = 1e-4  # of the mean eigenvalue of S: few users leave some directions unseen, and the metric must stay invertible


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Cells around centroids.

    Attributes:
        centroids: float32 [cells, dim], the mean of each cell's members in the sample.
        metric: float32 [dim, dim], L with S = L L': distances between rows of v L are those of S.
        inverse: float32 [dim, dim], of L.
    """

    centroids: Float32
    metric: Float32
    inverse: Float32
    _nearest: faiss.IndexFlatL2  # over centroids L

    @classmethod
    def fit(cls, sample: Float32, queries: Float32, count: int, seed: int) -> "Cells":
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
        return cls(np.asarray(found @ inverse, dtype=np.float32), metric, inverse, nearest)

    def assign(self, vectors: Float32) -> Int64:
        """The cell of each vector, float32 [n, dim] -> int64 [n]; several threads may ask at once."""
        with faiss_threads(1):
            return np.ascontiguousarray(self._nearest.assign(np.ascontiguousarray(vectors @ self.metric), 1)[:, 0])


def _roots(queries: Float32) -> tuple[Float32, Float32]:
    """L and its inverse, with L L' = E[q q'] but for directions that these queries hardly have."""
    moments = queries.astype(np.float64).T @ queries.astype(np.float64)
    trace = float(np.trace(moments))
    scaled = moments / trace * len(moments) if trace > 0 else np.eye(len(moments))  # users of zeros prefer no direction
    values, directions = np.linalg.eigh(scaled)
    roots = np.sqrt(np.maximum(values, _FLOOR))
    return (directions * roots).astype(np.float32), (directions / roots).T.astype(np.float32)
