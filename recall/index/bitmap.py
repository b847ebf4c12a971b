"""Bitmaps: sets of rows, such as those that match a filter or have a tombstone."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recall._arrays import Bool, Int64, UInt8

Mask = Bool

_SPARSE = 1_000  # rows of the catalogue for each row of the set, from which setting single bits is faster than packing a mask


@dataclass(frozen=True, eq=False)
class RowBitmap:
    """A set of rows of a catalogue. Immutable, so it may be cached and shared.

    Attributes:
        bits: uint8 [ceil(size / 8)]; bit r % 8 (the lowest first) of byte r // 8 is row r. Bits from `size` on are 0.
        size: rows of the catalogue.
        count: rows in the set.
    """

    bits: UInt8
    size: int
    count: int

    @classmethod
    def of_mask(cls, mask: Mask) -> "RowBitmap":
        """Return the set of rows where a bool [size] is true."""
        return cls(np.packbits(mask, bitorder="little"), len(mask), int(np.count_nonzero(mask)))

    @classmethod
    def of_rows(cls, rows: Int64, size: int) -> "RowBitmap":
        """Return the set of the given rows.

        Args:
            rows: int64 [m], each in [0, size), in any order, repeats allowed.
            size: rows of the catalogue.
        """
        if len(rows) * _SPARSE <= size:  # without a pass over all rows
            different = np.unique(rows).astype(np.int64, copy=False)
            bits = np.zeros(-(-size // 8), dtype=np.uint8)
            np.bitwise_or.at(bits, different >> 3, np.left_shift(1, different & 7).astype(np.uint8))
            found = cls(bits, size, len(different))
            vars(found)["rows"] = different  # the cached property
            return found
        mask = np.zeros(size, dtype=bool)
        mask[rows] = True
        return cls.of_mask(mask)

    @classmethod
    def everything(cls, size: int) -> "RowBitmap":
        """Return the set of all rows."""
        return cls.of_mask(np.ones(size, dtype=bool))

    @property
    def mask(self) -> Mask:
        """The set as a new bool [size]."""
        return np.unpackbits(self.bits, count=self.size, bitorder="little").view(bool)

    @cached_property
    def rows(self) -> Int64:
        """The rows of the set, ascending: int64 [count]; computed at the first access."""
        return np.flatnonzero(self.mask)

    def holds(self, rows: Int64) -> Mask:
        """Return whether the set has each row, in [0, size): bool of the same shape."""
        return np.asarray(self.bits[rows >> 3] >> (rows & 7).astype(np.uint8) & 1, dtype=bool)

    def with_rows(self, rows: Int64) -> "RowBitmap":
        """Return the set with further rows; the same object if it has all of them.

        Args:
            rows: int64 [m], distinct, each in [0, size).
        """
        fresh = rows[~self.holds(rows)]
        if not len(fresh):
            return self
        bits: UInt8 = self.bits.copy()
        np.bitwise_or.at(bits, fresh >> 3, np.left_shift(1, fresh & 7).astype(np.uint8))
        return RowBitmap(bits, self.size, self.count + len(fresh))

    def __and__(self, other: "RowBitmap") -> "RowBitmap":
        return self._of_bits(self.bits & self._fitting(other).bits)

    def __or__(self, other: "RowBitmap") -> "RowBitmap":
        return self._of_bits(self.bits | self._fitting(other).bits)

    def __sub__(self, other: "RowBitmap") -> "RowBitmap":
        return self._of_bits(self.bits & ~self._fitting(other).bits)

    def __invert__(self) -> "RowBitmap":
        bits = ~self.bits
        if self.size % 8:
            bits[-1] &= (1 << self.size % 8) - 1
        return RowBitmap(bits, self.size, self.size - self.count)

    def _of_bits(self, bits: UInt8) -> "RowBitmap":
        whole = len(bits) // 8 * 8  # bytes that are counted eight at a time
        count = np.bitwise_count(bits[:whole].view(np.uint64)).sum(dtype=np.int64) + np.bitwise_count(bits[whole:]).sum()
        return RowBitmap(bits, self.size, int(count))

    def _fitting(self, other: "RowBitmap") -> "RowBitmap":
        if other.size != self.size:
            raise ValueError(f"bitmaps of {self.size} and {other.size} rows cannot be combined")
        return other
