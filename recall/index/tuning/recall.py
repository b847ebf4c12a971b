"""How much of the exact answer an index finds, and the least effort at which it finds enough."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Float64
from recall.index.base import Effort, ItemIndex
from recall.index.faiss_io import brute_force
from recall.index.ivf import IvfIndex
from recall.index.topk import longest_of, rounding

_FOR_LONGER = 64  # queries that show how effort grows with the length of a list: it is no promise


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


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What the exact answers to some queries are.

    Attributes:
        queries: float32 [q, dim].
        n: length of the lists.
        worst: float32 [q], what a row must score to be among the n best, less what rounding may take.
    """

    queries: Float32
    n: int
    worst: Float32

    @classmethod
    def of(cls, vectors: Float32, queries: Float32, n: int) -> "Truth":
        """By brute force over float32 vectors [size, dim]; n is cut to their number."""
        n = min(n, len(vectors))
        scores, _ = brute_force(vectors, queries, n)
        return cls(queries, n, scores[:, -1] - rounding(queries, longest_of(vectors)))

    def shares(self, index: ItemIndex) -> Float64:
        """Share of the exact list of each query that the index returns: float64 [q]."""
        return np.asarray((index.search(self.queries, self.n).scores >= self.worst[:, None]).mean(axis=1), dtype=np.float64)

    def timed(self, index: ItemIndex) -> tuple[Float64, float]:
        """The shares, and the microseconds of processor time that this thread took for one query, asked one by one."""
        scores = np.empty((len(self.queries), self.n), dtype=np.float32)
        began = time.thread_time()
        for position in range(len(self.queries)):
            scores[position] = index.search(self.queries[position : position + 1], self.n).scores[0]
        spent = time.thread_time() - began
        shares = np.asarray((scores >= self.worst[:, None]).mean(axis=1), dtype=np.float64)
        return shares, 1e6 * spent / len(self.queries)


def certify(index: ItemIndex, vectors: Float32, queries: Float32, n: int) -> Certificate:
    """Measure an index.

    Args:
        index: any index over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        n: length of the lists; cut to the number of items.
    """
    shares = shares_found(index, vectors, queries, n)
    return Certificate(len(queries), min(n, index.size), float(shares.mean()), float(shares.min()))


def shares_found(index: ItemIndex, vectors: Float32, queries: Float32, n: int) -> Float64:
    """Share of the exact list of each query that the index returns: float64 [q]; arguments as for `certify`."""
    return Truth.of(vectors, queries, n).shares(index)


def calibrate(index: IvfIndex, vectors: Float32, queries: Float32, n: int, target: float) -> IvfIndex:
    """The inverted file with the least effort that reaches `target` over `queries`, or with all effort where none does.

    Args:
        index: over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        n: length of the lists; cut to the number of items.
        target: mean share of the exact list to find.
    """
    truth = Truth.of(vectors, queries, n)
    least = bisect(index.efforts, lambda effort: bool(truth.shares(index.tuned(effort, truth.n)).mean() >= target))
    return with_growth(index.tuned(least or index.nlist, truth.n), vectors, truth, target)


def bisect(efforts: Sequence[float], enough: Callable[[float], bool | None], first: int = 0) -> float | None:
    """The least effort that is enough, where more is never too little.

    Efforts are doubled until one is enough, and then halved between; so few of them are tried, and mostly small ones.

    Args:
        efforts: rising.
        enough: says whether one is; None gives up.
        first: position among the efforts to begin at.

    Returns:
        The effort; None when the largest is not enough, or when `enough` gave up.
    """
    low, high = first - 1, first
    while not (answer := enough(efforts[high])):
        if answer is None or high == len(efforts) - 1:
            return None
        low, high = high, min(2 * (high + 1) - 1, len(efforts) - 1)
    while high - low > max(1, high // 32):  # closer than that is closer than users agree
        middle = (low + high) // 2
        if enough(efforts[middle]):
            high = middle
        else:
            low = middle
    return efforts[high]


def with_growth(index: IvfIndex, vectors: Float32, truth: Truth, target: float) -> IvfIndex:
    """The inverted file with what ten times as long lists take: a power of their length.

    Args:
        index: over `vectors`, set for `target` on `truth`.
        vectors: float32 [size, dim].
        truth: some of its queries are asked again for the longer lists.
        target: mean share of the exact list to find.
    """
    nprobe, longer = index.effort.nprobe, min(10 * truth.n, len(vectors))
    if longer < 2 * truth.n:
        return index.with_effort(Effort(nprobe, 1.0, truth.n))
    more = Truth.of(vectors, spread(truth.queries, _FOR_LONGER), longer)
    # what these few queries take for short lists, so that like is compared with like
    goal = min(float(Truth.of(vectors, more.queries, truth.n).shares(index).mean()), target)

    def enough(effort: float) -> bool:
        return bool(more.shares(index.tuned(effort, longer)).mean() >= goal)

    most = bisect(index.efforts, enough, nprobe - 1) or index.nlist
    return index.with_effort(Effort(nprobe, math.log(most / nprobe) / math.log(longer / truth.n), truth.n))


def spread(queries: Float32, count: int) -> Float32:
    """At most `count` of the queries, evenly spread over all."""
    return queries[np.unique(np.linspace(0, len(queries) - 1, count).astype(np.int64))]
