"""Quantize item vectors to eight-bit codes, in cells.

Vectors are transformed first, v' = v A and q' = q A^-T, which changes no inner product: by a root of the users' second
moments, so that errors are small in the directions with a large second moment, and then by a random rotation, after which no
component is much larger than the others. Each vector has its own scale, a 127th of its largest component. A vector is its code
times its scale, up to an error of a length of at most `rho` scales. By Cauchy and Schwarz, the error of a score is at most
|q'| rho scale, where |q'| = 1 after the query is normalized: exact search relies on this bound.
(Transformation by users' moments: as in coarse.py. Rotation before quantization: Gong et al. 2013, Iterative Quantization.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Float64, Floats, Int32, UInt8
from recall.index.coarse import cut_into_cells, moment_roots

LANES = 16
_CHUNK = 1 << 15  # vectors transformed at once
_FLOOR = 1e-3  # least eigenvalue of the users' moments, as a share of the mean: bounds the stretching of a query
_SIGNS = 128  # added to a code, so that it is unsigned
_ROUNDING = 2.0**-23 * 16  # of the scores that bounds are compared with, relative to the lengths of both vectors


@dataclass(frozen=True, slots=True, eq=False)
class ErrorBounds:
    """Bounds of the error of a score, in item scales, for a query of length 1.

    Attributes:
        rho: largest length of the quantization error of an item.
        reach: largest length of a code; multiplied by the quantization error of the query.
        rounding: of float32.
    """

    rho: float
    reach: float
    rounding: float


@dataclass(frozen=True, slots=True, eq=False)
class FilteredCodes:
    """Codes of the rows of a bitmap; the last block is empty.

    Attributes:
        codes: int32 [blocks, groups, 16].
        scales: float32 [16 blocks].
        rows: int32 [16 blocks].
    """

    codes: Int32
    scales: Float32
    rows: Int32

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.codes.nbytes + self.scales.nbytes + self.rows.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Quantized item vectors in cells.

    Attributes:
        basis: float32 [dim, 4 groups], transforms a query; columns beyond dim are zero.
        codes: int32 [blocks, groups, 16], four codes in each, unsigned with 128 added; the last block is empty.
        scales: float32 [16 blocks], 0 where a block is not full.
        rows: int32 [16 blocks], -1 where a block is not full.
        starts: int32 [cells + 1], the first block of each cell, then the empty block.
        centres: int32 [2 ceil(cells / 32), groups, 16], codes of the cells' means.
        centre_scales: float32 [32 ceil(cells / 32)].
        spreads: float32 [32 ceil(cells / 32)], root mean square distance of a cell's transformed members from its centre.
        radii: float32 [32 ceil(cells / 32)], the largest such distance; -inf where there is no cell.
        limits: bounds of the error of a score.
        magnitude: a power of two by which vectors are divided before the transformation.
    """

    basis: Float32
    codes: Int32
    scales: Float32
    rows: Int32
    starts: Int32
    centres: Int32
    centre_scales: Float32
    spreads: Float32
    radii: Float32
    limits: ErrorBounds
    magnitude: float

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.starts) - 1


def pack(vectors: Float32, queries: Float32, cells: int, seed: int, threads: int) -> Codes:
    """Partition vectors into cells and quantize them.

    Args:
        vectors: float32 [size, dim], finite; may be mapped from a file.
        queries: float32 [q, dim], vectors of real users, at least one.
        cells: number of cells.
        seed: of the rotation and of k-means.
        threads: for the partition.
    """
    size, dim = vectors.shape
    magnitude = _magnitude(vectors)
    there, back = _turn(queries, seed)
    member = np.zeros(size, dtype=np.int64)
    if cells > 1:
        _, member = cut_into_cells(vectors, 1 / magnitude, queries, cells, seed, threads)
    counts = np.bincount(member, minlength=cells)
    blocks = -(-counts // LANES)
    starts = np.concatenate([[0], np.cumsum(blocks)])
    order = np.argsort(member, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)])
    place = np.empty(size, dtype=np.int64)  # of each row among the lanes of all blocks
    place[order] = np.arange(size) - np.repeat(first[:-1] - LANES * starts[:-1], counts)

    groups = -(-dim // 4)
    codes = np.full((LANES * (int(starts[-1]) + 1), groups, 4), _SIGNS, dtype=np.uint8)
    scales, rows = np.zeros(len(codes), dtype=np.float32), np.full(len(codes), -1, dtype=np.int32)
    rows[place] = np.arange(size)
    sums = np.zeros((cells, dim))
    worst, reach = 0.0, 0.0
    for begin, turned in _turned(vectors, there, magnitude):
        chunk = slice(begin, begin + len(turned))
        if cells == 1:
            sums += turned.sum(axis=0)  # `add.at` would hold the interpreter's lock while requests are answered
        else:
            np.add.at(sums, member[chunk], turned)
        rounded, scale, rho, far = _rounded(turned)
        codes.reshape(len(codes), -1)[place[chunk], :dim] = rounded
        scales[place[chunk]] = scale
        worst, reach = max(worst, rho), max(reach, far)
    means = sums / np.maximum(counts, 1)[:, None]
    spreads, radii = np.zeros(cells), np.zeros(cells)
    for begin, turned in _turned(vectors, there, magnitude):
        inside = member[begin : begin + len(turned)]
        distances = ((turned - means[inside]) ** 2).sum(axis=1)
        np.add.at(spreads, inside, distances)
        np.maximum.at(radii, inside, np.sqrt(distances))
    spreads = np.sqrt(spreads / np.maximum(counts, 1))
    radii[counts == 0] = -np.inf
    centre_codes, centre_scale, rho, far = _rounded(means)
    centres = np.full((-(-cells // (2 * LANES)) * 2 * LANES, groups, 4), _SIGNS, dtype=np.uint8)
    centres.reshape(len(centres), -1)[:cells, :dim] = centre_codes
    basis = np.zeros((dim, 4 * groups), dtype=np.float32)
    basis[:, :dim] = back
    worst, reach = max(worst, rho), max(reach, far)
    return Codes(
        basis,
        _blocks(codes),
        scales,
        rows,
        starts.astype(np.int32),
        _blocks(centres),
        _filled(centre_scale, len(centres), 0.0),
        _filled(spreads, len(centres), 0.0),
        _filled(radii * (1 + 1e-5), len(centres), -np.inf),
        ErrorBounds(worst * (1 + 1e-5), reach, _slack(there, basis[:, :dim], reach)),
        magnitude,
    )


def _magnitude(vectors: Float32) -> float:
    """Return the power of two below the largest component.

    Divided by it, neither huge nor tiny vectors leave the range of float32.
    """
    largest = max(float(np.abs(vectors[first : first + _CHUNK]).max()) for first in range(0, len(vectors), _CHUNK))
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 1.0


def _turn(queries: Float32, seed: int) -> tuple[Float64, Float64]:
    """Return A and its inverse transposed, both [dim, dim]: (v A)(q A^-T) = v q."""
    root, inverse = moment_roots(queries, _FLOOR)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal(root.shape))
    return root @ rotation, inverse @ rotation


def _slack(there: Float64, back: Float32, reach: float) -> float:
    """Bound the rounding error of the transformations and of float32 sums."""
    stretch = np.linalg.cond(there)
    mismatch = np.linalg.norm(there @ back.T.astype(np.float64) - np.eye(len(there)), 2)
    return float(reach * (stretch * (mismatch + _ROUNDING) + 1e-6))


def _turned(vectors: Float32, there: Float64, magnitude: float) -> Iterator[tuple[int, Float64]]:
    for first in range(0, len(vectors), _CHUNK):
        yield first, (vectors[first : first + _CHUNK].astype(np.float64) / magnitude) @ there


def _rounded(turned: Float64) -> tuple[UInt8, Float32, float, float]:
    """Quantize float64 [m, dim].

    Returns:
        Codes uint8 [m, dim], scales float32 [m], and the largest lengths of an error and of a code, both in scales.
    """
    scales = np.maximum(np.abs(turned).max(axis=1) / 127, 1e-30).astype(np.float32)
    exact = turned / scales[:, None].astype(np.float64)
    whole = np.clip(np.rint(exact), -127, 127)
    left = np.sqrt(((exact - whole) ** 2).sum(axis=1).max())
    longest = np.sqrt((whole**2).sum(axis=1).max())
    return (whole + _SIGNS).astype(np.uint8), scales, float(left), float(longest)


def _blocks(codes: UInt8) -> Int32:
    """Return uint8 [16 blocks, groups, 4] as int32 [blocks, groups, 16]."""
    words = codes.view(np.int32)[:, :, 0]
    return np.ascontiguousarray(words.reshape(-1, LANES, words.shape[1]).transpose(0, 2, 1))


def _filled(values: Floats, size: int, rest: float) -> Float32:
    """Pad values to float32 [size]."""
    out = np.full(size, rest, dtype=np.float32)
    out[: len(values)] = values
    return out
