# mypy: allow-untyped-calls, allow-untyped-defs
"""Inner products in vector registers, as LLVM instructions that numba lacks.

Codes are stored in blocks of sixteen items: four components of item 0, the same four of item 1, and so on, 64 bytes that fill
one AVX-512 register; then the next four components. Code and query are multiplied four bytes at a time. A query has two bytes a
component, 64 high + low, each within [-64, 63]: so 255 * 64 * 2 stays inside the 16 bits that AVX2 adds in. Two blocks are
gone through side by side: sums of one wait for each other, those of four fill the time.

The instructions are chosen when the code is compiled, for the processor that compiles it; numba keeps machine code apart
by processor. A change of this file must come with a change of kernels.py and top_n.py, whose age decides whether what numba
kept is still used.
"""

from collections.abc import Sequence
from typing import Any, Literal

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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

    `pair(codes, words, groups, shift, factor, slack, scales, least, out) -> intp` takes addresses: of uint8 [2, groups, 16, 4]
    codes, of int8 [groups, 2, 4] high and low bytes of the query, of float32 [32] scales and of float32 [32] where scores go.
    With d = factor * (64 high + low products - shift), it writes d * scale and gives a mask of the items for which
    (d + slack) * scale >= least.
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
    """Multiply two float32 arrays, and add the products up in sixteen lanes.

    Multiplied and added apart, in order: every machine gets the same bits.

    Args:
        _: of the compiler.
        one: address of float32 [16 * blocks].
        other: address of float32 [16 * blocks].
        blocks: number of blocks.
        sums: address of float32 [16], where the sums go.
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
    """Ask for the cache line at an address, an intp, without waiting for it."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Sequence[Any]) -> Any:
        pointer, kind = _I8.as_pointer(), [_I8.as_pointer(), _I32, _I32, _I32]
        call = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kind), "llvm.prefetch.p0")
        # to be read, to be kept, data
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
