"""The exact ranking of one request by the model's score with boosts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.base import Ranked
from recall.index.topk import rank, rounding, scan
from recall.serving.request import Request
from recall.serving.rerank.base import Scores
from recall.serving.rerank.item_columns import ItemColumns
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks

# The best items of a catalogue by a score with boosts.


@dataclass(frozen=True, slots=True, eq=False)
class BoostScores:
    """What boosts add to the score of every row.

    Attributes:
        main: float32 [bundle's items].
        given: float32 [overlay's places].
    """

    main: Float32
    given: Float32

    def of(self, rows: Int64) -> Float32:
        """What they add to some rows of the catalogue: float32 [m]."""
        given = rows >= len(self.main)
        gains = self.main[np.where(given, 0, rows)]
        gains[given] = self.given[rows[given] - len(self.main)]
        return gains


def best_boosted(
    catalogue: CatalogSnapshot,
    query: Float32,
    gains: BoostScores,
    n: int,
    excluded: Int64,
    scope: SegmentMasks | None,
    longest: float,
) -> Ranked:
    """The n rows with the largest inner product and gain, by falling score and then by row; surely the best.

    Args:
        catalogue: as it is now.
        query: float32 [dim].
        gains: of its rows.
        n: at least 1.
        excluded: rows that must not be returned.
        scope: the rows that may be; None for all.
        longest: no vector of the bundle is longer.
    """
    size, overlay = catalogue.index.size, catalogue.overlay
    main, hidden = overlay.seen(None if scope is None else scope.main)
    below = np.concatenate([excluded[excluded < size], hidden])
    found = scan(catalogue.bundle.item_vectors, query, gains.main, n, below, main, longest)
    if not overlay.count:
        return found
    places = np.setdiff1d(overlay.living, excluded[excluded >= size] - size)
    if scope is not None:
        places = places[scope.given.holds(places)]
    products = np.einsum("ij,j->i", overlay.vectors[places], query) + gains.given[places]
    rows, scores = np.concatenate([found.rows, places + size]), np.concatenate([found.scores, products])
    order = np.lexsort((rows, -scores))[:n]
    return Ranked(rows[order], scores[order], exact=True)


def gains_of(request: Request, catalogue: CatalogSnapshot, facets: ItemColumns) -> BoostScores | None:
    """What a request's boosts add to the score of every row; None where that is nothing. Raises RequestError."""
    if not request.boosts:
        return None
    main, given = facets.boosts(catalogue)
    weights = main.weights(request.boosts)
    if not weights.any():
        return None
    return BoostScores(main.added(weights), given.added(weights))


def gains_by_name(request: Request, catalogue: CatalogSnapshot, facets: ItemColumns, row: int) -> dict[str, float]:
    """What each of a request's boosts adds to the score of one row. Raises RequestError."""
    if not request.boosts:
        return {}
    main, given = facets.boosts(catalogue)
    size = catalogue.index.size
    return (
        main.parts(main.weights(request.boosts), row) if row < size else given.parts(given.weights(request.boosts), row - size)
    )


@dataclass(frozen=True, eq=False)
class Ranking:
    """Surely right, whatever the index: scores, ties and order are those of an exact search.

    Attributes:
        catalogue: as it was at one moment.
        facets: of its bundle.
        vector: float32 [dim], what the request is searched with.
        gains: what its boosts add to each score; None for nothing.
    """

    catalogue: CatalogSnapshot
    facets: ItemColumns
    vector: Float32
    gains: BoostScores | None

    @classmethod
    def of(cls, request: Request, vector: Float32, catalogue: CatalogSnapshot, facets: ItemColumns) -> "Ranking":
        """The ranking for a request. Raises RequestError when a boost is not known."""
        return cls(catalogue, facets, vector, gains_of(request, catalogue, facets))

    def first(self, n: int, excluded: Int64, scope: SegmentMasks | None) -> tuple[Int64, Scores]:
        """The first n rows of those that a search with these bounds may return, and their scores."""
        if self.gains is not None:
            found = best_boosted(self.catalogue, self.vector, self.gains, n, excluded, scope, self._longest)
            return found.rows, found.scores
        hits = self.catalogue.search(self.vector[None], n, [excluded], [scope], exact=True)
        there = hits.rows[0] >= 0
        return hits.rows[0][there], hits.scores[0][there]

    def scores(self, rows: Int64) -> Scores:
        """Scores of rows that the catalogue holds, repeats allowed: floats [m]."""
        catalogue, size = self.catalogue, self.catalogue.index.size
        if self.gains is not None:
            products = np.einsum("ij,j->i", catalogue.vectors(rows), self.vector)
            return np.asarray(products + self.gains.of(rows))
        wanted, back = np.unique(rows, return_inverse=True)
        published = int(np.searchsorted(wanted, size))
        parts = [
            self._products(catalogue.bundle.item_vectors, wanted[:published]),
            self._products(catalogue.overlay.vectors, wanted[published:] - size),
        ]
        return np.concatenate(parts)[back]

    def place(self, row: int, excluded: Int64, scope: SegmentMasks | None) -> tuple[int, int]:
        """The place of a row, from 1, among itself and all that a search with these bounds may return; and their number."""
        catalogue = self.catalogue
        others = catalogue.mask(excluded, scope)
        others[row] = False
        products = np.concatenate([catalogue.bundle.item_vectors @ self.vector, catalogue.overlay.vectors @ self.vector])
        if self.gains is not None:
            products += np.concatenate([self.gains.main, self.gains.given])
        score = float(self.scores(np.array([row]))[0])
        slack = 2 * float(rounding(self.vector, max(self._longest, catalogue.overlay.longest)))
        slack += 4 * float(np.finfo(np.float32).eps) * abs(score)
        ahead = others & (products > score + slack)
        near = np.flatnonzero(others & (np.abs(products - score) <= slack))  # these are scored as a search would
        scores = self.scores(near)
        closer = (scores > score) | ((scores == score) & (near < row))
        return 1 + int(np.count_nonzero(ahead)) + int(np.count_nonzero(closer)), 1 + int(np.count_nonzero(others))

    def _products(self, vectors: Float32, rows: Int64) -> Float32:
        """As every search adds them up, of distinct rows that rise: float32 [m]."""
        ranked = rank(vectors, self.vector, rows, _NONE, len(rows), exact=True)
        return ranked.scores[np.argsort(ranked.rows)]

    @cached_property
    def _longest(self) -> float:
        return self.facets.longest


_NONE: Int64 = np.empty(0, dtype=np.int64)
