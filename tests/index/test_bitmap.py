import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.index.bitmap import RowBitmap

masks = st.lists(st.booleans(), min_size=0, max_size=70).map(lambda bits: np.array(bits, dtype=bool))


@given(masks)
def test_a_bitmap_equals_its_mask(mask: np.ndarray) -> None:
    selection = RowBitmap.of_mask(mask)
    np.testing.assert_array_equal(selection.mask, mask)
    np.testing.assert_array_equal(selection.rows, np.flatnonzero(mask))
    np.testing.assert_array_equal(selection.holds(np.arange(len(mask))), mask)
    assert (selection.size, selection.count) == (len(mask), mask.sum())
    np.testing.assert_array_equal((~selection).mask, ~mask)
    assert (~selection).count == len(mask) - mask.sum()


@given(masks, st.data())
def test_bitmaps_combine_like_masks(one: np.ndarray, data: st.DataObject) -> None:
    other = np.array(data.draw(st.lists(st.booleans(), min_size=len(one), max_size=len(one))), dtype=bool)
    first, second = RowBitmap.of_mask(one), RowBitmap.of_mask(other)
    for combined, expected in ((first & second, one & other), (first | second, one | other), (first - second, one & ~other)):
        np.testing.assert_array_equal(combined.mask, expected)
        assert combined.count == expected.sum()


def test_rows_may_be_unsorted_and_duplicated() -> None:
    np.testing.assert_array_equal(RowBitmap.of_rows(np.array([9, 2, 9]), 12).rows, [2, 9])


@given(st.lists(st.integers(0, 20_006), max_size=60))
def test_sparse_and_dense_bitmaps_are_equal(rows: list[int]) -> None:
    selection = RowBitmap.of_rows(np.array(rows, dtype=np.int64), 20_007)
    assert selection.rows.tolist() == np.flatnonzero(selection.mask).tolist() == sorted(set(rows))
    assert selection.count == len(set(rows))
    assert selection.rows.dtype == np.int64
    assert (selection | ~selection).count == 20_007


def test_bitmaps_of_different_sizes_do_not_combine() -> None:
    with pytest.raises(ValueError, match="bitmaps of 8 and 9 rows cannot be combined"):
        _ = RowBitmap.everything(8) & RowBitmap.everything(9)
