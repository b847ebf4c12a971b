import datetime
import tomllib
from pathlib import Path

import polars as pl
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.scaffold.draft import draft
from recall.data.scaffold.fields import guess_field
from recall.errors import DataError


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (["a", "b", None], 'kind = "categorical"'),
        ([f"v{number % 1500}" for number in range(4000)], 'kind = "categorical", min_count = 2'),
        ([f"title {number}" for number in range(100)], ""),
        (["a|b", "b", "c|d"], 'kind = "bag"'),
        ([["a"], ["b", "c"]], 'kind = "bag"'),
        ([1, 2, 1, 3], 'kind = "categorical"'),
        ([number % 233 for number in range(9000)], 'kind = "categorical"'),  # codes, each in many rows
        ([number % 233 for number in range(2000)], 'kind = "numeric"'),
        ([80 + 9 * number for number in range(30)], 'kind = "numeric"'),  # pages, hardly two the same
        ([["a", "b"], ["a", "b"]], ""),
        (["1", "2", "1"], 'kind = "categorical"'),
        (["01234", "12345", "01234"], 'kind = "categorical"'),
        ([0.5, 1.5, -2.0], 'kind = "numeric"'),
        (["0.5", "1.5", "2.5"], 'kind = "numeric"'),
        ([0.5, 1.5, 2.5, 900.5], 'kind = "numeric", scale = "log"'),
        ([True, False], 'kind = "categorical"'),
        (["x", "x"], ""),
        (["x", None, "x"], 'kind = "categorical"'),
        (["https://a.b/c", "http://a.b/d", "https://a.b/c"], ""),
        ([datetime.date(2025, 1, 1)], ""),
        ([None, None], ""),
        ([1_700_000_000 + 86_400 * (number % 9) for number in range(20)], ""),  # unix times
        ([f"street {number % 40}" for number in range(60)], ""),  # most are seen once
    ],
)
def test_a_column_is_classified_by_its_values(values: list[object], field: str) -> None:
    found = guess_field(pl.Series("column", values))
    assert found.keys == field
    assert found.reason


@pytest.mark.parametrize(
    ("name", "first", "reason"),
    [
        ("EAN", 1_600_000_000_000, "identify"),
        ("box", 4_034_291_074_489, "identify"),  # decades ahead in milliseconds
        ("published", 1_600_000_000_000, "a date or time"),
        ("end date", 4_034_291_074_489, "a date or time"),
    ],
)
def test_bar_codes_are_no_unix_times(name: str, first: int, reason: str) -> None:
    found = guess_field(pl.Series(name, [first + 77_777_777 * (row * 7 % 30) for row in range(30)]))
    assert not found.keys
    assert reason in found.reason


def test_the_hour_in_digits_is_the_time_and_the_place_on_the_screen_no_context(tmp_path: Path) -> None:
    hours = [2024013100 + row % 24 for row in range(200)]
    rows = {"user_id": [row % 29 for row in range(200)], "item_id": [row % 31 for row in range(200)], "when": hours}
    pl.DataFrame({**rows, "position": [row % 7 for row in range(200)]}).write_parquet(tmp_path / "interactions.parquet")
    text = draft(tmp_path)
    assert "times = { when = \"%Y%m%d%H\" }  # such as '2024013100' in when" in text
    assert 'time = "when"  # dates or times' in text
    assert "# position: the place where the item was shown" in text


def test_a_column_that_the_items_have_under_another_name_is_not_read_twice(tmp_path: Path) -> None:
    item = [row % 20 for row in range(200)]
    rows = {"user_id": [row * 7 % 30 for row in range(200)], "item_id": item, "paid_each": [one * 1.5 + 3 for one in item]}
    pl.DataFrame(rows).write_csv(tmp_path / "interactions.csv")
    pl.DataFrame({"item_id": range(20), "price": [one * 1.5 + 3 for one in range(20)]}).write_csv(tmp_path / "items.csv")
    text = draft(tmp_path)
    assert "the items table has it as price" in text
    assert "item_columns" not in text


def test_rows_without_an_id_say_nothing_about_a_column(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"]}).write_csv(tmp_path / "interactions.csv")
    items = {"item_id": ["x", "y", None], "place": [1, 1, 2]}
    pl.DataFrame(items).write_csv(tmp_path / "items.csv")
    assert "# place: one value only, '1'" in draft(tmp_path)


def test_a_lone_value_that_is_missing_where_others_are_teaches_nothing(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"]}).write_csv(tmp_path / "interactions.csv")
    items = {"item_id": ["x", "y", "z"], "pay": [10, 20, None], "money": ["EUR", "EUR", None], "badge": ["top", None, None]}
    pl.DataFrame(items).write_csv(tmp_path / "items.csv")
    assert {"pay", "badge"} == {"pay", "badge", "money"} & set(parse_config(tomllib.loads(draft(tmp_path))).fields)


def test_a_draft_is_a_loadable_configuration(tmp_path: Path) -> None:
    pl.DataFrame({"who": ["a", "b"], "what": ["x", "y"], "year": [1, 2], "screen size": ["s", "l"]}).write_csv(
        tmp_path / "interactions.csv"
    )
    pl.DataFrame({"what": ["x", "y"], "year": [1990, 1991], "title": ["long", "short"]}).write_parquet(
        tmp_path / "items.parquet"
    )
    config = parse_config(tomllib.loads(draft(tmp_path, "who", "what")))
    assert config.data.split.by == "random"
    assert list(config.fields) == ["who", "year", "screen size", "what", "item_year", "title"]
    assert config.schema_.column("item_year") == "year"
    assert load_dataset(config, tmp_path).item_columns == ("year", "title")


@pytest.mark.parametrize("time", ["time", "timestamp", "unixReviewTime", "date", "when"])
def test_times_and_split_columns_are_used_if_present(tmp_path: Path, time: str) -> None:
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], time: [1], "split": ["train"], "weight": [2.0]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    text = draft(tmp_path)
    assert f'time = "{time}"' in text
    assert 'split = { by = "column" }' in text
    assert "history" in text
    assert "weight" not in text.partition("[fields]")[2]


def test_a_few_rows_without_a_time_are_left_out(tmp_path: Path) -> None:
    rows = [f"u{n % 6},i{n % 9},{'' if n % 20 == 0 else 1_700_000_000 + 977 * n}\n" for n in range(80)]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,ts\n" + "".join(rows))
    text = draft(tmp_path)
    assert 'missing_times = "left out"  # 4 interactions have no ts' in text
    assert len(load_dataset(parse_config(tomllib.loads(text)), tmp_path).events) == 76


@pytest.mark.parametrize("name", ["user", "item", "weight", "split"])
def test_a_context_column_with_a_reserved_name_is_a_comment(tmp_path: Path, name: str) -> None:
    values = [f"v{(7 * n) % 11}" for n in range(60)]
    frame = pl.DataFrame(
        {"user_id": [f"u{n % 6}" for n in range(60)], "item_id": [f"i{n % 9}" for n in range(60)], name: values}
    )
    frame.write_csv(tmp_path / "interactions.csv")
    text = draft(tmp_path)
    assert f"# {name}: a context column cannot be called so" in text
    assert load_dataset(parse_config(tomllib.loads(text)), tmp_path).context_columns == ()


def test_a_missing_id_column_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"usr_id": ["a"], "item_id": ["x"]}).write_csv(tmp_path / "interactions.csv")
    with pytest.raises(DataError, match="Did you mean 'usr_id'"):
        draft(tmp_path)


@pytest.mark.parametrize(("later", "weight"), [(range(40), 5), (range(80, 120), 1)])
def test_an_event_that_only_follows_another_weighs_as_much(later: range, weight: int, tmp_path: Path) -> None:
    rows = [(n, "purchase") for n in range(80)] + [(n, "play") for n in later]
    lines = "".join(f"u{n % 20},i{n // 20},{event}\n" for n, event in rows)
    (tmp_path / "interactions.csv").write_text(f"user_id,item_id,event\n{lines}")
    text = draft(tmp_path)
    assert tomllib.loads(text)["data"]["events"]["weights"] == {"play": weight, "purchase": 5}
    assert ("play only follows purchase, so it weighs as much" in text) == (weight == 5)
