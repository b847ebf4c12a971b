"""Similar items: those that users have the same taste for, by cosine."""

import datetime
from functools import partial

import numpy as np

from recall._arrays import Float32, Float64, Int64
from recall.bundle.reader import Bundle
from recall.index.topk import top_k
from recall.serving.filters.resolve import FilterResolver
from recall.serving.query import QueryBuilder
from recall.serving.request import Request
from recall.serving.response import ScoredItem, Similar
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks

_SILENT = "the model says nothing of this item but what it scores for everyone, so it is like no other"
_SMALLEST = 1e-12  # an item whose vector is shorter is like no other


class Similarity:
    """Finds items by the cosine of their vectors. Thread-safe.

    What an item scores for everyone and its popularity play no part: two items are not alike for being liked.
    """

    def __init__(self, bundle: Bundle, query_builder: QueryBuilder, eligibility: FilterResolver) -> None:
        """Nothing is read yet."""
        self._bundle = bundle
        self._query_builder = query_builder
        self._eligibility = eligibility
        self._taste = bundle.tables.taste

    def similar(self, request: Request, catalogue: CatalogSnapshot, row: int) -> Similar:
        """Return the items most similar to one. Raises RequestError.

        Args:
            request: as for `Recommender.similar`.
            catalogue: as it is now.
            row: of the item, in [0, size).
        """
        bounds = Request(n=request.n, exclude=request.exclude, filter=request.filter, allow=request.allow)
        query = self._query_builder.build(bounds, catalogue)
        now = datetime.datetime.now(datetime.UTC)
        scope, excluded = self._eligibility.resolve(bounds, catalogue, query.allowed, query.excluded, now)
        rows, cosines = self.nearest(catalogue, row, request.n, excluded, scope)
        return Similar(
            item_id=catalogue.ids(np.array([row]))[0],
            items=tuple(map(ScoredItem, catalogue.ids(rows), cosines.tolist())),
            warnings=query.warnings if self._says_something(catalogue, row) else (*query.warnings, _SILENT),
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=catalogue.degraded,
        )

    def nearest(
        self, catalogue: CatalogSnapshot, row: int, n: int, excluded: Int64, scope: SegmentMasks | None
    ) -> tuple[Int64, Float64]:
        """Return the rows most similar to one row, itself left out.

        Args:
            catalogue: of the bundle.
            row: in [0, catalogue.size).
            n: at least 1.
            excluded: int64 [m], rows that must not be returned.
            scope: the rows that may be; None for all.

        Returns:
            Rows int64 [m] and their cosines float64 [m], m at most n; most alike first, then by row. None where the item's own
            vector says nothing of taste, and none of those whose does not.
        """
        query = self._taste_of(catalogue.vectors(np.array([row])))[0]
        length = float(np.linalg.norm(query.astype(np.float64)))
        if length <= _SMALLEST:
            return np.empty(0, dtype=np.int64), np.empty(0)
        lengths = np.concatenate([one.derived("taste", partial(self._lengths_of, one.vectors)) for one in catalogue.segments])
        eligible = catalogue.mask(excluded, scope) & (lengths > _SMALLEST)
        eligible[row] = False
        whole = np.zeros(self._bundle.tables.dim, dtype=np.float32)
        whole[self._taste] = query
        cosines = np.full(catalogue.size, -np.inf, dtype=np.float32)
        np.divide(catalogue.scores(whole), lengths * np.float32(length), out=cosines, where=eligible)
        # however a product is added up, it lies within so much of the truth
        slack = 4 * len(whole) * float(np.finfo(np.float32).eps)
        rows, exact = top_k(
            cosines, n, lambda near: _exact(self._taste_of(catalogue.vectors(near)), query, length), slack, eligible
        )
        return rows, np.asarray(exact, dtype=np.float64)

    def _says_something(self, catalogue: CatalogSnapshot, row: int) -> bool:
        return bool(self._lengths_of(catalogue.vectors(np.array([row])))[0] > _SMALLEST)

    def _taste_of(self, vectors: Float32) -> Float32:
        return vectors[:, self._taste]

    def _lengths_of(self, vectors: Float32) -> Float32:
        taste = self._taste_of(vectors)
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", taste, taste, dtype=np.float64)), dtype=np.float32)


def _exact(taste: Float32, query: Float32, length: float) -> Float64:
    """Cosines in float64, row by row."""
    exact = taste.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    return np.asarray(np.einsum("ij,j->i", exact, query.astype(np.float64)) / (lengths * length), dtype=np.float64)
