import datetime

import polars as pl
import pytest

from recall.data.times import Times
from recall.errors import DataError

SECOND = 1_000_000
FEBRUARY = 1_582_934_400 * SECOND  # 2020-02-29 in microseconds


def test_numbers_stay_as_they_are() -> None:
    for values in ([3, 1, 2], [0.5, -1.0, 2.0]):
        times = Times.of(pl.Series(values), "x")
        assert (times.values.to_list(), times.unit) == (values, 1)
    assert Times.of(pl.Series(["3", "-1"]), "x").values.to_list() == [3, -1]
    assert Times.of(pl.Series(["3.5", "-1"]), "x").values.to_list() == [3.5, -1.0]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([datetime.date(2020, 2, 29)]),
        pl.Series([datetime.datetime(2020, 2, 29)]),
        pl.Series([datetime.datetime(2020, 2, 29)]).cast(pl.Datetime("ns")),
        pl.Series([datetime.datetime(2020, 2, 29)]).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
        pl.Series(["2020-02-29"]),
        pl.Series(["2020-02-29T00:00:00"]),
        pl.Series(["2020-02-29 00:00:00.000"]),
        pl.Series(["2020-02-29T00:00:00Z"]),
        pl.Series(["2020-02-29T02:30:00+02:30"]),
    ],
)
def test_dates_become_microseconds_of_the_instant(values: pl.Series) -> None:
    times = Times.of(values, "x")
    assert times.values.to_list() == [FEBRUARY]
    assert times.values.dtype == pl.Int64
    assert times.unit == SECOND


def test_iso_forms_may_be_mixed() -> None:
    values = pl.Series(["2020-02-29", "2020-02-29T00:00:01", "2020-02-29 00:00:01.5", "2020-02-29T00:00:02Z"])
    assert [time - FEBRUARY for time in Times.of(values, "x").values] == [0, SECOND, 3 * SECOND // 2, 2 * SECOND]


def test_a_missing_time_is_refused() -> None:
    for values in (pl.Series([1, None, None]), pl.Series(["1", None, None]), pl.Series(["2020-02-29", None, None])):
        with pytest.raises(DataError, match=r"events\.csv: 2 of 3 rows have no time"):
            Times.of(values, "events.csv")


def test_what_is_no_time_is_refused_with_examples() -> None:
    with pytest.raises(DataError, match=r"neither numbers nor ISO 8601 times: '29\.02\.2020', first in row 2"):
        Times.of(pl.Series(["2020-02-29", "29.02.2020"]), "x")
    with pytest.raises(DataError, match=r"1 value is neither numbers nor ISO 8601 times: 'soon', first in row 2"):
        Times.of(pl.Series(["1700000000", "soon", "1700000001"]), "x")
    with pytest.raises(DataError, match=r"1 value is written as numbers among ISO 8601 times: '1700000000', first in row 2"):
        Times.of(pl.Series(["2020-02-29", "1700000000"]), "x")
    with pytest.raises(DataError, match="no time: nan, inf"):
        Times.of(pl.Series([1.0, float("nan"), float("inf")]), "x")
    with pytest.raises(DataError, match="no time: it needs more than 63 bits: 18446744073709551615"):
        Times.of(pl.Series([1, 2**64 - 1], dtype=pl.UInt64), "x")
    with pytest.raises(DataError, match="type Boolean holds no times"):
        Times.of(pl.Series([True]), "x")
