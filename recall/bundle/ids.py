"""External item ids and their rows, both ways, in a tenth of the memory that a dict of strings takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall.errors import DataError
from recall.features.sparse import Int64


@dataclass(frozen=True, slots=True)
class ItemIds:
    """Row r is item `values[r]`.

    An id is found by its 64-bit hash among sorted hashes, and then compared in full. The seed of the hash is chosen so that
    no two ids share one.

    Attributes:
        values: String, distinct, without nulls.
    """

    values: pl.Series
    _seed: int
    _hashes: npt.NDArray[np.uint64]
    _rows: Int64

    @classmethod
    def of(cls, values: pl.Series) -> "ItemIds":
        """Ids in the order of their rows. Raises DataError when one is null or occurs twice."""
        if values.null_count():
            raise DataError(f"{values.null_count()} item ids are null", where=values.name)
        if values.n_unique() < len(values):
            repeated = values.filter(values.is_duplicated()).unique(maintain_order=True)
            shown = ", ".join(repr(value) for value in repeated.head(5))
            raise DataError(f"{len(repeated)} item ids occur more than once, such as {shown}", where=values.name)
        seed = 0
        while True:
            hashes = values.hash(seed).to_numpy()
            rows = np.argsort(hashes, kind="stable")
            if not (np.diff(hashes[rows]) == 0).any():
                return cls(values, seed, hashes[rows], rows.astype(np.int64))
            seed += 1

    def __len__(self) -> int:
        return len(self.values)

    def ids(self, rows: Int64) -> list[str]:
        """Ids of rows, each in [0, len)."""
        return self.values.gather(rows).to_list()

    def rows(self, ids: Sequence[str]) -> Int64:
        """Rows of ids: int64 [m], -1 where an id is not known."""
        if not len(ids) or not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        wanted = pl.Series([_encodable(one) for one in ids], dtype=pl.String)
        hashes = wanted.hash(self._seed).to_numpy()
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        rows = self._rows[places]
        same = (self._hashes[places] == hashes) & (self.values.gather(rows) == wanted).fill_null(value=False).to_numpy()
        return np.where(same, rows, -1)


def _encodable(text: str) -> str | None:
    """The text, or None for half a surrogate pair, which no table can hold and so no item is called."""
    return text if text.isascii() or _is_utf8(text) else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
