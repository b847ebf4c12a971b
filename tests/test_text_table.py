import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall._text_table import TextTable
from recall.errors import DataError

SLOTS = [0, -1, -1, -1, -1, 1, 2, -1]

ids_ = st.lists(st.text(max_size=6), unique=True, max_size=30).filter(lambda ids: all(_is_text(one) for one in ids))


def _is_text(one: str) -> bool:
    return one.isascii() or max(one) < "\ud800" or min(one) > "\udfff"


@given(ids_, st.lists(st.text(max_size=3)))
def test_ids_and_rows_map_to_each_other(values: list[str], others: list[str]) -> None:
    ids = TextTable.of(pl.Series("item_id", values, dtype=pl.String))
    assert len(ids) == len(values)
    rows = ids.rows([*values, *others])
    expected = [values.index(one) if one in values else -1 for one in [*values, *others]]
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.int64
    assert [ids.row(one) for one in [*values, *others]] == expected
    assert ids.ids(np.arange(len(values))[::-1]) == values[::-1]


@pytest.mark.parametrize("odd", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_not_an_item(odd: str) -> None:
    ids = TextTable.of(pl.Series("item_id", ["a", "b"]))
    np.testing.assert_array_equal(ids.rows([odd, "b"]), [-1, 1])
    assert ids.row(odd) == -1


def test_unicode_normal_forms_are_distinct_ids() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    ids = TextTable.of(pl.Series("item_id", [composed, decomposed]))
    np.testing.assert_array_equal(ids.rows([decomposed, composed]), [1, 0])


def test_nulls_and_duplicates_are_refused() -> None:
    with pytest.raises(DataError, match="2 ids are null"):
        TextTable.of(pl.Series("item_id", ["a", None, None]))
    with pytest.raises(DataError, match="2 ids occur more than once, such as 'b', 'a'"):
        TextTable.of(pl.Series("item_id", ["b", "a", "b", "c", "a", "a"]))


def test_texts_in_one_slot_are_distinguished() -> None:
    values = [f"item-{number}" for number in range(2000)]  # into 4,096 slots: hundreds share one
    table = TextTable.of(pl.Series("item_id", values))
    np.testing.assert_array_equal(table.rows(values), np.arange(2000))
    assert (table.rows([f"other-{number}" for number in range(2000)]) == -1).all()
    assert [table.row(one) for one in values] == list(range(2000))


def test_a_table_is_restored_from_its_arrays() -> None:
    values = pl.Series("item_id", ["b", "", "\u00e9\u00e9", "a"])
    table = TextTable.mapped(TextTable.of(values).arrays())
    assert table.values.to_list() == values.to_list()
    np.testing.assert_array_equal(table.rows(["a", "c", "", "\u00e9\u00e9"]), [3, -1, 1, 2])
    assert table.holds(values)
    for other in (
        values[:3],
        values.reverse(),
        pl.Series(["b", "", "\u00e9\u00e9", None]),
        pl.Series(["b", "\u00e9", "\u00e9", "a"]),
    ):
        assert not table.holds(other)


def test_the_slot_of_a_text_is_the_same_in_every_version() -> None:
    arrays = TextTable.of(pl.Series("item_id", ["i1", "i2", "\u00e9"])).arrays()
    assert arrays["slots"].tolist() == SLOTS


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("slots", np.array([0, 1, -1], dtype=np.int32), "other types or sizes"),
        ("slots", np.array([0, 1, 2, -1], dtype=np.int32), "do not hold every row"),
        ("slots", np.array([0, -1, -1, -1], dtype=np.int32), "do not hold every row"),
        ("slots", np.array([0, 1, -1, -1], dtype=np.int64), "other types or sizes"),
        ("starts", np.array([0, 3, 2], dtype=np.uint32), "do not begin and end"),
        ("starts", np.array([0, 1, 9], dtype=np.uint32), "do not begin and end"),
        ("texts", np.array([98, 97, 97], dtype=np.uint8), "do not begin and end"),
    ],
)
def test_arrays_that_a_lookup_could_leave_are_refused(name: str, values: np.ndarray, problem: str) -> None:
    arrays = TextTable.of(pl.Series("item_id", ["b", "a"])).arrays()
    with pytest.raises(ValueError, match=problem):
        TextTable.mapped({**arrays, name: values})


def test_lookups_in_an_empty_catalogue_find_nothing() -> None:
    np.testing.assert_array_equal(TextTable.of(pl.Series("item_id", [], dtype=pl.String)).rows(["a"]), [-1])


def test_a_row_beyond_the_ids_is_an_error() -> None:
    ids = TextTable.of(pl.Series("item_id", ["a", "b"]))
    for row in (-1, 2):
        with pytest.raises(IndexError):
            ids.ids(np.array([0, row]))


def test_ids_beyond_the_total_length_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = pl.Series("item_id", ["ab", "\u00e9", ""])
    monkeypatch.setattr("recall._text_table._MOST_BYTES", 4)
    assert TextTable.of(values).ids(np.array([2, 1, 0])) == ["", "\u00e9", "ab"]
    monkeypatch.setattr("recall._text_table._MOST_BYTES", 3)
    with pytest.raises(DataError, match="the ids are 4 bytes long together"):
        TextTable.of(values)


def test_ids_are_stored_in_order() -> None:
    values = ["b", "\U0001f600", "", "\ufffd", "a", "ab", "\u00e9"]
    ids = TextTable.of(pl.Series("item_id", values))
    order = ids.argsort()
    assert ids.ids(order) == sorted(values)
    assert order.dtype == np.int64
    for text in [*values, "aa", "\uffff", "c"]:
        assert ids.count_up_to(order, text) == sum(one <= text for one in values)
