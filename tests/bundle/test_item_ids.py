import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.bundle.item_ids import ItemIds
from recall.errors import DataError

ids_ = st.lists(st.text(max_size=6), unique=True, max_size=30).filter(lambda ids: all(_is_text(one) for one in ids))


def _is_text(one: str) -> bool:
    return one.isascii() or max(one) < "\ud800" or min(one) > "\udfff"


@given(ids_, st.lists(st.text(max_size=3)))
def test_ids_and_rows_map_to_each_other(values: list[str], others: list[str]) -> None:
    ids = ItemIds.of(pl.Series("item_id", values, dtype=pl.String))
    assert len(ids) == len(values)
    rows = ids.rows([*values, *others])
    expected = [values.index(one) if one in values else -1 for one in [*values, *others]]
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.int64
    assert ids.ids(np.arange(len(values))[::-1]) == values[::-1]


@pytest.mark.parametrize("odd", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_not_an_item(odd: str) -> None:
    ids = ItemIds.of(pl.Series("item_id", ["a", "b"]))
    np.testing.assert_array_equal(ids.rows([odd, "b"]), [-1, 1])


def test_unicode_normal_forms_are_distinct_ids() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    ids = ItemIds.of(pl.Series("item_id", [composed, decomposed]))
    np.testing.assert_array_equal(ids.rows([decomposed, composed]), [1, 0])


def test_nulls_and_duplicates_are_refused() -> None:
    with pytest.raises(DataError, match="2 item ids are null"):
        ItemIds.of(pl.Series("item_id", ["a", None, None]))
    with pytest.raises(DataError, match="2 item ids occur more than once, such as 'b', 'a'"):
        ItemIds.of(pl.Series("item_id", ["b", "a", "b", "c", "a", "a"]))


class Colliding(str):
    __slots__ = ()

    def __hash__(self) -> int:
        return hash("b")


def test_ids_with_equal_hashes_are_distinguished() -> None:
    ids = ItemIds.hashed(pl.Series("item_id", ["b", "c", "d"]), np.full(3, hash("b")))
    np.testing.assert_array_equal(ids.rows([Colliding(text) for text in ("b", "c", "d", "e")]), [0, 1, 2, -1])


def test_lookups_in_an_empty_catalogue_find_nothing() -> None:
    np.testing.assert_array_equal(ItemIds.of(pl.Series("item_id", [], dtype=pl.String)).rows(["a"]), [-1])


def test_a_row_beyond_the_ids_is_an_error() -> None:
    ids = ItemIds.of(pl.Series("item_id", ["a", "b"]))
    for row in (-1, 2):
        with pytest.raises(IndexError):
            ids.ids(np.array([0, row]))


def test_ids_beyond_the_total_length_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = pl.Series("item_id", ["ab", "\u00e9", ""])
    monkeypatch.setattr("recall.bundle.item_ids._MOST_BYTES", 4)
    assert ItemIds.of(values).ids(np.array([2, 1, 0])) == ["", "\u00e9", "ab"]
    monkeypatch.setattr("recall.bundle.item_ids._MOST_BYTES", 3)
    with pytest.raises(DataError, match="the item ids are 4 bytes long together"):
        ItemIds.of(values)


def test_ids_are_stored_in_order() -> None:
    values = ["b", "\U0001f600", "", "\ufffd", "a", "ab", "\u00e9"]
    ids = ItemIds.of(pl.Series("item_id", values))
    order = ids.order()
    assert ids.ids(order) == sorted(values)
    assert order.dtype == np.int64
    for text in [*values, "aa", "\uffff", "c"]:
        assert ids.place(order, text) == sum(one <= text for one in values)
