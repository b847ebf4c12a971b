"""Memory-mapped arrays in safetensors files.

All processes on a machine share one copy in the page cache.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recall._arrays import Bool, Float32, Int32
from recall.errors import BundleError

_PREFIX = 8  # bytes of the header's length, little-endian
_TYPES: Mapping[str, np.dtype[Any]] = {"I32": np.dtype("<i4"), "U32": np.dtype("<u4"), "U8": np.dtype("u1")}
_ROWS = 1 << 16  # checked at a time, so that the mask stays small. Chosen, not tuned.

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of arrays by name."""


def write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays of float32, int32, uint32 or uint8 to a new file.

    Args:
        path: the file, which is overwritten.
        arrays: by name; copied to C order where needed.
    """
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def map_tensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], beside: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Float32]:
    """Map the float32 arrays of a file into memory, read-only.

    Args:
        path: a safetensors file.
        shapes: name and shape of every float32 array that the file must hold.
        beside: name and shape of every int32 array that it must hold; default none.

    Raises:
        BundleError: The file is damaged, or holds other names, types or shapes.
    """
    return _mapped(path, _offsets(path, {"F32": shapes, "I32": beside or {}}), shapes, "<f4")


def map_positions(path: Path, shapes: Shapes, beside: Shapes) -> dict[str, Int32]:
    """Map the int32 arrays of a file into memory, read-only.

    Args:
        path: a safetensors file.
        shapes: name and shape of every int32 array that the file must hold.
        beside: name and shape of every float32 array that it must hold.

    Raises:
        BundleError: The file is damaged, or holds other names, types or shapes.
    """
    return _mapped(path, _offsets(path, {"F32": beside, "I32": shapes}), shapes, "<i4")


def map_any(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map all arrays of a file into memory, read-only.

    They are of int32, uint32 or uint8, and of one dimension each.

    Raises:
        BundleError: The file is damaged, or holds other types or shapes.
    """
    try:
        with safe_open(path, framework="numpy") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            sizes = {name: (int(part.get_shape()[0]), _TYPES[part.get_dtype()]) for name, part in parts.items()}
    except (SafetensorError, OSError, LookupError) as error:
        raise BundleError("the arrays cannot be read", where=str(path), why=str(error)) from None
    start, header = _header(path)
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    found = {}
    for name, (size, dtype) in sizes.items():
        first = start + header[name]["data_offsets"][0]
        found[name] = np.asarray(whole[first : first + size * dtype.itemsize]).view(dtype)
    return found


def _offsets(path: Path, expected: Mapping[str, Shapes]) -> dict[str, int]:
    """Return where each array begins; check names, types and shapes."""
    try:
        with safe_open(path, framework="numpy") as opened:  # checks that offsets fit, without holes or overlaps
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            found = {name: tuple(part.get_shape()) for name, part in parts.items()}
            types = {name: part.get_dtype() for name, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise BundleError("the arrays cannot be read", where=str(path), why=str(error)) from None
    shapes = {name: shape for part in expected.values() for name, shape in part.items()}
    if found != shapes:
        raise BundleError("the arrays are not those of the manifest", where=str(path), why=f"found {found}, expected {shapes}")
    if types != {name: kind for kind, part in expected.items() for name in part}:
        raise BundleError("the arrays are not all of the types expected", where=str(path), why=f"found {types}")
    start, header = _header(path)
    return {name: start + header[name]["data_offsets"][0] for name in found}


def check_finite(path: Path, arrays: Mapping[str, Float32]) -> None:
    """Check that every number is finite.

    Args:
        path: the file, used in the error.
        arrays: float32 arrays by name.

    Raises:
        BundleError: An array holds NaN or an infinity; names the array and its first such row.
    """
    for name, array in arrays.items():
        for first in range(0, len(array), _ROWS):
            part = array[first : first + _ROWS]
            if not np.isfinite(part).all():
                row = first + int(np.argwhere(~np.isfinite(part))[0][0])
                raise BundleError(f"array {name!r} holds NaN or an infinity, first in row {row}", where=str(path))


def check_vectors(path: Path, vectors: Float32) -> None:
    """Check that every item vector is `servable`.

    Args:
        path: the file, used in the error.
        vectors: float32 [items, dim].

    Raises:
        BundleError: A vector is not finite, or too large to be scored; names the first such row.
    """
    for first in range(0, len(vectors), _ROWS):
        part = vectors[first : first + _ROWS]
        if not (good := servable(part)).all():
            row = int(np.argmin(good))
            what = "is too large to be scored" if np.isfinite(part[row]).all() else "holds NaN or an infinity"
            raise BundleError(f"array 'item_vectors' {what}, first in row {first + row}", where=str(path))


def servable(vectors: Float32) -> Bool:
    """Return which item vectors may be served: bool [n] of float32 [n, dim].

    A vector must be finite, and so small that float32 holds its squared norm: otherwise its scores may not be finite, and an
    item with such a score is in no list.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.isfinite(np.einsum("nd,nd->n", vectors, vectors)))


def _header(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_PREFIX), "little")
        return _PREFIX + length, orjson.loads(file.read(length))


def _mapped(path: Path, offsets: Mapping[str, int], shapes: Shapes, kind: str) -> dict[str, npt.NDArray[Any]]:
    """Return views of one mapping of the file.

    One mapping for all arrays, because each keeps a file descriptor open.
    """
    dtype = np.dtype(kind)
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    found = {}
    for name, shape in shapes.items():
        size = dtype.itemsize * math.prod(shape)
        found[name] = np.asarray(whole[offsets[name] : offsets[name] + size]).view(dtype).reshape(shape)
    return found
