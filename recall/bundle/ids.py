"""External item ids and their rows, both ways, in a fraction of the memory that a dict of strings takes."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.dtypes import StringDType

from recall.errors import DataError
from recall.features.sparse import Int64


@dataclass(frozen=True, slots=True, eq=False)
class ItemIds:
    """Row r is the item whose id stands at place r.

    An id is found by its hash among sorted hashes, and then compared in full. Python's own hash serves, though it differs
    from one process to the next: it is taken anew when a bundle is opened. All of this is arrays and plain Python, because
    a request asks for a few hundred ids, and one call into polars costs more than looking all of them up.
    """

    _texts: npt.NDArray[np.object_]  # of StringDType: 16 bytes for an id of up to 15
    _hashes: Int64
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
        texts = values.to_list()
        hashes = _hashes_of(texts)
        rows = np.argsort(hashes, kind="stable")
        return cls(np.array(texts, dtype=StringDType()), hashes[rows], rows)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def values(self) -> pl.Series:
        """All ids as a new series of String."""
        return pl.Series(self._texts.tolist(), dtype=pl.String)

    def ids(self, rows: Int64) -> list[str]:
        """Ids of rows, each in [0, len)."""
        texts: list[str] = self._texts[rows].tolist()
        return texts

    def rows(self, ids: Sequence[str]) -> Int64:
        """Rows of ids: int64 [m], -1 where an id is not known."""
        found = np.full(len(ids), -1, dtype=np.int64)
        hashes = _hashes_of(ids)
        places = np.searchsorted(self._hashes, hashes)
        known = np.flatnonzero(places < len(self))
        known = known[self._hashes[places[known]] == hashes[known]]
        rows = self._rows[places[known]]
        wanted = np.array([ids[position] for position in known.tolist()], dtype=StringDType())
        same = self._texts[rows] == wanted
        found[known[same]] = rows[same]
        for position in known[~same].tolist():
            found[position] = self._beyond(int(places[position]), ids[position])
        return found

    def order(self) -> Int64:
        """All rows by rising id: int64 [len]."""
        return np.argsort(self._texts, kind="stable").astype(np.int64, copy=False)

    def place(self, order: Int64, text: str) -> int:
        """How many of some rows, which are by rising id, have an id that does not come after a text."""
        return bisect_right(order, text, key=self._texts.__getitem__)

    def _beyond(self, place: int, wanted: str) -> int:
        """Row of an id that shares its hash with the one at `place`, or -1."""
        for other in range(place + 1, len(self)):
            if self._hashes[other] != self._hashes[place]:
                break
            if self._texts[self._rows[other]] == wanted:
                return int(self._rows[other])
        return -1


def _hashes_of(texts: Sequence[str]) -> Int64:
    return np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts))
