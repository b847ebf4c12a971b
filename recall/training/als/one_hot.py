# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Fast path for one-hot sides: each feature is a separate least-squares problem.

So it is with ids alone, where the models are those of matrix factorization.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recall._arrays import Float32, Int32
from recall.features.csr import SparseRows
from recall.training.als.shards import Workers, split_by_entries
from recall.training.als.sparse_kernels import F32, I32, I64, TABLE, Entries, kernel, row_gradient

_RANGES = 64  # of features that may be solved for at the same time


@dataclass(frozen=True, slots=True)
class OneHotSide:
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
    def of(rows: SparseRows, pairs: Entries, partners: int) -> "OneHotSide":
        """Return the features of one-hot rows with their pairs.

        Args:
            rows: n rows of one side, which `fits`.
            pairs: n rows; indices are in [0, partners).
            partners: exclusive upper bound of the indices.
        """
        if (np.diff(rows.indices) > 0).all():  # a row for each feature, in their order
            return OneHotSide(rows.indices, pairs, rows.indices)
        features, row = np.unique(rows.indices, return_inverse=True)
        owners = np.repeat(row, np.diff(pairs.indptr))
        # a pair that several rows of a feature have is one pair with their weights added
        merged = SparseRows.from_coo(owners, pairs.indices, pairs.weights, len(features), partners)
        return OneHotSide(features, Entries(merged.indptr, merged.indices, merged.weights), rows.indices)

    def summed(self, values: Float32) -> Float32:
        """Values of rows [n], summed for each feature [m]."""
        return np.bincount(self.feature_of, values)[self.features].astype(np.float32)

    def solve(self, problem: "LeastSquares", others: tuple[Float32, Float32], steps: int, workers: Workers) -> float:
        """Run `solve_rows` for all features.

        Args:
            problem: `owners` and `share` have one entry for each feature.
            others: own parts and vectors of the partners, float32 [m] and [m, d].
            steps: of conjugate gradients.
            workers: share it.

        Returns:
            The loss after the steps.
        """

        def solved(part: tuple[int, int]) -> float:
            first, last = part
            some = problem._replace(owners=problem.owners[first:last], share=problem.share[first:last])
            loss: float = solve_rows(*self.pairs.rows(first, last), *some, *others, steps)
            return loss

        losses: Iterable[float] = workers.map(solved, split_by_entries(self.pairs.indptr, _RANGES))
        return sum(losses)


class LeastSquares(NamedTuple):
    """The unknowns of `solve_rows` and their quadratic; the formula is given there.

    Attributes:
        owners: int32 [n], each once: rows of own and table.
        own: float32 [F].
        table: float32 [F, d].
        own_penalty, penalty: float32 [F], positive.
        share: float32 [n].
        base, border, spectrum: float32 [d].
        mean: float32 [d], mean of vector o vector over partners, which the preconditioner uses for every row.
        corner: 0 if the own parts are not solved for and do not change.
    """

    owners: Int32
    own: Float32
    table: Float32
    own_penalty: Float32
    penalty: Float32
    share: Float32
    base: Float32
    border: Float32
    spectrum: Float32
    mean: Float32
    corner: float


@kernel(f"float64({I64},{I32},{F32},{I32},{F32},{TABLE},{F32},{F32},{F32},{F32},{F32},{F32},{F32},float32,{F32},{TABLE},int64)")
def solve_rows(
    indptr, indices, weights, owners, own, table, own_penalty, penalty, share, base, border, spectrum, mean, corner,
    right_own, right, steps,
):  # fmt: skip
    """Solve an independent least-squares problem for each row by conjugate gradients.

    Each row is solved completely before the next, while its data are in the cache. Row r, o = owners[r] with u = own[o] and
    v = table[o], is moved towards the minimum of

        sum over its pairs w (1 - u - right_own[i] - <v, right[i]>)^2
        + share[r] (corner u^2 + 2 u <border, v> + 2 <base, v> + <v, spectrum o v>) + own_penalty[o] u^2 + penalty[o] <v, v>

    Args:
        indptr: of `Entries` with n rows of pairs, as the next two.
        indices: partners.
        weights: of the pairs.
        owners: this and the following up to `corner` are those of `LeastSquares`; `own` and `table` are changed in place.
        own: see there.
        table: see there.
        own_penalty: see there.
        penalty: see there.
        share: see there.
        base: see there.
        border: see there.
        spectrum: see there.
        mean: see there.
        corner: see there.
        right_own: float32 [m], of the partners.
        right: float32 [m, d].
        steps: of conjugate gradients.

    Returns:
        The sum of all of that after the steps.
    """
    d = table.shape[1]
    one, zero = np.float32(1.0), np.float32(0.0)
    bordered = corner != zero
    nothing = np.zeros(len(right_own), dtype=np.float32)
    residual, direction, product = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(d, np.float32)
    diagonal = np.empty(d, np.float32)
    total = 0.0
    for r in range(len(indptr) - 1):
        o, first, last = owners[r], indptr[r], indptr[r + 1]
        u, v, c, q, p = own[o], table[o], share[r], own_penalty[o], penalty[o]
        # half of the negative gradient, the loss, and the diagonal
        cross, energy = zero, 0.0
        for j in range(d):
            energy += v[j] * (c * (base[j] + spectrum[j] * v[j] + base[j]) + p * v[j])
            cross += border[j] * v[j]
        for j in range(d):
            residual[j] = -c * (base[j] + spectrum[j] * v[j] + u * border[j]) - p * v[j]
            diagonal[j] = c * spectrum[j] + p
        pull, observed = row_gradient(indices, weights, first, last, one, -one, u, v, right_own, right, residual)
        energy += observed + u * (c * (corner * u + 2 * cross) + q * u)
        below = zero
        for e in range(first, last):
            below += weights[e]
        for j in range(d):
            diagonal[j] += below * mean[j]
        below += c * corner + q
        left = pull - c * (corner * u + cross) - q * u if bordered else zero
        heading = left / below
        moving = left * heading
        for j in range(d):
            direction[j] = residual[j] / diagonal[j]
        for j in range(d):
            moving += residual[j] * direction[j]
        for _ in range(steps):
            if not moving > 0.0:  # solved, or not a number: the table then shows it
                break
            cross = zero
            for j in range(d):
                cross += border[j] * direction[j]
            for j in range(d):
                product[j] = c * (spectrum[j] * direction[j] + heading * border[j]) + p * direction[j]
            pull, observed = row_gradient(indices, weights, first, last, zero, one, heading, direction, nothing, right, product)
            turn = pull + c * (corner * heading + cross) + q * heading if bordered else zero
            along = heading * turn
            for j in range(d):
                along += direction[j] * product[j]
            if not along > 0.0:
                break
            length = moving / along
            u += length * heading
            energy -= length * moving
            left -= length * turn
            following = left * left / below
            for j in range(d):
                v[j] += length * direction[j]
                residual[j] -= length * product[j]
            for j in range(d):
                following += residual[j] * residual[j] / diagonal[j]
            ratio = following / moving
            heading = left / below + ratio * heading
            for j in range(d):
                direction[j] = residual[j] / diagonal[j] + ratio * direction[j]
            moving = following
        own[o] = u
        total += energy
    return total
