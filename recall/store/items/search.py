"""The best items of a catalogue and of what lies over it, as one list."""

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.base import Hits
from recall.index.bitmap import Selection
from recall.index.topk import Ranked, rank, rounding
from recall.store.items.delta import Overlay

_FEW_CHANGES = 256  # items that are put in order without looking first which of them can be among the best


def best_given(overlay: Overlay, query: Float32, n: int, excluded: Int64, within: Selection | None) -> Ranked:
    """The best n of an overlay's items by a scan of all of them.

    Args:
        overlay: its places are the rows of the result.
        query: float32 [dim].
        n: at least 1.
        excluded: places that must not be returned.
        within: the places that may be; None for all.
    """
    places = overlay.living
    if within is not None:
        places = places[within.holds(places)]
    if len(places) > max(_FEW_CHANGES, n + len(excluded)):
        places = places[_promising(overlay, query, places, n + len(excluded))]
    return rank(overlay.vectors, query, places, np.unique(excluded), n, exact=True)


def _promising(overlay: Overlay, query: Float32, places: Int64, width: int) -> Int64:
    """Positions among `places` of whatever can be among the best `width`, however its product is added up."""
    every = len(places) == len(overlay.vectors)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = (overlay.vectors @ query) if every else (overlay.vectors @ query)[places]
    if not np.isfinite(scores).all():
        return np.arange(len(places))
    least = np.partition(scores, len(scores) - width)[len(scores) - width]
    return np.flatnonzero(scores >= least - 2 * rounding(query, overlay.longest))


def merged(main: Hits, given: list[Ranked], size: int, n: int) -> Hits:
    """Two results as one: by falling score, then by row.

    Args:
        main: of the catalogue, [q, n].
        given: of the overlay, one for each query.
        size: rows of the catalogue, after which the overlay's places are counted.
        n: length of the lists.
    """
    rows = np.full((len(given), n), -1, dtype=np.int64)
    scores = np.full((len(given), n), -np.inf, dtype=np.float32)
    for query, one in enumerate(given):
        found = main.rows[query] >= 0
        both = np.concatenate([main.rows[query][found], one.rows + size])
        products = np.concatenate([main.scores[query][found], one.scores])
        order = np.lexsort((both, -products))[:n]
        rows[query, : len(order)] = both[order]
        scores[query, : len(order)] = products[order]
    return Hits(rows, scores, main.exact)
