from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import parse_config
from recall.data.checks import check
from recall.data.findings import Finding
from recall.data.outcomes import RowWeights, weight_findings
from recall.errors import DataError

positive = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


def weights(values: list[float]) -> RowWeights:
    return RowWeights.of(pl.DataFrame({"w": pl.Series(values, dtype=pl.Float64)}), "w", "e.csv, column 'w'")


def scaled(values: list[float]) -> list[float]:
    return weights(values).scaled(np.arange(len(values))).to_list()


@given(positive, st.integers(-900, 900))
def test_scaling_all_weights_by_a_power_of_two_is_bit_identical(values: list[float], power: int) -> None:
    assert scaled(values) == scaled([value * 2.0**power for value in values])


@given(positive, st.floats(1e-250, 1e250))
def test_scaling_all_weights_changes_only_rounding(values: list[float], factor: float) -> None:
    assert scaled([value * factor for value in values]) == pytest.approx(scaled(values), rel=1e-6)


@given(positive)
def test_the_mean_weight_is_one(values: list[float]) -> None:
    assert np.mean(scaled(values)) == pytest.approx(1.0, rel=1e-5)


def test_equal_weights_become_exactly_1() -> None:
    for value in (1.0, 0.1, 0.3, 7.7, 1e20, 1e300, 1e-300):
        assert scaled([value] * 7) == [1.0] * 7


def test_other_parts_are_divided_by_the_mean_of_the_training_weights() -> None:
    assert weights([1.0, 3.0, 100.0]).scaled(np.array([0, 1])).to_list() == [0.5, 1.5, 50.0]


def test_a_dominant_weight_is_reported_with_its_row() -> None:
    with pytest.raises(DataError) as refused:
        weights([1.0, 2.0, 1e300, 1.0]).scaled(np.arange(4))
    assert "the largest is 1e+300, in row 3" in str(refused.value.hint)


@pytest.mark.parametrize("values", [[1.0, 1e60, 1.0], [1e-60, 1.0, 1e300]])
def test_weights_whose_sum_overflows_name_column_and_row(values: list[float]) -> None:
    with pytest.raises(DataError, match=r"e\.csv, column 'w': .* too far from the mean weight .* first in row 1"):
        scaled(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 0], "not positive: 0.0, first in row 2"),
        ([1, -2], "not positive: -2.0"),
        ([1, float("inf")], "infinite"),
        ([1, float("nan")], "no weight, first in row 2"),
        ([1, None], "1 of 2 rows have no weight"),
    ],
)
def test_invalid_weights_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        weights(values)


def test_the_range_of_weights_names_both_rows() -> None:
    found = weights([5.0, 2.0, 40.0, 3.0]).range(np.array([0, 1, 2]))
    assert found is not None
    assert (found.smallest, found.smallest_row, found.largest, found.largest_row) == (2.0, 2, 40.0, 3)
    assert (found.rows, found.share, found.mean) == (3, pytest.approx(40 / 47), pytest.approx(47 / 3))
    assert not found.extreme  # with few rows, one may dominate


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ([1.0, 2.0] * 50, "note"),
        ([1e20] * 100, "warning"),
        ([1.0] * 99 + [50.0], "warning"),
        ([1e-8] + [1.0] * 99, "warning"),
    ],
)
def test_check_reports_the_range_and_a_dominant_row(tmp_path: Path, values: list[float], level: str) -> None:
    rows = "".join(f"u{n % 7},i{n % 5},{value}\n" for n, value in enumerate(values))
    (tmp_path / "e.csv").write_text("user_id,item_id,w\n" + rows)
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    config = parse_config({"data": {"interactions": "e.csv", "weight": "w"}, "fields": fields})
    found = [finding for finding in check(config, tmp_path) if finding.column == "w"]
    assert [finding.level for finding in found] == [level]
    assert f"(row {values.index(max(values)) + 1}," in found[0].message
    assert f"(row {values.index(min(values)) + 1})" in found[0].message


def test_no_weight_column_gives_no_findings() -> None:
    plain = RowWeights.of(pl.DataFrame({"x": [1, 2]}), None, "")
    found: list[Finding] = list(weight_findings(plain.range(np.arange(2)), None))
    assert (found, plain.scaled(np.arange(2)).to_list()) == ([], [1.0, 1.0])
