"""The inner loops compiled by numba.

Four partners or entries go through a loop at a time, so that a row of the result is read and written once for four.
Sums may be reassociated, which lets them run in vector registers; numbers that are not finite stay so.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
import torch

from recall.training.kernels.contract import Entries, Float32, Int32

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_I64, _I32, _F32, _TABLE = "int64[::1]", "int32[::1]", "float32[::1]", "float32[:,::1]"


class CompiledKernels:
    """Kernels that run on one thread each and leave Python to others meanwhile."""

    name = f"numba {numba.__version__}"

    def __init__(self) -> None:
        self._gather = _compiled(_gather, f"void({_I64},{_I32},{_F32},{_I32},{_TABLE},{_TABLE})")
        self._scatter = _compiled(_scatter, f"void({_I64},{_I32},{_F32},{_TABLE},{_TABLE})")
        self._fit = _compiled(
            _fit,
            f"float64({_I64},{_I32},{_F32},{_I32},float32,float32,{_F32},{_TABLE},{_F32},{_TABLE},{_F32},{_TABLE})",
        )
        self._shade = _compiled(_shade, f"void({_F32},{_F32},{_F32},{_TABLE},{_TABLE})")
        self._gram = _compiled(_gram, f"void({_F32},{_TABLE},{_F32},{_TABLE})")

    @property
    def threads(self) -> int:
        """As many as torch may use."""
        return torch.get_num_threads()

    def gather(self, x: Entries, features: Int32, table: Float32, out: Float32) -> None:
        """See `Kernels.gather`."""
        self._gather(*x, features, table, out)

    def scatter(self, x: Entries, rows: Float32, out: Float32) -> None:
        """See `Kernels.scatter`."""
        self._scatter(*x, rows, out)

    def fit(
        self,
        pairs: Entries,
        owners: Int32,
        signs: tuple[float, float],
        left: tuple[Float32, Float32],
        right: tuple[Float32, Float32],
        out: tuple[Float32, Float32],
    ) -> float:
        """See `Kernels.fit`."""
        return float(self._fit(*pairs, owners, *signs, *left, *right, *out))

    def shade(self, scale: Float32, base: Float32, spectrum: Float32, rows: Float32, out: Float32) -> None:
        """See `Kernels.shade`."""
        self._shade(scale, base, spectrum, rows, out)

    def gram(self, weights: Float32, rows: Float32, border: Float32, out: Float32) -> None:
        """See `Kernels.gram`."""
        self._gram(weights, rows, border, out)


@cache
def _compiled(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Machine code for one signature; kept on disk for the next run where a folder for it can be written."""
    try:
        return numba.njit([signature], nogil=True, fastmath=_FAST, cache=True)(function)
    except RuntimeError:  # numba found no folder to keep it in
        return numba.njit([signature], nogil=True, fastmath=_FAST)(function)


def _gather(indptr, indices, weights, features, table, out):  # type: ignore[no-untyped-def]
    d = table.shape[1]
    for r in range(len(indptr) - 1):
        row = out[r]
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


def _scatter(indptr, indices, weights, rows, out):  # type: ignore[no-untyped-def]
    d = rows.shape[1]
    for r in range(len(indptr) - 1):
        row = rows[r]
        for e in range(indptr[r], indptr[r + 1]):
            x, t = weights[e], out[indices[e]]
            for j in range(d):
                t[j] += x * row[j]


def _fit(  # type: ignore[no-untyped-def]
    indptr, indices, weights, owners, constant, slope, left_own, left, right_own, right, out_own, out
):
    d = left.shape[1]
    energy = 0.0
    for r in range(len(indptr) - 1):
        o = owners[r]
        a, row = left[o], out[o]
        base, pull = left_own[o], np.float32(0.0)
        e, end = indptr[r], indptr[r + 1]
        while e + 4 <= end:
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
        while e < end:
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
        out_own[o] += pull
    return energy


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
