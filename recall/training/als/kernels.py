"""The inner loops of the solver, compiled by numba."""

from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from recall._arrays import Float32, Int32, Int64, UInt8
from recall._numba import compiled

STRIDE = 64
"""Sums over rows that follow one another are this long at most, so that rounding cannot add up."""


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
    """The unknowns of `Kernels.solve` and the quadratic that they stand in.

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


# The inner loops compiled by numba.
#
# Four partners or entries go through a loop at a time, so that a row of the result is read and written once for four.
# Sums may be reassociated, which lets them run in vector registers; numbers that are not finite stay so.

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_I64, _I32, _F32, _FLAGS, _TABLE = "int64[::1]", "int32[::1]", "float32[::1]", "uint8[::1]", "float32[:,::1]"
_SIGNATURES = {
    "_differences": f"void({_I64},{_I32},{_F32},{_I64},{_F32},{_FLAGS},{_I64},{_I32},{_F32})",
    "_gather": f"void({_I64},{_I32},{_F32},{_FLAGS},{_I32},{_TABLE},{_TABLE})",
    "_scatter": f"void({_I64},{_I32},{_F32},{_FLAGS},{_TABLE},{_TABLE})",
    "_fit": f"float64({_I64},{_I32},{_F32},{_I32},float32,float32,{_F32},{_TABLE},{_F32},{_TABLE},{_F32},{_TABLE})",
    "_shade": f"void({_F32},{_F32},{_F32},{_TABLE},{_TABLE})",
    "_blend": f"void({_F32},{_F32},{_TABLE},{_TABLE},{_TABLE})",
    "_mix": f"void({_TABLE},{_TABLE},{_TABLE})",
    "_gram": f"void({_F32},{_TABLE},{_F32},{_TABLE})",
    "_dot": f"float64({_TABLE},{_TABLE})",
    "_advance": f"float64({_TABLE},{_TABLE},{_TABLE},{_TABLE},{_TABLE},float32)",
    "_redirect": f"void({_TABLE},{_TABLE},{_TABLE},float32)",
    "_solve": f"float64({_I64},{_I32},{_F32},{_I32},{_F32},{_TABLE},{_F32},{_F32},{_F32},{_F32},{_F32},{_F32},{_F32},float32,"
    f"boolean,{_F32},{_TABLE},int64)",
}
_compiling = Lock()


class Kernels:
    """Compiled sparse products on row-major float32 tables, into allocated results.

    Each call runs on one thread and releases the interpreter's lock.
    """

    name = f"numba {numba.__version__}"

    @property
    def threads(self) -> int:
        """Number of calls that are worth making concurrently."""
        return torch.get_num_threads()

    def differences(self, x: Entries, columns: int) -> tuple[Entries, UInt8]:
        """Delta-encode rows against the row before, where that is shorter.

        Contexts of one user follow one another, and share most of their features.

        Args:
            x: n rows, indptr from 0, indices in [0, columns); no row has an index twice.
            columns: exclusive upper bound of the indices.

        Returns:
            n rows, and uint8 [n], 1 where a row is to be added to the row before. Each `STRIDE`th row stands by itself.
        """
        indptr, follows = np.zeros_like(x.indptr), np.zeros(x.n, dtype=np.uint8)
        indices, weights = np.empty_like(x.indices), np.empty_like(x.weights)
        _compiled(_differences)(
            *x, np.full(columns, -1), np.empty(columns, dtype=np.float32), follows, indptr, indices, weights
        )
        return Entries(indptr, indices[: indptr[-1]].copy(), weights[: indptr[-1]].copy()), follows

    def gather(self, x: Entries, follows: UInt8, features: Int32, table: Float32, out: Float32) -> None:
        """Compute out[r] = sum over entries e of weights[e] table[features[indices[e]]].

        out[r - 1] is added where row r follows.

        Args:
            x: n rows, whose indices point into `features`.
            follows: uint8 [n], as `differences` returns it; the first is 0.
            features: int32 [m], rows of the table.
            table: float32 [F, d].
            out: float32 [n, d], overwritten.
        """
        _compiled(_gather)(*x, follows, features, table, out)

    def scatter(self, x: Entries, follows: UInt8, rows: Float32, out: Float32) -> None:
        """Add weights[e] rows[r] to out[indices[e]]: the transpose of `gather`.

        Args:
            x: n rows, whose indices point into `out`.
            follows: uint8 [n]; a row that follows first adds its own part of `rows` to that of the row before.
            rows: float32 [n, d]; rows that are followed are undefined afterwards.
            out: float32 [m, d], added to.
        """
        _compiled(_scatter)(*x, follows, rows, out)

    def fit(
        self,
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
        return float(_compiled(_fit)(*pairs, owners, *signs, *left, *right, *out))

    def shade(self, scale: Float32, base: Float32, spectrum: Float32, rows: Float32, out: Float32) -> None:
        """Compute out[r] = scale[r] (base + spectrum o rows[r]).

        Args:
            scale: float32 [n].
            base: float32 [d].
            spectrum: float32 [d].
            rows: float32 [n, d].
            out: float32 [n, d], overwritten.
        """
        _compiled(_shade)(scale, base, spectrum, rows, out)

    def blend(self, scale: Float32, base: Float32, gram: Float32, rows: Float32, out: Float32) -> None:
        """out[r] = scale[r] (base + gram rows[r]).

        Args:
            scale: float32 [n].
            base: float32 [d].
            gram: float32 [d, d], symmetric.
            rows: float32 [n, d].
            out: float32 [n, d], overwritten.
        """
        _compiled(_blend)(scale, base, gram, rows, out)

    def mix(self, weights: Float32, rows: Float32, out: Float32) -> None:
        """out[r b + j] = sum_i weights[i, j] rows[r a + i].

        Args:
            weights: float32 [a, b].
            rows: float32 [n a, d].
            out: float32 [n b, d], overwritten.
        """
        _compiled(_mix)(weights, rows, out)

    def gram(self, weights: Float32, rows: Float32, border: Float32, out: Float32) -> None:
        """border += sum_r weights[r] rows[r];  out += sum_r weights[r] rows[r] rows[r]'.

        Args:
            weights: float32 [n].
            rows: float32 [n, d].
            border: float32 [d], added to.
            out: float32 [d, d], added to on and below the diagonal; what is above it means nothing.
        """
        _compiled(_gram)(weights, rows, border, out)

    def solve(self, pairs: Entries, rows: Rows, others: tuple[Float32, Float32], steps: int) -> float:
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
        return float(_compiled(_solve)(*pairs, *arrays, corner or 0.0, corner is not None, *others, steps))

    def dot(self, left: Float32, right: Float32) -> float:
        """Return the sum of all products of two tables.

        Args:
            left: float32 [n, d].
            right: float32 [n, d].
        """
        return float(_compiled(_dot)(left, right))

    def advance(
        self, solution: Float32, residual: Float32, direction: Float32, product: Float32, diagonal: Float32, length: float
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
        return float(_compiled(_advance)(solution, residual, direction, product, diagonal, length))

    def redirect(self, direction: Float32, residual: Float32, diagonal: Float32, ratio: float) -> None:
        """Compute direction = residual / diagonal + ratio direction, in place.

        Args:
            direction: float32 [n, d].
            residual: float32 [n, d].
            diagonal: float32 [n, d].
            ratio: of the old direction.
        """
        _compiled(_redirect)(direction, residual, diagonal, ratio)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code for the one signature of a loop."""
    signature = _SIGNATURES[function.__name__]
    with _compiling:
        made: Callable[..., Any] = compiled(signature, fastmath=_FAST)(function)
        return made


def _differences(  # type: ignore[no-untyped-def]
    indptr, indices, weights, met_by, met, follows, out_indptr, out_indices, out_weights
):
    filled = 0
    for r in range(len(indptr) - 1):
        start, first, last = filled, indptr[r], indptr[r + 1]
        before = indptr[r - 1] if r % STRIDE else first
        for e in range(before, first):
            met_by[indices[e]] = r
            met[indices[e]] = weights[e]
        shorter = first > before
        for e in range(first, last):
            i = indices[e]
            change = weights[e]
            if met_by[i] == r:
                met_by[i] = -1
                change -= met[i]
            if change != 0.0:
                if filled == start + last - first:
                    shorter = False
                    break
                out_indices[filled] = i
                out_weights[filled] = change
                filled += 1
        for e in range(before, first):
            if shorter and met_by[indices[e]] == r:
                if filled + 1 >= start + last - first:
                    shorter = False
                    break
                out_indices[filled] = indices[e]
                out_weights[filled] = -weights[e]
                filled += 1
        if not shorter or filled - start >= last - first:
            shorter = False
            for e in range(first, last):
                out_indices[start + e - first] = indices[e]
                out_weights[start + e - first] = weights[e]
            filled = start + last - first
        follows[r] = shorter
        out_indptr[r + 1] = filled


def _gather(indptr, indices, weights, follows, features, table, out):  # type: ignore[no-untyped-def]
    d = table.shape[1]
    for r in range(len(indptr) - 1):
        row = out[r]
        if follows[r]:
            before = out[r - 1]
            for j in range(d):
                row[j] = before[j]
        else:
            for j in range(d):
                row[j] = 0.0
        e, end = indptr[r], indptr[r + 1]
        while e + 4 <= end:
            x0, x1, x2, x3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
            t0, t1 = table[features[indices[e]]], table[features[indices[e + 1]]]
            t2, t3 = table[features[indices[e + 2]]], table[features[indices[e + 3]]]
            for j in range(d):
                row[j] += x0 * t0[j] + x1 * t1[j] + x2 * t2[j] + x3 * t3[j]
            e += 4
        while e < end:
            x, t = weights[e], table[features[indices[e]]]
            for j in range(d):
                row[j] += x * t[j]
            e += 1


def _scatter(indptr, indices, weights, follows, rows, out):  # type: ignore[no-untyped-def]
    d = rows.shape[1]
    for r in range(len(indptr) - 2, -1, -1):
        row = rows[r]
        for e in range(indptr[r], indptr[r + 1]):
            x, t = weights[e], out[indices[e]]
            for j in range(d):
                t[j] += x * row[j]
        if follows[r]:
            before = rows[r - 1]
            for j in range(d):
                before[j] += row[j]


@numba.njit(nogil=True, error_model="numpy", fastmath=_FAST)
def _pull(indices, weights, first, last, constant, slope, base, a, right_own, right, row):  # type: ignore[no-untyped-def]
    """Process one row of `fit`; adds to row [d].

    Returns:
        The sum for the own part, and the energy.
    """
    d = len(a)
    energy, pull = 0.0, np.float32(0.0)
    e = first
    while e + 4 <= last:
        i0, i1, i2, i3 = indices[e], indices[e + 1], indices[e + 2], indices[e + 3]
        b0, b1, b2, b3 = right[i0], right[i1], right[i2], right[i3]
        s0, s1, s2, s3 = base + right_own[i0], base + right_own[i1], base + right_own[i2], base + right_own[i3]
        for j in range(d):
            s0 += a[j] * b0[j]
            s1 += a[j] * b1[j]
            s2 += a[j] * b2[j]
            s3 += a[j] * b3[j]
        e0, e1, e2, e3 = constant + slope * s0, constant + slope * s1, constant + slope * s2, constant + slope * s3
        p0, p1, p2, p3 = weights[e] * e0, weights[e + 1] * e1, weights[e + 2] * e2, weights[e + 3] * e3
        energy += p0 * e0 + p1 * e1 + p2 * e2 + p3 * e3
        pull += p0 + p1 + p2 + p3
        for j in range(d):
            row[j] += p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j]
        e += 4
    while e < last:
        i = indices[e]
        b, s = right[i], base + right_own[i]
        for j in range(d):
            s += a[j] * b[j]
        error = constant + slope * s
        p = weights[e] * error
        energy += p * error
        pull += p
        for j in range(d):
            row[j] += p * b[j]
        e += 1
    return pull, energy


def _fit(  # type: ignore[no-untyped-def]
    indptr, indices, weights, owners, constant, slope, left_own, left, right_own, right, out_own, out
):
    total = 0.0
    for r in range(len(indptr) - 1):
        o = owners[r]
        pull, energy = _pull(
            indices, weights, indptr[r], indptr[r + 1], constant, slope, left_own[o], left[o], right_own, right, out[o]
        )
        out_own[o] += pull
        total += energy
    return total


def _solve(  # type: ignore[no-untyped-def]
    indptr, indices, weights, owners, own, table, own_penalty, penalty, share, base, border, spectrum, mean,
    corner, bordered, right_own, right, steps,
):  # fmt: skip
    d = table.shape[1]
    one, zero = np.float32(1.0), np.float32(0.0)
    nothing = np.zeros(len(right_own), dtype=np.float32)
    residual, direction, product = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(d, np.float32)
    diagonal = np.empty(d, np.float32)
    total = 0.0
    for r in range(len(indptr) - 1):
        o, first, last = owners[r], indptr[r], indptr[r + 1]
        u, v, c, q, p = own[o], table[o], share[r], own_penalty[o], penalty[o]
        # the gradient's half, downhill; what the loss is; the diagonal
        cross, energy = zero, 0.0
        for j in range(d):
            pulled = base[j] + spectrum[j] * v[j]
            residual[j] = -c * (pulled + u * border[j]) - p * v[j]
            energy += v[j] * (c * (pulled + base[j]) + p * v[j])
            cross += border[j] * v[j]
            diagonal[j] = c * spectrum[j] + p
        pull, observed = _pull(indices, weights, first, last, one, -one, u, v, right_own, right, residual)
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
            moving += residual[j] * direction[j]
        for _ in range(steps):
            if not moving > 0.0:  # solved, or not a number: the table then shows it
                break
            cross = zero
            for j in range(d):
                cross += border[j] * direction[j]
                product[j] = c * (spectrum[j] * direction[j] + heading * border[j]) + p * direction[j]
            pull, observed = _pull(indices, weights, first, last, zero, one, heading, direction, nothing, right, product)
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
                following += residual[j] * residual[j] / diagonal[j]
            ratio = following / moving
            heading = left / below + ratio * heading
            for j in range(d):
                direction[j] = residual[j] / diagonal[j] + ratio * direction[j]
            moving = following
        own[o] = u
        total += energy
    return total


def _shade(scale, base, spectrum, rows, out):  # type: ignore[no-untyped-def]
    d = rows.shape[1]
    for r in range(len(scale)):
        s, row, target = scale[r], rows[r], out[r]
        for j in range(d):
            target[j] = s * (base[j] + spectrum[j] * row[j])


def _gram(weights, rows, border, out):  # type: ignore[no-untyped-def]
    n, d = rows.shape
    r = 0
    while r + 4 <= n:
        w0, w1, w2, w3 = weights[r], weights[r + 1], weights[r + 2], weights[r + 3]
        a, b, c, e = rows[r], rows[r + 1], rows[r + 2], rows[r + 3]
        for j in range(d):
            row, x0, x1, x2, x3 = out[j], w0 * a[j], w1 * b[j], w2 * c[j], w3 * e[j]
            border[j] += x0 + x1 + x2 + x3
            for i in range(j + 1):
                row[i] += x0 * a[i] + x1 * b[i] + x2 * c[i] + x3 * e[i]
        r += 4
    while r < n:
        a = rows[r]
        for j in range(d):
            row, x = out[j], weights[r] * a[j]
            border[j] += x
            for i in range(j + 1):
                row[i] += x * a[i]
        r += 1


def _blend(scale, base, gram, rows, out):  # type: ignore[no-untyped-def]
    d = rows.shape[1]
    for r in range(len(scale)):
        s, row, target = scale[r], rows[r], out[r]
        for j in range(d):
            target[j] = s * base[j]
        i = 0
        while i + 4 <= d:
            x0, x1, x2, x3 = s * row[i], s * row[i + 1], s * row[i + 2], s * row[i + 3]
            g0, g1, g2, g3 = gram[i], gram[i + 1], gram[i + 2], gram[i + 3]
            for j in range(d):
                target[j] += x0 * g0[j] + x1 * g1[j] + x2 * g2[j] + x3 * g3[j]
            i += 4
        while i < d:
            x, g = s * row[i], gram[i]
            for j in range(d):
                target[j] += x * g[j]
            i += 1


def _mix(weights, rows, out):  # type: ignore[no-untyped-def]
    a, b = weights.shape
    d = rows.shape[1]
    for r in range(len(rows) // a):
        for j in range(b):
            target = out[r * b + j]
            for m in range(d):
                target[m] = 0.0
            for i in range(a):
                w, row = weights[i, j], rows[r * a + i]
                for m in range(d):
                    target[m] += w * row[m]


def _dot(left, right):  # type: ignore[no-untyped-def]
    n, d = left.shape
    total = 0.0
    for r in range(n):
        a, b = left[r], right[r]
        row = np.float32(0.0)
        for j in range(d):
            row += a[j] * b[j]
        total += float(row)
    return total


def _advance(solution, residual, direction, product, diagonal, length):  # type: ignore[no-untyped-def]
    n, d = solution.shape
    total = 0.0
    for r in range(n):
        x, left, along, moved, below = solution[r], residual[r], direction[r], product[r], diagonal[r]
        row = np.float32(0.0)
        for j in range(d):
            x[j] += length * along[j]
            remains = left[j] - length * moved[j]
            left[j] = remains
            row += remains * remains / below[j]
        total += float(row)
    return total


def _redirect(direction, residual, diagonal, ratio):  # type: ignore[no-untyped-def]
    n, d = direction.shape
    for r in range(n):
        along, left, below = direction[r], residual[r], diagonal[r]
        for j in range(d):
            along[j] = left[j] / below[j] + ratio * along[j]
