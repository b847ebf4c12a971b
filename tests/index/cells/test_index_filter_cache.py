import gc

import numpy as np

from recall.index.bitmap import RowBitmap
from recall.index.cells.index import FilteredCodesCache
from recall.index.cells.quantize import FilteredCodes


class Packer:
    def __init__(self) -> None:
        self.packed: list[RowBitmap] = []

    def __call__(self, selection: RowBitmap) -> FilteredCodes:
        self.packed.append(selection)
        rows = np.arange(16, dtype=np.int32)
        return FilteredCodes(np.zeros((1, 4, 16), np.int32), np.zeros(16, np.float32), rows)


def selection() -> RowBitmap:
    return RowBitmap.of_rows(np.array([1]), 9)


def test_repeated_filters_are_packed_once() -> None:
    packer, one = Packer(), selection()
    narrowing = FilteredCodesCache(packer, 10_000)
    assert narrowing.of(one) is None
    first = narrowing.of(one)
    assert first is not None
    assert narrowing.of(one) is first
    assert narrowing.of(selection()) is None  # the same rows in another request
    assert packer.packed == [one]


def test_recently_used_entries_are_kept_within_the_budget() -> None:
    packer, many = Packer(), [selection() for _ in range(5)]
    size = packer(many[0]).nbytes
    packer.packed.clear()
    narrowing = FilteredCodesCache(packer, 2 * size)
    for one in many:
        narrowing.of(one)
        narrowing.of(one)
    assert packer.packed == many
    narrowing.of(many[4])
    narrowing.of(many[3])
    assert packer.packed == many
    narrowing.of(many[0])
    assert packer.packed == [*many, many[0]]


def test_a_deleted_bitmap_is_removed() -> None:
    packer, one, other = Packer(), selection(), selection()
    narrowing = FilteredCodesCache(packer, packer(other).nbytes)
    for chosen in (one, one, other, other):
        narrowing.of(chosen)
    packer.packed.clear()
    narrowing.of(one)
    narrowing.of(one)
    del chosen, one
    packer.packed.clear()
    gc.collect()
    assert len(narrowing._packed) == 0
    narrowing.of(other)
    assert packer.packed == [other]
