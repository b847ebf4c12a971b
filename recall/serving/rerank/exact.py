"""The exact ranking of one request by the model's score with boosts."""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Int64
from recall.index.topk import products, rounding
from recall.serving.request import Request
from recall.serving.rerank.base import Scores
from recall.serving.rerank.item_columns import ItemColumns
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The ranking of an exact search, whatever the index: scores, ties and order.

    Attributes:
        catalogue: as it was at one moment.
        vector: float32 [dim], what the request is searched with.
        boosts: float32 [size], what its boosts add to each score; None for nothing.
    """

    catalogue: CatalogSnapshot
    vector: Float32
    boosts: Float32 | None

    @classmethod
    def of(cls, request: Request, vector: Float32, catalogue: CatalogSnapshot, columns: ItemColumns) -> "Ranking":
        """Return the ranking for a request. Raises RequestError if a boost is not known.

        Args:
            request: its boosts are taken.
            vector: float32 [dim], what it is searched with.
            catalogue: as it is now.
            columns: of its bundle.
        """
        return cls(catalogue, vector, columns.boost_scores(catalogue, request.boosts))

    def first(self, n: int, excluded: Int64, masks: SegmentMasks | None) -> tuple[Int64, Scores]:
        """Return the first rows and their scores.

        Args:
            n: rows wanted.
            excluded: int64 [m], rows that must not be returned.
            masks: the rows that may be; None for all items.
        """
        if self.boosts is not None:
            best = self.catalogue.top_k(self.vector, n, self.boosts, excluded, masks)
        else:
            best = self.catalogue.search(self.vector[None], n, [excluded], [masks], exact=True).ranked(0)
        return best.rows, best.scores

    def scores(self, rows: Int64) -> Scores:
        """Return the scores of rows, repeats allowed: floats [m]."""
        vectors = self.catalogue.vectors(rows)
        if self.boosts is None:
            return products(vectors, self.vector)
        return np.asarray(np.einsum("ij,j->i", vectors, self.vector) + self.boosts[rows])

    def place(self, row: int, excluded: Int64, masks: SegmentMasks | None) -> tuple[int, int]:
        """Find the rank of a row among itself and all that a search may return.

        Args:
            row: in [0, size).
            excluded: int64 [m], rows that must not be returned.
            masks: the rows that may be; None for all items.

        Returns:
            Its place, from 1, and the number of rows that it stands among.
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
        near = np.flatnonzero(others & (np.abs(cheap - score) <= slack))  # these are scored as a search would
        scores = self.scores(near)
        closer = (scores > score) | ((scores == score) & (near < row))
        return 1 + int(np.count_nonzero(ahead)) + int(np.count_nonzero(closer)), 1 + int(np.count_nonzero(others))
