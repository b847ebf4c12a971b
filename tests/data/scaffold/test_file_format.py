from pathlib import Path

import polars as pl
import pytest

from recall.config import FileFormat
from recall.data.scaffold import encoding as encodings
from recall.data.scaffold import file_format as module
from recall.data.scaffold.draft import draft
from recall.data.scaffold.file_format import detect_format, missing_header_reason
from recall.errors import DataError


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.csv", "a,b\n1,2\n", FileFormat()),
        ("a.tsv", "a\tb\n1\t2\n", FileFormat()),
        ("a.csv", "a;b\n1;2,5\n", FileFormat(separator=";")),
        ("a.csv", "a\tb\n1\tx, y\n", FileFormat(separator="\t")),
        ("a.dat", "1::2\n3::4\n", FileFormat(separator="::", header=("column_1", "column_2"))),
        ("u.data", "a,b\n1,2\n", FileFormat(separator=",")),
        ("a.csv", 'a,b\n"x,y",2\n"z",3\n', FileFormat()),
        ("a.txt", 'a\tb\n5" disk\t2\nx\t3\n', FileFormat(separator="\t", quote="")),
        ("a.tsv", 'a\tb\n"Al" Yan\t2\n"Bo"\t3\n', FileFormat(quote="")),
        ("a.tsv", '# host: a\n#\na\tb\n"Al" Yan\t2\n"Bo"\t3\n', FileFormat(quote="", skip=2)),
        ("a.csv", 'a,b\n"x ""y"" z",2\n"x, ""y""",3\n', FileFormat()),
        ("a.csv", "name\nx\n", FileFormat()),
        ("a.csv", "u,n,t\n(text),(number),(time)\n" + "x,2,3\ny,4,5\n" * 20, FileFormat(header=("u", "n", "t"), skip=2)),
        ("a.csv", "u,i,price\nu1,i1,NULL\n" + "".join(f"u{n % 5},i{n},2.5\n" for n in range(40)), FileFormat()),
        ("a.csv", "u,n,t\nx,unknown,NULL\n" + "z,2,3\ny,4,5\n" * 20, FileFormat()),
        ("a.csv", "u1,,i1,\nu2,,i2,\nu1,,i2,\n", FileFormat(header=("column_1", "column_2", "column_3", "column_4"))),
        (
            "a.csv",
            "u1,3,,,,,,,\n" + "u2,3,4,5,1,2,,,\n" * 9,
            FileFormat(header=tuple(f"column_{number}" for number in range(1, 10))),
        ),
        ("a.txt", "| a | b |\n|---|---|\n| x | 2 |\n| y | 3 |\n", FileFormat(rules=True, separator="|", strip=True)),
        ("a.txt", " a | b \n---+---\n x | 2\n", FileFormat(rules=True, separator="|", strip=True)),
        ("a.txt", " a | b | c \n---+---+---\n   | 2 | 3 \n x | 2 |   \n", FileFormat(rules=True, separator="|", strip=True)),
        ("a.csv", 'a,b\n"x\n---\ny",2\nz,3\n', FileFormat()),
        ("a.csv", 'a|b\n"x\n---\ny"|2\nz|3\n', FileFormat(separator="|")),
        ("a.txt", "u  i\n---  ---\nx  y z\n", FileFormat(rules=True, separator="  ")),
        ("a.csv", "u;n\nx;2\ny;3\nTotal paid;;\n".replace(";;", ";"), FileFormat(separator=";", totals=("Total paid",))),
        ("a.csv", "u,n\n" + "x,unknown\ny,4\n" * 20, FileFormat()),
        ("a.csv", "a\x01b\nx, y\x012\n", FileFormat(separator="\x01")),  # of Hive
        ("a.csv", "a||b||c\nx||2||y\nz||||\n", FileFormat(separator="||")),
        ("a.csv", "a^b\nx^2\n", FileFormat(separator="^")),
        ("a.csv", 'a,b\n"the \\"x\\", y",2\nz,3\n', FileFormat(backslashes=True)),
        ("a.csv", 'a,b\n"\\"x\\" and y",2\nz,3\n', FileFormat(backslashes=True)),
        ("a.csv", 'a,b\n"the \\"x\\", y","C:\\\\dir\\\\"\n"Al" Yan,z\n', FileFormat(backslashes=True)),
        ("a.csv", 'a,b\n"C:\\\\dir\\\\",2\n"x, y",3\n', FileFormat()),
        ("a.csv", 'a,b\n"C:\\",2\n"x, y",3\n', FileFormat()),
        ("a.txt", "a    b c    d\nx    y z    1\nxx   q      2\n", FileFormat(separator="  ")),
        (
            "a.dat",
            "1::An A (1950)::x|y\n2::The B (1960)::z\n",
            FileFormat(separator="::", header=("column_1", "column_2", "column_3")),
        ),
        ("a.csv", "# of Monday\n\na,b\nx,2\n", FileFormat(skip=2)),
        ("a.csv", "Sales of May\na,b,c\nx,2,3\ny,2,3\n", FileFormat(skip=1)),
        ("a.csv", "a, b\nx, 2\n", FileFormat(strip=True)),
        ("a.csv", "a,b\nx,2,,\ny,3\n", FileFormat(ragged=True)),
        ("a.csv", "a,b,a\nx,2,3\n", FileFormat(header=("a", "b", "a_2"), skip=1)),
        ("a.csv", ",a,b,,\n0,x,2,3,4\n1,y,2,3,4\n", FileFormat(header=("row", "a", "b", "column_4", "column_5"), skip=1)),
        ("a.txt", 'name\tsize\nThe "Best"\t5" pan\nx\t3\n', FileFormat(separator="\t", quote="")),
        ("a.txt", '"u" "n"\n"1" "x y" 2\n"2" "z" 3\n', FileFormat(separator=" ", header=("row", "u", "n"), skip=1)),
        ("a.csv", "a;b\nx;2;\ny;3;\n", FileFormat(separator=";", ragged=True)),
        ("a.csv", "a,b\nx,2\ny,3\nTotal,5\n", FileFormat(totals=("Total",))),
        ("a.csv", "a;b\nx;2\nSumme;5\n", FileFormat(separator=";", totals=("Summe",))),
        ("a.csv", "a,b\nx,2\ny,3\na,b\nz,4\n", FileFormat(totals=("a",))),
        ("a.csv", "Sales of May,,\n,,\na,b,c\nx,2,3\ny,2,3\n", FileFormat(skip=2)),
        ("a.csv", "a,b\nUInt64,Nullable(String)\n1,x\n2,y\n", FileFormat(totals=("UInt64",))),
        ("a.csv", "a,b\nDate night,String quartet\nx,y\n", FileFormat()),
        ("a.csv", "Date\n", FileFormat()),
        ("a.csv", "x,m\ny,n\nx,m\nx,n\n", FileFormat(header=("column_1", "column_2"))),
    ],
)
def test_separator_and_header_are_found(tmp_path: Path, name: str, text: str, form: FileFormat) -> None:
    (tmp_path / name).write_text(text)
    found = detect_format(tmp_path / name)
    assert found.settings == form
    assert set(found.reasons) == form.model_fields_set


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("title\nÄpfel und Öl für alle\n", "cp1252"),
        ("название\nМастер и Маргарита\nПреступление и наказание\n", "cp1251"),
        ("title\n" + "吾輩は猫である。名前はまだ無い。\n" * 3, "shift_jis"),
        ("顧客ID,商品ID,行動\n" + "".join(f"C{n},S{n % 7},{'閲覧' if n % 3 else '購入'}\n" for n in range(200)), "shift_jis"),
        ("title\n" + "①吾輩は猫である～髙橋の名前はまだ無い。\n" * 3, "cp932"),
        ("название\n" + "Мастер и Маргарита\nПреступление и наказание\nСобачье сердце\n", "koi8_r"),
        ("название\n" + "Мастер и Маргарита\nПреступление и наказание\nСобачье сердце\n", "cp866"),
        ("title\nÄpfel und Öl für alle\nGroße Bücher\n", "cp850"),
        ("title\n" + "שלום ירושלים\nספר הארץ\nסרט ישראלי חדש\n", "cp1255"),
        ("title\nكتاب المدينة\nفيلم القاهرة\n", "cp1256"),
        ("title\n书籍 北京\n电影 产品 城市\n", "gb18030"),
        ("title\n책 서울\n영화 상품 도시\n", "euc_kr"),
        ("title,price\nThé à la menthe,5 €\nCafé très noir,6 €\nForêt élève,7 €\n", "iso8859_15"),
        (
            "title\n" + "województwo śląskie\nsaldo średnie i opłata miesięczna\nkonto oszczędnościowe dla młodych\n" * 3,
            "iso8859_2",
        ),
        (
            "title\n" + "województwo śląskie\nsaldo średnie i opłata miesięczna\nkonto oszczędnościowe dla młodych\n" * 3,
            "cp1250",
        ),
        ("title\n" + "£1 JUMBO BAG SÜD\n£2 CANDLE NORD\nLANTERN SÜD\n" * 20, "cp1252"),
        ("title,price\nTea,5\n", "utf-16-le"),
        ("title,price\n" + "".join(f'"Tisch {n} für draußen","{n},99 €"\n' for n in range(99)), "cp1252"),
        ("title,price\n" + "".join(f"Tea {n},£{n}.50\n" for n in range(99)), "cp1252"),
        ("title\nПривет\n", "utf-8"),
        ("title\nПривет\n", "utf-16"),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding=encoding)
    form = detect_format(tmp_path / "a.csv").settings
    assert (tmp_path / "a.csv").read_bytes().decode(form.encoding) == text
    assert form.encoding.replace("cp932", "shift_jis") == encoding.replace("cp932", "shift_jis")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1251"])
@pytest.mark.parametrize("cut", [61, 62])
def test_the_start_of_a_file_is_enough(tmp_path: Path, encoding: str, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (module, encodings):
        monkeypatch.setattr(one, "SAMPLE_BYTES", cut)
    (tmp_path / "a.csv").write_text("имя;книга\n" + "Привет дорогой друг;Мастер и Маргарита\n" * 9, encoding=encoding)
    form = detect_format(tmp_path / "a.csv").settings
    assert (form.encoding, form.separator) == (encoding, ";")


def test_a_header_is_told_from_values() -> None:
    assert missing_header_reason([["user", "item"], ["a", "x"]]) == ""
    assert missing_header_reason([["a", "7"], ["b", "8"]]) == "the first line holds the number 7, and names are not numbers"
    assert "'a', which is a value of the same column below" in missing_header_reason([["a", "x"], ["b", "y"], ["a", "z"]])


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("a.xlsx", "a spreadsheet", "CSV UTF-8"),
        ("a.feather", "a binary table", "Parquet"),
        ("a.tar", "an archive", "Unpack"),
        ("a.sqlite", "a database", "CSV"),
    ],
)
def test_other_kinds_of_files_are_refused_with_a_way_out(tmp_path: Path, name: str, what: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=f"{what}.* is not read") as caught:
        detect_format(tmp_path / name)
    assert hint in caught.value.hint


def test_lines_end_only_where_they_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Report\u2028of\x85May\na,b\nx,2\ny,3\n", newline="")
    assert detect_format(tmp_path / "a.csv").settings == FileFormat(skip=1)
    (tmp_path / "a.csv").write_bytes(b"a,b\rx,2\ry,3\r")
    assert detect_format(tmp_path / "a.csv").settings == FileFormat()


def test_a_name_may_have_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"user\nid",item_id\nx,2\ny,3\n')
    assert detect_format(tmp_path / "a.csv").settings == FileFormat()


def test_a_quote_without_its_pair_before_much_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('user_id,item_id\n"5 inch,1\n' + f"{'y' * 300},3\n" * 499)
    assert detect_format(tmp_path / "a.csv").settings == FileFormat(quote="")


def test_an_encoding_that_is_not_what_it_seems_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\0\0a\0\0\0,\1\0\0\2" * 9)
    with pytest.raises(DataError, match="the file is binary"):
        detect_format(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("a,b\nx\0y,2\nxyz,3\n")
    assert detect_format(tmp_path / "a.csv").settings == FileFormat()
    (tmp_path / "a.csv").write_bytes("\ufeffa,b\n".encode() + b"\xe4,1\n")
    with pytest.raises(DataError, match="the text seems to be utf-8 and is not"):
        detect_format(tmp_path / "a.csv")


def test_parquet_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PAR1....")
    with pytest.raises(DataError, match="a Parquet file has another suffix"):
        detect_format(tmp_path / "a.csv")


def test_the_draft_says_when_the_month_is_a_guess(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user_id": [f"u{n % 5}" for n in range(40)],
            "item_id": [f"i{n % 7}" for n in range(40)],
            "date": [f"{n % 12 + 1:02}/{n % 11 + 1:02}/2024" for n in range(40)],
        }
    )
    log.write_csv(tmp_path / "interactions.csv")
    assert "%d/%m/%Y fits date as well: check which number is the month" in draft(tmp_path)
