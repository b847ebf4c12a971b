from pathlib import Path

import polars as pl
import pytest

from recall.config import FileFormat
from recall.data.scaffold import detect as module
from recall.data.scaffold import draft
from recall.data.scaffold.detect import detect, headless, swapped_pattern, time_pattern
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
        ("a.txt", 'a\tb\n5" disk\t2\nx\t3\n', FileFormat(separator="\t")),
        ("a.csv", "name\nx\n", FileFormat()),
    ],
)
def test_separator_and_header_are_found(tmp_path: Path, name: str, text: str, form: FileFormat) -> None:
    (tmp_path / name).write_text(text)
    found = detect(tmp_path / name)
    assert found.form == form
    assert set(found.reasons) == form.model_fields_set


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("title\nÄpfel und Öl für alle\n", "cp1252"),
        ("название\nМастер и Маргарита\nПреступление и наказание\n", "cp1251"),
        ("title\n" + "吾輩は猫である。名前はまだ無い。\n" * 3, "shift_jis"),
        ("title\nПривет\n", "utf-8"),
        ("title\nПривет\n", "utf-16"),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding=encoding)
    form = detect(tmp_path / "a.csv").form
    assert (tmp_path / "a.csv").read_bytes().decode(form.encoding) == text
    assert form.encoding.replace("cp932", "shift_jis") == encoding


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1251"])
@pytest.mark.parametrize("cut", [61, 62])
def test_the_start_of_a_file_is_enough(tmp_path: Path, encoding: str, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", cut)
    (tmp_path / "a.csv").write_text("имя;книга\n" + "Привет дорогой друг;Мастер и Маргарита\n" * 9, encoding=encoding)
    form = detect(tmp_path / "a.csv").form
    assert (form.encoding, form.separator) == (encoding, ";")


def test_a_header_is_told_from_values() -> None:
    assert headless([["user", "item"], ["a", "x"]]) == ""
    assert headless([["a", "7"], ["b", "8"]]) == "the first line holds the number 7, and names are not numbers"
    assert "'a', which is a value of the same column below" in headless([["a", "x"], ["b", "y"], ["a", "z"]])


def test_parquet_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PAR1....")
    with pytest.raises(DataError, match="a Parquet file has another suffix"):
        detect(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("days", "pattern", "other"),
    [
        (["01/02/2024", "11/12/2024"], "%m/%d/%Y", "%d/%m/%Y"),
        (["01/22/2024", "11/12/2024"], "%m/%d/%Y", ""),
        (["22/01/2024", "11/12/2024"], "%d/%m/%Y", ""),
        (["2024.02.01"], "%Y.%m.%d", "%Y.%d.%m"),
        (["1 Feb 2024"], "%d %b %Y", ""),
    ],
)
def test_a_day_that_may_be_the_month_is_noticed(days: list[str], pattern: str, other: str) -> None:
    values = pl.Series("date", days)
    assert (time_pattern(values), swapped_pattern(values, pattern)) == (pattern, other)


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
