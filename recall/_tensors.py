"""Float arrays in safetensors files, read by mapping the file, so that all processes on a machine share one copy."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recall._arrays import Float32, Int32
from recall.errors import BundleError

_PREFIX = 8  # bytes that hold the length of the header, little-endian
_ROWS = 1 << 16  # looked at together

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of arrays by name."""


def write_tensors(path: Path, arrays: Mapping[str, Float32 | Int32]) -> None:
    """Write float32 and int32 arrays to a new file."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def map_tensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], beside: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Float32]:
    """Map float32 arrays into memory, read-only.

    Args:
        path: a safetensors file.
        shapes: name and shape of every float32 array that the file must hold.
        beside: of every int32 array; it may hold no other.

    Raises:
        BundleError: the file is no safetensors file, or holds other names, types or shapes.
    """
    return _mapped(path, _offsets(path, {"F32": shapes, "I32": beside or {}}), shapes, "<f4")


def map_positions(path: Path, shapes: Shapes, beside: Shapes) -> dict[str, Int32]:
    """Map int32 arrays; `shapes` are theirs, and `beside` those of the float32 arrays in the file. Raises BundleError."""
    return _mapped(path, _offsets(path, {"F32": beside, "I32": shapes}), shapes, "<i4")


def _offsets(path: Path, expected: Mapping[str, Shapes]) -> dict[str, int]:
    """Where each array begins in a file that holds just the arrays of these types, names and shapes."""
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
    """Raise BundleError, naming the array and its first wrong row, unless every number is finite."""
    for name, array in arrays.items():
        for first in range(0, len(array), _ROWS):
            part = array[first : first + _ROWS]
            if not np.isfinite(part).all():
                row = first + int(np.argwhere(~np.isfinite(part))[0][0])
                raise BundleError(f"array {name!r} holds NaN or an infinity, first in row {row}", where=str(path))


def check_vectors(path: Path, vectors: Float32) -> None:
    """Raise BundleError, naming the first row that may not be served, unless `servable` are all: float32 [items, dim]."""
    for first in range(0, len(vectors), _ROWS):
        part = vectors[first : first + _ROWS]
        if not (good := servable(part)).all():
            row = int(np.argmin(good))
            what = "is too large to be scored" if np.isfinite(part[row]).all() else "holds NaN or an infinity"
            raise BundleError(f"array 'item_vectors' {what}, first in row {first + row}", where=str(path))


def servable(vectors: Float32) -> npt.NDArray[np.bool_]:
    """Which item vectors may be served: bool [n] of float32 [n, dim].

    Not one that holds NaN or an infinity, and not one so large that float32 cannot hold its square: its scores may not be
    finite, and an item with such a score is in no list.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.isfinite(np.einsum("nd,nd->n", vectors, vectors)))


def _header(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_PREFIX), "little")
        return _PREFIX + length, orjson.loads(file.read(length))


def _mapped(path: Path, offsets: Mapping[str, int], shapes: Shapes, kind: str) -> dict[str, npt.NDArray[Any]]:
    """Views of one mapping of the file: a mapping keeps a file descriptor for as long as it lives."""
    dtype = np.dtype(kind)
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    found = {}
    for name, shape in shapes.items():
        size = dtype.itemsize * math.prod(shape)
        found[name] = np.asarray(whole[offsets[name] : offsets[name] + size]).view(dtype).reshape(shape)
    return found
