"""The fields of one side, as a model sees them: names, and which rows of the feature space belong to which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall._arrays import Int64


@dataclass(frozen=True, eq=False)
class Fields:
    """How the feature space of one side is divided.

    Attributes:
        names: of the fields; a history has one for each range of lags.
        offsets: int64 [fields], the first feature of each, rising from 0.
        n_features: size of the feature space.
    """

    names: tuple[str, ...]
    offsets: Int64
    n_features: int

    @staticmethod
    def of_sizes(sizes: Sequence[tuple[str, int]]) -> "Fields":
        """From the name and the number of features of each field, in order."""
        ends = np.cumsum([size for _, size in sizes], dtype=np.int64)
        return Fields(tuple(name for name, _ in sizes), np.concatenate([[0], ends[:-1]]).astype(np.int64), int(ends[-1]))

    def __len__(self) -> int:
        return len(self.names)

    def of(self, features: npt.NDArray[np.integer]) -> Int64:
        """The number of the field that each feature belongs to: integer [n] -> int64 [n]."""
        return np.searchsorted(self.offsets, features, side="right") - 1
