"""Inverted files that keep each component of a vector by itself, in 8 or 16 bits."""

from typing import Final

import faiss
import numpy as np

from recall.features.sparse import Float32
from recall.index.engine import faiss_threads
from recall.index.lists import Lists
from recall.index.ranking import pad

TYPES: Final = {"ivf": faiss.ScalarQuantizer.QT_fp16, "ivf_int8": faiss.ScalarQuantizer.QT_8bit}
"""Kinds of index, and how faiss calls their codes: half precision, and 256 steps between the smallest and the largest of
each component. bfloat16 was no faster than half precision at three bits less."""


def scalar_lists(lists: Lists, kind: str) -> faiss.IndexIVF:
    """An inverted file of the vectors, padded, with codes of a kind of `TYPES` for what their cells leave of them."""
    coarse = lists.coarse()
    inverted = faiss.IndexIVFScalarQuantizer(coarse, coarse.d, lists.count, TYPES[kind], faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf_int8":
        inverted.sq.train(_extremes(lists))
    inverted.is_trained = True
    with faiss_threads(1):
        for vectors, cells in lists.chunks():
            padded = pad(vectors)
            inverted.add_core(len(padded), faiss.swig_ptr(padded), None, faiss.swig_ptr(cells))
    return inverted


def _extremes(lists: Lists) -> Float32:
    """The smallest and the largest of each component of all residuals, [2, d]: a sample would cut the longest items short."""
    low, high = np.full(lists.vectors.shape[1], np.inf), np.full(lists.vectors.shape[1], -np.inf)
    for vectors, cells in lists.chunks():
        residuals = vectors - lists.cells.centroids[cells]
        low, high = np.minimum(low, residuals.min(axis=0)), np.maximum(high, residuals.max(axis=0))
    return pad(np.stack([low, high]).astype(np.float32))
