"""Inverted files that keep four bits for every two components: product quantisation, read by shuffles of registers.

The codes of one item are a tenth of its vector, and a query's products with all code words are looked up, not computed
(Andre et al. 2017, Accelerated nearest neighbor search with Quick ADC; faiss calls it fast scan). They are coarse, so the
best by codes are many times n and are scored again.

Errors are to be small where users look. For a user q and an item v kept as w, the mean square of q.(v - w) over users is
|L'(v - w)|^2 with L L' = E[q q'], so codes are those of L'v, and a query goes in as the inverse of L times q: the same inner
products, with users alike in all directions. There the residuals are turned to their principal axes, and the widest axis
shares its two-dimensional code with the narrowest, the next with the next (Ge et al. 2013, Optimized product quantization,
whose parametric solution this is for two axes a code).

faiss copies these lists when it opens them, so each process has its own; they are a tenth of the vectors, which it maps.
"""

import faiss
import numpy as np

from recall.features.sparse import Float32
from recall.index.engine import faiss_threads
from recall.index.lists import Lists
from recall.index.ranking import LANES, pad

_AXES = 2  # components that share a code
_BITS = 4  # of a code: sixteen words fit into a register
_SAMPLE = 1 << 16  # residuals that code words are learnt from
_FEWEST = 1 << _BITS  # k-means wants as many points as words


def product_lists(lists: Lists) -> faiss.IndexPreTransform:
    """An inverted file of product codes behind the linear map that a query goes through first."""
    residuals = lists.residuals(_SAMPLE)
    forth, back = _axes(residuals, lists)
    coarse = lists.coarse(lists.cells.centroids @ forth)
    slow = faiss.IndexIVFPQ(coarse, coarse.d, lists.count, coarse.d // _AXES, _BITS, faiss.METRIC_INNER_PRODUCT)
    slow.by_residual = True
    slow.pq.cp.seed = 1 + lists.seed % (1 << 30)
    slow.pq.cp.min_points_per_centroid = 1
    words = pad(residuals @ forth)
    with faiss_threads(1):
        slow.pq.train(np.resize(words, (max(len(words), _FEWEST), coarse.d)))
        slow.is_trained = True
        for vectors, cells in lists.chunks():
            padded = pad(vectors @ forth)
            slow.add_core(len(padded), faiss.swig_ptr(padded), None, faiss.swig_ptr(cells))
        inner = faiss.IndexIVFPQFastScan(slow)
    first = faiss.LinearTransform(lists.vectors.shape[1], coarse.d, False)
    matrix = np.zeros((coarse.d, lists.vectors.shape[1]), dtype=np.float32)
    matrix[: len(back)] = back
    faiss.copy_array_to_vector(matrix.ravel(), first.A)
    first.is_trained = True
    return faiss.IndexPreTransform(first, inner)


def _axes(residuals: Float32, lists: Lists) -> tuple[Float32, Float32]:
    """What rows of vectors are multiplied by, [dim, d], and what a query is, [d, dim]; d is padded to whole codes."""
    metric, inverse = lists.cells.metric, lists.cells.inverse
    turned = residuals.astype(np.float64) @ metric
    _, directions = np.linalg.eigh(turned.T @ turned)  # the narrowest first
    dim = len(directions)
    width = dim + -dim % LANES
    padded = np.zeros((dim, width))
    padded[:, width - dim :] = directions
    order = np.stack([np.arange(width // 2), width - 1 - np.arange(width // 2)], axis=1).ravel()
    paired = padded[:, order]
    return (metric @ paired).astype(np.float32), (paired.T @ inverse).astype(np.float32)
