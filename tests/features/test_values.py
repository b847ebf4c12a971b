import datetime
import math
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import DataError
from recall.features.values import Distinct, canonical, canonical_series, examples, raise_if_any, to_float

COLUMNS = {
    "text": (pl.String(), st.text(st.characters(codec="utf-8"))),
    "integers": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "floats": (pl.Float64(), st.floats(allow_nan=False)),
    "truths": (pl.Boolean(), st.booleans()),
    "decimals": (pl.Decimal(12, 3), st.decimals(-(10**6), 10**6, places=3)),
    "dates": (pl.Date(), st.dates()),
    "datetimes": (pl.Datetime("us"), st.datetimes()),
    "zoned": (pl.Datetime("us", "UTC"), st.datetimes(timezones=st.just(ZoneInfo("UTC")))),
    "times": (pl.Time(), st.times()),
}


@pytest.mark.parametrize("name", COLUMNS)
@given(data=st.data())
def test_a_column_is_formatted_like_its_values(name: str, data: st.DataObject) -> None:
    dtype, values = COLUMNS[name]
    column = data.draw(st.lists(st.none() | values, max_size=8))
    written = canonical_series(pl.Series(column, dtype=dtype)).to_list()
    assert written == [None if value is None else canonical(value) for value in column]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("12", "12"),
        ("012", "012"),
        ("", ""),
        (12, "12"),
        (-3, "-3"),
        (12.0, "12"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (1e300, "1e+300"),
        (math.inf, "inf"),
        (True, "true"),
        (False, "false"),
        (datetime.date(2020, 2, 29), "2020-02-29"),
        (datetime.datetime(2020, 2, 29, 1, 2, 3), "2020-02-29T01:02:03"),
        (np.int32(7), "7"),
        (np.float32(0.1), "0.1"),
        (np.float64(7.0), "7"),
        (np.bool_(True), "true"),
    ],
)
def test_text_forms_of_values(value: object, written: str) -> None:
    assert canonical(value) == written


@pytest.mark.parametrize("value", [None, math.nan, [1], {"a": 1}, b"bytes", object()])
def test_lists_have_no_text_form(value: object) -> None:
    with pytest.raises(TypeError, match="has no written form"):
        canonical(value)


def test_a_number_has_the_same_value_in_every_column_type() -> None:
    columns = [
        pl.Series([7], dtype=pl.Int8),
        pl.Series([7], dtype=pl.UInt64),
        pl.Series([7.0]),
        pl.Series([7.0], dtype=pl.Float32),
        pl.Series(["7"]),
        pl.Series(["7"], dtype=pl.Categorical),
    ]
    assert [canonical_series(column).to_list() for column in columns] == [["7"]] * 6
    assert canonical_series(pl.Series([0.1], dtype=pl.Float32)).to_list() == ["0.1"]


def test_nan_is_missing() -> None:
    assert canonical_series(pl.Series([1.5, math.nan, None])).to_list() == ["1.5", None, None]


def test_a_list_column_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"column 'tags': a column of type List\(Int64\).*'bag'"):
        canonical_series(pl.Series("tags", [[1]]))


@given(st.lists(st.none() | st.floats(allow_infinity=False)))
def test_numbers_keep_their_value_and_nan_is_missing(values: list[float | None]) -> None:
    read = to_float(pl.Series(values, dtype=pl.Float64), "somewhere").to_list()
    assert read == [None if value is None or math.isnan(value) else value for value in values]


def test_numbers_are_parsed_from_text_and_booleans() -> None:
    assert to_float(pl.Series([" 12", "-1.5e3", None]), "").to_list() == [12.0, -1500.0, None]
    assert to_float(pl.Series([True, False]), "").to_list() == [1.0, 0.0]


def test_non_numeric_text_is_counted_and_shown() -> None:
    with pytest.raises(DataError) as caught:
        to_float(pl.Series(["1", "a", "b", "a", "c", "d", "e", "f"]), "users.csv, column 'age'")
    assert caught.value.where == "users.csv, column 'age'"
    assert caught.value.what == "7 values are not a number: 'a', 'b', 'c', 'd', 'e', ..., first in row 2"


def test_an_infinite_number_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 value is infinite: inf, first in row 3"):
        to_float(pl.Series([1.0, math.nan, math.inf]), "x")
    with pytest.raises(DataError, match="holds no numbers"):
        to_float(pl.Series([datetime.date(2020, 1, 1)]), "x")


def test_valid_values_are_not_refused() -> None:
    raise_if_any(pl.Series([1, 2]), pl.Series([False, False]), "x", "wrong")


def test_at_most_five_distinct_examples_are_shown() -> None:
    assert examples(pl.Series([1, 1, 2])) == "1, 2"
    assert examples(pl.Series(list("aabcdef"))) == "'a', 'b', 'c', 'd', 'e', ..."
    assert examples(pl.Series([[1, 2]])) == "[1, 2]"


@given(st.lists(st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from("ab")), max_size=20))
def test_distinct_rows_are_in_order_of_appearance(rows: list[tuple[int | None, str | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"row": pl.Int64(), "b": pl.String()}, orient="row")
    distinct = Distinct.of(frame)
    expected = list(dict.fromkeys(rows))
    assert [rows[first] for first in distinct.first] == expected
    assert [expected[code] for code in distinct.codes] == rows
    assert distinct.first.dtype == np.int64
    assert distinct.codes.dtype == np.int32


def test_lists_nulls_and_nans_are_distinguished() -> None:
    lists = pl.Series([[1, 2], None, [], [1, 2], [None], None])
    assert Distinct.of(lists).codes.tolist() == [0, 1, 2, 0, 3, 1]
    assert Distinct.of(pl.Series([math.nan, None, math.nan, 1.0])).codes.tolist() == [0, 1, 0, 2]
