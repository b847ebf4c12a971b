import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.dataset import open_tables
from recall.data.profile import Profile, concentration, profile

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "city": {"side": "user", "kind": "categorical"},
    "device": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
    "genres": {"side": "item", "kind": "bag"},
}


def config(**data: object) -> RunConfig:
    tables = {"users": "users.parquet", "items": "items.parquet", "time": "at", "attributes": ["title"]}
    return parse_config({"data": {**tables, **data}, "fields": FIELDS})


def profiled(folder: Path, log: pl.DataFrame, **data: object) -> Profile:
    log.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"user_id": ["a", "b", "c"], "city": ["Rome", None, "Rome"]}).write_parquet(folder / "users.parquet")
    items = pl.DataFrame({"item_id": [1, 2], "genres": [["x", "y"], ["x"]], "title": ["A", "B"], "size": [{"w": 1}, {"w": 2}]})
    items.write_parquet(folder / "items.parquet")
    run = config(**data)
    return profile(run, open_tables(run.data, folder))


def log(times: list[object]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": ["a", "a", "a", "b"], "item_id": [1, 2, 1, 1], "at": times, "device": ["tv", "tv", None, "web"]}
    )


def test_counts_missing_and_different_values_and_uses(tmp_path: Path) -> None:
    found = profiled(tmp_path, log([datetime.datetime(2024, month, 1) for month in (1, 1, 2, 4)]))
    assert found.rows == {"interactions": 4, "users": 3, "items": 2}
    assert (found.per_user.tolist(), found.per_item.tolist()) == ([3, 1], [3, 1])
    columns = {(one.table, one.column): one for one in found.columns}
    assert [(one.use, one.missing, one.different, one.examples[0]) for one in found.columns if one.table == "interactions"] == [
        ("id of the user", 0, 2, "a"),
        ("id of the item", 0, 2, "1"),
        ("time", 0, 3, "2024-01-01 00:00:00"),
        ("field device (categorical)", 1, 2, "tv"),
    ]
    genres, title, size = (columns["items", name] for name in ("genres", "title", "size"))
    assert (genres.type, genres.use, genres.different) == ("list of string", "field genres (bag)", 2)
    assert genres.examples == ("x", "y")
    assert (title.use, size.type, size.different) == ("attribute for filters", "struct", 0)
    assert columns["users", "city"].missing == 1


def test_a_column_that_is_not_what_its_format_says_has_no_values(tmp_path: Path) -> None:
    frame = log([1, 2, 3, 4]).with_columns(device=pl.Series(["01.02.2024", "?", None, "x"]))
    found = profiled(tmp_path, frame, formats={"interactions": {"times": {"device": "%d.%m.%Y"}}})
    (device,) = (one for one in found.columns if one.column == "device")
    assert (device.type, device.rows, device.examples) == ("date", 0, ())


def test_an_impossible_time_is_not_on_the_time_line(tmp_path: Path) -> None:
    found = profiled(tmp_path, log([1e20, 1.7e9, 1.7e9 + 60, 1.7e9 + 120]))
    assert (found.first, sum(found.periods.values())) == ("2023-11-14 22:13:20", 3)


def test_the_time_line_has_periods_without_rows_too(tmp_path: Path) -> None:
    found = profiled(tmp_path, log([datetime.datetime(2024, month, 1) for month in (1, 1, 2, 4)]))
    assert (found.first, found.last) == ("2024-01-01 00:00:00", "2024-04-01 00:00:00")
    assert sum(found.periods.values()) == 4
    assert len(found.periods) == 14  # weeks
    months = profiled(tmp_path, log([datetime.datetime(year, 1, 1) for year in (2022, 2022, 2023, 2023)]))
    assert next(iter(months.periods.items())) == ("2022-01", 2)
    assert (len(months.periods), months.periods["2022-07"]) == (13, 0)
    years = profiled(tmp_path, log([datetime.datetime(year, 1, 1) for year in (1970, 2024, 2024, 9999)]))
    assert list(years.periods)[-1] == "9999"
    assert len(years.periods) == 24


@pytest.mark.parametrize(
    ("times", "first", "periods"),
    [
        ([1_700_000_000, 1_700_000_100, 1_700_003_600, 1_700_007_200], "2023-11-14 22:13:20", [2, 1, 1]),
        ([1, 2, 3, 100], "1", [3, 0, 0, 1]),
        (["no", "time", "at", "all"], "", []),
    ],
)
def test_times_in_other_units(tmp_path: Path, times: list[object], first: str, periods: list[int]) -> None:
    found = profiled(tmp_path, log(times))
    assert (found.first, list(found.periods.values())) == (first, periods)


def test_without_a_time_or_a_field_s_column_the_rest_is_profiled(tmp_path: Path) -> None:
    found = profiled(tmp_path, log([1, 2, 3, 4]).drop("device"), time=None)
    assert (found.periods, found.rows["interactions"]) == ({}, 4)
    assert {one.use for one in found.columns} == {"id of the user", "id of the item", ""}


def test_concentration_of_interactions() -> None:
    x, y = concentration(np.array([6, 3, 1]))
    assert np.allclose(x, [0, 100 / 3, 200 / 3, 100])
    assert np.allclose(y, [0, 60, 90, 100])
    assert len(concentration(np.ones(5_000, dtype=np.int64))[0]) == 101
