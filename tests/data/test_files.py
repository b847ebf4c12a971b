import datetime
import gzip
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from recall.config import FileFormat
from recall.data.files import content, converted, files_of, kind_of, listed, moment, number, scan
from recall.errors import DataError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "text"),
        ("a.TSV.gz", "text"),
        ("a.csv.zip", "text"),
        ("a.parquet", "parquet"),
        ("a.jsonl.zst", "json"),
        ("u.data", None),
    ],
)
def test_the_kind_of_a_file_follows_from_its_name(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


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
        ("−5,5", ",", "-5.5"),
        ("1,5e3", ",", "1.5e3"),
        ("CHF 1\u2019234.50", ".", "1234.50"),
        ("₹1,23,456.00", ".", "123456.00"),
        ("12.34.56", ",", "12.34.56"),
        ("(5,00)", ",", "(5,00)"),  # what is not such a number stays, and reading it is an error
        ("1/2", ".", "1/2"),
        ("12:30", ".", "12:30"),
        ("1,5", ".", "1,5"),
        ("1.5", ",", "1.5"),
        (None, ".", None),
    ],
)
def test_written_numbers_become_plain(text: str | None, mark: str, expected: str | None) -> None:
    frame = pl.DataFrame({"a": [text]}, schema={"a": pl.String})
    assert frame.select(number(pl.col("a"), mark))["a"].to_list() == [expected]


def test_times_are_parsed_or_refused() -> None:
    frame = pl.DataFrame({"a": ["31.01.2024 18:30", None]})
    parsed = frame.select(moment(pl.col("a"), "%d.%m.%Y %H:%M"))["a"]
    assert parsed.dt.to_string("%Y-%m-%dT%H:%M").to_list() == ["2024-01-31T18:30", None]
    with pytest.raises(pl.exceptions.InvalidOperationError):
        frame.select(moment(pl.col("a"), "%m/%d/%Y"))
    zoned = pl.DataFrame({"a": ["10/Oct/2024:13:55:36 +0200"]}).select(moment(pl.col("a"), "%d/%b/%Y:%H:%M:%S %z"))["a"]
    assert zoned.dt.to_string("%H:%M").to_list() == ["11:55"]


@pytest.mark.parametrize(
    ("text", "pattern"), [("01.02.2024 13:45", "%d.%m.%Y %R"), ("1:45 pm 2024-02-01", "%l:%M %P %F"), ("1706795100", "%s")]
)
def test_no_format_loses_the_time_of_day(text: str, pattern: str) -> None:
    parsed = pl.DataFrame({"a": [text]}).select(moment(pl.col("a"), pattern))["a"]
    assert parsed.to_list() == [datetime.datetime(2024, 2, 1, 13, 45)]


def test_parts_of_seconds_are_decimals() -> None:
    parsed = pl.DataFrame({"a": ["2024-02-01 13:45:06.5"]}).select(moment(pl.col("a"), "%Y-%m-%d %H:%M:%S.%f"))["a"]
    assert parsed.to_list() == [datetime.datetime(2024, 2, 1, 13, 45, 6, 500_000)]


def test_lists_are_parsed_in_any_notation() -> None:
    texts = ["['a', 'b']", '["a"]', "{a,b}", "[]", "[{'id': 1, 'name': 'x'}]", "(1, 2)", None, "{'k': 1}"]
    expected = [["a", "b"], ["a"], ["a", "b"], [], ["x"], ["1", "2"], None, ["k"]]
    assert listed(pl.Series("a", texts)).to_list() == expected


@pytest.mark.parametrize("text", ["abc", "a, b", "12", "{a\nb}", "[" * 100_000 + "]" * 100_000, "{" + "a" * 200_000 + "}"])
def test_what_is_no_list_is_its_only_member(text: str) -> None:
    assert listed(pl.Series("a", [text])).to_list() == [[text]]


def test_a_separator_of_several_characters_and_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_text('1::thé "best::x\n2::b::y\n', encoding="cp1252")
    form = FileFormat(separator="::", encoding="cp1252", quote="", header=("id", "title", "code"))
    assert scan(path, (), form).collect().rows() == [("1", 'thé "best', "x"), ("2", "b", "y")]
    with pytest.raises(DataError, match="the text is not ascii"):
        scan(tmp_path / "a.dat", (), FileFormat(encoding="ascii", separator="é"))
    with pytest.raises(DataError, match="the text is not punycode"):
        scan(tmp_path / "a.dat", (), FileFormat(encoding="punycode"))
    path.write_text("a§b\n1§2\n")
    assert scan(path, (), FileFormat(separator="§")).collect().rows() == [("1", "2")]


def test_lines_may_end_in_a_carriage_return_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\r1,2\r3,4\r")
    assert scan(path).collect().rows() == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zip", "a.csv.zst", "a.jsonl.gz", "cut.csv.gz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"a,b\n" * 99)[:-9] if name == "cut.csv.gz" else b"a,b\n1,2\n")
    with pytest.raises(DataError, match="the file cannot be read"):
        content(tmp_path / name)


def test_without_its_package_a_zst_file_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv.zst").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DataError, match=r"fm-recall\[train\]"):
        content(tmp_path / "a.csv.zst")


def test_json_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}]', encoding="utf-8-sig")
    assert scan(tmp_path / "a.json").collect().rows() == [(1,)]


def test_a_folder_holds_files_of_one_kind(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "_SUCCESS", ".hidden"):
        (tmp_path / name).write_text(f"name\n{name}\n")
    assert [one.name for one in files_of(tmp_path)] == ["a.csv", "b.csv"]
    assert scan(tmp_path).collect()["name"].to_list() == ["a.csv", "b.csv"]
    (tmp_path / "c.jsonl").write_text("{}")
    with pytest.raises(DataError, match="files of several kinds"):
        files_of(tmp_path)


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w"):
        pass
    with pytest.raises(DataError, match="the archive has 0 members"):
        scan(tmp_path / "a.csv.zip")


def test_blanks_totals_and_cells_beyond_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("# of Monday\n id , price\n a , 1,,\n NA ,2\nTotal,3\n")
    form = FileFormat(skip=1, strip=True, ragged=True, totals=("Total",))
    assert scan(path, ["NA"], form).collect().to_dict(as_series=False) == {"id": ["a", None], "price": ["1", "2"]}


def test_aligned_columns_are_two_blanks_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("name        words\nNew York       12\n  Rome          3  \n")
    read = scan(path, (), FileFormat(separator="  ")).collect()
    assert read.to_dict(as_series=False) == {"name": ["New York", "Rome"], "words": ["12", "3"]}


def test_a_date_and_a_time_of_day_in_two_columns() -> None:
    frame = pl.LazyFrame({"day": ["31/01/2024", None], "clock": ["18:30", "7:00"], "n": [1, 2]})
    read = converted(frame, FileFormat(times={"day": "%d/%m/%Y %H:%M"}, clocks={"day": "clock"})).collect()
    assert read.columns == ["day", "n"]
    assert read["day"].to_list() == [datetime.datetime(2024, 1, 31, 18, 30), None]
    typed = frame.with_columns(day=pl.lit(datetime.date(2024, 1, 31)), clock=pl.lit(datetime.time(7, 5)))
    read = converted(typed, FileFormat(times={"day": "%Y-%m-%d %H:%M:%S"}, clocks={"day": "clock"})).collect()
    assert read["day"].to_list() == [datetime.datetime(2024, 1, 31, 7, 5)] * 2


def test_words_for_true_and_false_and_no_others() -> None:
    frame = pl.LazyFrame({"sale": ["J", " N", None]})
    form = FileFormat(booleans={"sale": ("J", "n")})
    assert converted(frame, form).collect()["sale"].to_list() == [True, False, None]
    with pytest.raises(pl.exceptions.PolarsError, match=r'failed in column .sale. for 1 out of . values: \["\?"\]'):
        converted(pl.LazyFrame({"sale": ["J", "?"]}), form).collect()


def test_members_of_nested_objects_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": {"id": 1, "geo": {"city": "Rome"}}, "n": 2}\n{"user": {"id": 3}, "n": 4}\n')
    read = scan(path, (), FileFormat(unnest=True)).collect()
    assert read.to_dict(as_series=False) == {"user.id": [1, 3], "user.geo.city": ["Rome", None], "n": [2, 4]}


def test_each_member_of_a_list_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": "a", "items": [{"id": 1}, {"id": 2}]}\n{"user": "b", "items": []}\n')
    read = scan(path, (), FileFormat(explode="items", unnest=True)).collect()
    assert read.to_dict(as_series=False) == {"user": ["a", "a"], "items.id": [1, 2]}
    path = tmp_path / "a.csv"
    path.write_text("user,items\na,\"['x', 'y']\"\nb,[]\n")
    with pytest.raises(pl.exceptions.PolarsError, match="not found"):
        scan(path, (), FileFormat(explode="others", lists=("others",))).collect()
    read = scan(path, (), FileFormat(explode="items", lists=("items",))).collect()
    assert read.rows() == [("a", "x"), ("a", "y")]


def test_cells_are_carried_down_within_an_order_only() -> None:
    frame = pl.LazyFrame({"order": [1, 1, 2, 3, 3, 1], "user": ["a", None, None, "b", None, None]})
    carried = converted(frame, FileFormat(carry={"user": "order"})).collect()["user"]
    assert carried.to_list() == ["a", "a", None, "b", "b", None]


def test_parts_may_have_their_columns_in_another_order_or_be_empty(tmp_path: Path) -> None:
    for name, text in {"1.csv": "a,b\n1,2\n", "2.csv": "b,a\n4,3\n", "3.csv": ""}.items():
        (tmp_path / name).write_text(text)
    assert scan(tmp_path).collect().rows() == [("1", "2"), ("3", "4")]
    (tmp_path / "2.csv").write_text("b,c\n4,3\n")
    with pytest.raises(pl.exceptions.PolarsError):
        scan(tmp_path).collect()
