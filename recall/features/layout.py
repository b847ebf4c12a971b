"""How the feature space of one side is divided among its fields."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall._arrays import Int64
from recall.features.vocabulary import UNKNOWN


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """A range of the feature space that belongs to a field, or to lags of a history.

    Its rows are `offset` to `offset + size`. Within a block row 0 is the unknown value, row 1 the missing value, and learnt
    values follow.
    """

    name: str
    field: str
    offset: int
    size: int


def sources(old: Sequence[FeatureBlock], new: Sequence[FeatureBlock]) -> npt.NDArray[np.int64]:
    """Where each row of a grown feature space comes from.

    Args:
        old: the blocks before.
        new: the same blocks in any order, none of them smaller.

    Returns:
        int64 [n_features]: the row of the old space that means the same, or the unknown row of its block for a value
        that is new.
    """
    by_name = {block.name: block for block in old}
    parts = []
    for after in new:
        before = by_name[after.name]
        rows = np.full(after.size, before.offset + UNKNOWN, dtype=np.int64)
        rows[: before.size] = before.offset + np.arange(before.size)
        parts.append(rows)
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class FeatureLayout:
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
    def of_sizes(sizes: Sequence[tuple[str, int]]) -> "FeatureLayout":
        """From the name and the number of features of each field, in order."""
        ends = np.cumsum([size for _, size in sizes], dtype=np.int64)
        return FeatureLayout(tuple(name for name, _ in sizes), np.concatenate([[0], ends[:-1]]).astype(np.int64), int(ends[-1]))

    def __len__(self) -> int:
        return len(self.names)

    def of(self, features: npt.NDArray[np.integer]) -> Int64:
        """Return the number of the field of each feature: integer [n] -> int64 [n]."""
        return np.searchsorted(self.offsets, features, side="right") - 1
