from functools import partial

import polars as pl
import pytest

from recall.config.schema import BagField, CategoricalField, NumericField
from recall.data.findings import (
    Finding,
    missing_findings,
    row_number_findings,
    spelling_findings,
    spread_findings,
    variety_findings,
)

CATEGORICAL = CategoricalField(side="item", kind="categorical")


def test_missing_values_and_nan_are_counted() -> None:
    (finding,) = missing_findings(pl.Series([1.0, None, float("nan"), 2.0]), Finding)
    assert (finding.level, finding.count) == ("note", 2)
    assert finding.message.startswith("50.0% of the rows")
    assert not list(missing_findings(pl.Series([1, 2]), Finding))


@pytest.mark.parametrize(
    ("values", "message", "count"),
    [
        (["a", " a", "b "], "begin or end with blanks, such as", 2),
        (["Male", "male", "female"], "differ in case only, such as 'Male', 'male'", 2),
        (["7", "007", "7.0", "8"], "written in several ways, such as '007', '7', '7.0'", 3),
        ([str(number) for number in range(40)] + ["many"], "words among numbers, such as 'many'", 1),
        ([f"w{number}" for number in range(40)] + ["13"], "numbers among words, such as '13'", 1),
    ],
)
def test_inconsistent_spellings_of_a_value_are_shown(values: list[str], message: str, count: int) -> None:
    (finding,) = spelling_findings(pl.Series(values), Finding)
    assert finding.level == "warning"
    assert message in finding.message
    assert finding.count == count


def test_ordinary_columns_give_no_findings() -> None:
    assert not list(spelling_findings(pl.Series(["a", "b", None, "3", "4"]), Finding))
    assert not list(spelling_findings(pl.Series([1, 2]), Finding))
    assert not list(
        spelling_findings(pl.Series([str((1 << 60) + number) for number in range(20)]), Finding)
    )  # equal in float64
    assert not list(variety_findings(pl.Series(["a", "b"] * 100), CATEGORICAL, Finding))
    assert not list(spread_findings(pl.Series([1.0, 2.0, 3.0]), NumericField(side="item", kind="numeric"), Finding))


@pytest.mark.parametrize(
    ("values", "message"),
    [(["a", "a", None], "one value only, 'a'"), ([None], "no values"), ([["a"], ["a", "a"], []], "one value only, 'a'")],
)
def test_an_uninformative_column_is_named(values: list[object], message: str) -> None:
    (finding,) = variety_findings(pl.Series(values), CATEGORICAL, Finding)
    assert finding.level == "warning"
    assert message in finding.message


def test_a_column_with_nearly_as_many_values_as_rows_is_named() -> None:
    (finding,) = variety_findings(pl.Series([f"title {number}" for number in range(200)]), CATEGORICAL, Finding)
    assert finding.count == 200
    assert "raise min_count" in finding.message
    assert not list(variety_findings(pl.Series(range(200)), NumericField(side="item", kind="numeric"), Finding))


def test_outliers_are_counted_unless_the_scale_limits_them() -> None:
    field = partial(NumericField, side="item", kind="numeric")
    values = pl.Series([0.0, 1.0] * 100 + [1000.0])
    (finding,) = spread_findings(values, field(scale="standard"), Finding)
    assert (finding.level, finding.count) == ("warning", 1)
    assert not list(spread_findings(values, field(scale="log"), Finding))
    (wide,) = spread_findings(pl.Series([0.0, 10_000.0]), field(), Finding)
    assert (wide.level, "rather than an id or time" in wide.message) == ("note", True)
    assert not list(spread_findings(pl.Series([5.0, 5.0, None]), field(), Finding))


@pytest.mark.parametrize(
    ("ids", "found"), [(["0", "1", "2"], 3), (["1", "2"], 2), (["2", "1"], 0), (["a", "b"], 0), (["1"], 0)]
)
def test_ids_equal_to_row_numbers_are_reported(ids: str, found: int) -> None:
    assert [finding.count for finding in row_number_findings(pl.Series(list(ids)), Finding)] == ([found] if found else [])


def test_text_bags_are_counted_by_value() -> None:
    bag = BagField(side="item", kind="bag")
    bags = [f"{'abcdefgh'[number % 8]}|{'stuvwxyz'[number // 8 % 8]}|{'0123'[number // 64]}" for number in range(200)]
    assert not list(variety_findings(pl.Series([*bags, "", None]), bag, Finding, "|"))
    (finding,) = variety_findings(pl.Series(["", "a|a", "a"]), bag, Finding, "|")
    assert "one value only, 'a'" in finding.message
