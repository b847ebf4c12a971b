"""What an implementation of the inner loops offers."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


class Entries(NamedTuple):
    """Rows of weighted entries. Row r holds positions `indptr[r]:indptr[r + 1]` of the arrays beside it.

    Attributes:
        indptr: int64 [n + 1]; need not start at 0.
        indices: int32 [nnz].
        weights: float32 [nnz].
    """

    indptr: Int64
    indices: Int32
    weights: Float32

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    def rows(self, first: int, last: int) -> "Entries":
        """Rows [first, last), without a copy."""
        return self._replace(indptr=self.indptr[first : last + 1])


class Kernels(Protocol):
    """Sparse products on float32 tables that lie row after row. No call allocates what it returns."""

    @property
    def name(self) -> str:
        """The library that does the work, with its version."""
        ...

    @property
    def threads(self) -> int:
        """Calls that are worth making at the same time; 1 when a call uses several threads itself."""
        ...

    def gather(self, x: Entries, features: Int32, table: Float32, out: Float32) -> None:
        """out[r] = sum over entries e of row r of weights[e] table[features[indices[e]]].

        Args:
            x: n rows, whose indices point into `features`.
            features: int32 [m], rows of the table.
            table: float32 [F, d].
            out: float32 [n, d], overwritten.
        """
        ...

    def scatter(self, x: Entries, rows: Float32, out: Float32) -> None:
        """out[indices[e]] += weights[e] rows[r] for all entries e of every row r.

        Args:
            x: n rows, whose indices point into `out`.
            rows: float32 [n, d].
            out: float32 [m, d], added to.
        """
        ...

    def fit(
        self,
        pairs: Entries,
        owners: Int32,
        signs: tuple[float, float],
        left: tuple[Float32, Float32],
        right: tuple[Float32, Float32],
        out: tuple[Float32, Float32],
    ) -> float:
        """Scores of observed pairs and what they pull at.

        With s = left_own[o] + right_own[i] + <left[o], right[i]> for the pair of weight w of owner o and partner i, and
        e = constant + slope s:  out_own[o] += w e,  out[o] += w e right[i].

        Args:
            pairs: n rows of pairs; indices are partners.
            owners: int32 [n], the row of `left` and `out` that a row of pairs belongs to.
            signs: constant and slope: (1, -1) gives the residual 1 - s, (0, 1) the score itself.
            left, right: own parts float32 [L] and [R], vectors float32 [L, d] and [R, d].
            out: float32 [L] and [L, d], added to.

        Returns:
            Sum over the pairs of w e^2.
        """
        ...

    def shade(self, scale: Float32, base: Float32, spectrum: Float32, rows: Float32, out: Float32) -> None:
        """out[r] = scale[r] (base + spectrum o rows[r]).

        Args:
            scale: float32 [n].
            base, spectrum: float32 [d].
            rows: float32 [n, d].
            out: float32 [n, d], overwritten.
        """
        ...

    def gram(self, weights: Float32, rows: Float32, border: Float32, out: Float32) -> None:
        """border += sum_r weights[r] rows[r];  out += sum_r weights[r] rows[r] rows[r]'.

        Args:
            weights: float32 [n].
            rows: float32 [n, d].
            border: float32 [d], added to.
            out: float32 [d, d], added to on and below the diagonal; what is above it means nothing.
        """
        ...
