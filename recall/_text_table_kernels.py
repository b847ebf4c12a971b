# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled loops behind `TextTable`.

They are bound by memory latency, so each step prefetches many lookups.

Arrays:
    texts uint8: texts in UTF-8, one after another
    starts uint32 [rows + 1]: where the text of each row begins, and where the last one ends
    slots int32 [a power of two]: rows, or -1 where a slot is free; open addressing with linear probing
"""

import numpy as np
from numba import int32, int64, uint8, uint32, uint64

from recall._numba import compiled, read

END = 0xFF
"""Separator of texts; never a byte of UTF-8."""

_ROWS, _SLOTS, _STARTS, _TEXTS = read(int64), read(int32), read(uint32), read(uint8)
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@compiled(_TEXTS, int64, int64)
def _hashed(texts, first, end):
    """Return the 64-bit FNV-1a hash of some bytes, which files rely on.

    Its high bits are mixed into the low ones, which choose the slot.
    """
    value = _BASIS
    for place in range(first, end):
        value = (value ^ uint64(texts[place])) * _PRIME
    return value ^ (value >> uint64(32))


@compiled(_TEXTS, _STARTS, int64)
def placed(texts, starts, size):
    """Return a hash table of rows, int32 [size].

    Args:
        texts: of all rows.
        starts: of all rows.
        size: a power of two above the number of rows.
    """
    slots = np.full(size, -1, dtype=np.int32)
    last = uint64(size - 1)
    for row in range(len(starts) - 1):
        slot = int64(_hashed(texts, int64(starts[row]), int64(starts[row + 1])) & last)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = row
    return slots


@compiled(_TEXTS, int64, int64, int64, _SLOTS, _STARTS, _TEXTS)
def _probed(wanted, first, end, slot, slots, starts, texts):
    """Return the row of one of the wanted texts, by probing from a slot; or -1."""
    row = np.int64(slots[slot])
    while row >= 0:
        start, length = np.int64(starts[row]), end - first
        same = np.int64(starts[row + 1]) - start == length
        place = 0
        while same and place < length:
            same = texts[start + place] == wanted[first + place]
            place += 1
        if same:
            break
        slot = (slot + 1) & (len(slots) - 1)
        row = np.int64(slots[slot])
    return row


@compiled(_TEXTS, _SLOTS, _STARTS, _TEXTS)
def found_one(wanted, slots, starts, texts):
    """Return the row of a text, or -1.

    A call takes a third of the time of `found`, which allocates arrays.

    Args:
        wanted: uint8, the text in UTF-8, and END.
        slots: the hash table.
        starts: of the known texts.
        texts: the known texts.
    """
    end = len(wanted) - 1
    slot = int64(_hashed(wanted, 0, end) & uint64(len(slots) - 1))
    return _probed(wanted, 0, end, slot, slots, starts, texts)


@compiled(int64, _TEXTS, _SLOTS, _STARTS, _TEXTS)
def found(count, wanted, slots, starts, texts):
    """Return the rows of texts: int64 [count], -1 where a text is unknown.

    Args:
        count: of the wanted texts.
        wanted: uint8, these in UTF-8, END after each.
        slots: the hash table.
        starts: of the known texts.
        texts: the known texts.
    """
    last = len(slots) - 1
    rows, places, ends = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    first = 0
    for at in range(count):
        end = first
        while wanted[end] != END:
            end += 1
        places[at], ends[at] = int64(_hashed(wanted, first, end) & uint64(last)), end
        first = end + 1
    # separate loops: their reads overlap, whereas a comparison waits for each read
    for at in range(count):
        rows[at] = slots[places[at]]
    met = 0
    for at in range(count):
        if rows[at] >= 0:
            met += texts[starts[rows[at]]]
    first = 0
    for at in range(count):
        rows[at] = _probed(wanted, first, ends[at], places[at], slots, starts, texts)
        first = ends[at] + 1
    return rows if met >= 0 else rows[:0]  # as it always is, which the compiler does not know: it would not have looked


@compiled(_ROWS, _STARTS, _TEXTS)
def written(rows, starts, texts):
    """Return the texts of rows in UTF-8 with END between them: uint8.

    Args:
        rows: int64 [m].
        starts: of the known texts.
        texts: the known texts.

    Raises:
        IndexError: There is no such row.
    """
    size = max(len(rows) - 1, 0)
    for row in rows:
        if not 0 <= row < len(starts) - 1:
            raise IndexError("a row beyond the ids")
        size += np.int64(starts[row + 1]) - np.int64(starts[row])
    text = np.empty(size, dtype=np.uint8)
    end = 0
    for at in range(len(rows)):
        if at:
            text[end] = END
            end += 1
        for place in range(np.int64(starts[rows[at]]), np.int64(starts[rows[at] + 1])):
            text[end] = texts[place]
            end += 1
    return text
