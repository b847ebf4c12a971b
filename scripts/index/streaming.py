"""How fast this machine's memory can be read by one thread: what a scan is measured by."""

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(nogil=True, fastmath=True)
def _read(numbers: npt.NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for number in numbers:
        total += number
    return total


class Stream:
    """So many bytes of float32, read from one end to the other."""

    def __init__(self, size: int) -> None:
        self._numbers = np.ones(size // 4, dtype=np.float32)
        self.read()

    @property
    def nbytes(self) -> int:
        """Bytes that a reading goes through."""
        return self._numbers.nbytes

    def read(self) -> float:
        """Add all of them up in vector registers."""
        return float(_read(self._numbers))
