"""Values that a batch does not get to see: against overfitting, and so that the unknown rows learn to stand for values."""

from dataclasses import dataclass

import numpy as np

from recall.features.fields import Fields
from recall.features.sparse import SparseRows
from recall.vocabulary import MISSING, UNKNOWN


@dataclass(frozen=True, slots=True)
class Dropping:
    """How rows of one side are thinned, anew each time.

    Attributes:
        fields: of the side.
        dropout: share of entries left out; the others weigh 1 / (1 - dropout), so that sums keep their mean
            (Srivastava et al. 2014).
        unknown: share of rows in which about half of the fields are replaced by their unknown row, or, where `missing`
            says so, by their missing row half of that often.
        missing: bool [fields], fields that no training row leaves out, so that nothing else would train the missing row.
    """

    fields: Fields
    dropout: float
    unknown: float
    missing: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @staticmethod
    def of(fields: Fields, rows: SparseRows, dropout: float, unknown: float) -> "Dropping":
        """For the training rows of one side."""
        met = np.bincount(rows.indices, minlength=rows.n_features) > 0
        return Dropping(fields, dropout, unknown, ~met[fields.offsets + MISSING])

    @property
    def idle(self) -> bool:
        """Whether rows come out as they went in."""
        return self.dropout == 0 and self.unknown == 0

    def __call__(self, rows: SparseRows, rng: np.random.Generator) -> SparseRows:
        """The rows with values left out or replaced; a feature may then stand in a row twice, its weights to be added."""
        indices, weights = rows.indices, rows.weights
        if self.unknown:
            row = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
            field = self.fields.of(indices)
            tossed = rng.random((len(rows), len(self.fields)))
            tossed[rng.random(len(rows)) >= self.unknown] = 1.0
            stand_in = np.where((tossed < 0.25) & self.missing, MISSING, UNKNOWN) + self.fields.offsets  # [rows, fields]
            indices = np.where(tossed[row, field] < 0.5, stand_in[row, field], indices).astype(np.int32)
        if self.dropout:
            kept = rng.random(len(weights)) >= self.dropout
            weights = (weights * kept / (1 - self.dropout)).astype(np.float32)
        return SparseRows(rows.indptr, indices, weights, rows.n_features)
