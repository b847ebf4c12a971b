import datetime
from pathlib import Path

import polars as pl
import pytest

from recall.config import FileFormat
from recall.data.conversions import convert_columns
from recall.data.roles import detect_roles
from recall.data.scaffold.file_format import DetectedFormat
from recall.data.scaffold.id_columns import name_columns
from recall.data.scaffold.id_spelling import detect_id_spelling
from recall.data.scaffold.survey import survey
from recall.data.scaffold.table_format import (
    combine_date_parts,
    combine_flags,
    detect_carried_columns,
    detect_conversions,
    detect_item_lists,
    detect_missing_numbers,
    detect_nesting_and_blanks,
    detect_placeholder_users,
)
from recall.data.tables import Table


def settings_of(detected: DetectedFormat) -> dict[str, object]:
    assert set(detected.reasons) == detected.settings.model_fields_set
    return {name: getattr(detected.settings, name) for name in detected.reasons}


def test_blanks_that_divide_one_value_into_two_are_removed() -> None:
    assert settings_of(
        detect_nesting_and_blanks(DetectedFormat(), pl.DataFrame({"id": ["a", " a", *"bcdefghijklmnopqrstuvwxyz"]}), text=True)
    ) == {"strip": True}
    assert (
        settings_of(detect_nesting_and_blanks(DetectedFormat(), pl.DataFrame({"name": ["a "] + ["b"] * 40}), text=True)) == {}
    )


def test_columns_that_only_the_first_line_of_an_order_fills() -> None:
    frame = pl.DataFrame({"item": range(5), "order": [1, 1, 2, 2, 2], "user": ["a", None, "b", None, None]})
    frame = frame.with_columns(city=pl.Series(["x", None, None, None, None]))
    assert settings_of(detect_carried_columns(DetectedFormat(), frame, "user", "item")) == {
        "carry": {"user": "order", "city": "order"}
    }
    other = frame.with_columns(user=pl.Series(["a", None, "b", "c", None]))
    assert settings_of(detect_carried_columns(DetectedFormat(), other, "user", "item")) == {}
    every = frame.with_columns(user=pl.Series(["a", "a", "b", "b", "b"]), state=pl.Series(["paid", None, "void", None, None]))
    assert settings_of(detect_carried_columns(DetectedFormat(), every, "user", "item")) == {}  # one column may be a flag
    sums = every.with_columns(total=pl.Series([9.5, None, 7.5, None, None]))
    assert settings_of(detect_carried_columns(DetectedFormat(), sums, "user", "item")) == {
        "carry": {"city": "order", "state": "order", "total": "order"}
    }
    dated = frame.drop("order").with_columns(at=pl.Series(["2024-01-01", None, "2024-01-02", None, None]))
    assert settings_of(detect_carried_columns(DetectedFormat(), dated, "user", "item")) == {"carry": {"user": "", "at": ""}}


@pytest.mark.parametrize(
    ("own", "listed", "spelling"),
    [
        ("{:07}", "{}", 7),
        ("KK-{:03}", "kk-{:03} ", "upper"),
        ("kk-{}", "KK-{}", "lower"),
        ("{}", "{}", None),  # as they are
        ("{:07}", "x{}", None),  # others
    ],
)
def test_ids_in_another_spelling_are_joined(own: str, listed: str, spelling: str | int | None) -> None:
    ids = pl.Series([own.format(number) for number in range(20, 40)] * 3)
    users = pl.DataFrame({"key": [listed.format(number) for number in range(20, 60)], "age": [1, 2] * 20})
    found, own = detect_id_spelling(DetectedFormat(), users, DetectedFormat(), ids)
    assert settings_of(own) == {}
    assert settings_of(found) == ({} if spelling is None else {"spelling": {"key": spelling}})
    read = convert_columns(users.lazy(), found.settings, "").collect()
    assert ids.is_in(read["key"].implode()).all() == (listed != "x{}")


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ([1980, 2001, 9999, 9999], ("9999",)),
        (["34", "999", "51", "999"], ("999",)),
        ([34, 99, 51, 99], None),  # an age
        ([700, 999, 850, 999], None),  # not far above the others
    ],
)
def test_numbers_of_nines_far_above_all_others_are_missing(values: list[object], missing: tuple[str, ...] | None) -> None:
    frame = pl.DataFrame({"a": values})
    found = detect_missing_numbers(DetectedFormat(), frame, interactions=False)
    assert settings_of(detect_missing_numbers(DetectedFormat(), frame, interactions=True)) == {}
    assert settings_of(found) == ({} if missing is None else {"missing": {"a": missing}})
    read = convert_columns(frame.lazy(), found.settings, "").collect()["a"]
    assert read.null_count() == (0 if missing is None else 2)


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ([0, 1_700_000_000, 1_700_086_400, 0], ("0",)),
        (["1700000000000", "0", "1700086400000", "0"], ("0",)),
        ([0, 1_700_000_000, 12, 0], None),  # not all others are times
        ([0, 5, 7, 0], None),
    ],
)
def test_0_among_unix_times_is_no_time(values: list[object], missing: tuple[str, ...] | None) -> None:
    frame = pl.DataFrame({"a": values})
    detected = DetectedFormat().with_settings({"missing": {"b": ("x",)}}, {"missing": "b"})
    found = detect_missing_numbers(detected, frame, interactions=True)
    assert settings_of(found) == {"missing": {"b": ("x",)} | ({} if missing is None else {"a": missing})}


def test_the_items_of_an_order_are_a_list() -> None:
    frame = pl.DataFrame({"user": ["a"], "tags": [["x"]], "items": [[{"item_id": 1}]]})
    assert settings_of(detect_item_lists(DetectedFormat(), frame)) == {"explode": "items", "unnest": True}
    assert settings_of(detect_item_lists(DetectedFormat(), frame.with_columns(product=pl.lit("p")))) == {}
    texts = pl.DataFrame({"user": range(30), "items": [f"i{n % 5};i{n % 7}" if n % 4 else "i1" for n in range(30)]})
    assert settings_of(detect_item_lists(DetectedFormat(), texts)) == {"explode": "items", "explode_by": ";"}
    detected = pl.DataFrame({"user": ["a", "b"], "items": ["['x', 'y']", "['x']"]})
    assert settings_of(detect_item_lists(DetectedFormat(), detected)) == {"explode": "items", "lists": ("items",)}


def test_a_second_list_leaves_the_list_of_items(tmp_path: Path) -> None:
    rows = "".join(f"{row};k{row % 9};[{row % 7 + 500}, {row % 5 + 600}];[1, {row % 3}]\n" for row in range(60))
    (tmp_path / "orders.csv").write_text(f"order;customer;items;counts\n{rows}")
    form = survey({"interactions": tmp_path / "orders.csv"}).formats["interactions"].settings
    assert (form.explode, form.lists) == ("items", ("items", "counts"))


def test_a_list_of_ids_of_the_items_table_is_known_by_them(tmp_path: Path) -> None:
    items = pl.LazyFrame({"UPC": [f"0{n}" for n in range(40, 52)], "name": [f"n{n}" for n in range(12)]})
    table = Table(tmp_path / "items.csv", items, items.collect_schema())
    baskets = [f"0{40 + n % 5}|0{40 + n % 12}" if n % 4 else "041" for n in range(30)]
    frame = pl.DataFrame({"card": range(30), "Items": [1 + (n % 4 > 0) for n in range(30)], "UPCs": baskets})
    found = detect_item_lists(DetectedFormat(), frame.cast({"Items": pl.String}), None, table)
    assert settings_of(found) == {"explode": "UPCs", "explode_by": "|"}
    notation = frame.with_columns(UPCs="['" + pl.col("UPCs").str.replace_all("|", "', '", literal=True) + "']")
    found = detect_item_lists(DetectedFormat(), notation.cast({"Items": pl.String}), None, table)
    assert settings_of(found) == {"explode": "UPCs", "lists": ("UPCs",)}
    for name in ("product_id", "product"):  # the list is what was beside it on the page
        taken = frame.drop("Items").with_columns(pl.col("UPCs").str.head(3).alias(name))
        assert settings_of(detect_item_lists(DetectedFormat(), taken, None, table)) == {}
    others = frame.with_columns(pl.col("UPCs").str.replace_all("0", "1"))
    assert settings_of(detect_item_lists(DetectedFormat(), others.cast({"Items": pl.String}), None, table)) == {}


@pytest.mark.parametrize(
    ("ids", "listed", "missing"),
    [
        (["0"] * 20 + [str(n) for n in range(400, 500, 3)] * 9, None, ("0",)),
        (["0"] * 20 + [str(n) for n in range(1, 30)] * 9, None, None),  # they count from 0
        (["0"] * 20 + [str(n) for n in range(1, 30)] * 9, range(30), None),
        (["0"] * 20 + [str(n) for n in range(1, 30)] * 9, range(1, 30), ("0",)),
        (["0"] * 20 + [str(n) for n in range(1, 90, 3)] * 9, None, None),
        (["0"] * 50 + [str(n) for n in range(1, 90, 3)] * 9, None, ("0",)),
        (["Guest"] * 5 + list("abcdef"), None, ("Guest",)),
        (["guest", "guest", "a", "a", *"bcde"], None, None),  # no more frequent than others
        (["x"] * 9 + list("abcde"), None, None),
    ],
)
def test_an_id_of_all_unknown_users_is_missing(ids: list[str], listed: range | None, missing: tuple[str, ...] | None) -> None:
    users = None if listed is None else pl.Series(listed)
    found = detect_placeholder_users(DetectedFormat(), pl.DataFrame({"user": ids}), "user", users)
    assert settings_of(found) == ({} if missing is None else {"missing": {"user": missing}})


def test_objects_in_lists_are_known_by_their_names() -> None:
    frame = pl.DataFrame(
        {"tags": [[{"name": "dub", "count": 3}, {"name": "loud", "count": 1}], []], "images": [[{"url": "x"}]] * 2}
    )
    found = detect_conversions(DetectedFormat(), frame, set(), interactions=False)
    assert settings_of(found) == {"lists": ("tags",)}
    assert convert_columns(frame.lazy(), found.settings, "here").collect()["tags"].to_list() == [["dub", "loud"], []]


def test_numbers_that_may_mean_two_things_follow_the_others_of_the_file() -> None:
    frame = pl.DataFrame({"price": ["1,50", "2,75"], "weight": ["1.234", "5.678"], "size": ["1,234", "2,345"]})
    numbers = settings_of(detect_conversions(DetectedFormat(), frame, set(), interactions=False))["numbers"]
    assert numbers == {"price": ",", "size": ","}


def test_groups_of_digits_are_said_to_be_assumed() -> None:
    detected = detect_conversions(DetectedFormat(), pl.DataFrame({"length": ["1,250 h", "2,750 h"]}), set(), interactions=False)
    assert settings_of(detected) == {"numbers": {"length": "."}, "units": {"length": ("h",)}}
    assert "check whether the marks of length divide groups of three digits, as assumed" in detected.reasons["numbers"]


def test_names_of_a_repeated_header_stay() -> None:
    detected = DetectedFormat(FileFormat(header=("user", "price", "price_2")), {"header": "repeated"})
    frame = pl.DataFrame({"user": ["a"], "price": ["1"], "price_2": ["2"]})
    assert name_columns({"interactions": frame}, {"interactions": detected}, {})["interactions"] == detected  # type: ignore[dict-item]


def test_durations_are_told_from_times_of_day() -> None:
    frame = pl.DataFrame(
        {
            "length": ["3:45", "12:30"],
            "watched": ["0:20:00", "1:02:33"],
            "any": ["75:30", "3:45"],
            "mixed": ["3:45", "1:02:33"],
            "runtime": ["95 min", "1 h 30 min"],
            "exact": [datetime.timedelta(seconds=5)] * 2,
            "opens": ["08:30", "09:00"],
            "closes": ["22:30", "24:00"],
            "plan": ["P1M", "P3M"],
            "played_at": ["0:20:00", "1:02:33"],
        }
    )
    detected = detect_conversions(DetectedFormat(), frame, set(), interactions=False)
    assert settings_of(detected) == {"durations": dict.fromkeys(frame.columns[:6], "m:s")}
    assert "such as '3:45' in length, '0:20:00' in watched" in detected.reasons["durations"]
    assert "of two numbers the first are minutes" in detected.reasons["durations"]


def test_a_duration_is_not_the_time_of_a_date() -> None:
    frame = pl.DataFrame({"date": ["31.01.2024", "01.02.2024"], "watched": ["0:20:00", "1:02:33"]})
    detected = settings_of(detect_conversions(DetectedFormat(), frame, set(), interactions=True))
    assert detected == {"times": {"date": "%d.%m.%Y"}, "durations": {"watched": "m:s"}}


@pytest.mark.parametrize(
    ("columns", "flags", "weights", "rest"),
    [
        ({"purchased": [0, 1, 0], "clicked": [1, 1, 0]}, ("clicked", "purchased"), {"clicked": 1, "purchased": 5}, "not taken"),
        ({"liked": ["yes", "no"] * 2, "skipped": ["no", "no", "yes"]}, ("liked", "skipped"), {"liked": 2}, "taken"),
        ({"clicked": [0, 1], "hidden": [0, 0, 1]}, ("clicked", "hidden"), {"clicked": 1}, "not taken"),
        ({"disliked": [0, 1], "skipped": [0, 0, 1]}, ("disliked", "skipped"), {}, "taken"),
        ({"purchases": [0, 3, 0], "views": [1, 4]}, ("views", "purchases"), {"views": 1, "purchases": 5}, "not taken"),
        ({"clicked": [0, 1], "event": ["view", "buy", "view"]}, None, {}, ""),
        ({"clicked": [0, 1], "watched": [30, 0, 500]}, None, {}, ""),  # seconds, not times
    ],
)
def test_flags_beside_one_another_are_events(
    columns: dict[str, list[object]], flags: tuple[str, ...] | None, weights: dict[str, float], rest: str
) -> None:
    rows = 180
    frame = pl.DataFrame({"u": [n * 7 % 11 for n in range(rows)], "i": [n * 5 % 13 for n in range(rows)]}).with_columns(
        pl.Series(name, [values[n % len(values)] for n in range(rows)]) for name, values in columns.items()
    )
    found = detect_roles(frame, "u", "i", {})
    detected, after = combine_flags(DetectedFormat(), found)
    if flags is None:
        assert (detected, after) == (DetectedFormat(), found)
        return
    assert settings_of(detected) == {"flags": {"event": flags}}
    assert set(after) == {"event"}
    rule = after["event"].events
    assert rule is not None
    assert (rule.weights, rule.missing) == (weights, rest)


def test_what_describes_the_user_and_what_is_only_assumed_is_no_flag() -> None:
    rows = range(400)
    frame = pl.DataFrame({"u": [n * 7 % 31 for n in rows], "i": [n * 5 % 37 for n in rows]}).with_columns(
        clicked=pl.Series([n * n % 3 % 2 for n in rows]), subscribed=pl.col("u") % 2
    )
    found = detect_roles(frame, "u", "i", {})
    assert {name: role.kind for name, role in found.items()} == {"clicked": "label", "subscribed": "user"}
    assert combine_flags(DetectedFormat(), found) == (DetectedFormat(), found)
    beside = frame.select("u", "i", like=pl.col("clicked"), is_open=pl.Series([n // 9 % 2 for n in rows]))
    assert {name: role.kind for name, role in detect_roles(beside, "u", "i", {}).items()} == {
        "like": "label",
        "is_open": "assumed",
    }


def test_what_most_users_of_an_item_did_is_an_outcome() -> None:
    rows = range(2_000)
    users, items = [n * 7 % 101 for n in rows], [n * n % 37 for n in rows]
    bought = [(i % 2) ^ (n % 10 == 0) for n, i in enumerate(items)]
    frame = pl.DataFrame({"u": users, "i": items, "purchased": bought, "clicked": [n % 3 % 2 for n in rows]})
    frame = frame.with_columns(recommended=pl.col("i") % 2, liked=pl.col("i") % 2)
    kinds = {name: role.kind for name, role in detect_roles(frame, "u", "i", {}).items()}
    assert kinds == {"purchased": "label", "clicked": "label", "recommended": "item", "liked": "label"}
    mostly = frame.drop("recommended").with_columns(recommended=pl.Series(bought))
    assert detect_roles(mostly, "u", "i", {})["recommended"].kind == "label"


def test_units_after_numbers_are_one_or_its_plural() -> None:
    frame = pl.DataFrame(
        {
            "weight": ["1,5 kg", "12,25 kg"],
            "cable": ["5 m", "12 m"],
            "rating": ["1 star", "4 stars"],
            "votes": ["4/5", "3/5"],
            "installs": ["10,000+", "500+"],
            "mixed": ["1 kg", "500 g"],
            "plays": ["950", "1.2k"],
            "k": ["3.4k", "1.2k"],
            "length": ["2 m", "500 mm"],
            "memory": ["512 M", "2 MB"],
            "volume": ["500 g", "2 gal"],
            "bare": ["3", "4 kg"],
            "room": ["12 A", "14 B"],
        }
    )
    detected = settings_of(detect_conversions(DetectedFormat(), frame, set(), interactions=False))
    assert detected == {
        "numbers": {"weight": ",", "cable": ".", "rating": ".", "votes": ".", "installs": "."},
        "units": {"weight": ("kg",), "cable": ("m",), "rating": ("stars", "star"), "votes": ("/5",), "installs": ("+",)},
    }


def test_a_date_in_parts_is_the_time_where_no_other_column_is() -> None:
    rows = range(120)
    frame = pl.DataFrame(
        {
            "u": [n * 7 % 11 for n in rows],
            "i": [n * 5 % 13 for n in rows],
            "jahr": [2023 + n // 60 for n in rows],
            "monat": [f"{1 + n % 12:02}" for n in rows],
            "tag": [1 + n * 3 % 28 for n in rows],
        }
    )
    detected, after = combine_date_parts(DetectedFormat(), frame, detect_roles(frame, "u", "i", {}))
    assert settings_of(detected) == {"dates": {"date": ("jahr", "monat", "tag")}}
    assert [(name, role.kind) for name, role in after.items()] == [("date", "time")]
    timed = frame.with_columns(ts=1_700_000_000 + pl.int_range(120) * 7_000)
    found = detect_roles(timed, "u", "i", {})
    assert combine_date_parts(DetectedFormat(), timed, found) == (DetectedFormat(), found)
    for day in (pl.col("tag") + 9, pl.lit(30)):  # 37, and the 30th of February
        other = frame.with_columns(tag=day)
        assert settings_of(combine_date_parts(DetectedFormat(), other, detect_roles(other, "u", "i", {}))[0]) == {}
    for names in (("order_year", "order_month", "order_day"), ("yearOrdered", "monthOrdered", "dayOrdered")):
        other = frame.rename(dict(zip(("jahr", "monat", "tag"), names, strict=True))).with_columns(release_year=2000)
        assert settings_of(combine_date_parts(DetectedFormat(), other, detect_roles(other, "u", "i", {}))[0]) == {
            "dates": {"date": names}
        }
    for names in (("release_year", "month", "day"), ("birth_year", "birth_month", "birth_day"), ("a_year", "b_month", "c_day")):
        other = frame.rename(dict(zip(("jahr", "monat", "tag"), names, strict=True)))
        assert settings_of(combine_date_parts(DetectedFormat(), other, detect_roles(other, "u", "i", {}))[0]) == {}
    for name in ("day_of_week", "weekday"):
        other = frame.rename({"tag": name})
        assert settings_of(combine_date_parts(DetectedFormat(), other, detect_roles(other, "u", "i", {}))[0]) == {}
    months = [f"{datetime.date(2023, 1 + n % 12, 1):%B}" for n in rows]
    later = pl.datetime(2024, 1, 1) + pl.duration(hours=pl.int_range(120) * 37 % 119)
    named = frame.with_columns(monat=pl.Series(months), status_date=later)
    detected, after = combine_date_parts(DetectedFormat(), named, detect_roles(named, "u", "i", {}))
    assert {name: role.kind for name, role in after.items()} == {"date": "time", "status_date": "moment"}
    dates = convert_columns(named.lazy(), detected.settings, "here").collect()["date"]
    assert dates[:2].to_list() == [datetime.datetime(2023, 1, 1), datetime.datetime(2023, 2, 4)]
    of_items = frame.with_columns(jahr=1990 + pl.col("i"))
    assert settings_of(combine_date_parts(DetectedFormat(), of_items, detect_roles(of_items, "u", "i", {}))[0]) == {}


def test_years_are_read_without_the_text_around() -> None:
    frame = pl.DataFrame({"year": ["[2007]", "c1999", "2010.", "o.J."]})
    found = detect_conversions(DetectedFormat(), frame, set(), interactions=False)
    assert settings_of(found) == {"years": ("year",)}
    assert convert_columns(frame.lazy(), found.settings, "").collect()["year"].to_list() == ["2007", "1999", "2010", None]


def test_prices_beside_empty_texts_are_numbers_and_streets_are_no_units() -> None:
    texts = {"price": ["", "$1,249.00", "$8.93"], "address": ["12 W Main St", "470 W Main St", "9 W Main St"]}
    texts["years"] = ["", "2017", "2017,2018"]
    found = settings_of(detect_conversions(DetectedFormat(), pl.DataFrame(texts), set(), interactions=False))
    assert found == {"numbers": {"price": "."}}  # the years in a list do not become a number
