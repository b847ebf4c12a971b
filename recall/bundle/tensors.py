"""Float arrays in safetensors files, read by mapping the file, so that all processes on a machine share one copy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recall.errors import BundleError
from recall.features.sparse import Float32

_PREFIX = 8  # bytes that hold the length of the header, little-endian
_ROWS = 1 << 16  # looked at together


def write_tensors(path: Path, arrays: Mapping[str, Float32]) -> None:
    """Write float32 arrays to a new file."""
    save_file({name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}, path)


def map_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float32]:
    """Map float32 arrays into memory, read-only.

    Args:
        path: a safetensors file.
        shapes: name and shape of every array that the file must hold, and no other.

    Raises:
        BundleError: the file is no safetensors file, or holds other names, types or shapes.
    """
    try:
        with safe_open(path, framework="numpy") as opened:  # checks that offsets fit, without holes or overlaps
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            types = {name: opened.get_slice(name).get_dtype() for name in found}
    except (SafetensorError, OSError) as error:
        raise BundleError("the arrays cannot be read", where=str(path), why=str(error)) from None
    if found != dict(shapes):
        raise BundleError(
            "the arrays are not those of the manifest", where=str(path), why=f"found {found}, expected {dict(shapes)}"
        )
    if set(types.values()) - {"F32"}:
        raise BundleError("the arrays are not all float32", where=str(path), why=f"found {types}")
    start, header = _header(path)
    return {name: _map(path, start + header[name]["data_offsets"][0], shape) for name, shape in found.items()}


def check_finite(path: Path, arrays: Mapping[str, Float32]) -> None:
    """Raise BundleError, naming the array and its first wrong row, unless every number is finite."""
    for name, array in arrays.items():
        for first in range(0, len(array), _ROWS):
            part = array[first : first + _ROWS]
            if not np.isfinite(part).all():
                row = first + int(np.argwhere(~np.isfinite(part))[0][0])
                raise BundleError(f"array {name!r} holds NaN or an infinity, first in row {row}", where=str(path))


def _header(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_PREFIX), "little")
        return _PREFIX + length, orjson.loads(file.read(length))


def _map(path: Path, offset: int, shape: tuple[int, ...]) -> Float32:
    if 0 in shape:  # an empty range cannot be mapped
        return np.empty(shape, dtype=np.float32)
    return np.asarray(np.memmap(path, dtype="<f4", mode="r", offset=offset, shape=shape))
