import ctypes

import numba
import numpy as np
import pytest
from llvmlite import binding
from numba import types

from recall.index.cells.simd import host_tier, lane_sums, lowest_bit, make_pair

FEATURES = binding.get_host_cpu_features()
CAN = {"vnni": host_tier() == "vnni", "avx2": bool(FEATURES.get("avx2")), "plain": True}
TIERS = [tier for tier, possible in CAN.items() if possible]


def compiled(tier: str):
    pair = make_pair(tier)
    address, whole, real = types.intp, types.int32, types.float32

    @numba.njit([address(address, address, address, whole, real, real, address, real, address)])
    def call(codes, words, groups, shift, factor, slack, scales, least, out):
        return pair(codes, words, groups, shift, factor, slack, scales, least, out)

    return call


@pytest.fixture(scope="module", params=TIERS)
def pair(request: pytest.FixtureRequest):
    return compiled(request.param)


def test_this_machine_has_a_simd_tier() -> None:
    assert host_tier() in TIERS


@pytest.mark.parametrize("groups", [1, 2, 17, 33])
@pytest.mark.parametrize("extreme", [False, True])
def test_two_blocks_are_scored_together(pair, groups: int, extreme: bool) -> None:
    rng = np.random.default_rng(groups)
    codes = rng.integers(0, 256, (2, groups, 16, 4), dtype=np.uint8)
    parts = rng.integers(-64, 64, (groups, 2, 4)).astype(np.int8)
    if extreme:  # no overflow, even if all products have the maximum size
        codes[:], parts[:] = 255, -64
    scales = rng.random(32, dtype=np.float32)
    out = np.empty(32, dtype=np.float32)
    query = 64 * parts[:, 0].astype(np.int64) + parts[:, 1]
    products = np.einsum("bgij,gj->bi", codes.astype(np.int64), query).ravel()
    shift, factor, slack = np.int32(1000), np.float32(1e-4), np.float32(0.5)
    expected = (products - 1000) * 1e-4 * scales
    least = np.float32(np.median((expected / scales + 0.5) * scales))
    mask = pair(*_addresses(codes, parts), groups, shift, factor, slack, *_addresses(scales), least, *_addresses(out))
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    above = (np.float32(1e-4) * (products - 1000).astype(np.float32) + slack) * scales >= least
    assert mask == sum(1 << lane for lane in np.flatnonzero(above))


def test_simd_tiers_are_bit_identical() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (2, 9, 16, 4), dtype=np.uint8)
    parts = rng.integers(-64, 64, (9, 2, 4)).astype(np.int8)
    scales, outs = rng.random(32, dtype=np.float32), []
    for tier in TIERS:
        out = np.empty(32, dtype=np.float32)
        at = (*_addresses(codes, parts), 9, np.int32(5), np.float32(0.1), np.float32(0), *_addresses(scales))
        compiled(tier)(*at, np.float32(0), *_addresses(out))
        outs.append(out)
    assert all(np.array_equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("mask", [1, 2, 12, 1 << 15, 0xFFFF])
def test_the_lowest_bit_is_found(mask: int) -> None:
    call = numba.njit([types.intp(types.intp)])(lambda given: lowest_bit(given))
    assert call(mask) == (mask & -mask).bit_length() - 1


@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_lanes_are_added_in_order(blocks: int) -> None:
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((2, 16 * blocks)).astype(np.float32)
    sums = np.full(16, np.nan, dtype=np.float32)
    address = types.intp
    call = numba.njit([address(address, address, address, address)])(lambda a, b, n, s: lane_sums(a, b, n, s))
    call(*_addresses(one, other), blocks, *_addresses(sums))
    expected = np.zeros(16, dtype=np.float32)
    for at in range(blocks):
        expected += one[16 * at : 16 * at + 16] * other[16 * at : 16 * at + 16]
    np.testing.assert_array_equal(sums, expected)


def _addresses(*arrays: np.ndarray) -> tuple[int, ...]:
    return tuple(ctypes.c_ssize_t(array.ctypes.data).value for array in arrays)
