"""Store arrays without zero rows, of which an L1 term makes many."""

from collections.abc import Mapping

import numpy as np

from recall._arrays import Float32, Int32
from recall.errors import BundleError

SUFFIX = ".rows"
"""Suffix of the array with the rows that were kept of a packed one."""
_SIDES = ("user_", "item_")


def kept_rows(arrays: Mapping[str, Float32]) -> dict[str, Int32]:
    """Return the nonzero rows of each array that is packed.

    An array with less than half zero rows stays whole: it is mapped from its file and shared by all processes, which is worth
    more than a few rows.

    Args:
        arrays: by name; those of features have a row for each.
    """
    found = {}
    for name, array in arrays.items():
        if name.startswith(_SIDES) and array.size:
            rows = np.flatnonzero(array.reshape(len(array), -1).any(axis=1)).astype(np.int32)
            if 2 * len(rows) <= len(array):
                found[name] = rows
    return found


def packed(arrays: Mapping[str, Float32]) -> dict[str, Float32 | Int32]:
    """Return the nonzero rows of packed arrays, with their positions."""
    kept = kept_rows(arrays)
    stored: dict[str, Float32 | Int32] = {}
    for name, array in arrays.items():
        stored[name] = array[kept[name]] if name in kept else array
        if name in kept:
            stored[name + SUFFIX] = kept[name]
    return stored


def kept_shapes(shapes: Mapping[str, tuple[int, ...]], kept: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the float arrays as they are stored.

    Args:
        shapes: of the whole arrays.
        kept: number of rows that each packed array keeps.

    Raises:
        BundleError: A packed array is unknown.
    """
    strange = [name for name in kept if name not in shapes]
    if strange:
        raise BundleError(f"{strange[0]!r} was packed and is not an array of this model", where="manifest, model.kept")
    return {name: (kept[name], *shape[1:]) if name in kept else shape for name, shape in shapes.items()}


def unpacked(
    stored: Mapping[str, Float32], rows: Mapping[str, Int32], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Float32]:
    """Return the whole arrays.

    Args:
        stored: the float arrays.
        rows: the rows that were kept, by the name of the array with `SUFFIX`.
        shapes: of the whole arrays.

    Raises:
        BundleError: A position is outside its array or does not rise.
    """
    arrays = dict(stored)
    for key, places in rows.items():
        name = key.removesuffix(SUFFIX)
        if len(places) and not (places[0] >= 0 and places[-1] < shapes[name][0] and (np.diff(places) > 0).all()):
            raise BundleError(f"the rows kept of array {name!r} do not rise within 0 and {shapes[name][0] - 1}", where=key)
        arrays[name] = np.zeros(shapes[name], dtype=np.float32)
        arrays[name][places] = stored[name]
        arrays[name].flags.writeable = False
    return arrays
