"""Memory-mapped arrays in safetensors files.

All processes on a machine share one copy in the page cache.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recall._arrays import Bool, Float32
from recall.errors import BundleError, raising

_PREFIX = 8  # bytes of the header's length, little-endian
_TYPES: Mapping[str, str] = {"F32": "<f4", "I32": "<i4", "U32": "<u4", "U8": "u1"}
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


def map_tensors(path: Path, floats: Shapes, ints: Shapes = MappingProxyType({})) -> dict[str, npt.NDArray[Any]]:
    """Map the arrays of a file into memory, read-only, if they are those expected.

    Args:
        path: a safetensors file.
        floats: name and shape of every float32 array that the file must hold.
        ints: name and shape of every int32 array that it must hold.

    Raises:
        BundleError: The file is damaged, or holds other names, types or shapes.
    """
    layout = _layout(path)
    expected = {name: ("F32", shape) for name, shape in floats.items()} | {name: ("I32", ints[name]) for name in ints}
    found, shapes = ({name: shape for name, (_, shape) in one.items()} for one in (layout, expected))
    if found != shapes:
        raise BundleError("the arrays are not those of the manifest", where=str(path), why=f"found {found}, expected {shapes}")
    if layout != expected:
        types = {name: kind for name, (kind, _) in layout.items()}
        raise BundleError("the arrays are not all of the types expected", where=str(path), why=f"found {types}")
    return _mapped(path, layout)


def map_any(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map all arrays of a file into memory, read-only, regardless of their shapes.

    Raises:
        BundleError: The file is damaged.
        KeyError: An array is of none of the types that `write_tensors` writes.
    """
    return _mapped(path, _layout(path))


def _layout(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each array by name."""
    failure = raising(BundleError, "the arrays cannot be read", where=str(path), of=(SafetensorError, OSError))
    with failure, safe_open(path, framework="numpy") as opened:  # checks that offsets fit, without holes or overlaps
        parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}


def _mapped(path: Path, layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, npt.NDArray[Any]]:
    """Return views of one mapping of the file.

    One mapping for all arrays, because each keeps a file descriptor open.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_PREFIX), "little")
        header = orjson.loads(file.read(length))
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    found = {}
    for name, (kind, shape) in layout.items():
        first, end = (_PREFIX + length + offset for offset in header[name]["data_offsets"])
        found[name] = np.asarray(whole[first:end]).view(_TYPES[kind]).reshape(shape)
    return found


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
