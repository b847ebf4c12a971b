# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled loops of a search over codes.

The error of a score from codes is at most `slack` times the item's scale, so that each item has a lower and an upper bound.
`least` is the n-th largest lower bound so far: an item with an upper bound below it cannot be among the n best, and a cell
with a bound below it is not scanned. The remaining candidates are scored again in float32 at the end.
"""

import numpy as np
from numba import float32, int32, int64, types, uint8

from recall._numba import compiled, read
from recall.index.cells.simd import LANES, REALS, ROWS, TABLE, best_of, host_tier, keep, lowest_bit, make_pair, prefetch

_ORDERED = 64  # cells scanned best first; then `least` is close to its final value, and the others follow in storage order
_PAIR, _ONE = 2 * LANES, (1 << LANES) - 1
_SOON = 8  # blocks by which rows are prefetched, if a bitmap or an exclusion needs them
_NEXT = 8  # blocks by which codes are prefetched in a sequential scan
_AHEAD = 8192  # bytes of the next cell that are prefetched
_INTS = read(int32, 1)
_BLOCKS, _BITS, _LIMITS = read(int32, 3), read(uint8, 1), types.UniTuple(float32, 3)

pair = make_pair(host_tier())

# Functions that Python calls have a signature; numba types the others at their first call. Arrays, as in `Codes`:
#   codes int32 [blocks, groups, 16]   scales float32 [16 blocks]   rows int32 [16 blocks], -1 where a block is not full
# The last block is empty: blocks are scanned in pairs.
#   words int32 [2 groups]   bits uint8 [ceil(size / 8)] or [0] for all rows   excluded int64 [m], sorted


@compiled()
def encode(query, basis, words):
    """Transform a query, normalize it, and quantize it to two bytes a component.

    Args:
        query: float32 [dim].
        basis: float32 [dim, 4 groups], the transformation.
        words: int32 [2 groups], filled with the bytes.

    Returns:
        (shift, factor, error): a dot product with codes is factor * (products - shift); `error` is the length of the
        quantization error.
    """
    dim, turned = basis.shape
    rotated = np.zeros(turned, dtype=np.float64)
    largest = 0.0
    for i in range(dim):
        largest = max(largest, abs(np.float64(query[i])))
    if largest == 0.0:
        words[:] = 0
        return np.int32(0), np.float32(0.0), np.float32(0.0)
    for i in range(dim):
        value = np.float64(query[i]) / largest
        for j in range(turned):
            rotated[j] += value * np.float64(basis[i, j])
    length = np.sqrt(np.sum(rotated * rotated))
    rotated /= length
    factor = np.max(np.abs(rotated)) / 4032.0  # 64 * 63: high bytes stay within [-63, 63]
    parts = words.view(np.int8)
    total = 0
    error = 0.0
    for j in range(turned):
        whole = np.int64(np.rint(rotated[j] / factor))
        high = (whole + 32) >> 6
        place = 8 * (j >> 2) + (j & 3)
        parts[place] = high
        parts[place + 4] = whole - (high << 6)
        total += whole
        error += (rotated[j] - whole * factor) ** 2
    return np.int32(128 * total), np.float32(factor), np.float32(np.sqrt(error))


@compiled()
def _scan(
    first, last, codes, scales, rows, words, of_query, bits, excluded, n, lower, upper, places, spare, count, least, out, known
):
    """Scan blocks [first, last) until the buffers are full.

    Blocks before `known` are prefetched: they will be scanned for certain.

    Returns:
        (block to continue with, number of candidates, least).
    """
    shift, factor, slack = of_query
    groups = codes.shape[1]
    room = len(lower) - _PAIR
    of_block, at_codes, at_scales = 4 * LANES * groups, codes.ctypes.data, scales.ctypes.data
    at_words, at_out = words.ctypes.data, out.ctypes.data
    chosen = len(bits) > 0 or len(excluded) > 0
    for number in range(first, last, 2):
        if number + _NEXT < known:  # the processor's prefetcher stops at the end of each page
            for line in range(0, 2 * of_block, 64):
                prefetch(at_codes + (number + _NEXT) * of_block + line)
            prefetch(at_scales + 4 * LANES * (number + _NEXT))
            prefetch(at_scales + 4 * LANES * (number + _NEXT + 1))
        if chosen:
            prefetch(rows.ctypes.data + 4 * LANES * min(number + _SOON, last))
            prefetch(rows.ctypes.data + 4 * LANES * min(number + _SOON + 1, last))
        mask = pair(
            at_codes + number * of_block, at_words, groups, shift, factor, slack, at_scales + 4 * LANES * number, least, at_out
        )
        if number + 1 == last:
            mask &= _ONE
        while mask:
            lane = lowest_bit(mask)
            mask &= mask - 1
            place = LANES * number + lane
            if scales[place] == 0.0:  # a block that is not full
                continue
            if chosen:  # rows are scattered: they are read only if needed
                row = rows[place]
                if len(bits) and not bits[row >> 3] >> (row & 7) & 1:
                    continue
                if len(excluded):
                    at = np.searchsorted(excluded, row)
                    if at < len(excluded) and excluded[at] == row:
                        continue
            margin = slack * scales[place]
            lower[count], upper[count], places[count] = out[lane] - margin, out[lane] + margin, place
            count += 1
        if count > room:
            count, least = keep(lower, upper, places, count, n, spare)
            if count > room - (room >> 2):
                return min(number + 2, last), count, least
    return last, count, least


@compiled()
def _bounds_of(words, of_query, codes, scales, spreads, radii, effort, bounds):
    """Fill `bounds`, float32 [16 blocks of centres], with upper bounds of each cell."""
    shift, factor, slack = of_query
    groups = codes.shape[1]
    for number in range(0, len(codes), 2):
        start = LANES * number
        pair(
            codes.ctypes.data + 4 * start * groups,
            words.ctypes.data,
            groups,
            shift,
            factor,
            slack,
            scales.ctypes.data + 4 * start,
            np.float32(0.0),
            bounds.ctypes.data + 4 * start,
        )
        for at in range(start, start + _PAIR):
            bounds[at] += slack * scales[at] + min(effort * spreads[at], radii[at])


@compiled()
def _pop_best(bounds, peaks):
    """Remove the cell with the largest bound, and return it with its bound.

    `peaks` are the largest bounds of each sixteen cells.
    """
    block_ = 0
    for number in range(1, len(peaks)):
        if peaks[number] > peaks[block_]:
            block_ = number
    best, peak = LANES * block_, np.float32(-np.inf)
    for at in range(LANES * block_, LANES * block_ + LANES):
        if bounds[at] > bounds[best]:
            best = at
    bound = bounds[best]
    bounds[best] = -np.inf
    for at in range(LANES * block_, LANES * block_ + LANES):
        peak = max(peak, bounds[at])
    peaks[block_] = peak
    return best, bound


@compiled()
def _grown(values, count, size):
    """Copy the first `count` values into an array of another size."""
    larger = np.empty(size, dtype=values.dtype)
    larger[:count] = values[:count]
    return larger


@compiled()
def _fetch(codes, scales, first, last):
    """Prefetch the first kilobytes of a cell while another cell is scanned."""
    of_block = 4 * LANES * codes.shape[1]
    start, end = codes.ctypes.data + first * of_block, codes.ctypes.data + last * of_block
    for line in range(start, min(end, start + _AHEAD), 64):
        prefetch(line)
    start, end = scales.ctypes.data + 4 * LANES * first, scales.ctypes.data + 4 * LANES * last
    for line in range(start, min(end, start + _AHEAD), 64):
        prefetch(line)


@compiled(
    *(REALS, int64, TABLE, _BLOCKS, REALS, _INTS, _INTS, _BLOCKS, REALS, REALS, REALS),
    *(TABLE, _BITS, ROWS, float32, _LIMITS),
)
def search(
    query,
    n,
    basis,
    codes,
    scales,
    rows,
    starts,
    centres,
    centre_scales,
    spreads,
    radii,
    vectors,
    bits,
    excluded,
    effort,
    limits,
):
    """Find the n best rows of one query.

    Args:
        query: float32 [dim].
        n: length of a list.
        basis: float32 [dim, 4 groups], the transformation.
        codes: int32 [blocks, groups, 16].
        scales: float32 [16 blocks].
        rows: int32 [16 blocks], -1 where a block is not full.
        starts: int32 [cells + 1], the first block of each cell.
        centres: int32 [blocks of centres, groups, 16], codes of the centres.
        centre_scales: float32 [16 blocks of centres].
        spreads: float32 [16 blocks of centres].
        radii: float32 [16 blocks of centres].
        vectors: float32 [size, dim].
        bits: uint8 [ceil(size / 8)], the rows that may be returned; [0] for all.
        excluded: int64 [m], rows that must not be returned, sorted.
        effort: assumed distance of a cell's best item beyond its centre, in spreads.
        limits: float32, bounds of the error of a score: rho, reach and rounding.

    Returns:
        Rows int64 [m], scores float32 [m], cells scanned, items scanned.
    """
    rho, reach, rounding = limits
    groups = codes.shape[1]
    words = np.zeros(2 * groups, dtype=np.int32)
    shift, factor, error = encode(query, basis, words)
    of_query = (shift, factor, np.float32(rho + error * reach + rounding))
    room = max(4 * n, 256) + _PAIR
    lower, upper, spare = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(room, np.float32)
    places = np.empty(room, np.int64)
    out = np.empty(_PAIR, np.float32)
    count, least = 0, np.float32(-np.inf)
    bounds = np.empty(LANES * len(centres), dtype=np.float32)
    _bounds_of(words, of_query, centres, centre_scales, spreads, radii, effort, bounds)
    peaks = np.empty(len(centres), dtype=np.float32)
    for number in range(len(peaks)):
        peaks[number] = bounds[LANES * number : LANES * number + LANES].max()
    cells, items, turn, cells_total = 0, 0, 0, len(starts) - 1
    following, promised = _pop_best(bounds, peaks)
    known = len(codes) if effort > 1e37 else 0  # an exact search skips few cells
    while True:
        if turn < _ORDERED:
            cell, bound = following, promised
            if bound < least or bound == -np.inf:
                break
            turn += 1
            if turn < _ORDERED:
                following, promised = _pop_best(bounds, peaks)
                _fetch(codes, scales, starts[following], starts[following + 1])
        else:
            cell = turn - _ORDERED
            if cell >= cells_total:
                break
            bound = bounds[cell]
            turn += 1
            if bound < least or bound == -np.inf:
                continue
        first, last = starts[cell], starts[cell + 1]
        cells += 1
        items += last - first
        while first < last:
            first, count, least = _scan(
                first, last, codes, scales, rows, words, of_query, bits, excluded, n,
                lower, upper, places, spare, count, least, out, max(known, last),
            )  # fmt: skip
            if 2 * count > len(lower):
                more = 2 * len(lower)
                lower, upper, places = _grown(lower, count, more), _grown(upper, count, more), _grown(places, count, more)
                spare = np.empty(more, np.float32)
        if turn <= _ORDERED and count >= n + (n >> 1 if least > -np.inf else 0):
            count, least = keep(lower, upper, places, count, n, spare)
    count, least = keep(lower, upper, places, count, n, spare)
    candidates = np.empty(count, dtype=np.int64)
    for at in range(count):
        candidates[at] = rows[places[at]]
    found, scores = best_of(vectors, query, candidates, n)
    return found, scores, cells, LANES * items


@compiled(TABLE, int64, TABLE, _BLOCKS, REALS, _INTS, TABLE, ROWS, ROWS, _LIMITS, int64)
def search_together(queries, n, basis, codes, scales, rows, vectors, excluded, ends, limits, chunk):
    """Find the n best rows of many queries, block by block for all of them.

    Args:
        queries: float32 [q, dim].
        n: length of a list.
        basis: float32 [dim, 4 groups], the transformation.
        codes: int32 [blocks, groups, 16].
        scales: float32 [16 blocks].
        rows: int32 [16 blocks], -1 where a block is not full.
        vectors: float32 [size, dim].
        excluded: int64 [ends[-1]], rows that must not be returned, sorted for each query.
        ends: int64 [q + 1]; the rows of query i are in [ends[i], ends[i + 1]).
        limits: float32, bounds of the error of a score: rho, reach and rounding.
        chunk: blocks that one query scans before the next query.

    Returns:
        Rows int64 [q, n], scores float32 [q, n], done bool [q]: False if ties filled the buffers of a query.
    """
    rho, reach, rounding = limits
    total, blocks, groups = len(queries), len(codes) - 1, codes.shape[1]
    room = max(4 * n, 256) + _PAIR
    words = np.zeros((total, 2 * groups), dtype=np.int32)
    shifts, factors, slacks = np.empty(total, np.int32), np.empty(total, np.float32), np.empty(total, np.float32)
    for at in range(total):
        shifts[at], factors[at], error = encode(queries[at], basis, words[at])
        slacks[at] = rho + error * reach + rounding
    lower, upper = np.empty((total, room), np.float32), np.empty((total, room), np.float32)
    places = np.empty((total, room), np.int64)
    spare, out = np.empty(room, np.float32), np.empty(_PAIR, np.float32)
    counts, least = np.zeros(total, np.int64), np.full(total, np.float32(-np.inf), np.float32)
    done, full = np.ones(total, np.bool_), room - (room >> 2)
    everything = np.empty(0, dtype=np.uint8)
    for start in range(0, blocks, chunk):
        end = min(start + chunk, blocks)
        for at in range(total):
            went = start
            while went < end and done[at]:
                went, counts[at], least[at] = _scan(
                    went, end, codes, scales, rows, words[at], (shifts[at], factors[at], slacks[at]), everything,
                    excluded[ends[at] : ends[at + 1]], n, lower[at], upper[at], places[at], spare, counts[at], least[at], out,
                    blocks if at == 0 else 0,
                )  # fmt: skip
                if counts[at] > full:
                    counts[at], least[at] = keep(lower[at], upper[at], places[at], counts[at], n, spare)
                    done[at] = counts[at] <= full
    found, scores = np.full((total, n), -1, np.int64), np.full((total, n), np.float32(-np.inf), np.float32)
    for at in range(total):
        if not done[at]:
            continue
        count, _ = keep(lower[at], upper[at], places[at], counts[at], n, spare)
        candidates = np.empty(count, dtype=np.int64)
        for one in range(count):
            candidates[one] = rows[places[at, one]]
        best, best_scores = best_of(vectors, queries[at], candidates, n)
        found[at, : len(best)] = best
        scores[at, : len(best)] = best_scores
    return found, scores, done


@compiled(_BLOCKS, REALS, _INTS, _BITS, int64)
def packed_rows(codes, scales, rows, bits, count):
    """Pack the codes of the rows of a bitmap.

    Args:
        codes: int32 [blocks, groups, 16].
        scales: float32 [16 blocks].
        rows: int32 [16 blocks].
        bits: uint8 [ceil(size / 8)], the bitmap.
        count: rows in it.

    Returns:
        (codes, scales, rows) of these rows alone, with an empty block at the end.
    """
    groups = codes.shape[1]
    blocks = (count + LANES - 1) // LANES + 1
    of_codes = np.zeros((blocks, groups, LANES), dtype=np.int32)
    of_scales, of_rows = np.zeros(LANES * blocks, dtype=np.float32), np.full(LANES * blocks, -1, dtype=np.int32)
    to = 0
    for place in range(len(rows)):
        row = rows[place]
        if row >= 0 and bits[row >> 3] >> (row & 7) & 1:
            for group in range(groups):
                of_codes[to // LANES, group, to % LANES] = codes[place // LANES, group, place % LANES]
            of_scales[to], of_rows[to] = scales[place], row
            to += 1
    return of_codes, of_scales, of_rows
