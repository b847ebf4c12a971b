import datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.data.tables import read_table
from recall.errors import DataError
from recall.features.canonical import (
    CanonicalTypes,
    canonical_as,
    canonical_column,
    canonical_ids,
    canonical_text,
    id_type,
    infer_type,
    moment,
    named_values,
    type_of,
    type_of_dtype,
)
from recall.features.values import canonical, canonical_series


@pytest.mark.parametrize(
    ("texts", "type_", "written"),
    [
        (["1.0", "2.0", None], "integer", ["1", "2", None]),
        (["1", "2.00"], "integer", ["1", "2"]),
        (["-0.0", "-3.0"], "integer", ["0", "-3"]),
        (["9007199254740993.0", "9007199254740993"], "integer", ["9007199254740993", "9007199254740993"]),
        (["1.0", "x"], "text", ["1.0", "x"]),
        (["007", "1"], "text", ["007", "1"]),
        (["1e5"], "text", ["1e5"]),
        (["+1", "2"], "text", ["+1", "2"]),
        (["1_000"], "text", ["1_000"]),
        (["NaN", "1.0"], "text", ["NaN", "1.0"]),
        (["inf"], "text", ["inf"]),
        (["\u0661"], "text", ["\u0661"]),
        ([".5"], "text", [".5"]),
        (["0.5", "10.0", "1e-05"], "float64", ["0.5", "10", "1e-05"]),
        (["9.50", "10.25"], "float64", ["9.5", "10.25"]),
        (["1.1", "1.10"], "text", ["1.1", "1.10"]),  # versions: two values would become equal
        (["1e+16", "2.0"], "float64", ["10000000000000000", "2"]),
        (["True", "false", "FALSE"], "boolean", ["true", "false", "false"]),
        (["true", "yes"], "text", ["true", "yes"]),
        (["2024-01-31"], "date", ["2024-01-31"]),
        (["2024-02-30"], "text", ["2024-02-30"]),
        (["2024-01-01 00:00:00", "2024-01-01T02:00:00+02:00"], "time", ["2024-01-01T00:00:00"] * 2),
        (["2024-01-01", "2024-01-02T10:30Z"], "time", ["2024-01-01T00:00:00", "2024-01-02T10:30:00"]),
        (["2024-01-01T00:00:00.5"], "time", ["2024-01-01T00:00:00.500000"]),
        (["2024-01-01T00:00:00.123456789Z"], "time", ["2024-01-01T00:00:00.123456789"]),
        (["18:30", "07:00:05"], "clock", ["18:30:00", "07:00:05"]),
        (["24:30"], "text", ["24:30"]),
        (["", None], "text", ["", None]),
        ([], "text", []),
    ],
)
def test_a_text_column_has_the_common_type_of_its_values(
    texts: list[str | None], type_: str, written: list[str | None]
) -> None:
    column = pl.Series("c", texts, dtype=pl.String)
    assert type_of(column) == type_
    assert canonical_column(column, type_).to_list() == written


@pytest.mark.parametrize(
    ("dtype", "type_"),
    [
        (pl.Int8(), "integer"),
        (pl.UInt64(), "integer"),
        (pl.Float32(), "float32"),
        (pl.Float64(), "float64"),
        (pl.Boolean(), "boolean"),
        (pl.Date(), "date"),
        (pl.Datetime("ns", "Europe/Paris"), "time"),
        (pl.Time(), "clock"),
        (pl.String(), "text"),
        (pl.List(pl.Int64), "list of integer"),
        (pl.Array(pl.Date, 2), "list of date"),
    ],
)
def test_a_typed_column_keeps_its_type(dtype: pl.DataType, type_: str) -> None:
    assert type_of_dtype(dtype) == type_


def test_list_values_have_one_type() -> None:
    cut = pl.Series("c", ["1.0|2.0", "", None, "3.0||4"])
    assert type_of(cut, "|") == "list of integer"
    assert canonical_column(cut, "list of integer", separator="|").to_list() == ["1|2", "", None, "3||4"]
    lists = pl.Series("c", [["True"], [], None, [None, "false"]], dtype=pl.List(pl.String))
    assert type_of(lists) == "list of boolean"
    assert canonical_column(lists, "list of boolean").to_list() == [["true"], [], None, [None, "false"]]


@pytest.mark.parametrize(
    ("value", "type_", "written"),
    [
        (1, "integer", "1"),
        (1.0, "integer", "1"),
        ("1.0", "integer", "1"),
        ("007", "integer", "007"),
        ("1e5", "integer", "1e5"),
        (2**60 + 1, "integer", str(2**60 + 1)),
        (True, "boolean", "true"),
        ("True", "boolean", "true"),
        ("tRue", "boolean", "tRue"),
        (datetime.date(2024, 1, 1), "time", "2024-01-01T00:00:00"),
        (
            datetime.datetime(2024, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            "time",
            "2024-01-01T00:00:00",
        ),
        ("2024-01-01T00:00:00Z", "date", "2024-01-01"),
        ("2024-01-01T10:00:00Z", "date", "2024-01-01T10:00:00Z"),
        (datetime.time(18, 30), "clock", "18:30:00"),
        (Decimal("9.90"), "float64", "9.9"),
        (Decimal(2**63 + 1), "integer", str(2**63 + 1)),
        ("1.0", "text", "1.0"),
        ("", "text", None),
        (None, "integer", None),
    ],
)
def test_a_value_is_formatted_like_its_column(value: object, type_: str, written: str | None) -> None:
    assert canonical_as(value, type_) == written


TYPES = ("text", "integer", "float32", "float64", "boolean", "date", "time", "clock")
WRITTEN = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats(allow_nan=False).map(repr),
    st.decimals(-1000, 1000, places=2).map(str),
    st.sampled_from(["True", "FALSE", "007", "+1", "1_000", "1e5", "NaN", "-0.0", "1.0"]),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.timezones()).map(lambda one: one.isoformat()),
    st.times().map(str),
)


@given(WRITTEN, st.sampled_from(TYPES))
def test_the_canonical_form_is_idempotent(text: str, type_: str) -> None:
    once = canonical_text(text, type_)
    assert canonical_text(once, type_) == once


@given(st.lists(WRITTEN, max_size=6))
def test_a_canonical_column_is_unchanged_and_keeps_its_type(texts: list[str]) -> None:
    column = pl.Series("c", texts, dtype=pl.String)
    type_ = type_of(column)
    written = canonical_column(column, type_)
    assert written.to_list() == [canonical_text(text, type_) for text in texts]
    assert canonical_column(written, type_).to_list() == written.to_list()
    assert infer_type(written) == type_ or type_ in ("float64", "time")  # alone, 2.50 is 2.5 and midnight a time


VALUES = {
    "integer": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "float64": (pl.Float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "float32": (pl.Float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "boolean": (pl.Boolean(), st.booleans()),
    "date": (pl.Date(), st.dates()),
    "time": (pl.Datetime("us"), st.datetimes()),
    "clock": (pl.Time(), st.times()),
}


@pytest.mark.parametrize("type_", VALUES)
@given(data=st.data())
def test_csv_parquet_and_requests_give_the_same_form(
    tmp_path_factory: pytest.TempPathFactory, type_: str, data: st.DataObject
) -> None:
    dtype, values = VALUES[type_]
    column = pl.Series("c", data.draw(st.lists(values, min_size=1, max_size=5)), dtype=dtype)
    folder = tmp_path_factory.mktemp("forms", numbered=True)
    frame = column.to_frame()
    frame.write_parquet(folder / "c.parquet")
    written = [str(value) for value in column.to_list()]  # as Python and pandas format them, with a space in a time
    if type_ == "float32":
        written = column.cast(pl.String).to_list()
    (folder / "c.csv").write_text("c\n" + "\n".join(written) + "\n")
    typed = canonical_series(read_table(folder / "c.parquet").collect(["c"])["c"]).to_list()
    text = canonical_column(read_table(folder / "c.csv").collect(["c"])["c"], type_).to_list()
    assert text == typed
    if type_ != "float32":
        assert [canonical_as(value, type_) for value in column.to_list()] == typed


def test_times_are_parsed_to_the_nanosecond_and_other_text_is_not() -> None:
    assert moment("1970-01-02") == (86_400, 0)
    assert moment("1970-01-01 00:00:01.5 +0000") == (1, 500_000_000)
    assert moment("1969-12-31t23:00:00,000000001-01") == (0, 1)
    for text in ("1970-01-01T24:00", "1970-01-01T00:00+25:00", "1970-1-1", "now", "1970-01-01T00:00:60"):
        with pytest.raises(ValueError, match=r"."):
            moment(text)


def test_time_columns_refuse_other_text_and_number_columns_keep_it() -> None:
    with pytest.raises(DataError, match=r"1 different values are not a date or time, such as .*: 'soon'") as raised:
        canonical_column(pl.Series(["2024-01-01 10:00", "soon", ""]), "time", "the table")
    assert raised.value.where == "the table"
    assert canonical_column(pl.Series(["1.0", "one"]), "integer").to_list() == ["1", "one"]


def test_an_id_column_has_one_type_in_all_tables() -> None:
    assert id_type([pl.Series(["1.0", "2.0"]), pl.Series(["1", "2"])]) == "integer"
    assert id_type([pl.Series(["1.0", "2.0"]), pl.Series([1, 2])]) == "integer"
    assert id_type([pl.Series(["1.0", "2.0"]), pl.Series(["1.0", "A"])]) == "text"
    assert id_type([pl.Series(["2024-01-01"])]) == "text"
    assert id_type([pl.Series([True, False])]) == id_type([pl.Series([datetime.date(2024, 1, 1)])]) == "text"
    assert id_type([pl.Series([], dtype=pl.String)]) == "text"


def test_types_round_trip_through_json_and_are_absent_in_older_bundles() -> None:
    types = CanonicalTypes({"hour": "integer"}, {"price": "float64"})
    assert CanonicalTypes.from_state(types.state()) == types
    assert CanonicalTypes.from_state(None) == CanonicalTypes()


def test_a_float_that_several_integers_share_is_no_integer() -> None:
    """A client that holds an id of 19 digits as a float would otherwise be answered for another id."""
    written = str(float(2**60 + 7))
    assert canonical_text(written, "integer") == written
    assert canonical_text(f"{2**60 + 7}.0", "integer") == str(2**60 + 7)
    assert canonical_text("1.7e+1", "integer") == "17"
    assert canonical_text(written, "float64") == canonical(float(written))


def test_integral_decimals_are_not_converted_to_float(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "small": pl.Series([Decimal(2**53 + 1), None], dtype=pl.Decimal(38, 0)),
            "large": pl.Series([Decimal(10**30 + 1), None], dtype=pl.Decimal(38, 0)),
            "price": pl.Series([Decimal("9.90"), None], dtype=pl.Decimal(10, 2)),
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet").collect(["small", "large", "price"])
    assert read.rows() == [(2**53 + 1, str(10**30 + 1), 9.9), (None, None, None)]


def test_empty_text_is_missing_in_every_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n"",1\n,2\n" ",3\n')
    pl.DataFrame({"a": ["", None, " "]}).write_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        assert read_table(tmp_path / name).collect(["a"])["a"].to_list() == [None, None, " "]


def test_configured_values_match_in_any_notation() -> None:
    texts, names = named_values(pl.Series(["1.0", "2.0", None]), ["1", "2.0", "x"])
    assert texts.to_list() == ["1", "2", None]
    assert names == {"1": "1", "2.0": "2", "x": "x"}
    assert (
        canonical_ids(pl.Series(["17.0", "18"])).to_list() == canonical_ids(pl.Series([17.0, 18.0])).to_list() == ["17", "18"]
    )
