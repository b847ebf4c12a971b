"""Score given items, rank an item, find similar items, and return query vectors."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from recall._arrays import Float32, Float64, Int64
from recall._ids import check_ids, first_few
from recall.bundle.reader import Bundle
from recall.errors import RequestError
from recall.features.csr import SparseRows
from recall.index.base import Ranked
from recall.index.topk import products, rounding, top_k
from recall.serving.filters.columns import FilterResolver
from recall.serving.query import QueryBuilder, check_unchanged
from recall.serving.request import Prediction, Request, Row, ScoredItem, Scores, Similar, UserVector
from recall.serving.rerank.base import Scores as Floats
from recall.serving.rerank.item_columns import ItemColumns
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Ranking of the items for a request, including boosts.

    Attributes:
        catalogue: snapshot that is ranked.
        vector: float32 [dim], the query vector.
        boosts: float32 [size], the boost of each score; None without boosts.
    """

    catalogue: CatalogSnapshot
    vector: Float32
    boosts: Float32 | None

    @classmethod
    def of(cls, request: Request, vector: Float32, catalogue: CatalogSnapshot, columns: ItemColumns) -> "Ranking":
        """Return the ranking for a request. Raises RequestError if a boost is unknown.

        Args:
            request: its boosts are used.
            vector: float32 [dim], its query vector.
            catalogue: snapshot to rank.
            columns: columns of the items.
        """
        return cls(catalogue, vector, columns.boost_scores(catalogue, request.boosts))

    def first(self, n: int, excluded: Int64, masks: SegmentMasks | None, *, exact: bool = False) -> Ranked:
        """Return the first rows and their scores.

        Args:
            n: rows wanted.
            excluded: int64 [m], rows that must not be returned.
            masks: the rows that may be; None for all items.
            exact: search exhaustively; with boosts, a search always is.
        """
        if self.boosts is not None:
            return self.catalogue.top_k(self.vector, n, self.boosts, excluded, masks)
        return self.catalogue.search_one(self.vector, n, excluded, masks, exact=exact)

    def scores(self, rows: Int64) -> Floats:
        """Return the scores of rows, repeats allowed: floats [m]."""
        vectors = self.catalogue.vectors(rows)
        if self.boosts is None:
            return products(vectors, self.vector)
        return np.asarray(np.einsum("ij,j->i", vectors, self.vector) + self.boosts[rows])

    def place(self, row: int, excluded: Int64, masks: SegmentMasks | None) -> tuple[int, int]:
        """Find the rank of a row among all rows that a search may return, and itself.

        Args:
            row: in [0, size).
            excluded: int64 [m], rows that must not be returned.
            masks: the rows that may be; None for all items.

        Returns:
            Its rank, from 1, and the number of ranked rows.
        """
        others = self.catalogue.mask(excluded, masks)
        others[row] = False
        cheap = self.catalogue.scores(self.vector)
        if self.boosts is not None:
            cheap += self.boosts
        score = float(self.scores(np.array([row]))[0])
        slack = 2 * float(rounding(self.vector, self.catalogue.longest))
        slack += 4 * float(np.finfo(np.float32).eps) * abs(score)
        ahead = others & (cheap > score + slack)
        near = np.flatnonzero(others & (np.abs(cheap - score) <= slack))  # scored exactly, as in a search
        scores = self.scores(near)
        closer = (scores > score) | ((scores == score) & (near < row))
        return 1 + int(np.count_nonzero(ahead)) + int(np.count_nonzero(closer)), 1 + int(np.count_nonzero(others))


_NO_TASTE = "all users score this item alike, so no item is similar to it"
_SHORTEST = 1e-12  # the cosine of an item with a shorter vector is undefined


class Scorer:
    """Scores given items and finds similar ones, including live changes. Thread-safe."""

    def __init__(self, bundle: Bundle, query_builder: QueryBuilder, columns: ItemColumns, eligibility: FilterResolver) -> None:
        """Use the parts of one recommender."""
        self._bundle = bundle
        self._query_builder = query_builder
        self._columns = columns
        self._eligibility = eligibility
        self._taste = bundle.tables.taste
        self._logistic = bundle.manifest.objective == "logistic"

    def score(self, request: Request, item_ids: Sequence[str], catalogue: CatalogSnapshot) -> Scores:
        """Score given items. Raises RequestError.

        Args:
            request: as for `Recommender.score`.
            item_ids: the items.
            catalogue: snapshot of the catalogue.
        """
        check_ids(item_ids, "/items")
        query = self._query_builder.build(request, catalogue)
        rows = catalogue.rows(item_ids)
        found = rows >= 0
        scores = Ranking.of(request, query.vector, catalogue, self._columns).scores(rows[found]).astype(np.float64)
        has_probabilities = self._logistic and request.popularity == 1 and not request.boosts
        return Scores(
            items=tuple(map(ScoredItem, catalogue.ids(rows[found]), scores.tolist())),
            missing=tuple(dict.fromkeys(item_ids[at] for at in np.flatnonzero(~found).tolist())),
            probabilities=tuple(logistic(scores + query.offset).tolist()) if has_probabilities else None,
            user_offset=query.offset,
            user=query.user,
            unknown=query.encoded.unknown,
            warnings=query.warnings,
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=query.degraded + catalogue.degraded,
        )

    def user_vector(self, request: Request, catalogue: CatalogSnapshot) -> UserVector:
        """Return the query vector of a request. Raises RequestError.

        Args:
            request: as for `Recommender.recommend`.
            catalogue: snapshot of the catalogue.
        """
        query = self._query_builder.build(request, catalogue)
        return UserVector(
            vector=tuple(query.vector.tolist()),
            user_offset=query.offset,
            user=query.user,
            unknown=query.encoded.unknown,
            warnings=query.warnings,
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=query.degraded + catalogue.degraded,
        )

    def predict(self, pairs: Sequence[tuple[Request, str]], catalogue: CatalogSnapshot) -> list[Prediction]:
        """Score given pairs.

        Args:
            pairs: a request and an item id each.
            catalogue: snapshot of the catalogue.

        Raises:
            RequestError: The catalogue lacks an item, or a request cannot be answered or changes scores.
        """
        ids = [item_id for _, item_id in pairs]
        check_ids(ids, "/item_id")
        items = catalogue.rows(ids)
        if (items < 0).any():
            strangers = list(dict.fromkeys(ids[at] for at in np.flatnonzero(items < 0).tolist()))
            raise RequestError(
                f"{len(strangers)} items are not in the catalogue: {first_few(strangers)}",
                hint="Leave them out, or add them with their features",
            )
        requests = {id(request): request for request, _ in pairs}
        queries = [self._query_builder.build(request, catalogue) for request in requests.values()]
        for request in requests.values():
            check_unchanged(request)
        if not queries:
            return []
        positions = {key: position for position, key in enumerate(requests)}
        of = np.array([positions[id(request)] for request, _ in pairs])
        rows = SparseRows.vstack([one.encoded.rows for one in queries])
        tables = self._bundle.tables
        products = np.einsum("ij,ij->i", tables.user_vectors(rows)[of], catalogue.vectors(items))
        scores = products + tables.user_offset(rows)[of]
        if not self._logistic:
            return [Prediction(score, None) for score in scores.tolist()]
        return list(map(Prediction, scores.tolist(), logistic(scores).tolist()))

    def similar(self, request: Request, catalogue: CatalogSnapshot, row: int) -> Similar:
        """Return the items most similar to one, by cosine. Raises RequestError.

        The cosine leaves out the component that is the same for all users: items are not similar because both are popular.

        Args:
            request: as for `Recommender.similar`.
            catalogue: snapshot of the catalogue.
            row: row of the item, in [0, size).
        """
        bounds = Request(n=request.n, exclude=request.exclude, filter=request.filter, allow=request.allow)
        query = self._query_builder.build(bounds, catalogue)
        now = datetime.datetime.now(datetime.UTC)
        scope, excluded = self._eligibility.resolve(bounds, catalogue, query.allowed, query.excluded, now)
        rows, cosines = self.nearest(catalogue, row, request.n, excluded, scope)
        undefined = self._lengths_of(catalogue.vectors(np.array([row])))[0] <= _SHORTEST
        return Similar(
            item_id=catalogue.ids(np.array([row]))[0],
            items=tuple(map(ScoredItem, catalogue.ids(rows), cosines.tolist())),
            warnings=(*query.warnings, _NO_TASTE) if undefined else query.warnings,
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=catalogue.degraded,
        )

    def nearest(
        self, catalogue: CatalogSnapshot, row: int, n: int, excluded: Int64, scope: SegmentMasks | None
    ) -> tuple[Int64, Float64]:
        """Return the rows most similar to one row, without this row.

        Args:
            catalogue: snapshot of the catalogue.
            row: in [0, catalogue.size).
            n: at least 1.
            excluded: int64 [m], rows that must not be returned.
            scope: the rows that may be; None for all.

        Returns:
            Rows int64 [m] and their cosines float64 [m], m at most n, by descending cosine and then by row. Items with an
            undefined cosine are left out; for such an item, the result is empty.
        """
        query = self._taste_of(catalogue.vectors(np.array([row])))[0]
        length = float(np.linalg.norm(query.astype(np.float64)))
        if length <= _SHORTEST:
            return np.empty(0, dtype=np.int64), np.empty(0)
        lengths = np.concatenate([one.derived("taste", partial(self._lengths_of, one.vectors)) for one in catalogue.segments])
        eligible = catalogue.mask(excluded, scope) & (lengths > _SHORTEST)
        eligible[row] = False
        padded = np.zeros(self._bundle.tables.dim, dtype=np.float32)
        padded[self._taste] = query
        cosines = np.full(catalogue.size, -np.inf, dtype=np.float32)
        np.divide(catalogue.scores(padded), lengths * np.float32(length), out=cosines, where=eligible)
        slack = 4 * len(padded) * float(np.finfo(np.float32).eps)  # bounds the rounding of a cosine, in any order of summation

        def exactly(near: Int64) -> Float64:
            return _exact(self._taste_of(catalogue.vectors(near)), query, length)

        rows, exact = top_k(cosines, n, exactly, slack, eligible)
        return rows, np.asarray(exact, dtype=np.float64)

    def _taste_of(self, vectors: Float32) -> Float32:
        """Return the components that differ between users: float32 [m, ...]."""
        return vectors[:, self._taste]

    def _lengths_of(self, vectors: Float32) -> Float32:
        taste = self._taste_of(vectors)
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", taste, taste, dtype=np.float64)), dtype=np.float32)


def logistic(scores: Float64) -> Float64:
    """Return 1 / (1 + e^-s) of scores, float64 of any shape, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)), dtype=np.float64)


def _exact(taste: Float32, query: Float32, length: float) -> Float64:
    """Return cosines in float64, summed row by row: float64 [m]."""
    exact = taste.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    return np.asarray(np.einsum("ij,j->i", exact, query.astype(np.float64)) / (lengths * length), dtype=np.float64)


Found = TypeVar("Found", Scores, Similar)


def with_fields(found: Found, request: Request, catalogue: CatalogSnapshot, columns: ItemColumns) -> Found:
    """Return an answer with the request's fields of its items.

    Args:
        found: the answer.
        request: its `fields` are used.
        catalogue: snapshot of the answer.
        columns: columns of the items.
    """
    if not request.fields:
        return found
    rows = catalogue.rows([one.item_id for one in found.items])
    return replace(found, fields=tuple(columns.values(catalogue, rows, request.fields)))


def because_rows(
    request: Request,
    history: Sequence[str],
    listed: Int64,
    catalogue: CatalogSnapshot,
    bounds: tuple[SegmentMasks | None, Int64],
    scorer: Scorer,
    columns: ItemColumns,
) -> tuple[Row, ...]:
    """Return a list of similar items for each of the user's latest items.

    An item is in at most one of these lists and the main list. Rules and channels do not apply.

    Args:
        request: its `because`, `n` and `fields` are used.
        history: ids of the user's previous items, latest first.
        listed: int64 [m], rows of the main list.
        catalogue: snapshot of the answer.
        bounds: the rows that may be returned, None for all, and rows that must not.
        scorer: finds similar items.
        columns: columns of the items.
    """
    scope, excluded = bounds
    excluded = np.concatenate([excluded, listed])
    taken = catalogue.rows(list(dict.fromkeys(history))) if history else listed[:0]
    found = []
    for source in taken[taken >= 0][: request.because].tolist():
        rows, cosines = scorer.nearest(catalogue, source, request.n, excluded, scope)
        if len(rows):
            excluded = np.concatenate([excluded, rows])
            item_id, *ids = catalogue.ids(np.array([source, *rows.tolist()]))
            own, *values = columns.values(catalogue, np.array([source, *rows.tolist()]), request.fields) or ({},)
            name = own.get(request.fields[0], item_id) if request.fields else item_id
            items = tuple(map(ScoredItem, ids, cosines.tolist()))
            found.append(Row(item_id, f"Because you took {name}", items, tuple(values)))
    return tuple(found)
