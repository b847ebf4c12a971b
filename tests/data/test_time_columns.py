import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.data.roles import numbers_of
from recall.data.time_columns import TimeCandidate, first_time_column, rank_time_column

USERS, ITEMS = np.arange(1_200) // 6, np.arange(1_200) % 12


def found(name: str, values: Any) -> TimeCandidate | None:
    series = pl.Series(name, values)
    return rank_time_column(series, numbers_of(series), USERS[: len(series)], ITEMS[: len(series)])


SECONDS = [1_600_000_000 + 97 * n for n in range(60)]


@pytest.mark.parametrize(
    ("name", "values", "rank", "reason"),
    [
        ("x", SECONDS, 1.75, "unix seconds"),
        ("x", [str(one) for one in SECONDS], 1.75, "unix seconds"),
        ("x", [one * 1000 for one in SECONDS], 1.75, "unix milliseconds"),
        ("x", [one * 1_000_000 for one in SECONDS], 1.75, "unix microseconds"),
        ("played_at", SECONDS, 2, "unix seconds"),
        ("注文日時", SECONDS, 2, "unix seconds"),
        ("x", [one + 0.25 for one in SECONDS], 1.75, "unix seconds"),
        ("Seen on", [45_000 + n // 3 for n in range(60)], 2, "as spreadsheets count them"),
        ("date", [45_000.25 + 7 * ((n * 17) % 60) for n in range(60)], 2, "as spreadsheets count them"),
        ("x", [20_200_100 + 1 + n % 28 for n in range(60)], 2, "year, month and day"),
        ("date", [1_600_000_000 + 86_400 * (n * 17 % 25) for n in range(1_200)], 2, "unix seconds"),  # few days, many rows
        ("date", [45_000 + n * 17 % 25 for n in range(1_200)], 2, "as spreadsheets count them"),
        ("x", [datetime.date(2024, 1, 1) + datetime.timedelta(n) for n in range(60)], 2, "dates or times"),
        ("x", [f"2024-01-{1 + n % 28:02}" for n in range(60)], 2, "ISO 8601"),
        ("x", [f"2024-01-01T00:00:{n:02}" for n in range(60)], 2, "ISO 8601"),
        ("x", [f"12/{1 + n % 28}/2010 8:26" for n in range(60)], 0, "write them in ISO 8601"),
        ("position", [n % 6 + 100 * (n // 6) for n in range(60)], 1, "order the rows of a user"),
        ("position", [5 - n % 6 + 60 * (n // 6) for n in range(60)], 1, "order the rows of a user"),  # the file is not in order
        ("time", np.random.default_rng(0).permutation(60) * 10, 1, "not in their order"),
        ("t.time", list(range(60)), 1, "order the rows of a user"),
        ("DAY", [1 + 11 * n for n in range(60)], 1, "order the rows of a user"),  # of two years
    ],
)
def test_times_are_recognised_by_their_values(name: str, values: Any, rank: float, reason: str) -> None:
    candidate = found(name, values)
    assert candidate is not None
    assert candidate.rank[0] == rank
    assert reason in candidate.reason


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sometimes", [n % 2 for n in range(60)]),
        ("day", [1 + n // 2 for n in range(60)]),  # of a month
        ("sometimes", list(range(60))),
        ("runtime", [90 + n for n in range(60)]),
        ("timezone", ["UTC", "CET"] * 30),
        ("time_of_day", ["morning", "noon"] * 30),
        ("time_of_day", [n % 10 for n in range(60)]),  # few distinct values
        ("watch_time", list(range(60))),  # an outcome
        ("response_time", np.random.default_rng(0).permutation(60) * 10),  # not sequential
        ("order_id", SECONDS),
        ("phone", SECONDS),
        ("資料番号", SECONDS),
        ("x", [1_100_000_000 + 7_919_931 * (n % 12 * 3 + n // 12 % 3) for n in range(60)]),  # bar codes of three copies an item
        ("x", list(range(60))),
        ("when", [None] * 60),
        ("when", [True, False] * 30),
        ("release_time", [1_600_000_000 + n % 12 for n in range(60)]),  # an item column
        ("signup_time", [1_600_000_000 + n // 6 for n in range(60)]),  # a user column
        ("price", [9.99 + n for n in range(60)]),
        ("days", [20_209_900 + n for n in range(60)]),  # month 99 does not exist
    ],
)
def test_names_and_values_like_times_are_not_always_times(name: str, values: Any) -> None:
    assert found(name, values) is None


def test_a_time_column_may_lack_a_few_values() -> None:
    candidate = found("ts", [None, *SECONDS[1:]])
    assert candidate is not None
    assert candidate.readable
    assert "1.7% of the rows have none" in candidate.reason
    candidate = found("ts", [*[None] * 15, *SECONDS[15:]])
    assert candidate is not None
    assert not candidate.readable


def test_a_log_with_one_visit_per_user_still_has_times() -> None:
    assert found("timestamp", [1_600_000_000 + 500 * (n // 6) for n in range(60)]) is not None


def test_unix_times_without_a_name_lose_against_dates() -> None:
    unnamed = found("x", SECONDS)
    dates = found("貸出日", [datetime.date(2024, 1, 1 + n % 28) for n in range(60)])
    assert unnamed is not None
    assert dates is not None
    assert dates.rank > unnamed.rank


@pytest.mark.parametrize("values", [[1.7e9, float("nan")], [1.7e9, float("inf")], [1, 2**64 - 1], ["1.7e9", "inf"]])
def test_numbers_among_possible_times_are_not_parsed(values: list[object]) -> None:
    frame = pl.DataFrame({"time": pl.Series(values, strict=False), "day": ["2024-01-31", "2024-02-01"]})
    numbers, dates = TimeCandidate((2, 1, 50), "unix times"), TimeCandidate((2, 0, 50), "dates", holds_dates=True)
    assert first_time_column(frame, {"time": numbers, "day": dates}) == "time"


def test_of_two_columns_of_dates_the_earlier_one_is_the_time() -> None:
    dates = TimeCandidate((2, 0, 2), "dates", holds_dates=True)
    frame = pl.DataFrame({"arrival": ["2024-01-31", "2024-02-01"], "booked": ["2024-01-02", "2024-01-03"]})
    assert first_time_column(frame, dict.fromkeys(frame.columns, dates)) == "booked"


@pytest.mark.parametrize(("name", "days", "expected"), [("searched", -9, "searched"), ("closed", 9, "checkin_date")])
def test_times_of_day_before_the_dates_of_a_better_name_are_the_time(name: str, days: int, expected: str) -> None:
    dates = pl.Series([datetime.datetime(2024, 3, 1 + n % 28) for n in range(40)])
    frame = pl.DataFrame({"checkin_date": dates.dt.date(), name: dates + datetime.timedelta(days=days, hours=10)})
    named, unnamed = TimeCandidate((2, 2, 28), "", holds_dates=True), TimeCandidate((2, 0, 28), "", holds_dates=True)
    assert first_time_column(frame, {"checkin_date": named, name: unnamed}) == expected
