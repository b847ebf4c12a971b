"""How much of the exact answer an index finds, and the smallest effort at which it finds enough."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall.features.sparse import Float32, Int64
from recall.index.contract import ItemIndex
from recall.index.engine import brute_force
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
    shares = shares_found(index, vectors, queries, n)
    return Certificate(len(queries), min(n, index.size), float(shares.mean()), float(shares.min()))


def shares_found(index: ItemIndex, vectors: Float32, queries: Float32, n: int) -> npt.NDArray[np.float64]:
    """Share of the exact list of each query that the index returns: float64 [q]; arguments as for `certify`."""
    n = min(n, index.size)
    # what a row must score to be among the n best, less what rounding may take
    worst = brute_force(vectors, queries, n)[0][:, -1] - rounding(queries, longest_of(vectors))
    return _shares_above(index, queries, n, worst)


def calibrate(index: IvfIndex, vectors: Float32, queries: Float32, n: int, target: float) -> IvfIndex:
    """The index with the least effort that reaches `target` over `queries`.

    A row of the exact list is found when its inverted list is among those looked into, so the place that a query gives to
    the list of each such row says what any number of lists would find: recall never falls with that number, and the least
    one is bisected, for lists of n results and for ten times as many. What lies between and beyond follows a power of the
    length. Codes are rounded, so the number for n is then raised until a real search finds enough.

    Args:
        index: an inverted file over `vectors`.
        vectors: float32 [size, dim].
        queries: float32 [q, dim], at least one.
        n: length of the lists; cut to the number of items.
        target: mean share of the exact list to find.
    """
    n = min(n, index.size)
    longer = min(10 * n, index.size)
    scores, rows = brute_force(vectors, queries, longer)
    places = index.places(queries, rows)
    growth = 1.0
    nprobe = _fewest(places[:, :n], target)
    if longer >= 2 * n:
        growth = math.log(_fewest(places, target) / nprobe) / math.log(longer / n)
    worst = scores[:, n - 1] - rounding(queries, longest_of(vectors))
    while True:
        effort = Effort(nprobe, max(growth, 0.0), n)
        index = index.with_effort(effort)
        if nprobe >= index.nlist or _shares_above(index, queries, n, worst).mean() >= target:
            return index
        nprobe = min(nprobe + max(nprobe // 16, 1), index.nlist)


def spread(queries: Float32, count: int) -> Float32:
    """At most `count` of the queries, evenly spread over all."""
    return queries[np.unique(np.linspace(0, len(queries) - 1, count).astype(np.int64))]


def _fewest(places: Int64, target: float) -> int:
    """The least number of lists in which the rows found are a share `target` of all; places int64 [q, n] count from 0."""
    ordered = np.sort(places, axis=None)
    return int(ordered[math.ceil(target * len(ordered)) - 1]) + 1


def _shares_above(index: ItemIndex, queries: Float32, n: int, worst: Float32) -> npt.NDArray[np.float64]:
    """Share of each query's n results that score at least `worst`: [q]."""
    return np.asarray((index.search(queries, n).scores >= worst[:, None]).mean(axis=1), dtype=np.float64)
