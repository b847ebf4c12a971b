# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Dense linear algebra of the solver: conjugate gradients and Gram matrices.

Its loops are compiled as those of `recall.training.als.sparse_kernels`, and the same holds of them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from recall._arrays import Float32, Float64, Int64
from recall.training.als.shards import Workers
from recall.training.als.sparse_kernels import F32, TABLE, kernel
from recall.training.ranks import RowShares

_RANGES = 64  # of rows; the cut, and so the sum, is the same for any number of threads
_ROWS = 2048  # or fewer ranges of at least this many rows


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    target: Tensor,
    diagonal: Tensor,
    solution: Tensor,
    steps: int,
    workers: Workers,
    shares: RowShares | None = None,
) -> float:
    """Add about A^-1 target to a table, for a symmetric positive definite A.

    Hestenes and Stiefel 1952, preconditioned by a diagonal. The matrix is never formed.

    Args:
        operator: D -> A D, both shaped as target; may return the same memory every time.
        target: [n, d]; is used up.
        diagonal: the preconditioner's diagonal, positive, [n, d].
        solution: [n, d], contiguous; changed in place.
        steps: products with A; each shrinks the error further.
        workers: share the sums over tables.
        shares: of the rows, where each rank solves for its own; default: every rank solves for all of them alike.

    Returns:
        Decrease of <D, A D> - 2 <D, target> by the change D, compared with no change.
    """
    direction, below = target / diagonal, diagonal.contiguous().numpy()
    x, left, along = solution.numpy(), target.numpy(), direction.numpy()
    size = max(_ROWS, -(-len(target) // _RANGES))
    parts = [slice(first, first + size) for first in range(0, len(target), size)]

    def whole(local: float, common: Callable[[Int64], float]) -> float:
        return local if shares is None else shares.whole(local, common)

    def curved(product: Float32, part: slice | Int64) -> float:
        return float(table_dot(along[part], product[part]))

    def advanced(product: Float32, length: float, part: slice) -> float:
        energy: float = cg_step(x[part], left[part], along[part], product[part], below[part], length)
        return energy

    energy = sum(workers.map(lambda part: table_dot(left[part], along[part]), parts))
    energy = whole(energy, lambda rows: table_dot(left[rows], along[rows]))
    decrease = 0.0
    for _ in range(steps):
        product = operator(direction).contiguous().numpy()

        curvature = whole(sum(workers.map(partial(curved, product), parts)), partial(curved, product))
        if curvature == 0:  # solved already, as for a table without data; NaN continues, and is reported later
            break
        length = energy / curvature
        decrease += length * energy
        advances = workers.map(partial(advanced, product, length), parts)
        following = whole(sum(advances), lambda rows: table_dot(left[rows], left[rows] / below[rows]))
        ratio = following / energy if energy else 0.0

        def redirected(part: slice, ratio: float = ratio) -> None:
            cg_direction(along[part], left[part], below[part], ratio)

        workers.run(redirected, parts)
        energy = following
        del product, advances  # as large as the table, before there is another
    return decrease


_PIECE = 2048  # rows multiplied at a time: the cut, and so the sum, is the same for any number of threads


def bordered_gram(weights: Float32, rows: Float32, workers: Workers) -> Float64:
    """Return [1 ; rows]' diag(weights) [1 ; rows], float64 [d + 1, d + 1].

    Args:
        weights: float32 [n].
        rows: float32 [n, d].
        workers: share the sums.
    """
    d = rows.shape[1]

    def piece(first: int) -> tuple[Float32, Float32]:
        border, square = np.zeros(d, dtype=np.float32), np.zeros((d, d), dtype=np.float32)
        add_gram(weights[first : first + _PIECE], rows[first : first + _PIECE], border, square)
        return border, square

    gram = np.zeros((d + 1, d + 1))
    for border, square in workers.map(piece, range(0, len(rows), _PIECE)):
        gram[1:, 0] += border
        gram[1:, 1:] += square
    gram[0, 0] = weights.sum(dtype=np.float64)
    below = np.tril(gram)
    return below + np.tril(gram, -1).T


@kernel(f"void({F32},{TABLE},{F32},{TABLE})")
def add_gram(weights, rows, border, out):
    """Add the sums of a bordered Gram matrix.

    border += sum_r weights[r] rows[r];  out += sum_r weights[r] rows[r] rows[r]'.

    Args:
        weights: float32 [n].
        rows: float32 [n, d].
        border: float32 [d], added to.
        out: float32 [d, d], added to on and below the diagonal; values above it are undefined.
    """
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


@kernel(f"void({F32},{F32},{F32},{TABLE},{TABLE})")
def diagonal_map(scale, base, spectrum, rows, out):
    """Compute out[r] = scale[r] (base + spectrum o rows[r]).

    Args:
        scale: float32 [n].
        base: float32 [d].
        spectrum: float32 [d].
        rows: float32 [n, d].
        out: float32 [n, d], overwritten.
    """
    d = rows.shape[1]
    for r in range(len(scale)):
        s, row, target = scale[r], rows[r], out[r]
        for j in range(d):
            target[j] = s * (base[j] + spectrum[j] * row[j])


@kernel(f"void({F32},{F32},{TABLE},{TABLE},{TABLE})")
def affine_map(scale, base, gram, rows, out):
    """out[r] = scale[r] (base + gram rows[r]).

    Args:
        scale: float32 [n].
        base: float32 [d].
        gram: float32 [d, d], symmetric.
        rows: float32 [n, d].
        out: float32 [n, d], overwritten.
    """
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


@kernel(f"void({TABLE},{TABLE},{TABLE})")
def mix_groups(weights, rows, out):
    """out[r b + j] = sum_i weights[i, j] rows[r a + i].

    Args:
        weights: float32 [a, b].
        rows: float32 [n a, d].
        out: float32 [n b, d], overwritten.
    """
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


@kernel(f"float64({TABLE},{TABLE})")
def table_dot(left, right):
    """Return the sum of all products of two tables, in float64.

    Args:
        left: float32 [n, d].
        right: float32 [n, d].
    """
    n, d = left.shape
    total = 0.0
    for r in range(n):
        a, b = left[r], right[r]
        row = np.float32(0.0)
        for j in range(d):
            row += a[j] * b[j]
        total += float(row)
    return total


@kernel(f"void({TABLE},{TABLE},{F32})")
def row_dots(left, right, out):
    """out[r] = <left[r], right[r]>.

    Args:
        left: float32 [n, d].
        right: float32 [n, d].
        out: float32 [n], overwritten.
    """
    for r in range(len(left)):
        a, b = left[r], right[r]
        row = np.float32(0.0)
        for j in range(left.shape[1]):
            row += a[j] * b[j]
        out[r] = row


@kernel(f"float64({TABLE},{TABLE},{TABLE},{TABLE},{TABLE},float32)")
def cg_step(solution, residual, direction, product, diagonal, length):
    """Take a step: solution += length direction;  residual -= length product.

    Args:
        solution: float32 [n, d], changed in place.
        residual: float32 [n, d], changed in place.
        direction: float32 [n, d].
        product: float32 [n, d].
        diagonal: float32 [n, d].
        length: of the step.

    Returns:
        The sum of residual^2 / diagonal after it, in float64.
    """
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


@kernel(f"void({TABLE},{TABLE},{TABLE},float32)")
def cg_direction(direction, residual, diagonal, ratio):
    """Compute direction = residual / diagonal + ratio direction, in place.

    Args:
        direction: float32 [n, d].
        residual: float32 [n, d].
        diagonal: float32 [n, d].
        ratio: of the old direction.
    """
    n, d = direction.shape
    for r in range(n):
        along, left, below = direction[r], residual[r], diagonal[r]
        for j in range(d):
            along[j] = left[j] / below[j] + ratio * along[j]
