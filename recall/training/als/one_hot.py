"""A side whose rows have one feature each, as one with ids alone: every feature is then solved for by itself."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Int32
from recall.features.csr import SparseRows
from recall.training.als.kernels import Entries, Kernels, Rows
from recall.training.als.shards import Workers, shared_out

_RANGES = 64  # of features that may be solved for at the same time


@dataclass(frozen=True, slots=True)
class FeaturesApart:
    """The features of one side with the pairs of all rows that have them.

    Attributes:
        features: int32 [m], rising.
        pairs: m rows; indices are partners on the other side.
        feature_of: int32 [n], the feature of each row of the side.
    """

    features: Int32
    pairs: Entries
    feature_of: Int32

    @staticmethod
    def fits(rows: SparseRows) -> bool:
        """Whether every row has exactly one feature, with a weight of 1."""
        return len(rows) > 0 and bool((np.diff(rows.indptr) == 1).all() and (rows.weights == 1).all())

    @staticmethod
    def of(rows: SparseRows, pairs: Entries, partners: int) -> "FeaturesApart | None":
        """The features of `rows` with their pairs; None where a row has not exactly one feature with a weight of 1.

        Args:
            rows: n rows of one side.
            pairs: n rows; indices are in [0, partners).
            partners: how many there may be.
        """
        if not FeaturesApart.fits(rows):
            return None
        if (np.diff(rows.indices) > 0).all():  # a row for each feature, in their order
            return FeaturesApart(rows.indices, pairs, rows.indices)
        features, row = np.unique(rows.indices, return_inverse=True)
        owners = np.repeat(row, np.diff(pairs.indptr))
        # a pair that several rows of a feature have is one pair with their weights added
        merged = SparseRows.gathered(owners, pairs.indices, pairs.weights, len(features), partners)
        return FeaturesApart(features, Entries(merged.indptr, merged.indices, merged.weights), rows.indices)

    def summed(self, values: Float32) -> Float32:
        """Values of rows [n], summed for each feature [m]."""
        return np.bincount(self.feature_of, values)[self.features].astype(np.float32)

    def solve(self, rows: Rows, others: tuple[Float32, Float32], steps: int, kernels: Kernels, workers: Workers) -> float:
        """`Kernels.solve` for all features: `owners` and `share` of `rows` have one entry for each of them."""

        def solved(part: tuple[int, int]) -> float:
            first, last = part
            some = rows._replace(owners=rows.owners[first:last], share=rows.share[first:last])
            return kernels.solve(self.pairs.rows(first, last), some, others, steps)

        losses: Iterable[float] = workers.map(solved, shared_out(self.pairs.indptr, _RANGES))
        return sum(losses)
