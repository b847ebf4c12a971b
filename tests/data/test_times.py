import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.data.times import Times
from recall.errors import DataError

SECOND = 1_000_000
FEBRUARY = 1_582_934_400 * SECOND  # 2020-02-29 in microseconds


def test_numbers_are_unchanged() -> None:
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
def test_dates_become_microseconds_since_the_epoch(values: pl.Series) -> None:
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


def test_invalid_times_are_refused_with_examples() -> None:
    with pytest.raises(DataError, match=r"neither numbers nor ISO 8601 times: '29\.02\.2020', first in row 2"):
        Times.of(pl.Series(["2020-02-29", "29.02.2020"]), "x")
    with pytest.raises(DataError, match=r"1 value is neither numbers nor ISO 8601 times: 'soon', first in row 2"):
        Times.of(pl.Series(["1700000000", "soon", "1700000001"]), "x")
    with pytest.raises(DataError, match=r"1 value is written as numbers among ISO 8601 times: '17', first in row 2"):
        Times.of(pl.Series(["2020-02-29", "17"]), "x")
    with pytest.raises(DataError, match="not times: nan, inf"):
        Times.of(pl.Series([1.0, float("nan"), float("inf")]), "x")
    with pytest.raises(DataError, match="not times: they need more than 63 bits: 18446744073709551615"):
        Times.of(pl.Series([1, 2**64 - 1], dtype=pl.UInt64), "x")
    with pytest.raises(DataError, match="dates or text, got Boolean"):
        Times.of(pl.Series([True]), "x")


@pytest.mark.parametrize(
    "text",
    [
        "2020-02-29T10:05",
        "2020-02-29 10:05",
        "2020-02-29T10:05Z",
        "2020-02-29T10:05:00z",
        "2020-02-29 10:05:00 UTC",
        "2020-02-29 10:05:00.000 UTC",
        "2020-02-29 10:05 GMT",
        "2020-02-29T10:05:00,000",
        "2020-02-29 12:05:00 +0200",
        "2020-02-29T12:05+02",
        "2020-02-29T05:05-05:00",
        "20200229T100500Z",
        "20200229T1005",
        "2020-W09-6T10:05",
        "2020W096T1005",
        "2020-060T10:05:00",
        "2020060T100500Z",
        " 2020-02-29T10:05:00 ",
        "2020-02-29T10:05:00.000000000Z",
    ],
)
def test_all_iso_8601_forms_are_parsed(text: str) -> None:
    for values in ([text], [text, "2020-02-29T10:05:00"]):  # alone, and mixed with the usual form
        times = Times.of(pl.Series(values), "x")
        assert times.values.to_list() == [FEBRUARY + (10 * 60 + 5) * 60 * SECOND] * len(values)


@pytest.mark.parametrize(
    ("text", "day"), [("2020-02", -28), ("2020-060", 0), ("2020-W09-6", 0), ("20200229", 0), ("2020-02-29T24:00", 1)]
)
def test_dates_are_parsed_as_midnight(text: str, day: int) -> None:
    times = Times.of(pl.Series([text, "2020-02-29"]), "x").values
    assert times.to_list() == [FEBRUARY + day * 86_400 * SECOND, FEBRUARY]


@pytest.mark.parametrize(
    "text", ["2020-02-30", "2021-366", "2020-W54-1", "2020-02-29T25:00", "Feb 29 2020", "29/02/2020 10:05"]
)
def test_invalid_dates_and_times_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"neither numbers nor ISO 8601 times: .* Write 2024-01-31T10:05:00Z"):
        Times.of(pl.Series(["2020-02-29", text]), "x")


def test_mixed_times_without_an_offset_are_counted() -> None:
    assert Times.of(pl.Series(["2020-02-29T10:05", "2020-02-29 10:05:00"]), "x").naive == 0
    assert Times.of(pl.Series(["2020-02-29T10:05Z", "2020-02-29 10:05:00+01:00"]), "x").naive == 0
    assert Times.of(pl.Series(["2020-02-29T10:05 UTC", "2020-02-29 10:05:00", "2020-02-29"]), "x").naive == 2


@given(st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9998, 12, 31)), st.timezones())
def test_python_datetimes_round_trip(moment: datetime.datetime, zone: datetime.tzinfo) -> None:
    aware = moment.replace(tzinfo=zone)
    texts = [moment.isoformat(), moment.isoformat(" ", "minutes"), moment.strftime("%Y%m%dT%H%M%S").zfill(15)]
    offset = aware.utcoffset() or datetime.timedelta()
    whole = not offset.seconds % 60  # ISO 8601 has offsets in whole minutes
    texts += [aware.isoformat()] if whole else []
    expected = [moment, moment.replace(second=0, microsecond=0), moment.replace(microsecond=0)]
    expected += [(moment - offset)] if whole else []
    found = [Times.of(pl.Series([text]), "x").values[0] for text in texts]
    epoch = datetime.datetime(1970, 1, 1)
    assert found == [(one - epoch) // datetime.timedelta(microseconds=1) for one in expected]


@pytest.mark.parametrize("unix", ["1612011231", "1612011231000"])  # the first digits are a date, too
def test_unix_times_among_those_of_iso_8601_are_read(unix: str) -> None:
    read = Times.of(pl.Series(["2021-01-30T12:53:51Z", unix, "2021-01-30 12:53:51"]), "x")
    assert read.values.to_list() == [1_612_011_231_000_000] * 3
    assert read.naive == 1
