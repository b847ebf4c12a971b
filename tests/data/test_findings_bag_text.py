from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.config import parse_config
from recall.data.checks import check
from recall.data.findings import Finding, bag_findings, guess_separator

GENRES = [("Crime", "Drama"), ("Drama",), ("Comedy", "Drama"), ("Crime",)] * 5


def found(values: pl.Series, separator: str = "|") -> dict[str, str]:
    return {finding.message: finding.level for finding in bag_findings(values, separator, Finding)}


def cells(separator: str) -> pl.Series:
    return pl.Series([separator.join(bag) for bag in GENRES])


@pytest.mark.parametrize("separator", ["|", ", ", ",", ";", "/", " | "])
def test_a_correctly_split_bag_gives_no_findings(separator: str) -> None:
    assert found(cells(separator), separator) == {}
    assert found(pl.Series([list(bag) for bag in GENRES])) == {}


@pytest.mark.parametrize("separator", [", ", ",", "; ", ";", " / ", "\t", "、", "，", "؛ ", "；", "، "])
def test_an_unused_separator_is_named_with_a_better_one(separator: str) -> None:
    mark = separator if separator == "\t" else separator.strip()
    message = f"no cell holds the separator '|', while 10 of 20 hold {mark!r}: is separator = {mark!r} meant?"
    assert found(cells(separator)) == {message: "warning"}


def test_duplicate_empty_or_inconsistently_cased_values_are_reported() -> None:
    assert found(cells(" | ")) == found(cells("| ")) == {}  # which are removed
    (cases,) = found(pl.Series(["Crime|drama", "Drama|Crime"]))
    assert cases == "values differ in case only, such as 'Drama', 'drama': choose one"
    assert found(pl.Series(["a||b", "a|b|", "b|a", ""])) == {
        "2 bags have an empty value between separators; it does not count": "note"
    }
    assert found(pl.Series(["a|b|a", "b|a"])) == {"1 bags hold a value twice, such as 'a|b|a': it counts twice": "note"}


def test_empty_values_between_separators_are_not_duplicates() -> None:
    assert list(found(pl.Series(["a||b|", "|b||c"]))) == ["2 bags have an empty value between separators; it does not count"]


def test_list_values_are_checked_too() -> None:
    (message,) = found(pl.Series([["Crime ", "drama"], ["Drama", "Crime"], None]))
    assert message == "values differ in case only, such as 'Drama', 'drama': choose one"
    assert found(pl.Series([[1, 2], [2, 3]])) == {}


def test_a_missing_separator_is_reported_for_tags_split_by_blanks() -> None:
    tags = pl.Series([f"s{n % 7} t{n % 5} u{n % 3}" for n in range(200)])
    (message,) = found(tags)
    assert message == "no cell holds the separator '|', while 200 of 200 hold ' ': is separator = ' ' meant?"
    assert found(tags, " ") == {}
    assert found(pl.Series(["New York", "Los Angeles", "Old Town", "San Jose"] * 9)) == {}


def test_a_separator_with_an_extra_blank_is_reported() -> None:
    (message,) = found(cells(","), ", ")
    assert message == "no cell holds the separator ', ', while 10 of 20 hold ',': is separator = ',' meant?"
    assert found(cells(", "), ",") == {}


@pytest.mark.parametrize("form", ["['{}', '{}']", '["{}", "{}"]', "{{{},{}}}", "('{}', '{}')"])
def test_lists_written_as_text_are_reported(form: str) -> None:
    (message,) = found(pl.Series([form.format("Crime", "Drama"), form.format("Drama", "War")]))
    assert message.startswith("2 of 2 cells look like lists written as text")


def test_single_values_give_no_findings() -> None:
    assert found(pl.Series(["Drama", "Crime", None, ""])) == {}


@pytest.mark.parametrize("separator", ["|", ", ", ",", "; ", ";", "/", " | ", "、", "， ", "؛ "])
def test_the_separator_of_a_column_is_detected(separator: str) -> None:
    assert guess_separator(cells(separator)) == separator.strip()


def test_prose_has_no_detected_separator() -> None:
    titles = [f"Title {n}, The ({1900 + n}); or, how it was {n * 7}" for n in range(60)]
    assert guess_separator(pl.Series(titles)) == ""
    assert guess_separator(pl.Series(["Drama", "Crime"])) == ""


def test_check_covers_bags(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id\na,x\nb,y\n")
    (tmp_path / "i.csv").write_text('item_id,genres\nx,"Crime, Drama"\ny,"Drama, Crime"\n')
    fields: dict[str, Any] = {
        "user_id": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
        "genres": {"side": "item", "kind": "bag"},
    }
    config = parse_config({"data": {"interactions": "e.csv", "items": "i.csv"}, "fields": fields})
    assert any("is separator = ',' meant?" in finding.message for finding in check(config, tmp_path))


def test_two_parts_that_each_have_their_place_are_no_bag() -> None:
    names = [f"Smith {n % 5}, J. {n % 7}" for n in range(100)]
    assert guess_separator(pl.Series(names)) == ""
    assert guess_separator(pl.Series([*names, "J. 1, Smith 2"])) == ","


@pytest.mark.parametrize(
    "texts",
    [
        ["Nurse (m/f/d)", "Senior Nurse (m/f/d)", "Baker (m/f/d)", "Nurse"] * 5,  # the same number of parts, each in its place
        [f"/img/{number % 8}.png" for number in range(40)],
        ["Kyoto・Nara in 3 days", "Kyoto・Nara in 4 days", "Kyoto・Nara in 5 days", "Tokyo in 2 days"] * 5,
    ],
)
def test_parts_of_a_fixed_form_are_no_list(texts: list[str]) -> None:
    assert guess_separator(pl.Series(texts)) == ""
    assert guess_separator(pl.Series([*texts, "m/f", "f/m/x", "Nara・Kyoto", "1.png/img"] * 2)) != ""
