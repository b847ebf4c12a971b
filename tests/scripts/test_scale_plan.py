import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scale_plan import DATA, PAGE, check_page
from scaling.formulas import Book, linear, power, shown, tails
from scaling.measuring import read
from scaling.page import Page, page

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path((tmp_path / "scale.json").write_text(DATA.read_text()) and tmp_path / "scale.json")


def test_a_number_that_was_edited_is_found(tmp_path: Path) -> None:
    edited = tmp_path / "scale.md"
    lines = PAGE.read_text().splitlines()
    at = next(place for place, line in enumerate(lines) if "| 0.99" in line)
    edited.write_text("\n".join([*lines[:at], lines[at].replace("| 0.99", "| 0.98", 1), *lines[at + 1 :]]) + "\n")
    found = check_page(DATA, edited)
    assert [line for line in found[3:] if line.startswith(("+", "-"))] == [
        f"-{edited.read_text().splitlines()[at]}",
        f"+{lines[at]}",
    ]


def test_a_measurement_that_was_edited_is_found(data: Path) -> None:
    whole = read(data)
    next(iter(whole["measurements"]["index"].values()))["figures"]["recall"] = 0.5
    data.write_text(json.dumps(whole))
    assert check_page(data, PAGE)


def test_a_formula_is_evaluated_as_it_is_printed() -> None:
    book = Book()
    first = book.add(linear({100: 1_300.0, 300: 1_700.0}), "B", "a line")
    second = book.add(power({10: 2.0, 100: 8.0, 1_000: 32.0}), "us", "a power law")
    assert (first.text, first.shown(N=1e6)) == ("1100 + 2 * N", "≈ 2.00 MB (F1)")
    assert second(N=10_000) == pytest.approx(128, rel=1e-3)
    assert (second.name, eval(second.text, {"N": 10_000})) == ("F2", second(N=10_000))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (999.4, "B", "999 B"),
        (1_234, "B", "1.23 kB"),
        (33.6e9, "B", "33.6 GB"),
        (0.01234, "s", "0.0123 s"),
        (7200, "s", "2.00 h"),
        (0, "B", "0 B"),
    ],
)
def test_a_number_has_three_digits_and_a_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_tails_are_those_of_the_slowest_shard() -> None:
    assert tails([2.0] * 201, (1, 8)) == {1: (2.0, 2.0, 2.0), 8: (2.0, 2.0, 2.0)}
    uniform = [(place / 200) ** (1 / 4) for place in range(201)]
    found = tails(uniform, (1, 4))
    assert found[4][0] == pytest.approx(0.5 ** (1 / 4), abs=0.01)
    assert found[4][1] == pytest.approx(0.99 ** (1 / 4), abs=0.01)
    assert tails(uniform, (4,), seed=0) == tails(uniform, (4,), seed=0)


def test_the_extrapolated_memory_of_an_index_is_its_bytes_times_the_items() -> None:
    whole = read(DATA)
    largest = whole["measurements"]["index"][max(whole["measurements"]["index"], key=int)]["figures"]["bytes_per_item"]
    assert Page(whole).codes(N=1e9) == pytest.approx(1e9 * largest, rel=1e-3)


def test_an_output_of_a_case_is_written_into_the_page(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    output.write_text("met     a requirement: 3 of 3\nspark: met\n")
    command = [sys.executable, "scripts/scale_plan.py", "record", "spark", "--read", str(output), "--data", str(data)]
    docs = tmp_path / "scale.md"
    subprocess.run([*command, "--docs", str(docs)], cwd=ROOT, check=True)
    assert "met     a requirement: 3 of 3\nspark: met\n```" in docs.read_text()
    output.write_text("met     a requirement: 3 of 3\n")
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode


def test_a_missing_measurement_is_named(data: Path) -> None:
    whole: dict[str, Any] = read(data)
    del whole["measurements"]["shards"]
    with pytest.raises(SystemExit, match="there is no measurement of shards"):
        page(whole)


@pytest.mark.slow
def test_measurements_are_kept_and_not_repeated(tmp_path: Path) -> None:
    data = tmp_path / "scale.json"
    command = [sys.executable, "scripts/scale_plan.py", "measure", "solver", "users", "--sizes", "3000", "--data", str(data)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = read(data)["measurements"]
    assert found["solver"]["3000"]["figures"]["interactions"] <= 3_000
    assert 100 < found["users"]["3000"]["figures"]["bytes"] < 1_000
    assert found["users"]["3000"]["command"] == "python scripts/scale_plan.py measure users --sizes 3000"
    before = data.stat().st_mtime_ns
    subprocess.run(command, cwd=ROOT, check=True)
    assert data.stat().st_mtime_ns == before
