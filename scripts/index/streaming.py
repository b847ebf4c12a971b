"""Memory bandwidth of one thread, the limit of a scan."""

import numpy as np


class Stream:
    """A buffer that is read sequentially."""

    def __init__(self, size: int) -> None:
        self._numbers = np.ones(size // 8, dtype=np.int64)
        self.read()

    @property
    def nbytes(self) -> int:
        """Bytes read in one pass."""
        return self._numbers.nbytes

    def read(self) -> int:
        """Combine all bytes in vector registers: the fastest reduction of numpy."""
        return int(np.bitwise_or.reduce(self._numbers))
