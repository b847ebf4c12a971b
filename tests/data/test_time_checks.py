from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recall.config import LastSplit, Split, TimeSplit
from recall.data.findings import Finding
from recall.data.time_checks import time_findings
from recall.data.times import Times

NOW = datetime(2024, 6, 1, tzinfo=UTC)
LAST = LastSplit(by="last")
START = 1_700_000_000


def messages(values: list[object], rule: Split = LAST, users: list[str] | None = None) -> list[str]:
    times = Times.of(pl.Series(values), "e.csv")
    who = pl.Series(users or ["u"] * len(values))
    found = list(time_findings(times, who, rule, Finding, NOW))
    assert all(finding.level == "warning" for finding in found)
    return [finding.message for finding in found]


def seconds(n: int) -> list[int]:
    return [START + 1000 * step for step in range(n)]


@pytest.mark.parametrize("each", [1, 10**3, 10**6, 10**9])
def test_unix_times_in_any_unit_give_no_findings(each: int) -> None:
    assert messages([time * each for time in seconds(50)]) == []


def test_positions_and_dates_give_no_findings() -> None:
    assert messages(list(range(1, 500))) == []
    assert messages([20240101 + day for day in range(28)]) == []
    assert messages([f"2023-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]) == []


@pytest.mark.parametrize(("factor", "name"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")])
def test_mixed_units_in_a_column_are_named(factor: int, name: str) -> None:
    values = seconds(40)
    values[7] *= factor
    (message,) = messages(values)
    assert message.startswith(f"in 1 of 40 rows the time looks like {name} among seconds")
    assert f"such as {values[7]}, first in row 8, and for 1 of 1 users it is the latest" in message


def test_two_equally_frequent_units_are_found() -> None:
    values = [time * (1000 if place % 2 else 1) for place, time in enumerate(seconds(40))]
    (message,) = messages(values, users=[f"u{place // 2}" for place in range(40)])
    assert "in 20 of 40 rows the time looks like" in message
    assert "for 20 of 20 users it is the latest" in message


@pytest.mark.parametrize("odd", [4_102_444_800 - 1, 253_402_214_400])
def test_a_future_sentinel_is_reported(odd: int) -> None:
    (message,) = messages([*seconds(40), odd])
    assert "in 1 of 41 rows the time is in the future" in message


@pytest.mark.parametrize("odd", [0, -1, -2_208_988_800])
def test_a_past_sentinel_is_reported(odd: int) -> None:
    (message,) = messages([odd, *seconds(40)])
    assert message == (
        f"in 1 of 41 rows the time lies before 1990, such as {odd}, first in row 1: "
        "a placeholder for a missing date, such as 0 or -1, or another unit?"
    )


@pytest.mark.parametrize("odd", ["9999-12-31", "2100-01-01T00:00", "1970-01-01", "1900-01-01 00:00", "0001-01-01"])
def test_sentinel_dates_are_shown_as_dates(odd: str) -> None:
    (message,) = messages([*(f"2024-01-{day:02}" for day in range(1, 29)), odd])
    assert f"such as {odd[:10]}T00:00:00, first in row 29" in message


def test_an_outlier_time_is_reported() -> None:
    (message,) = messages([*seconds(100), START - 20 * 365 * 86_400])
    assert "is far from all others" in message
    assert "first in row 101" in message


def test_a_long_tail_of_old_times_is_not_an_outlier() -> None:
    rng = np.random.default_rng(0)
    assert messages((START - rng.exponential(400 * 86_400, 3000)).astype(int).tolist()) == []


def test_other_numeric_times_have_outliers_too() -> None:
    (message,) = messages([*range(1, 200), 10**9])
    assert "more than 1000 times the median" in message
    (message,) = messages([*range(1, 200), -1])
    assert "negative among positive ones" in message


def test_mixed_offsets_are_reported_as_read_in_utc() -> None:
    (message,) = messages(["2024-01-01T10:00", "2024-01-01T10:05Z", "2024-01-01T10:06:00"])
    assert message.startswith("2 of 3 times have no offset from UTC")


def test_a_limit_in_another_unit_is_reported_with_the_converted_value() -> None:
    rule = TimeSplit(by="time", test=START * 1000 + 5_000_000, valid=START - 5)
    after, before = messages(list(seconds(20)), rule)
    assert "data.split.test = 1700005000000 lies after the last time" in after
    assert "divided by 1,000 it would be 1700005000" in after
    assert "data.split.valid = 1699999995 lies before all but the first time" in before
    assert "in another unit" not in before


def test_a_limit_in_seconds_for_milliseconds_and_dates_is_reported() -> None:
    (message,) = messages([time * 1000 for time in seconds(20)], TimeSplit(by="time", test=START + 5000))
    assert "multiplied by 1,000 it would be 1700005000000" in message
    dates = [f"2023-11-{day:02}" for day in range(1, 30)]
    assert messages(dates, TimeSplit(by="time", test=START)) == []
    (message,) = messages(dates, TimeSplit(by="time", test=START * 1000))
    assert "divided by 1,000 it would be 1700000000" in message


def test_shares_are_not_checked_as_limits() -> None:
    assert messages(list(seconds(20)), TimeSplit(by="time", test=0.9, valid=0.8)) == []
