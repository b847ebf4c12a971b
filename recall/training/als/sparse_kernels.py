# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled loops over sparse rows: products, and gradients of observed pairs.

Tables are row-major float32, and results are written into allocated ones. Four entries go through a loop at a time, so that a
row of the result is read and written once for four. Sums may be reassociated, which lets them run in vector registers; numbers
that are not finite stay so. A call runs on one thread and releases the interpreter's lock.

A loop that sums into a scalar does not write to an array. For a loop that writes, the compiled code tests whether arrays might
overlap, and then does not use vector registers: a sum would depend on the addresses of the arrays.
"""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from threading import Lock
from typing import Any, NamedTuple

import numba
import numpy as np

from recall._arrays import Float32, Int32, Int64, UInt8
from recall._numba import compiled

STRIDE = 64
"""Sums over rows that follow one another are this long at most, so that rounding cannot add up."""

_FAST = {"reassoc", "contract", "nsz", "arcp"}
I64, I32, F32, FLAGS, TABLE = "int64[::1]", "int32[::1]", "float32[::1]", "uint8[::1]", "float32[:,::1]"
_compiling = Lock()


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a loop for its one signature on first use."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def code() -> Callable[..., Any]:
            with _compiling:
                made: Callable[..., Any] = compiled(signature, fastmath=_FAST)(function)
                return made

        return wraps(function)(lambda *arguments: code()(*arguments))

    return decorate


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

    def vstack(self, others: "Sequence[Entries]") -> "Entries":
        """Append other rows; `indptr` of each starts at 0."""
        if not others:
            return self
        parts = (self, *others)
        ends = np.cumsum([part.indptr[-1] for part in parts])
        indptr = np.concatenate([self.indptr, *(part.indptr[1:] + end for part, end in zip(others, ends, strict=False))])
        return Entries(
            indptr, np.concatenate([part.indices for part in parts]), np.concatenate([part.weights for part in parts])
        )


def delta_encode(x: Entries, columns: int) -> tuple[Entries, UInt8]:
    """Write a row as its difference from the row before, where that is shorter.

    Contexts of one user follow one another, and share most of their features.

    Args:
        x: n rows, indptr from 0, indices in [0, columns); no row has an index twice.
        columns: exclusive upper bound of the indices.

    Returns:
        n rows, and uint8 [n], 1 where a row is a difference. Each `STRIDE`th row starts a new sum.
    """
    indptr, is_delta = np.zeros_like(x.indptr), np.zeros(x.n, dtype=np.uint8)
    indices, weights = np.empty_like(x.indices), np.empty_like(x.weights)
    _delta_encode(*x, np.full(columns, -1), np.empty(columns, dtype=np.float32), is_delta, indptr, indices, weights)
    return Entries(indptr, indices[: indptr[-1]].copy(), weights[: indptr[-1]].copy()), is_delta


@kernel(f"void({I64},{I32},{F32},{I64},{F32},{FLAGS},{I64},{I32},{F32})")
def _delta_encode(indptr, indices, weights, row_of, weight_of, is_delta, out_indptr, out_indices, out_weights):
    # by index: the last row whose predecessor has it, and its weight in that predecessor
    filled = 0
    for r in range(len(indptr) - 1):
        start, first, last = filled, indptr[r], indptr[r + 1]
        before = indptr[r - 1] if r % STRIDE else first
        for e in range(before, first):
            row_of[indices[e]] = r
            weight_of[indices[e]] = weights[e]
        shorter = first > before
        for e in range(first, last):
            i = indices[e]
            change = weights[e]
            if row_of[i] == r:
                row_of[i] = -1
                change -= weight_of[i]
            if change != 0.0:
                if filled == start + last - first:
                    shorter = False
                    break
                out_indices[filled] = i
                out_weights[filled] = change
                filled += 1
        for e in range(before, first):
            if shorter and row_of[indices[e]] == r:
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
        is_delta[r] = shorter
        out_indptr[r + 1] = filled


@kernel(f"void({I64},{I32},{F32},{FLAGS},{I32},{TABLE},{TABLE})")
def gather(indptr, indices, weights, is_delta, features, table, out):
    """Compute out[r] = sum over entries e of weights[e] table[features[indices[e]]].

    out[r - 1] is added where row r is a difference.

    Args:
        indptr: of `Entries` with n rows, as the next two.
        indices: into `features`.
        weights: of the entries.
        is_delta: uint8 [n], from `delta_encode`; the first is 0.
        features: int32 [m], rows of the table.
        table: float32 [F, d].
        out: float32 [n, d], overwritten.
    """
    d = table.shape[1]
    for r in range(len(indptr) - 1):
        row = out[r]
        if is_delta[r]:
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


@kernel(f"void({I64},{I32},{F32},{FLAGS},{TABLE},{TABLE})")
def scatter(indptr, indices, weights, is_delta, rows, out):
    """Add weights[e] rows[r] to out[indices[e]]: the transpose of `gather`.

    Args:
        indptr: of `Entries` with n rows, as the next two.
        indices: into `out`.
        weights: of the entries.
        is_delta: uint8 [n]; such a row also adds its part of `rows` to that of the row before.
        rows: float32 [n, d]; rows with a difference after them are undefined afterwards.
        out: float32 [m, d], added to.
    """
    d = rows.shape[1]
    for r in range(len(indptr) - 2, -1, -1):
        row = rows[r]
        for e in range(indptr[r], indptr[r + 1]):
            x, t = weights[e], out[indices[e]]
            for j in range(d):
                t[j] += x * row[j]
        if is_delta[r]:
            before = rows[r - 1]
            for j in range(d):
                before[j] += row[j]


@numba.njit(nogil=True, error_model="numpy", fastmath=_FAST)
def row_gradient(indices, weights, first, last, constant, slope, base, a, right_own, right, row):
    """Compute one row of `pair_gradients`; called by compiled code alone.

    A change must come with a change of one_hot.py, whose age decides whether what numba kept of it is still used.

    Args:
        indices: as for `pair_gradients`.
        weights: as for `pair_gradients`.
        first: position of the row's first pair.
        last: position after its last pair.
        constant: as for `pair_gradients`.
        slope: as for `pair_gradients`.
        base: own part of the owner.
        a: float32 [d], vector of the owner.
        right_own: as for `pair_gradients`.
        right: as for `pair_gradients`.
        row: float32 [d], added to.

    Returns:
        The gradient of the own part, and the weighted squared error.
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


@kernel(f"float64({I64},{I32},{F32},{I32},float32,float32,{F32},{TABLE},{F32},{TABLE},{F32},{TABLE})")
def pair_gradients(
    indptr, indices, weights, owners, constant, slope, left_own, left, right_own, right, out_own, out
):  # fmt: skip
    """Add the gradients of the squared errors of observed pairs to their owners' rows.

    With s = left_own[o] + right_own[i] + <left[o], right[i]> for the pair of weight w of owner o and partner i, and
    e = constant + slope s:  out_own[o] += w e,  out[o] += w e right[i].

    Args:
        indptr: of `Entries` with n rows of pairs, as the next two.
        indices: partners.
        weights: of the pairs.
        owners: int32 [n], the row of `left` and `out` that a row of pairs belongs to.
        constant: 1, with a slope of -1, for the residual 1 - s; 0, with a slope of 1, for the score itself.
        slope: see there.
        left_own: float32 [L].
        left: float32 [L, d].
        right_own: float32 [R].
        right: float32 [R, d].
        out_own: float32 [L], added to.
        out: float32 [L, d], added to.

    Returns:
        Sum over the pairs of w e^2.
    """
    total = 0.0
    for r in range(len(indptr) - 1):
        o = owners[r]
        pull, energy = row_gradient(
            indices, weights, indptr[r], indptr[r + 1], constant, slope, left_own[o], left[o], right_own, right, out[o]
        )
        out_own[o] += pull
        total += energy
    return total
