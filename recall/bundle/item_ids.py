"""Map between item ids and rows in a fraction of the memory of a dict."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import polars as pl

from recall._arrays import Int32, Int64, UInt8, UInt32
from recall.errors import DataError

_MOST_BYTES = 2**32 - 1
_FILLED = 0.75  # of the slots, at most: a lookup then compares with one or two other ids


@dataclass(frozen=True, slots=True, eq=False)
class ItemIds:
    """Row r is the item with the r-th id.

    Ids are concatenated as UTF-8, their rows are in a hash table. Python's own hash serves, though it differs from
    one process to the next: the table is made when a bundle is opened. A request asks for a hundred ids here and a dozen
    there, which come from memory that no cache holds: numpy's calls for it cost more than the whole lookup.
    """

    _texts: UInt8
    _starts: UInt32
    _slots: Int32
    _plain: bool  # all of it ASCII
    _loops: ModuleType

    @classmethod
    def of(cls, values: pl.Series) -> "ItemIds":
        """Return the mapping of ids in the order of their rows.

        Raises:
            DataError: An id is null or occurs twice.
        """
        if values.null_count():
            raise DataError(f"{values.null_count()} item ids are null", where=values.name)
        if values.n_unique() < len(values):
            repeated = values.filter(values.is_duplicated()).unique(maintain_order=True)
            shown = ", ".join(repr(value) for value in repeated.head(5))
            raise DataError(f"{len(repeated)} item ids occur more than once, such as {shown}", where=values.name)
        return cls.hashed(values, _hashes_of(values.to_list()))

    @classmethod
    def hashed(cls, values: pl.Series, hashes: Int64) -> "ItemIds":
        """Return the mapping of distinct ids with known hashes.

        Args:
            values: String [items].
            hashes: int64 [items].

        Raises:
            DataError: The ids are too long together.
        """
        from recall.bundle import item_id_kernels  # numba takes half a second to import

        ends = values.str.len_bytes().to_numpy().cumsum(dtype=np.int64)
        size = int(ends[-1]) if len(ends) else 0
        if size > _MOST_BYTES:
            raise DataError(f"the item ids are {size:,} bytes long together", where=values.name, hint="Give shorter ids")
        text = "".join(values.to_list())
        return cls(
            np.frombuffer(text.encode() + bytes([item_id_kernels.END]), dtype=np.uint8),
            np.concatenate([[0], ends]).astype(np.uint32),
            item_id_kernels.placed(hashes, 1 << int(len(values) / _FILLED).bit_length()),
            text.isascii(),
            item_id_kernels,
        )

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def values(self) -> pl.Series:
        """All ids as a new series of String."""
        return pl.Series(self.ids(np.arange(len(self))), dtype=pl.String)

    def ids(self, rows: Int64) -> list[str]:
        """Ids of rows, each in [0, len)."""
        if not len(rows):
            return []
        written = self._loops.written(np.ascontiguousarray(rows, dtype=np.int64), self._starts, self._texts)
        if self._plain:  # then the one byte that is not ASCII is the one between ids
            return str(written, "latin-1").split("\xff")
        return [one.decode() for one in written.tobytes().split(b"\xff")]

    def rows(self, ids: Sequence[str]) -> Int64:
        """Rows of ids: int64 [m], -1 where an id is not known."""
        try:
            wanted = b"\xff".join([*map(str.encode, ids), b""])
        except UnicodeEncodeError:  # half a surrogate pair is in no id, and neither are the bytes that it is written as
            wanted = b"\xff".join([*(one.encode(errors="surrogatepass") for one in ids), b""])
        found: Int64 = self._loops.found(
            _hashes_of(ids), np.frombuffer(wanted, dtype=np.uint8), self._slots, self._starts, self._texts
        )
        return found

    def order(self) -> Int64:
        """All rows by rising id: int64 [len]."""
        return self.values.arg_sort().to_numpy().astype(np.int64)

    def place(self, order: Int64, text: str) -> int:
        """Return how many rows, sorted by id, have an id up to a text.

        Args:
            order: int64 [m], rows by rising id.
            text: to compare with.
        """
        return bisect_right(order, text, key=self._id)

    def _id(self, row: int) -> str:
        return self._texts[self._starts[row] : self._starts[row + 1]].tobytes().decode()


def _hashes_of(texts: Sequence[str]) -> Int64:
    return np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts))
