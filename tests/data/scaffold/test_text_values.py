import datetime

import polars as pl
import pytest

from recall.data.scaffold.text_values import (
    ambiguous_pattern,
    boolean_words,
    clock_pattern,
    compact_pattern,
    date_pattern,
    decimal_mark,
    duration_pattern,
    find_null_spellings,
    hold_years,
    list_separator,
    time_pattern,
)


@pytest.mark.parametrize(
    ("days", "pattern", "other"),
    [
        (["01/02/2024", "11/12/2024"], "%m/%d/%Y", "%d/%m/%Y"),
        (["01/22/2024", "11/12/2024"], "%m/%d/%Y", ""),
        (["22/01/2024", "11/12/2024"], "%d/%m/%Y", ""),
        (["2024.02.01"], "%Y.%m.%d", "%Y.%d.%m"),
        (["1 Feb 2024"], "%d %b %Y", ""),
        (["01/02/24", "12/31/23"], "%m/%d/%y", ""),  # not of the year 24
        (["31-12-24"], "%d-%m-%y", "%y-%m-%d"),
        (["21-03-05", "21-07-14", "22-01-09"], "%d-%m-%y", "%y-%m-%d"),  # too few to decide
        (["01.01.19", "01.02.19", "01.03.20", "01.07.21"], "%d.%m.%y", "%y.%m.%d"),
        (["11/05/19", "11/05/20", "11/06/21", "11/07/22"], "%m/%d/%y", "%y/%m/%d"),
        ([f"01.01.{year:02}" for year in range(5, 20)], "%d.%m.%y", "%y.%m.%d"),
        ([f"{21 + day % 2}/03/{day:02}" for day in range(1, 29)], "%y/%m/%d", "%d/%m/%y"),
        (["05.03.21", "14.07.21"], "%d.%m.%y", ""),
        (["3. März 2024", "12. Okt. 2024"], "%d %b %Y", ""),
        (["12 janv. 2024"], "%d %b %Y", ""),
        (["5 de mayo de 2024"], "%d %b %Y", ""),
        (["Fri, 05 Jan 2024 10:30:00 GMT"], "%d %b %Y %H:%M:%S %z", ""),
        (["Friday, January 5, 2024"], "%b %d, %Y", ""),
        (["05.01.2024, 10:30"], "%d.%m.%Y, %H:%M", "%m.%d.%Y, %H:%M"),
    ],
)
def test_a_day_that_may_be_the_month_is_noticed(days: list[str], pattern: str, other: str) -> None:
    values = pl.Series("date", days)
    assert (time_pattern(values), ambiguous_pattern(values, pattern)) == (pattern, other)


@pytest.mark.parametrize(
    ("texts", "mark"),
    [
        (["0,125", "12,375"], ","),
        (["0.125 kg", "12.375 kg"], ""),
        (["1,234", "12,375"], "."),
        (["1.234,50 €", "0,99 €"], ","),
        (["349円", "1,298円"], "."),
        (["EUR 3.50", "EUR 4.25"], "."),
        (["5,00 EUR", "1.000,00 EUR"], ","),
        (["(5,00)", "4,00"], ","),
        (["1.200,000-", "5,000"], ","),
        (["3,50 zł"], ","),
        (["1.5", "2"], ""),
        (["A 1", "B 2"], ""),
        (["SKU001", "SKU002"], ""),  # no currency
        (["￥1,234.50", "￥99.00"], "."),
        (["1848,58 руб.", "5,00 руб."], ","),
    ],
)
def test_the_decimal_mark_follows_from_all_values(texts: list[str], mark: str) -> None:
    assert decimal_mark(pl.Series("price", texts)) == mark


@pytest.mark.parametrize(
    ("texts", "pattern"),
    [
        (["18:30", "7:05"], "%H:%M"),
        (["18:30:10", "07:05:00"], "%H:%M:%S"),
        (["6:30 PM"], "%I:%M %p"),
        (["18.30", "7.05"], "%H.%M"),
        (["10h41", "9h05"], "%Hh%M"),
        (["10h41min", "9h05min"], "%Hh%Mmin"),
        (["10時41分", "9時5分"], "%H時%M分"),
        (["25時41分", "9時05分"], ""),
        (["18.75"], ""),
        (["18:30", "later"], ""),
        (["3:75"], ""),
    ],
)
def test_times_of_day(texts: list[str], pattern: str) -> None:
    assert clock_pattern(pl.Series("time", texts)) == pattern


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["P1M", "P7D"], ""),  # a month has no number of days
        (["P1D", "P7D"], "m:s"),
        (["0,500 h", "1,250 h"], "m:s"),
        (["1,250 h", "2,750 h"], ""),  # 1250 h, or little more than one
    ],
)
def test_durations_that_may_mean_two_things_are_none(texts: list[str], form: str) -> None:
    assert duration_pattern(pl.Series("length", texts)) == form


def test_hours_and_minutes_are_a_duration_unless_the_name_is_that_of_a_time() -> None:
    assert duration_pattern(pl.Series("heure", ["10h41min", "9h05min"])) == ""
    assert duration_pattern(pl.Series("x", ["10h41min", "9h05min"])) == "m:s"


def test_dates_without_a_time_of_day() -> None:
    assert date_pattern(pl.Series("day", ["2024-01-31"])) == "%Y-%m-%d"
    assert date_pattern(pl.Series("day", [datetime.date(2024, 1, 31)])) == "%Y-%m-%d"
    assert date_pattern(pl.Series("day", ["31.01.2024"])) == "%d.%m.%Y"
    assert date_pattern(pl.Series("day", ["31.01.2024 10:00"])) == ""
    assert date_pattern(pl.Series("day", ["2015年3月5日"])) == "%Y年%m月%d日"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["N", "J", None], ("J", "N")),
        (["nein", " ja"], ("ja", "nein")),
        (["Yes", "No"], ("Yes", "No")),
        (["Ja", "nein", "JA", "Ja", "Nein", "nein"], ("Ja", "nein")),  # the commonest spellings
        (["NO", "yes", "No", "NO"], ("yes", "NO")),
        (["yes", "no", "maybe"], None),
        (["yes", "YES"], None),
        (["True", "False"], None),
        (["red", "blue"], None),
    ],
)
def test_words_for_true_and_false(texts: list[str | None], words: tuple[str, str] | None) -> None:
    assert boolean_words(pl.Series("sale", texts)) == words


@pytest.mark.parametrize(
    ("texts", "nulls"),
    [
        (["5 Mar 2024", "Never", "13 Apr 2024"], ["Never"]),
        (["2024-03-05", "never"], ["never"]),
        (["1955", "n.d."], ["n.d."]),
        (["Ever", "Never"], []),
        (["f", "m", "?"] * 20, ["?"]),  # beside words that recur
        (["+", "-"] * 30, []),
        ([f"song {number}" for number in range(60)] + ["?"], []),
        ([f"{number},50" for number in range(100)] + ["brak"], ["brak"]),  # the only word among many numbers
    ],
)
def test_words_and_marks_among_other_values_are_missing_values(texts: list[str], nulls: list[str]) -> None:
    assert [spelling for spelling, _ in find_null_spellings(pl.Series("a", texts))] == nulls


def test_compact_days_and_clocks_are_known_by_their_digits_and_name() -> None:
    assert date_pattern(pl.Series("DATUM", ["20240305", "20241231"])) == "%Y%m%d"
    assert date_pattern(pl.Series("number", ["20240305", "20241331"])) == ""
    assert clock_pattern(pl.Series("UHRZEIT", ["0915", "2359"])) == "%H%M"
    assert clock_pattern(pl.Series("godz", ["915", "2359"])) == "%H%M"
    assert clock_pattern(pl.Series("time", ["091500", "235959"])) == "%H%M%S"
    assert clock_pattern(pl.Series("year", ["1955", "1959"])) == ""
    assert clock_pattern(pl.Series("price", ["18.30", "7.05"])) == ""
    moments = ["20240131183000", "20231224235959"]
    assert time_pattern(pl.Series("rev_timestamp", moments)) == "%Y%m%d%H%M%S"
    assert time_pattern(pl.Series("order_id", moments)) == ""
    assert time_pattern(pl.Series("rev_timestamp", [*moments, "20230230101010"])) == ""


@pytest.mark.parametrize(
    ("name", "values", "pattern"),
    [
        ("Date + hour (YYYYMMDDHH)", ["2024010113", "2024022900"], "%Y%m%d%H"),
        ("when", ["202401011359", "202402290000"], "%Y%m%d%H%M"),
        ("day", [20240101, 20240229], "%Y%m%d"),
        ("ts", [1_704_067_200, 1_906_010_313], ""),  # unix seconds
        ("ts", ["2024010113", "2024022924"], ""),  # hours end at 23
        ("ts", ["20240101", "2024010113"], ""),
        ("EAN", [20240101, 20240229], ""),
    ],
)
def test_digits_that_fit_the_calendar_are_times(name: str, values: list[str | int], pattern: str) -> None:
    assert compact_pattern(pl.Series(name, values)) == pattern


@pytest.mark.parametrize(
    ("name", "texts", "pattern"),
    [
        ("device.app", ["4.12.1"], ""),
        ("device.app", ["4.12.10", "4.11.12"], ""),
        ("version", ["10.01.24"], ""),
        ("app_date", ["14.12.10", "4.11.12"], "%d.%m.%y"),
        ("x", ["4.12.1", "5.1.12"], ""),
        ("x", ["4.12.10", "31.1.12"], "%d.%m.%y"),
    ],
)
def test_versions_of_software_are_no_dates(name: str, texts: list[str], pattern: str) -> None:
    assert time_pattern(pl.Series(name, texts)) == pattern


@pytest.mark.parametrize(
    ("texts", "mark"),
    [
        ([f"i{n % 5},i{n % 7},i{n % 3}" for n in range(30)] + ["i1"], ","),
        ([f"{n % 5} {n % 7} {n % 3}" for n in range(30)] + ["1 2"], " "),
        ([f"The Good, the Bad, and {n}" for n in range(30)] + ["Alien"], ""),
        ([f"The Return of {one}" for one in ("Tom", "Tim", "Jim Beam")] * 9, ""),
        ([f"/shop/item/{n}" for n in range(30)], ""),
        ([f"shop|{n}" for n in range(30)], ""),
        ([f"{n}|{size}" for n in range(9) for size in ("L", "M|red", "L|red")], ""),
    ],
)
def test_several_ids_in_a_cell_recur_one_by_one(texts: list[str], mark: str) -> None:
    assert list_separator(pl.Series("item", texts)) == mark


@pytest.mark.parametrize(
    ("texts", "mark"),
    [
        (["207", "1.226", "1.210", "12.004"], ","),  # a fraction has no last zero
        (["207", "1.226", "1.211"], ""),
        (["207.000", "1.226", "1.210"], ""),  # three digits in each
        (["0.250", "207", "1.210"], ""),
        (["207", "1.22", "1.210"], ""),
    ],
)
def test_points_between_groups_of_three_digits_are_no_fractions(texts: list[str], mark: str) -> None:
    assert decimal_mark(pl.Series("n", texts)) == mark


def test_a_word_among_dates_is_a_missing_one() -> None:
    assert [one for one, _ in find_null_spellings(pl.Series("due", ["1.2.2024", "2.2.2024", "29.3.2024", "offen"]))] == [
        "offen"
    ]
    assert not list(find_null_spellings(pl.Series("size", ["38", "40", "42", "M"])))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["[2007]", "c1999", "2010.", "2012", "o.J."], True),
        (["Q3 2019", "2018", "12 Mar, 2017", "Coming soon"], True),
        (["2007", "2008", "2009"], False),  # numbers
        (["Heat (1995)", "Alien (1979)", "Se7en (1995)", "Brazil (1985)"], False),  # titles
        (["2007-05-01", "2008-06-02", "2009-07-03"], False),  # dates
        (["A-100", "B-2000", "C-30"], False),  # codes
    ],
)
def test_years_within_a_text(texts: list[str], found: bool) -> None:
    assert hold_years(pl.Series(texts)) == found
