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

_MMAP_THRESHOLD, _LARGE = -3, 1 << 20  # M_MMAP_THRESHOLD of malloc.h; bytes


def return_large_arrays() -> None:
    """Let the C library return arrays of a megabyte to the system once they are freed.

    glibc by itself keeps arrays of up to 32 MB in its heap after the first of their size was freed. The peak of a training of
    a million interactions is 8 % lower without. Other C libraries have no such function.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
