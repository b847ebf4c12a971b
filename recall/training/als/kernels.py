"""Sparse products and small solves on float32 tables, by compiled loops.

Tables are row-major, and results are written into allocated ones. Each call runs on one thread and releases the interpreter's
lock.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recall._arrays import Float32, Int32, Int64, UInt8
from recall.training.als.loops import (
    _advance,
    _blend,
    _differences,
    _dot,
    _fit,
    _gather,
    _gram,
    _mix,
    _redirect,
    _row_dots,
    _scatter,
    _shade,
    _solve,
)


class Entries(NamedTuple):
    """Rows of weighted entries in CSR form.

    Row r has positions `indptr[r]:indptr[r + 1]` of the other arrays.

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
        """Return rows [first, last), without a copy.

        Args:
            first: position of the first row.
            last: position after the last row.
        """
        return self._replace(indptr=self.indptr[first : last + 1])

    def followed(self, others: "Sequence[Entries]") -> "Entries":
        """Append other rows; `indptr` of each starts at 0."""
        if not others:
            return self
        parts = (self, *others)
        ends = np.cumsum([part.indptr[-1] for part in parts])
        indptr = np.concatenate([self.indptr, *(part.indptr[1:] + end for part, end in zip(others, ends, strict=False))])
        return Entries(
            indptr, np.concatenate([part.indices for part in parts]), np.concatenate([part.weights for part in parts])
        )


class Rows(NamedTuple):
    """The unknowns of `solve` and their quadratic.

    Attributes:
        owners: int32 [n], each once: rows of own and table.
        own: float32 [F].
        table: float32 [F, d].
        own_penalty, penalty: float32 [F], positive.
        share: float32 [n].
        base, border, spectrum: float32 [d].
        mean: of vector o vector over partners, float32 [d]; the preconditioner takes it for those of every row.
        corner: nothing where the own parts are not solved for and stay as they are.
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
    corner: float | None


def differences(x: Entries, columns: int) -> tuple[Entries, UInt8]:
    """Delta-encode rows against the row before, where that is shorter.

    Contexts of one user follow one another, and share most of their features.

    Args:
        x: n rows, indptr from 0, indices in [0, columns); no row has an index twice.
        columns: exclusive upper bound of the indices.

    Returns:
        n rows, and uint8 [n], 1 where a row is to be added to the row before. Each `STRIDE`th row starts a new sum.
    """
    indptr, follows = np.zeros_like(x.indptr), np.zeros(x.n, dtype=np.uint8)
    indices, weights = np.empty_like(x.indices), np.empty_like(x.weights)
    _differences(*x, np.full(columns, -1), np.empty(columns, dtype=np.float32), follows, indptr, indices, weights)
    return Entries(indptr, indices[: indptr[-1]].copy(), weights[: indptr[-1]].copy()), follows


def gather(x: Entries, follows: UInt8, features: Int32, table: Float32, out: Float32) -> None:
    """Compute out[r] = sum over entries e of weights[e] table[features[indices[e]]].

    out[r - 1] is added where row r follows.

    Args:
        x: n rows, whose indices point into `features`.
        follows: uint8 [n], as `differences` returns it; the first is 0.
        features: int32 [m], rows of the table.
        table: float32 [F, d].
        out: float32 [n, d], overwritten.
    """
    _gather(*x, follows, features, table, out)


def scatter(x: Entries, follows: UInt8, rows: Float32, out: Float32) -> None:
    """Add weights[e] rows[r] to out[indices[e]]: the transpose of `gather`.

    Args:
        x: n rows, whose indices point into `out`.
        follows: uint8 [n]; a row that follows first adds its own part of `rows` to that of the row before.
        rows: float32 [n, d]; rows that are followed are undefined afterwards.
        out: float32 [m, d], added to.
    """
    _scatter(*x, follows, rows, out)


def fit(
    pairs: Entries,
    owners: Int32,
    signs: tuple[float, float],
    left: tuple[Float32, Float32],
    right: tuple[Float32, Float32],
    out: tuple[Float32, Float32],
) -> float:
    """Accumulate the residuals of observed pairs into their owners.

    With s = left_own[o] + right_own[i] + <left[o], right[i]> for the pair of weight w of owner o and partner i, and
    e = constant + slope s:  out_own[o] += w e,  out[o] += w e right[i].

    Args:
        pairs: n rows of pairs; indices are partners.
        owners: int32 [n], the row of `left` and `out` that a row of pairs belongs to.
        signs: constant and slope: (1, -1) gives the residual 1 - s, (0, 1) the score itself.
        left: own parts float32 [L], and vectors float32 [L, d].
        right: own parts float32 [R], and vectors float32 [R, d].
        out: float32 [L] and [L, d], added to.

    Returns:
        Sum over the pairs of w e^2.
    """
    return float(_fit(*pairs, owners, *signs, *left, *right, *out))


def shade(scale: Float32, base: Float32, spectrum: Float32, rows: Float32, out: Float32) -> None:
    """Compute out[r] = scale[r] (base + spectrum o rows[r]).

    Args:
        scale: float32 [n].
        base: float32 [d].
        spectrum: float32 [d].
        rows: float32 [n, d].
        out: float32 [n, d], overwritten.
    """
    _shade(scale, base, spectrum, rows, out)


def blend(scale: Float32, base: Float32, gram: Float32, rows: Float32, out: Float32) -> None:
    """out[r] = scale[r] (base + gram rows[r]).

    Args:
        scale: float32 [n].
        base: float32 [d].
        gram: float32 [d, d], symmetric.
        rows: float32 [n, d].
        out: float32 [n, d], overwritten.
    """
    _blend(scale, base, gram, rows, out)


def mix(weights: Float32, rows: Float32, out: Float32) -> None:
    """out[r b + j] = sum_i weights[i, j] rows[r a + i].

    Args:
        weights: float32 [a, b].
        rows: float32 [n a, d].
        out: float32 [n b, d], overwritten.
    """
    _mix(weights, rows, out)


def gram(weights: Float32, rows: Float32, border: Float32, out: Float32) -> None:
    """border += sum_r weights[r] rows[r];  out += sum_r weights[r] rows[r] rows[r]'.

    Args:
        weights: float32 [n].
        rows: float32 [n, d].
        border: float32 [d], added to.
        out: float32 [d, d], added to on and below the diagonal; what is above it means nothing.
    """
    _gram(weights, rows, border, out)


def solve(pairs: Entries, rows: Rows, others: tuple[Float32, Float32], steps: int) -> float:
    """Solve independent least-squares problems by conjugate gradients, row by row.

    Each row is solved while what it reads is in the cache. Row r of the tables, o = owners[r] with u = own[o] and
    v = table[o], is moved towards the minimum of

        sum over its pairs w (1 - u - others_own[i] - <v, others[i]>)^2
        + share[r] (corner u^2 + 2 u <border, v> + 2 <base, v> + <v, spectrum o v>) + own_penalty[o] u^2 + penalty[o] <v, v>

    Args:
        pairs: n rows of pairs; indices are partners.
        rows: what is solved for, changed in place.
        others: the partners' own parts and vectors, float32 [m] and [m, d].
        steps: of conjugate gradients.

    Returns:
        The sum of all of that after the steps.
    """
    *arrays, corner = rows
    return float(_solve(*pairs, *arrays, corner or 0.0, corner is not None, *others, steps))


def dot(left: Float32, right: Float32) -> float:
    """Return the sum of all products of two tables.

    Args:
        left: float32 [n, d].
        right: float32 [n, d].
    """
    return float(_dot(left, right))


def row_dots(left: Float32, right: Float32, out: Float32) -> None:
    """out[r] = <left[r], right[r]>.

    Args:
        left: float32 [n, d].
        right: float32 [n, d].
        out: float32 [n], overwritten.
    """
    _row_dots(left, right, out)


def advance(
    solution: Float32, residual: Float32, direction: Float32, product: Float32, diagonal: Float32, length: float
) -> float:
    """Take a step: solution += length direction;  residual -= length product.

    Args:
        solution: float32 [n, d], changed in place.
        residual: float32 [n, d], changed in place.
        direction: float32 [n, d].
        product: float32 [n, d].
        diagonal: float32 [n, d].
        length: of the step.

    Returns:
        The sum of residual^2 / diagonal after it.
    """
    return float(_advance(solution, residual, direction, product, diagonal, length))


def redirect(direction: Float32, residual: Float32, diagonal: Float32, ratio: float) -> None:
    """Compute direction = residual / diagonal + ratio direction, in place.

    Args:
        direction: float32 [n, d].
        residual: float32 [n, d].
        diagonal: float32 [n, d].
        ratio: of the old direction.
    """
    _redirect(direction, residual, diagonal, ratio)
