"""The best items of a catalogue by a score with boosts."""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.scan import scan
from recall.index.topk import Ranked
from recall.serving.request import Request
from recall.serving.rerank.item_columns import Facets
from recall.store.items.snapshot import Catalogue, Scope


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
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
    catalogue: Catalogue, query: Float32, gains: Gains, n: int, excluded: Int64, scope: Scope | None, longest: float
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


def gains_of(request: Request, catalogue: Catalogue, facets: Facets) -> Gains | None:
    """What a request's boosts add to the score of every row; None where that is nothing. Raises RequestError."""
    if not request.boosts:
        return None
    main, given = facets.boosts(catalogue)
    weights = main.weights(request.boosts)
    if not weights.any():
        return None
    return Gains(main.added(weights), given.added(weights))


def gains_by_name(request: Request, catalogue: Catalogue, facets: Facets, row: int) -> dict[str, float]:
    """What each of a request's boosts adds to the score of one row. Raises RequestError."""
    if not request.boosts:
        return {}
    main, given = facets.boosts(catalogue)
    size = catalogue.index.size
    return (
        main.parts(main.weights(request.boosts), row) if row < size else given.parts(given.weights(request.boosts), row - size)
    )
