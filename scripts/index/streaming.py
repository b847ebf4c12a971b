"""Memory bandwidth of one thread, the limit of a scan."""

import numpy as np


class Stream:
    """So many bytes, read from one end to the other."""

    def __init__(self, size: int) -> None:
        self._numbers = np.ones(size // 8, dtype=np.int64)
        self.read()

    @property
    def nbytes(self) -> int:
        """Bytes that a reading goes through."""
        return self._numbers.nbytes

    def read(self) -> int:
        """Combine all of them in vector registers: the fastest of numpy's reductions."""
        return int(np.bitwise_or.reduce(self._numbers))
