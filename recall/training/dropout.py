"""Values that a batch does not get to see: against overfitting, and so that the unknown rows learn to stand for values."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recall.config.schema import Side
from recall.features.csr import SparseRows
from recall.training.als.newcomers import ways_of
from recall.training.masking import PARTIAL, Masking
from recall.training.roles import Roles


@dataclass(frozen=True, slots=True)
class Dropping:
    """How rows of one side are thinned, anew each time.

    Attributes:
        dropout: share of entries left out; the others weigh 1 / (1 - dropout), so that sums keep their mean
            (Srivastava et al. 2014).
        unknown: share of rows that are masked.
        masking: how.
        ways: of masking, with the share of each.
    """

    dropout: float
    unknown: float
    masking: Masking
    ways: Mapping[int, float]

    @staticmethod
    def of(roles: Roles, side: Side, dropout: float, unknown: float) -> "Dropping":
        """For rows of one side whose fields have these roles."""
        return Dropping(dropout, unknown, Masking(roles), ways_of(roles, side))

    @property
    def idle(self) -> bool:
        """Whether rows come out as they went in."""
        return self.dropout == 0 and self.unknown == 0

    def __call__(self, rows: SparseRows, rng: np.random.Generator) -> SparseRows:
        """The rows with values left out or replaced."""
        if self.unknown:
            fields = len(self.masking.roles.fields)
            way = rng.choice(np.array(list(self.ways), dtype=np.int8), len(rows), p=list(self.ways.values()))
            tossed = rng.random((len(rows), fields))
            whole = rng.random(len(rows)) >= self.unknown
            way[whole], tossed[whole] = PARTIAL, 1.0  # a row of which no field is masked
            rows = self.masking(rows, way, tossed)
        weights = rows.weights
        if self.dropout:
            kept = rng.random(len(weights)) >= self.dropout
            weights = (weights * kept / (1 - self.dropout)).astype(np.float32)
        return SparseRows(rows.indptr, rows.indices, weights, rows.n_features)
