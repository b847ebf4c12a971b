"""Conversions of the text of cells."""

import datetime

import polars as pl
import pytest

from recall.config import FileFormat
from recall.data.conversions import convert_columns, parse_lists, parse_time, rewrite_duration, rewrite_number
from recall.data.scaffold.text_values import time_pattern
from recall.errors import DataError


def converted(frame: pl.LazyFrame, form: FileFormat) -> pl.LazyFrame:
    return convert_columns(frame, form, "data.formats.items")


def parsed(text: str, pattern: str) -> object:
    return pl.DataFrame({"a": [text]}).select(parse_time(pl.col("a"), pattern)).item()


@pytest.mark.parametrize(
    ("text", "mark", "expected"),
    [
        ("1.234,50 €", ",", "1234.50"),
        ("$1,234.50", ".", "1234.50"),
        ("-3,5", ",", "-3.5"),
        ("1 234,5", ",", "1234.5"),
        ("12%", ".", "12"),
        ("5,00 EUR", ",", "5.00"),
        ("SEK 1.000", ",", "1000"),
        ("US$ 49.00", ".", "49.00"),
        ("R$ 5,50", ",", "5.50"),
        ("−5,5", ",", "-5.5"),
        ("1,5e3", ",", "1.5e3"),
        ("CHF 1\u2019234.50", ".", "1234.50"),
        ("₹1,23,456.00", ".", "123456.00"),
        ("12.34.56", ",", "12.34.56"),
        ("(5,00)", ",", "-5.00"),  # of accountants
        ("($1,250.00)", ".", "-1250.00"),
        ("1.200,000-", ",", "-1200.000"),  # of SAP
        ("1-2", ",", "1-2"),  # what is not such a number stays, and reading it is an error
        ("1/2", ".", "1/2"),
        ("12:30", ".", "12:30"),
        ("1,5", ".", "1,5"),
        ("1.5", ",", "1.5"),
        (None, ".", None),
    ],
)
def test_written_numbers_become_plain(text: str | None, mark: str, expected: str | None) -> None:
    frame = pl.DataFrame({"a": [text]}, schema={"a": pl.String})
    assert frame.select(rewrite_number(pl.col("a"), mark))["a"].to_list() == [expected]


def test_times_are_parsed_or_refused() -> None:
    frame = pl.DataFrame({"a": ["31.01.2024 18:30", None]})
    times = frame.select(parse_time(pl.col("a"), "%d.%m.%Y %H:%M"))["a"]
    assert times.dt.to_string("%Y-%m-%dT%H:%M").to_list() == ["2024-01-31T18:30", None]
    with pytest.raises(pl.exceptions.InvalidOperationError):
        frame.select(parse_time(pl.col("a"), "%m/%d/%Y"))
    assert parsed("10/Oct/2024:13:55:36 +0200", "%d/%b/%Y:%H:%M:%S %z") == datetime.datetime(2024, 10, 10, 11, 55, 36)


@pytest.mark.parametrize(
    ("text", "pattern"), [("01.02.2024 13:45", "%d.%m.%Y %R"), ("1:45 pm 2024-02-01", "%l:%M %P %F"), ("1706795100", "%s")]
)
def test_no_format_loses_the_time_of_day(text: str, pattern: str) -> None:
    assert parsed(text, pattern) == datetime.datetime(2024, 2, 1, 13, 45)


@pytest.mark.parametrize(
    "text", ["Mo., 5. Mai 2024", "5 mai 2024", "5 de mayo de 2024", "Sunday, May 5 2024", "5 maja 2024", "5 мая 2024"]
)
def test_months_may_be_in_other_languages(text: str) -> None:
    pattern = "%b %d %Y" if "May" in text else "%d %b %Y"
    assert parsed(text, pattern) == datetime.date(2024, 5, 5)


def test_parts_of_seconds_are_decimals() -> None:
    assert parsed("2024-02-01 13:45:06.5", "%Y-%m-%d %H:%M:%S.%f") == datetime.datetime(2024, 2, 1, 13, 45, 6, 500_000)


def test_lists_are_parsed_in_any_notation() -> None:
    texts = ["['a', 'b']", '["a"]', "{a,b}", "[]", "[{'id': 1, 'name': 'x'}]", "(1, 2)", None, "{'k': 1}"]
    texts += ['c("a", "b, c")', "character(0)", '"a"', "c(1, 2)", "c(4)"]  # of R
    expected = [["a", "b"], ["a"], ["a", "b"], [], ["x"], ["1", "2"], None, ["k"]]
    expected += [["a", "b, c"], [], ["a"], ["1", "2"], ["4"]]
    assert parse_lists(pl.Series("a", texts)).to_list() == expected


@pytest.mark.parametrize(
    "text", ["abc", "a, b", "12", "c(o)de", "{a\nb}", "[" * 100_000 + "]" * 100_000, "{" + "a" * 200_000 + "}"]
)
def test_what_is_no_list_is_its_only_member(text: str) -> None:
    assert parse_lists(pl.Series("a", [text])).to_list() == [[text]]


def test_an_empty_text_is_no_time() -> None:
    frame = pl.LazyFrame({"day": ["", "May 2, 2011", None]})
    days = converted(frame, FileFormat(times={"day": "%b %d, %Y"})).collect()["day"]
    assert days.to_list() == [None, datetime.date(2011, 5, 2), None]


def test_a_date_and_a_time_of_day_in_two_columns() -> None:
    frame = pl.LazyFrame({"day": ["31/01/2024", None], "clock": ["18:30", "7:00"], "n": [1, 2]})
    read = converted(frame, FileFormat(times={"day": "%d/%m/%Y %H:%M"}, clocks={"day": "clock"})).collect()
    assert read.columns == ["day", "n"]
    assert read["day"].to_list() == [datetime.datetime(2024, 1, 31, 18, 30), None]
    worded = pl.LazyFrame({"day": ["2024年1月31日"], "clock": ["9時05分"]})
    read = converted(worded, FileFormat(times={"day": "%Y年%m月%d日 %H時%M分"}, clocks={"day": "clock"})).collect()
    assert read["day"].to_list() == [datetime.datetime(2024, 1, 31, 9, 5)]
    typed = frame.with_columns(day=pl.lit(datetime.date(2024, 1, 31)), clock=pl.lit(datetime.time(7, 5)))
    read = converted(typed, FileFormat(times={"day": "%Y-%m-%d %H:%M:%S"}, clocks={"day": "clock"})).collect()
    assert read["day"].to_list() == [datetime.datetime(2024, 1, 31, 7, 5)] * 2


def test_words_for_true_and_false_and_no_others() -> None:
    frame = pl.LazyFrame({"sale": ["J", " N", None]})
    form = FileFormat(booleans={"sale": ("J", "n")})
    assert converted(frame, form).collect()["sale"].to_list() == [True, False, None]
    with pytest.raises(pl.exceptions.PolarsError, match=r'failed in column .sale. for 1 out of . values: \["\?"\]'):
        converted(pl.LazyFrame({"sale": ["J", "?"]}), form).collect()


def test_cells_are_carried_down_within_an_order_only() -> None:
    frame = pl.LazyFrame({"order": [1, 1, 2, 3, 3, 1], "user": ["a", None, None, "b", None, None]})
    carried = converted(frame, FileFormat(carry={"user": "order"})).collect()["user"]
    assert carried.to_list() == ["a", "a", None, "b", "b", None]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:02:33", "3753"),
        ("00:45", "45"),
        ("75:30", "4530"),
        ("0:00:12.5", "12.5"),
        ("-0:30", "-30"),
        ("1 day, 2:03:04", "93784"),
        ("95 min", "5700"),
        ("1h 32m", "5520"),
        ("2,5 Std.", "9000"),
        ("2時間30分", "9000"),
        ("PT1H2M33S", "3753"),
        ("P1DT2H", "93600"),
        ("2 Seasons", "2 Seasons"),  # other text stays, and reading it as a number is an error
        ("500 ml", "500 ml"),
        ("P1M", "P1M"),  # a month
        ("PT1M", "60"),
        ("1,234 s", "1,234 s"),  # 1234 s, or little more than one
        ("0,125 s", "0.125"),
        ("0:00:33,250", "33.25"),
        ("90", "90"),
        ("", ""),
        (None, None),
    ],
)
def test_durations_become_seconds(text: str | None, seconds: str | None) -> None:
    frame = pl.DataFrame({"a": [text]}, schema={"a": pl.String})
    assert frame.select(a=rewrite_duration(pl.col("a"), "m:s"))["a"].to_list() == [seconds]


def test_a_comma_of_durations_is_the_decimal_mark_of_all_or_of_none() -> None:
    hours = pl.DataFrame({"a": ["0,500 h", "1,250 h", "2,750 h", None]})
    assert hours.select(a=rewrite_duration(pl.col("a"), "m:s"))["a"].to_list() == ["1800", "4500", "9900", None]
    short = pl.DataFrame({"a": ["1,250 h", "2,5 h"]})
    assert short.select(a=rewrite_duration(pl.col("a"), "m:s"))["a"].to_list() == ["4500", "9000"]
    unclear = ["1,250 h", "2 h"]
    assert pl.DataFrame({"a": unclear}).select(a=rewrite_duration(pl.col("a"), "m:s"))["a"].to_list() == ["1,250 h", "7200"]


def test_two_numbers_are_hours_and_minutes_if_the_format_says_so() -> None:
    frame = pl.LazyFrame({"a": ["1:30", "1:00:30"], "b": [datetime.timedelta(seconds=1.5)] * 2})
    read = converted(frame, FileFormat(durations={"a": "h:m", "b": "m:s"})).collect()
    assert read.to_dict(as_series=False) == {"a": ["5400", "3630"], "b": [1.5, 1.5]}


def test_units_are_left_out() -> None:
    frame = pl.LazyFrame({"weight": ["1,5 kg", "2kg", "3", "500 g"], "stars": ["1 star", "4 stars", None, "x"]})
    form = FileFormat(numbers={"weight": ",", "stars": "."}, units={"weight": ("kg",), "stars": ("stars", "star")})
    read = converted(frame, form).collect()
    assert read.to_dict(as_series=False) == {"weight": ["1.5", "2", "3", "500 g"], "stars": ["1", "4", None, "x"]}


def test_a_date_is_made_of_its_parts() -> None:
    frame = pl.LazyFrame({"y": ["2024", "2023"], "m": ["02", "12"], "d": [1.0, 31.0], "h": [7, 0]})
    read = converted(
        frame, FileFormat(dates={"at": ("y", "m", "d", "h"), "day": ("y", "m", "d"), "no": ("x", "z", "w")})
    ).collect()
    assert read.columns == ["at", "day"]
    assert read["at"].to_list() == [datetime.datetime(2024, 2, 1, 7), datetime.datetime(2023, 12, 31)]
    with pytest.raises(ValueError, match="dates needs columns of year, month and day"):
        FileFormat(dates={"at": ("y", "m")})


def test_the_last_flag_that_is_true_names_the_row() -> None:
    frame = pl.LazyFrame({"n": [1, 2, 3, 4, 5], "clicked": [0, 1, 1, None, 0], "bought": ["no", "No", " Yes ", "x", None]})
    form = FileFormat(flags={"event": ("clicked", "bought")})
    read = converted(frame, form).collect()
    assert read.to_dict(as_series=False) == {"n": [1, 2, 3, 4, 5], "event": [None, "clicked", "bought", "bought", None]}
    assert converted(frame.select("n"), form).collect().columns == ["n"]  # of new rows without any
    nan = pl.LazyFrame({"clicked": [float("nan"), 1.0], "bought": [0, 0]})
    assert converted(nan, form).collect()["event"].to_list() == [None, "clicked"]


@pytest.mark.parametrize(
    ("form", "setting"),
    [
        (FileFormat(flags={"event": ("clicked", "boght")}), "flags.event"),
        (FileFormat(dates={"at": ("clicked", "n", "boght")}), "dates.at"),
        (FileFormat(explode="boght", explode_by=","), "explode"),
    ],
)
def test_a_misspelt_column_is_refused(form: FileFormat, setting: str) -> None:
    frame = pl.LazyFrame({"n": [1], "clicked": [1], "bought": [1]})
    with pytest.raises(DataError, match=f"{setting} in data.formats names the column 'boght'") as caught:
        converted(frame, form)
    assert (caught.value.where, caught.value.hint) == ("data.formats.items", "Did you mean 'bought'?")


def test_units_and_separators_belong_to_a_column() -> None:
    with pytest.raises(ValueError, match=r"numbers, which lacks \['weight'\]"):
        FileFormat(units={"weight": ("kg",)})
    with pytest.raises(ValueError, match="explode_by needs explode"):
        FileFormat(explode_by=",")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Jan 5, 2024 at 10:30", "%b %d, %Y at %H:%M"),
        ("5. Jan 2024 10:30", "%d. %b %Y %H:%M"),
        ("5 Jan. 2024 10:30", "%d %b. %Y %H:%M"),
        ("5 Jan 2024 10:30 GMT", "%d %b %Y %H:%M GMT"),
    ],
)
def test_a_format_that_fits_as_it_is_written_is_enough(text: str, pattern: str) -> None:
    assert parsed(text, pattern) == datetime.datetime(2024, 1, 5, 10, 30)


def test_a_text_or_number_is_missing_in_one_column_only() -> None:
    frame = pl.LazyFrame({"user": [-1, 7], "name": [" guest", "ann"], "flag": [-1, 1]})
    read = convert_columns(frame, FileFormat(missing={"user": ("-1",), "name": ("guest",), "other": ("x",)}), "here").collect()
    assert read.rows() == [(None, None, -1), (7, "ann", 1)]


@pytest.mark.parametrize(
    ("text", "pattern", "utc"),
    [
        ("Sun 01 Sep 2019 8:46 AM BST", "%d %b %Y %I:%M %p %z", "2019-09-01 07:46:00"),
        ("Sunday 1 Dec 2019 8:46 PM GMT", "%d %b %Y %I:%M %p %z", "2019-12-01 20:46:00"),
        ("1 Dez 2019 20:46 CET", "%d %b %Y %H:%M %z", "2019-12-01 19:46:00"),
        ("Thu Feb 01 00:05:50 UTC 2024", "%b %d %H:%M:%S %z %Y", "2024-02-01 00:05:50"),  # of Java
        ("Sat Mar  2 10:05:50 CET 2024", "%b %d %H:%M:%S %z %Y", "2024-03-02 09:05:50"),
        ("Thu Feb  1 00:05:50 2024", "%b %d %H:%M:%S %Y", "2024-02-01 00:05:50"),  # of C
    ],
)
def test_names_of_days_and_time_zones(text: str, pattern: str, utc: str) -> None:
    assert str(parsed(text, pattern)) == utc
    assert time_pattern(pl.Series([text])) == pattern


def test_a_time_of_day_may_be_a_number() -> None:
    frame = pl.LazyFrame({"day": ["20240131", "20240201"], "clock": [905, 1830]})
    read = converted(frame, FileFormat(times={"day": "%Y%m%d %H%M"}, clocks={"day": "clock"})).collect()
    assert read["day"].to_list() == [datetime.datetime(2024, 1, 31, 9, 5), datetime.datetime(2024, 2, 1, 18, 30)]
