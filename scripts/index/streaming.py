"""How fast this machine's memory can be read by one thread: what a scan is measured by."""

import numba
import numpy as np
import numpy.typing as npt


@numba.njit(nogil=True)
def _read(numbers: npt.NDArray[np.int64]) -> int:
    total = np.zeros(32, dtype=np.int64)
    for start in range(0, len(numbers), 32):
        for lane in range(32):
            total[lane] ^= numbers[start + lane]
    return int(total.sum())


class Stream:
    """So many bytes, read from one end to the other."""

    def __init__(self, size: int) -> None:
        self._numbers = np.ones(max(size // 256, 1) * 32, dtype=np.int64)
        self.read()

    @property
    def nbytes(self) -> int:
        """Bytes that a reading goes through."""
        return self._numbers.nbytes

    def read(self) -> int:
        """Combine all of them in vector registers."""
        return int(_read(self._numbers))
