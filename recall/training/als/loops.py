"""Inner loops of the solver, compiled by numba on first use.

Four partners or entries go through a loop at a time, so that a row of the result is read and written once for four. Sums may be
reassociated, which lets them run in vector registers; numbers that are not finite stay so.

A loop that sums into a scalar writes to no array. Where a loop writes, the compiled code tests whether the arrays lie so
close that they might overlap, and then goes without vector registers: a sum would depend on where memory was free.
"""

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import numba
import numpy as np

from recall._numba import compiled

STRIDE = 64
"""Sums over rows that follow one another are this long at most, so that rounding cannot add up."""

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_I64, _I32, _F32, _FLAGS, _TABLE = "int64[::1]", "int32[::1]", "float32[::1]", "uint8[::1]", "float32[:,::1]"
_compiling = Lock()


def _loop(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a loop for its one signature on first use."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def compiled_loop() -> Callable[..., Any]:
            with _compiling:
                made: Callable[..., Any] = compiled(signature, fastmath=_FAST)(function)
                return made

        return lambda *arguments: compiled_loop()(*arguments)

    return decorate


@_loop(f"void({_I64},{_I32},{_F32},{_I64},{_F32},{_FLAGS},{_I64},{_I32},{_F32})")
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


@_loop(f"void({_I64},{_I32},{_F32},{_FLAGS},{_I32},{_TABLE},{_TABLE})")
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


@_loop(f"void({_I64},{_I32},{_F32},{_FLAGS},{_TABLE},{_TABLE})")
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


@_loop(f"float64({_I64},{_I32},{_F32},{_I32},float32,float32,{_F32},{_TABLE},{_F32},{_TABLE},{_F32},{_TABLE})")
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


@_loop(
    f"float64({_I64},{_I32},{_F32},{_I32},{_F32},{_TABLE},{_F32},{_F32},{_F32},{_F32},{_F32},{_F32},{_F32},float32,"
    f"boolean,{_F32},{_TABLE},int64)"
)
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
            energy += v[j] * (c * (base[j] + spectrum[j] * v[j] + base[j]) + p * v[j])
            cross += border[j] * v[j]
        for j in range(d):
            residual[j] = -c * (base[j] + spectrum[j] * v[j] + u * border[j]) - p * v[j]
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


@_loop(f"void({_F32},{_F32},{_F32},{_TABLE},{_TABLE})")
def _shade(scale, base, spectrum, rows, out):  # type: ignore[no-untyped-def]
    d = rows.shape[1]
    for r in range(len(scale)):
        s, row, target = scale[r], rows[r], out[r]
        for j in range(d):
            target[j] = s * (base[j] + spectrum[j] * row[j])


@_loop(f"void({_F32},{_TABLE},{_F32},{_TABLE})")
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


@_loop(f"void({_F32},{_F32},{_TABLE},{_TABLE},{_TABLE})")
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


@_loop(f"void({_TABLE},{_TABLE},{_TABLE})")
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


@_loop(f"float64({_TABLE},{_TABLE})")
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


@_loop(f"void({_TABLE},{_TABLE},{_F32})")
def _row_dots(left, right, out):  # type: ignore[no-untyped-def]
    for r in range(len(left)):
        a, b = left[r], right[r]
        row = np.float32(0.0)
        for j in range(left.shape[1]):
            row += a[j] * b[j]
        out[r] = row


@_loop(f"float64({_TABLE},{_TABLE},{_TABLE},{_TABLE},{_TABLE},float32)")
def _advance(solution, residual, direction, product, diagonal, length):  # type: ignore[no-untyped-def]
    n, d = solution.shape
    total = 0.0
    for r in range(n):
        x, left, along, moved, below = solution[r], residual[r], direction[r], product[r], diagonal[r]
        row = np.float32(0.0)
        for j in range(d):
            x[j] += length * along[j]
            left[j] -= length * moved[j]
        for j in range(d):
            row += left[j] * left[j] / below[j]
        total += float(row)
    return total


@_loop(f"void({_TABLE},{_TABLE},{_TABLE},float32)")
def _redirect(direction, residual, diagonal, ratio):  # type: ignore[no-untyped-def]
    n, d = direction.shape
    for r in range(n):
        along, left, below = direction[r], residual[r], diagonal[r]
        for j in range(d):
            along[j] = left[j] / below[j] + ratio * along[j]
