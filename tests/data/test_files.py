import gzip
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from recall.config import FileFormat
from recall.data.files import files_of, kind_of, read_content, scan_table
from recall.data.scaffold.file_format import detect_format
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


def test_a_separator_of_several_characters_and_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_text('1::thé "best::x\n2::b::y\n', encoding="cp1252")
    form = FileFormat(separator="::", encoding="cp1252", quote="", header=("id", "title", "code"))
    assert scan_table(path, (), form).collect().rows() == [("1", 'thé "best', "x"), ("2", "b", "y")]
    with pytest.raises(DataError, match="the text is not ascii"):
        scan_table(tmp_path / "a.dat", (), FileFormat(encoding="ascii", separator="é"))
    with pytest.raises(DataError, match="the text is not punycode"):
        scan_table(tmp_path / "a.dat", (), FileFormat(encoding="punycode"))
    path.write_text("a§b\n1§2\n")
    assert scan_table(path, (), FileFormat(separator="§")).collect().rows() == [("1", "2")]


def test_lines_may_end_in_a_carriage_return_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\r1,2\r3,4\r")
    assert scan_table(path).collect().rows() == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zip", "a.csv.zst", "a.jsonl.gz", "cut.csv.gz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"a,b\n" * 99)[:-9] if name == "cut.csv.gz" else b"a,b\n1,2\n")
    with pytest.raises(DataError, match="the file cannot be read"):
        read_content(tmp_path / name)


def test_without_its_package_a_zst_file_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv.zst").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DataError, match=r"fm-recall\[train\]"):
        read_content(tmp_path / "a.csv.zst")


def test_json_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}]', encoding="utf-8-sig")
    assert scan_table(tmp_path / "a.json").collect().rows() == [(1,)]


BY_COLUMN = '{"u": ["a", "b"], "n": [1, 2]}'
AS_PANDAS = '{"u": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}'


@pytest.mark.parametrize("text", [BY_COLUMN, AS_PANDAS, '[{"u": "a", "n": 1}, {"u": "b", "n": 2}]'])
def test_json_may_have_rows_or_columns(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert scan_table(path).collect().to_dict(as_series=False) == {"u": ["a", "b"], "n": [1, 2]}
    path.write_text('{"u": ["a", "b"], "n": [1]}')
    assert len(scan_table(path).collect()) == 1


def test_a_folder_holds_files_of_one_kind(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "_SUCCESS", ".hidden"):
        (tmp_path / name).write_text(f"name\n{name}\n")
    assert [one.name for one in files_of(tmp_path)] == ["a.csv", "b.csv"]
    assert scan_table(tmp_path).collect()["name"].to_list() == ["a.csv", "b.csv"]
    (tmp_path / "c.jsonl").write_text("{}")
    with pytest.raises(DataError, match="files of several kinds"):
        files_of(tmp_path)


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w"):
        pass
    with pytest.raises(DataError, match="the archive has 0 members"):
        scan_table(tmp_path / "a.csv.zip")


def test_blanks_totals_and_cells_beyond_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("# of Monday\n id , price\n a , 1,,\n NA ,2\nTotal,3\n")
    form = FileFormat(skip=1, strip=True, ragged=True, totals=("Total",))
    assert scan_table(path, ["NA"], form).collect().to_dict(as_series=False) == {"id": ["a", None], "price": ["1", "2"]}


def test_aligned_columns_are_two_blanks_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("name        words\nNew York       12\n  Rome          3  \n")
    read = scan_table(path, (), FileFormat(separator="  ")).collect()
    assert read.to_dict(as_series=False) == {"name": ["New York", "Rome"], "words": ["12", "3"]}


def test_members_of_nested_objects_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": {"id": 1, "geo": {"city": "Rome"}}, "n": 2}\n{"user": {"id": 3}, "n": 4}\n')
    read = scan_table(path, (), FileFormat(unnest=True)).collect()
    assert read.to_dict(as_series=False) == {"user.id": [1, 3], "user.geo.city": ["Rome", None], "n": [2, 4]}


def test_each_member_of_a_list_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": "a", "items": [{"id": 1}, {"id": 2}]}\n{"user": "b", "items": []}\n')
    read = scan_table(path, (), FileFormat(explode="items", unnest=True)).collect()
    assert read.to_dict(as_series=False) == {"user": ["a", "a"], "items.id": [1, 2]}
    path = tmp_path / "a.csv"
    path.write_text("user,items\na,\"['x', 'y']\"\nb,[]\n")
    with pytest.raises(DataError, match=r"explode in data\.formats names the column 'others'"):
        scan_table(path, (), FileFormat(explode="others", lists=("others",))).collect()
    read = scan_table(path, (), FileFormat(explode="items", lists=("items",))).collect()
    assert read.rows() == [("a", "x"), ("a", "y")]
    path.write_text('user,items\na,"x, y"\nb,\nc,z\n')
    read = scan_table(path, (), FileFormat(explode="items", explode_by=",")).collect()
    assert read.rows() == [("a", "x"), ("a", "y"), ("c", "z")]


def test_tables_that_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("-------\n|a |b |\n-------\n|x |2 |\n-------\n")
    form = FileFormat(rules=True, separator="|", strip=True)
    assert scan_table(path, (), form).collect().rows() == [("x", "2")]
    path.write_text(" a | b | c \n---+---+---\n   | 2 | 3\n x | 2 | \n")  # an empty cell comes first, or last
    assert scan_table(path, (), form).collect().rows() == [(None, "2", "3"), ("x", "2", None)]


def test_a_pattern_names_several_files(tmp_path: Path) -> None:
    for month in (1, 2):
        (tmp_path / f"sales_{month}.csv").write_text(f"item\n{month}\n")
    assert scan_table(tmp_path / "sales_*.csv").collect()["item"].to_list() == ["1", "2"]


def test_quotes_may_follow_a_backslash(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,title\n1,"The \\"Best\\", 2"\n2,plain\n')
    assert scan_table(path, (), FileFormat(backslashes=True)).collect().rows() == [("1", 'The "Best", 2'), ("2", "plain")]


@pytest.mark.parametrize(("name", "text"), [("a.csv", "item\nx\n"), ("a.jsonl", '{"item": "x"}\n')])
def test_folders_of_a_partition_name_columns(tmp_path: Path, name: str, text: str) -> None:
    for day in ("2024-01-31", "2024-02-01"):
        folder = tmp_path / f"day={day}" / "kind=a%20b"
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    assert scan_table(tmp_path).collect().rows() == [("x", "2024-01-31", "a b"), ("x", "2024-02-01", "a b")]


def test_parts_may_have_their_columns_in_another_order_or_be_empty(tmp_path: Path) -> None:
    for name, text in {"1.csv": "a,b\n1,2\n", "2.csv": "b,a\n4,3\n", "3.csv": ""}.items():
        (tmp_path / name).write_text(text)
    assert scan_table(tmp_path).collect().rows() == [("1", "2"), ("3", "4")]
    (tmp_path / "2.csv").write_text("b,c\n4,3\n")
    with pytest.raises(DataError, match=r"different columns \(only one of 1\.csv and 2\.csv has c, a\)"):
        scan_table(tmp_path)


def test_a_log_may_get_a_column_in_later_parts(tmp_path: Path) -> None:
    (tmp_path / "2024-01.csv").write_text("user,item,when,device,page\nu1,i1,1,phone,3\n")
    (tmp_path / "2024-02.csv").write_text("when,app,item,user,page,device\n2,9.1,i2,u2,4,tablet\n")
    read = scan_table(tmp_path).collect()
    assert read.columns == ["user", "item", "when", "device", "page", "app"]
    assert read.rows() == [("u1", "i1", "1", "phone", "3", None), ("u2", "i2", "2", "tablet", "4", "9.1")]
    (tmp_path / "2024-02.csv").write_text("user,item,when,device,page,price,quantity\n")  # of another kind
    with pytest.raises(DataError, match="different columns"):
        scan_table(tmp_path)


def test_files_beside_the_folders_of_a_partition_are_left_out(tmp_path: Path) -> None:
    for month in (1, 2):
        (tmp_path / f"month={month}").mkdir()
        (tmp_path / f"month={month}" / "part-0.json").write_text(f'{{"user": "u{month}"}}\n')
    (tmp_path / "schema.json").write_text('{"title": "event"}')
    assert scan_table(tmp_path).collect().rows() == [("u1", "1"), ("u2", "2")]


def test_parquet_files_may_differ_in_columns_and_types(tmp_path: Path) -> None:
    for day, columns in enumerate(({"user": [7]}, {"user": ["8"], "app": ["x"]})):
        (tmp_path / f"day={day}").mkdir()
        pl.DataFrame(columns).write_parquet(tmp_path / f"day={day}" / "a.parquet")
    read = scan_table(tmp_path).collect()
    assert read.to_dict(as_series=False) == {"user": ["7", "8"], "day": ["0", "1"], "app": [None, "x"]}


def test_the_rows_of_a_json_object_may_be_one_of_its_members(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "meta": {"count": 2},\n "shows": [\n  {"id": 1, "tags": ["a"]},\n  {"id": 2, "tags": []}\n ]\n}')
    assert scan_table(path).collect().to_dict(as_series=False) == {"id": [1, 2], "tags": [["a"], []]}
    path.write_text('{"shows": [{"id": 1}, {"id": 2}]}')  # the only one
    assert scan_table(path).collect().to_dict(as_series=False) == {"id": [1, 2]}


def test_a_line_of_json_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n{"id": "usr_')
    with pytest.raises(DataError, match="the file ends inside a line") as caught:
        scan_table(path)
    assert str(caught.value.where).endswith("a.jsonl, line 3")
    path.write_text('{"id": 1}\n{"id": \n{"id": 3}\n')
    with pytest.raises(pl.exceptions.PolarsError):
        scan_table(path)


def test_dashes_show_the_widths_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "films.lst"
    lines = ["", "CODE  TITLE        GENRES    YEAR", "----- ------------ --------- ----", "F0001 A Long  Way  Drama|Spy 1999"]
    lines += ["F0002 Go                     2001", "F0003              Spy|Western 1950", "F0004 Never        Spy"]
    lines += [f"F{row:04} {f'Film {row}':12} Spy       2001" for row in range(5, 12)]
    path.write_text("\n".join([*lines, "", "11 rows selected.", ""]))
    read = scan_table(path, (), FileFormat(rules=True, separator="\t")).collect()
    assert read.rows()[:3] == [
        ("F0001", "A Long  Way", "Drama|Spy", "1999"),
        ("F0002", "Go", None, "2001"),
        ("F0003", None, "Spy|Western", "1950"),
    ]
    assert len(read) == 11
    assert detect_format(path).settings == FileFormat(rules=True, separator="\t")


def test_files_with_different_separators_are_explained(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n1,2\n")
    (tmp_path / "b.csv").write_text("user;item\n1;2\n")
    with pytest.raises(DataError, match="different columns") as caught:
        scan_table(tmp_path / "[ab].csv")
    assert caught.value.why == "b.csv is written with another separator than a.csv: its header is 'user;item'"
    (tmp_path / "c.csv").write_text("user,item\n1,2\n")
    with pytest.raises(DataError) as caught:
        scan_table(tmp_path / "[bc].csv")
    assert caught.value.why == "b.csv is written with another separator than c.csv: its header is 'user;item'"
