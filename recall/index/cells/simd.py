# mypy: allow-untyped-calls, allow-untyped-defs, no-check-untyped-defs
"""Inner products with LLVM instructions that numba lacks, and an exact top-k.

Codes are stored in blocks of sixteen items: four components of item 0, the same four of item 1, and so on, 64 bytes that fill
one AVX-512 register; then the next four components. Codes and query are multiplied four bytes at a time. A query has two bytes
a component, 64 high + low, each within [-64, 63], so that 255 * 64 * 2 fits into the 16 bits in which AVX2 adds. Two blocks
are scanned at once: the additions to one sum wait for each other, those to four sums overlap.

The instructions are chosen at compile time, for the processor that compiles; numba caches machine code by processor. A change
of this file must come with a change of kernels.py: numba discards its cache by the modification time of that file.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import float32, int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from recall._numba import compiled, read

Tier = Literal["vnni", "avx2", "plain"]

LANES = 16
_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTES, _INTS, _FLOATS = ir.VectorType(_I8, 64), ir.VectorType(_I32, LANES), ir.VectorType(_F32, LANES)


def host_tier() -> Tier:
    """Return the instruction set of this machine's processor."""
    features = binding.get_host_cpu_features()
    if features.get("avx512vnni") and features.get("avx512bw"):
        return "vnni"
    return "avx2" if features.get("avx2") else "plain"


def make_pair(tier: Tier) -> Any:
    """Make the intrinsic that scores the items of two blocks.

    `pair(codes, words, groups, shift, factor, slack, scales, least, out) -> intp` takes addresses: of codes, uint8
    [2, groups, 16, 4]; of the high and low bytes of the query, int8 [groups, 2, 4]; of scales, float32 [32]; and of the output,
    float32 [32]. With d = factor * (64 high + low products - shift), it writes the scores d * scale, and returns a mask of the
    items with (d + slack) * scale >= least.
    """

    @intrinsic
    def pair(_, codes, words, groups, shift, factor, slack, scales, least, out):
        whole, real, address = types.int32, types.float32, types.intp
        return address(address, address, address, whole, real, real, address, real, address), generate

    def generate(_context: Any, builder: Any, _signature: Any, args: Sequence[Any]) -> Any:
        codes, words, groups, shift, factor, slack, scales, least, out = args
        masks = []
        for number, (high, low) in enumerate(_products(builder, codes, words, groups, tier)):
            exact = builder.add(builder.shl(high, _all(_INTS, 6)), low)
            dots = builder.sitofp(builder.sub(exact, _splat(builder, shift, _INTS)), _FLOATS)
            dots = builder.fmul(dots, _splat(builder, factor, _FLOATS))
            of_scales, to = (
                builder.gep(builder.inttoptr(start, _FLOATS.as_pointer()), [ir.Constant(_I64, number)])
                for start in (scales, out)
            )
            scale = builder.load(of_scales, align=4)
            builder.store(builder.fmul(dots, scale), to, align=4)
            above = builder.fmul(builder.fadd(dots, _splat(builder, slack, _FLOATS)), scale)
            mask = builder.fcmp_ordered(">=", above, _splat(builder, least, _FLOATS))
            masks.append(builder.zext(builder.bitcast(mask, _I16), _I64))
        return builder.or_(masks[0], builder.shl(masks[1], ir.Constant(_I64, LANES)))

    return pair


@intrinsic
def lowest_bit(_, mask):
    """Return the number of the lowest set bit of an intp that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Sequence[Any]) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.intp), generate


@intrinsic
def lane_sums(_, one, other, blocks, sums):
    """Multiply two float32 arrays, and sum the products in sixteen lanes.

    Products are rounded before they are added, in order, so that all machines get the same bits.

    Args:
        _: of the compiler.
        one: address of float32 [16 * blocks].
        other: address of float32 [16 * blocks].
        blocks: number of blocks.
        sums: address of float32 [16], the output.
    """

    def generate(_context: Any, builder: Any, _signature: Any, args: Sequence[Any]) -> Any:
        one, other, blocks, sums = args
        first, second = (builder.inttoptr(address, _FLOATS.as_pointer()) for address in (one, other))
        total = builder.inttoptr(sums, _FLOATS.as_pointer())
        builder.store(_all(_FLOATS, 0.0), total, align=4)
        with cgutils.for_range(builder, blocks) as loop:
            loaded = [builder.load(builder.gep(start, [loop.index]), align=4) for start in (first, second)]
            builder.store(builder.fadd(builder.load(total, align=4), builder.fmul(*loaded)), total, align=4)
        return ir.Constant(_I64, 0)

    return types.intp(types.intp, types.intp, types.intp, types.intp), generate


@intrinsic
def prefetch(_, address):
    """Prefetch the cache line at an address, an intp."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Sequence[Any]) -> Any:
        pointer, kind = _I8.as_pointer(), [_I8.as_pointer(), _I32, _I32, _I32]
        call = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kind), "llvm.prefetch.p0")
        # for reading, with the highest locality, into the data cache
        builder.call(call, [builder.inttoptr(args[0], pointer), *(ir.Constant(_I32, value) for value in (0, 3, 1))])
        return ir.Constant(_I64, 0)

    return types.intp(types.intp), generate


def _products(builder: Any, codes: Any, words: Any, groups: Any, tier: Tier) -> list[tuple[Any, Any]]:
    """Multiply the codes of two blocks with the query's high and low bytes: int32."""
    first = builder.inttoptr(codes, _BYTES.as_pointer())
    items = (first, builder.gep(first, [groups]))
    query = builder.inttoptr(words, _I32.as_pointer())
    before, loop, after = builder.block, builder.append_basic_block("group"), builder.append_basic_block("groups.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    group, sums = builder.phi(_I64), [builder.phi(_INTS) for _ in range(4)]
    group.add_incoming(ir.Constant(_I64, 0), before)
    twice = builder.shl(group, ir.Constant(_I64, 1))
    parts = [builder.load(builder.gep(query, [place]), align=4) for place in (twice, builder.add(twice, ir.Constant(_I64, 1)))]
    loaded = [builder.load(builder.gep(start, [group]), align=1) for start in items]
    more = [_DOTS[tier](builder, sums[at], loaded[at // 2], parts[at % 2]) for at in range(4)]
    following = builder.add(group, ir.Constant(_I64, 1))
    group.add_incoming(following, builder.block)
    for total, next_ in zip(sums, more, strict=True):
        total.add_incoming(_all(_INTS, 0), before)
        total.add_incoming(next_, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, groups), loop, after)
    builder.position_at_end(after)
    return [(more[0], more[1]), (more[2], more[3])]


def _dot_vnni(builder: Any, total: Any, items: Any, query: Any) -> Any:
    kind = ir.FunctionType(_INTS, [_INTS, _INTS, _INTS])
    call = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
    return builder.call(call, [total, builder.bitcast(items, _INTS), _splat(builder, query, _INTS)])


def _dot_avx2(builder: Any, total: Any, items: Any, query: Any) -> Any:
    bytes_, shorts, ints = ir.VectorType(_I8, 32), ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
    module = builder.module
    pairs = cgutils.get_or_insert_function(module, ir.FunctionType(shorts, [bytes_, bytes_]), "llvm.x86.avx2.pmadd.ub.sw")
    fours = cgutils.get_or_insert_function(module, ir.FunctionType(ints, [shorts, shorts]), "llvm.x86.avx2.pmadd.wd")
    spread = builder.bitcast(_splat(builder, query, ints), bytes_)
    halves = []
    for start in (0, 32):
        half = _shuffled(builder, items, items, range(start, start + 32))
        halves.append(builder.call(fours, [builder.call(pairs, [half, spread]), _all(shorts, 1)]))
    return builder.add(total, _shuffled(builder, halves[0], halves[1], range(LANES)))


def _dot_plain(builder: Any, total: Any, items: Any, query: Any) -> Any:
    wide = ir.VectorType(_I32, 64)
    spread = builder.bitcast(_splat(builder, query, _INTS), _BYTES)
    products = builder.mul(builder.zext(items, wide), builder.sext(spread, wide))
    for place in range(4):
        total = builder.add(total, _shuffled(builder, products, products, range(place, 64, 4)))
    return total


_DOTS = {"vnni": _dot_vnni, "avx2": _dot_avx2, "plain": _dot_plain}


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return _shuffled(builder, one, one, [0] * kind.count)


def _shuffled(builder: Any, one: Any, other: Any, places: Sequence[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, len(places)), list(places)))


def _all(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


TABLE, REALS, ROWS = read(float32, 2), read(float32, 1), read(int64, 1)


@compiled()
def nth_largest(values, count, n):
    """Return the n-th largest of the first `count` values (Hoare 1961, Algorithm 65).

    Args:
        values: one-dimensional; the first `count` are reordered.
        count: number of values.
        n: from 1 to count.
    """
    low, high, wanted = 0, count - 1, n - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]


@compiled()
def keep(lower, upper, places, count, n, spare):
    """Drop candidates that cannot be among the n best.

    Args:
        lower: float32 [size], lower bounds of scores.
        upper: float32 [size], upper bounds of scores.
        places: int64 [size], the candidates; all three are compacted in place.
        count: number of candidates.
        n: length of the list.
        spare: float32 [size], overwritten.

    Returns:
        The number of candidates left, and the n-th largest lower bound.
    """
    if count < n:
        return count, np.float32(-np.inf)
    spare[:count] = lower[:count]
    least = nth_largest(spare, count, n)
    kept = 0
    for at in range(count):
        if upper[at] >= least:
            lower[kept], upper[kept], places[kept] = lower[at], upper[at], places[at]
            kept += 1
    return kept, least


@compiled()
def score(vectors, row, query, sums):
    """Return an inner product, summed in a fixed order regardless of the padding.

    Args:
        vectors: float32 [size, dim or more].
        row: in [0, size).
        query: float32 [dim].
        sums: float32 [LANES], overwritten.
    """
    dim = len(query)
    full = dim // LANES
    start = vectors.ctypes.data + 4 * row * vectors.shape[1]
    lane_sums(start, query.ctypes.data, full, sums.ctypes.data)
    for at in range(LANES * full, dim):
        sums[at - LANES * full] += vectors[row, at] * query[at]
    for step in (8, 4, 2, 1):
        for at in range(step):
            sums[at] += sums[at + step]
    return sums[0]


@compiled(TABLE, REALS, ROWS, int64)
def best_of(vectors, query, candidates, n):
    """Return (rows, scores) of the n best candidates, by score and then by row.

    Args:
        vectors: float32 [size, dim].
        query: float32 [dim].
        candidates: int64 [m], distinct.
        n: maximum number to return.
    """
    keys = np.empty(len(candidates), dtype=np.int64)
    sums = np.empty(LANES, dtype=np.float32)
    one = np.empty(1, dtype=np.float32)
    as_bits = one.view(np.int32)
    width = 4 * vectors.shape[1]
    for at in range(len(candidates)):  # rows are scattered in memory: prefetch all of them
        start = vectors.ctypes.data + candidates[at] * width
        for line in range(0, width + 60, 64):
            prefetch(start + min(line, width - 4))
    for at in range(len(candidates)):
        one[0] = score(vectors, candidates[at], query, sums) + np.float32(0.0)  # so that -0 is 0
        bits = np.int64(as_bits[0])
        rising = bits if bits >= 0 else np.int64(-2147483648) - bits
        keys[at] = (-rising << 32) | candidates[at]
    keys.sort()
    count = min(n, len(keys))
    rows, scores = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
    for at in range(count):
        rows[at] = keys[at] & 0xFFFFFFFF
        rising = -(keys[at] >> 32)
        as_bits[0] = rising if rising >= 0 else np.int64(-2147483648) - rising
        scores[at] = one[0]
    return rows, scores
