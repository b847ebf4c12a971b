# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled loops behind `ItemIds`.

They are bound by memory latency, so each step prefetches many lookups.

Arrays:
    texts uint8: ids in UTF-8, one after another
    starts uint32 [items + 1]: where the id of each row begins, and where the last one ends
    slots int32 [a power of two]: rows, or -1 where a slot is free; open addressing with linear probing
"""

import numpy as np
from numba import int32, int64, uint8, uint32

from recall._numba import compiled, read

END = 0xFF
"""Separator of ids; never a byte of UTF-8."""

_ROWS, _SLOTS, _STARTS, _TEXTS = read(int64), read(int32), read(uint32), read(uint8)


@compiled(_ROWS, int64)
def placed(hashes, size):
    """Return a hash table of rows, int32 [size].

    Args:
        hashes: int64 [items].
        size: a power of two above the number of items.
    """
    slots = np.full(size, -1, dtype=np.int32)
    for row in range(len(hashes)):
        slot = hashes[row] & (size - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = row
    return slots


@compiled(_ROWS, _TEXTS, _SLOTS, _STARTS, _TEXTS)
def found(hashes, wanted, slots, starts, texts):
    """Return the rows of ids: int64 [m], -1 where an id is unknown.

    Args:
        hashes: int64 [m], of the wanted ids.
        wanted: uint8, these in UTF-8, END after each.
        slots: the hash table.
        starts: of the known ids.
        texts: of the known ids.
    """
    last = len(slots) - 1
    rows = np.empty(len(hashes), dtype=np.int64)
    # memory answers in one go what loops of their own ask for, and one after another what a comparison waits for
    for at in range(len(hashes)):
        rows[at] = slots[hashes[at] & last]
    met = 0
    for at in range(len(hashes)):
        if rows[at] >= 0:
            met += texts[starts[rows[at]]]
    first = 0
    for at in range(len(hashes)):
        end = first
        while wanted[end] != END:
            end += 1
        slot, row = hashes[at] & last, rows[at]
        while row >= 0:
            start, length = np.int64(starts[row]), end - first
            same = np.int64(starts[row + 1]) - start == length
            place = 0
            while same and place < length:
                same = texts[start + place] == wanted[first + place]
                place += 1
            if same:
                break
            slot = (slot + 1) & last
            row = np.int64(slots[slot])
        rows[at] = row
        first = end + 1
    return rows if met >= 0 else rows[:0]  # as it always is, which the compiler does not know: it would not have looked


@compiled(_ROWS, _STARTS, _TEXTS)
def written(rows, starts, texts):
    """Return the ids of rows in UTF-8 with END between them: uint8.

    Args:
        rows: int64 [m].
        starts: of the known ids.
        texts: of the known ids.

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
