"""How much of the exact answer an index finds, and the smallest effort at which it finds enough."""

import math
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from recall.features.sparse import Float32
from recall.index.contract import ItemIndex
from recall.index.ivf import Effort, IvfIndex
from recall.index.ranking import longest_of, rounding


@dataclass(frozen=True, slots=True)
class Certificate:
    """Recall against brute force over user vectors that played no part in setting the index up.

    Attributes:
        queries: number of user vectors.
        n: length of the lists.
        recall: mean share of the exact list that was found; an item that ties with the last of the list counts.
        lowest: the smallest such share of any one query.
    """

    queries: int
    n: int
    recall: float
    lowest: float


def certify(index: ItemIndex, vectors: Float32, queries: Float32, n: int) -> Certificate:
    """Measure an index.

    Args:
        index: any index over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        n: length of the lists; cut to the number of items.
    """
    n = min(n, index.size)
    shares = _shares_found(index, queries, n, _worst_scores(vectors, queries, n))
    return Certificate(len(queries), n, float(shares.mean()), float(shares.min()))


def calibrate(index: IvfIndex, vectors: Float32, queries: Float32, n: int, target: float) -> IvfIndex:
    """The index with the least effort that reaches `target` over `queries`.

    Recall never falls as more lists are looked into, so the number of lists is bisected, for lists of n results and again
    for ten times as many; what lies between and beyond follows a power of the length.

    Args:
        index: an inverted file over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        n: length of the lists; cut to the number of items.
        target: mean share of the exact list to find.
    """
    n = min(n, index.size)
    nprobe = _fewest_lists(index, vectors, queries, n, target)
    longer = min(10 * n, index.size)
    if longer < 2 * n:
        return index.with_effort(Effort(nprobe, 1.0, n))
    growth = math.log(_fewest_lists(index, vectors, queries, longer, target) / nprobe) / math.log(longer / n)
    return index.with_effort(Effort(nprobe, max(growth, 0.0), n))


def _fewest_lists(index: IvfIndex, vectors: Float32, queries: Float32, n: int, target: float) -> int:
    worst = _worst_scores(vectors, queries, n)
    low, high = 1, index.nlist
    while low < high:
        middle = (low + high) // 2
        if _shares_found(index.with_effort(Effort(middle, 0.0, n)), queries, n, worst).mean() >= target:
            high = middle
        else:
            low = middle + 1
    return high


def _worst_scores(vectors: Float32, queries: Float32, n: int) -> Float32:
    """What a row must score to be among the n best of each query, by brute force, less what rounding may take: [q]."""
    scores, _ = faiss.knn(np.ascontiguousarray(queries), np.ascontiguousarray(vectors), n, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(scores[:, -1] - rounding(queries, longest_of(vectors)), dtype=np.float32)


def _shares_found(index: ItemIndex, queries: Float32, n: int, worst: Float32) -> npt.NDArray[np.float64]:
    return np.asarray((index.search(queries, n).scores >= worst[:, None]).mean(axis=1), dtype=np.float64)
