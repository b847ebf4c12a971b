"""The best items of a catalogue by a score with boosts."""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.ranking import Ranked
from recall.index.scan import scan
from recall.live.catalogue import Catalogue, Scope


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
