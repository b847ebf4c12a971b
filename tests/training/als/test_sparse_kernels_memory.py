"""The place of an array in memory decides whether a loop runs in vector registers; its result has the same bits."""

from threading import Thread

import numpy as np
import pytest

from recall.training.als import linear_algebra, sparse_kernels
from recall.training.als.one_hot import LeastSquares, solve_rows
from recall.training.als.sparse_kernels import Entries

N, M = 12, 15
OWNERS = np.arange(N, dtype=np.int32)
PLAIN = np.zeros(N, dtype=np.uint8)


def pairs():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 10, N)
    indices = np.concatenate([rng.choice(M, length, replace=False) for length in lengths]).astype(np.int32)
    return Entries(np.concatenate([[0], np.cumsum(lengths)]), indices, rng.random(len(indices)).astype(np.float32) + 1)


def floats(d):
    """Float arrays of every shape that a kernel takes."""
    rng = np.random.default_rng(1)
    shapes = {"own": N, "weight": N, "penalty": N, "share": N, "base": d, "border": d, "spectrum": d, "mean": d, "partner": M}
    shapes = {name: (size,) for name, size in shapes.items()}
    shapes |= dict.fromkeys(("table", "out", "left", "moved", "below"), (N, d)) | {"partners": (M, d), "gram": (d, d)}
    return {name: (rng.random(shape) + 0.1).astype(np.float32) for name, shape in shapes.items()}


def close_together(arrays, gap):
    """The same arrays in one piece of memory, in a random order with `gap` numbers between them."""
    order = np.random.default_rng(gap).permutation(list(arrays))
    room = np.zeros(sum(arrays[name].size + gap for name in order), dtype=np.float32)
    placed, start = {}, 0
    for name in order:
        array = arrays[name]
        placed[name] = room[start : start + array.size].reshape(array.shape)
        placed[name][...] = array
        start += array.size + gap
    return placed


def solve(a):
    axes = a["base"], a["border"], a["spectrum"], a["mean"]
    problem = LeastSquares(OWNERS, a["own"], a["table"], a["weight"], a["penalty"], a["share"], *axes, 30.0)
    return solve_rows(*pairs(), *problem, a["partner"], a["partners"], 3)


LOOPS = {
    "gather": lambda a: sparse_kernels.gather(*pairs(), PLAIN, np.arange(M, dtype=np.int32), a["partners"], a["out"]),
    "scatter": lambda a: sparse_kernels.scatter(*pairs(), PLAIN, a["table"], a["partners"]),
    "pair_gradients": lambda a: sparse_kernels.pair_gradients(
        *pairs(), OWNERS, 1.0, -1.0, a["weight"], a["table"], a["partner"], a["partners"], a["own"], a["out"]
    ),
    "diagonal_map": lambda a: linear_algebra.diagonal_map(a["weight"], a["base"], a["spectrum"], a["table"], a["out"]),
    "affine_map": lambda a: linear_algebra.affine_map(a["weight"], a["base"], a["gram"], a["table"], a["out"]),
    "mix_groups": lambda a: linear_algebra.mix_groups(np.ones((3, 3), dtype=np.float32), a["table"], a["out"]),
    "add_gram": lambda a: linear_algebra.add_gram(a["weight"], a["table"], a["border"], a["gram"]),
    "cg_step": lambda a: linear_algebra.cg_step(a["out"], a["left"], a["table"], a["moved"], a["below"], 0.3),
    "cg_direction": lambda a: linear_algebra.cg_direction(a["out"], a["left"], a["below"], 0.3),
    "solve_rows": solve,
}


@pytest.mark.parametrize("d", [3, 8, 16, 24, 64])
@pytest.mark.parametrize("loop", LOOPS)
def test_arrays_may_lie_close_together(loop, d):
    far = floats(d)
    expected = LOOPS[loop](far)
    for gap in (1, 4, 8, 16, 40):
        near = close_together(floats(d), gap)
        assert LOOPS[loop](near) == expected
        for name in far:
            np.testing.assert_array_equal(near[name], far[name], name)


def test_the_memory_of_a_thread_decides_nothing():
    found = []
    for _ in range(8):  # the allocator gives each thread its own memory
        arrays = floats(8)
        thread = Thread(target=lambda arrays=arrays: found.append((solve(arrays), arrays["table"].tobytes())))
        thread.start()
        thread.join()
    assert len(set(found)) == 1
