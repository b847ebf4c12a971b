"""Arrays in .npz files, as numpy writes them: no pickle, finite numbers, shapes that fit."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from recall._arrays import Float64
from recall.errors import DataError, nearest
from recall.importing.foreign import (
    ForeignModel,
    Parameters,
)

Array = npt.NDArray[np.generic]


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of a file. Raises DataError when it is no .npz, or holds Python objects."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError("this is one array and no .npz", where=str(path), mend="Save all arrays with numpy.savez")
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), mend="Give the path of an .npz file") from None
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(
            "the arrays cannot be read", where=str(path), why=str(error), mend="Write them with numpy.savez, without objects"
        ) from None


def numbers(arrays: Mapping[str, Array], name: str, dimensions: int, path: Path) -> Float64:
    """One array as float64. Raises DataError when it is not there, not of so many dimensions, or not finite."""
    if name not in arrays:
        raise DataError(f"there is no array {name!r}", where=str(path), mend=nearest(name, arrays))
    found = arrays[name]
    if found.ndim != dimensions or found.dtype.kind not in "fiu":
        raise DataError(
            f"array {name!r} is {found.dtype} {list(found.shape)}, and should hold numbers in {dimensions} dimensions",
            where=str(path),
        )
    values = found.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"array {name!r} holds {len(wrong)} numbers that are not finite, first at {wrong[0].tolist()}", where=str(path)
        )
    return values


def read_fm_arrays(path: Path) -> ForeignModel:
    """Read a factorization machine from the arrays of fastFM (w0_, w_, V_ [k, n]) or myFM (w0, w, V [n, k]).

    Raises:
        DataError: an array is missing, not finite, or of another shape.
    """
    arrays = read_npz(path)
    ending = "_" if "w_" in arrays else ""
    weights, factors = numbers(arrays, "w" + ending, 1, path), numbers(arrays, "V" + ending, 2, path)
    factors = factors.T if ending else factors
    if len(factors) != len(weights):
        raise DataError(f"there are {len(weights)} weights and {len(factors)} embeddings", where=str(path))
    bias = (
        numbers({"w0": np.asarray(arrays["w0" + ending]).reshape(-1)[:1]}, "w0", 1, path) if "w0" + ending in arrays else [0.0]
    )
    return ForeignModel.together("fm", float(bias[0]), Parameters(weights, np.ascontiguousarray(factors)))
