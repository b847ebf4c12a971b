"""Map between texts and rows in a fraction of the memory of a dict."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Int32, Int64, UInt8, UInt32
from recall.errors import DataError

FEW = 10_000
"""Number of texts up to which a table is built in memory, which takes a millisecond, rather than stored. Chosen, not tuned."""
ARRAYS = ("texts", "starts", "slots")
"""Names of the arrays in a file."""
_MOST_BYTES = 2**32 - 1
_FILLED = 0.75  # of the slots, at most: a lookup then compares with one or two other texts


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """Row r has the r-th text, such as the id of an item.

    Texts are concatenated as UTF-8, and their rows are in a hash table. All three arrays may be mapped from a file that all
    processes share, so the table has its own hash function: Python's differs between processes. A request looks up a hundred
    ids or a dozen, at addresses that are in no cache; the overhead of numpy calls would exceed the time of the lookup.
    """

    _texts: UInt8
    _starts: UInt32
    _slots: Int32
    _plain: bool  # all of it ASCII
    _loops: ModuleType

    @classmethod
    def of(cls, values: pl.Series) -> "TextTable":
        """Return the mapping of texts in the order of their rows.

        Args:
            values: String [n], whose name appears in errors.

        Raises:
            DataError: A text is null or occurs twice, or they are too long together.
        """
        if values.null_count():
            raise DataError(f"{values.null_count()} ids are null", where=values.name)
        if values.n_unique() < len(values):
            repeated = values.filter(values.is_duplicated()).unique(maintain_order=True)
            shown = ", ".join(repr(value) for value in repeated.head(5))
            raise DataError(f"{len(repeated)} ids occur more than once, such as {shown}", where=values.name)
        from recall import _text_table_kernels as loops  # numba takes half a second to import

        texts, starts = _joined(values, loops.END)
        slots = loops.placed(texts, starts, 1 << int(len(values) / _FILLED).bit_length())
        return cls(texts, starts, slots, int(texts[:-1].max(initial=0)) < 0x80, loops)

    @classmethod
    def mapped(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "TextTable":
        """Return the mapping whose arrays were stored.

        Args:
            arrays: those of `arrays`.

        Raises:
            ValueError: They are not those of a table: a lookup could read beyond them.
        """
        from recall import _text_table_kernels as loops

        texts, starts, slots = (arrays[name] for name in ARRAYS)
        rows, size = len(starts) - 1, len(slots)
        types = [(one.dtype.str, one.ndim, one.flags.aligned) for one in (texts, starts, slots)]
        if types != [("|u1", 1, True), ("<u4", 1, True), ("<i4", 1, True)] or rows < 0 or size & (size - 1) or size <= rows:
            raise ValueError("its arrays have other types or sizes than those of a table")
        if starts[0] or starts[-1] != len(texts) - 1 or texts[-1] != loops.END or (starts[1:] < starts[:-1]).any():
            raise ValueError("its texts do not begin and end where it says")
        if slots.min() < -1 or slots.max() >= rows or np.count_nonzero(slots >= 0) != rows:
            raise ValueError("its slots do not hold every row")
        return cls(texts, starts, slots, int(texts[:-1].max(initial=0)) < 0x80, loops)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays to be stored, by name."""
        return dict(zip(ARRAYS, (self._texts, self._starts, self._slots), strict=True))

    def holds(self, values: pl.Series) -> bool:
        """Return whether these are the texts of the table, in order."""
        if len(values) != len(self) or values.null_count():
            return False
        texts, starts = _joined(values, int(self._texts[-1]))
        return np.array_equal(starts, self._starts) and np.array_equal(texts, self._texts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def values(self) -> pl.Series:
        """All texts as a new series of String."""
        return pl.Series(self.ids(np.arange(len(self))), dtype=pl.String)

    def ids(self, rows: Int64) -> list[str]:
        """Return the texts of rows, each in [0, len)."""
        if not len(rows):
            return []
        written = self._loops.written(np.ascontiguousarray(rows, dtype=np.int64), self._starts, self._texts)
        if self._plain:  # then the one byte that is not ASCII is the one between texts
            return str(written, "latin-1").split("\xff")
        return [one.decode() for one in written.tobytes().split(b"\xff")]

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the rows of texts: int64 [m], -1 where a text is not known."""
        found: Int64 = self._loops.found(len(ids), _wanted(ids), self._slots, self._starts, self._texts)
        return found

    def row(self, text: str) -> int:
        """Return the row of a text, or -1 where it is not known."""
        return int(self._loops.found_one(_wanted((text,)), self._slots, self._starts, self._texts))

    def argsort(self) -> Int64:
        """Return all rows by rising text: int64 [len]."""
        return self.values.arg_sort().to_numpy().astype(np.int64)

    def count_up_to(self, order: Int64, text: str) -> int:
        """Return the number of rows with a text <= another.

        Args:
            order: int64 [m], rows by rising text.
            text: any text.
        """
        return bisect_right(order, text, key=self._id)

    def _id(self, row: int) -> str:
        return self._texts[self._starts[row] : self._starts[row + 1]].tobytes().decode()


def _wanted(texts: Sequence[str]) -> UInt8:
    """Return texts in UTF-8, each with a byte after it that is in none."""
    try:
        wanted = b"\xff".join([*map(str.encode, texts), b""])
    except UnicodeEncodeError:  # half a surrogate pair is in no text, and neither are the bytes that it is written as
        wanted = b"\xff".join([*(one.encode(errors="surrogatepass") for one in texts), b""])
    return np.frombuffer(wanted, dtype=np.uint8)


def _joined(values: pl.Series, end: int) -> tuple[UInt8, UInt32]:
    """Return texts and starts.

    Raises:
        DataError: They are too long together.
    """
    ends = values.str.len_bytes().to_numpy().cumsum(dtype=np.int64)
    size = int(ends[-1]) if len(ends) else 0
    if size > _MOST_BYTES:
        raise DataError(f"the ids are {size:,} bytes long together", where=values.name, hint="Give shorter ids")
    text = values.str.join("").item() if len(values) else ""
    return np.frombuffer(text.encode() + bytes([end]), dtype=np.uint8), np.concatenate([[0], ends]).astype(np.uint32)
