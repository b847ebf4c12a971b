"""Types of arrays by their elements, and where the memory of large ones goes."""

import ctypes
from contextlib import suppress

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer]
UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]


def return_freed_memory() -> None:
    """Return free pages of the heap to the system, where the C library is glibc.

    It keeps freed arrays of up to 32 MB by itself, between others that are in use, and the next stage grows the heap beside them.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
