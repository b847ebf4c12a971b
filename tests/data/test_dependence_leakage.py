"""Leakage in small logs of common layouts: which columns reveal the answer."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.column_names import outcome_word, words
from recall.data.dataset import load_dataset
from recall.data.dependence import leak_findings


def log(rows: int = 1_500, users: int = 100, items: int = 60) -> pl.DataFrame:
    """Create a log with legitimate and with leaking context columns."""
    rng = np.random.default_rng(5)
    user, item = rng.integers(0, users, rows), np.minimum(rng.zipf(1.4, rows) - 1, items - 1)
    price = np.round(np.exp(rng.normal(3, 1, items)), 2)[item]
    return pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "hour": rng.integers(0, 24, rows),
            "device": rng.choice(["phone", "web", "tv"], rows),
            "weather": np.where(rng.random(rows) < 0.3, "rain" if rows else "", "sun"),
            "taste": np.where(
                rng.random(rows) < 0.6, item % 4, rng.integers(0, 4, rows)
            ),  # carries some information about the item
            "position": rng.integers(1, 11, rows),
            "session": np.arange(rows) // 3,
            "browser": (user * 7) % 5,
            "title": [f"title {one}" for one in item],
            "price": price,
            "price_then": np.round(price * rng.normal(1, 0.02, rows), 2),
            "genres": [["a", f"g{one % 7}"] for one in item],
            "landing_page": [f"/p/{one}" if rng.random() < 0.8 else "/" for one in item],
            "rating": np.where(item % 2 == 0, rng.integers(4, 6, rows), rng.integers(1, 3, rows)),
        }
    )


def reading(folder: Path, columns: list[str], frame: pl.DataFrame | None = None, **fields: Any) -> RunConfig:
    frame = log() if frame is None else frame
    frame.write_parquet(folder / "e.parquet")
    kinds = {name: "bag" if isinstance(frame[name].dtype, pl.List) else "categorical" for name in columns}
    return parse_config(
        {
            "data": {"interactions": "e.parquet"},
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "item_id": {"side": "item", "kind": "categorical"},
                **{name: {"side": "user", "kind": kind} for name, kind in kinds.items()},
                **fields,
            },
        }
    )


def test_legitimate_contexts_give_no_warning(tmp_path: Path) -> None:
    columns = ["hour", "device", "weather", "taste", "position", "session", "browser"]
    assert list(leak_findings(load_dataset(reading(tmp_path, columns), tmp_path))) == []


@pytest.mark.parametrize("column", ["title", "price", "price_then", "genres"])
@pytest.mark.parametrize("rows", [150, 1_500])
def test_a_context_that_is_a_function_of_the_item_is_found_for_any_type(tmp_path: Path, column: str, rows: int) -> None:
    config = reading(tmp_path, [column], log(rows))
    (finding,) = leak_findings(load_dataset(config, tmp_path))
    assert (finding.level, finding.table, finding.column) == ("warning", "interactions", column)
    assert "nearly follows from the item" in finding.message
    assert "data.item_columns" in finding.message


def test_leakage_in_numeric_fields_and_csv_columns_is_found(tmp_path: Path) -> None:
    config = reading(tmp_path, [], None, price_then={"side": "user", "kind": "numeric"})
    assert [finding.column for finding in leak_findings(load_dataset(config, tmp_path))] == ["price_then"]
    log().select("user_id", "item_id", "price_then").write_csv(tmp_path / "e.csv")
    as_text = config.model_copy(update={"data": config.data.model_copy(update={"interactions": "e.csv"})})
    assert [finding.column for finding in leak_findings(load_dataset(as_text, tmp_path))] == ["price_then"]


def test_a_context_that_determines_the_item_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    item = rng.integers(0, 40, 2_000)
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(0, 300, 2_000),
            "item_id": item,
            "query": [f"q{one}-{rng.integers(0, 9)}" for one in item],  # nine queries per item, each leading to only that item
        }
    )
    (finding,) = leak_findings(load_dataset(reading(tmp_path, ["query"], frame), tmp_path))
    assert "nearly determines the item" in finding.message
    (finding,) = leak_findings(
        load_dataset(reading(tmp_path, ["landing_page"]), tmp_path)
    )  # the item's page in four of five rows
    assert "nearly determines the item" in finding.message


def test_a_rating_is_recognised_by_its_name(tmp_path: Path) -> None:
    (finding,) = leak_findings(load_dataset(reading(tmp_path, ["rating", "hour"]), tmp_path))
    assert finding.column == "rating"
    assert "known only after the interaction" in finding.message


def test_few_rows_give_no_leakage_warning(tmp_path: Path) -> None:
    columns = ["weather", "hour", "device", "taste"]
    assert list(leak_findings(load_dataset(reading(tmp_path, columns, log(12)), tmp_path))) == []
    few = pl.DataFrame({"user_id": list("abcd"), "item_id": list("xxyy"), "title": ["X", "X", "Y", "Y"]})
    assert list(leak_findings(load_dataset(reading(tmp_path, ["title"], few), tmp_path))) == []


def test_an_exact_dependency_is_found_in_few_rows(tmp_path: Path) -> None:
    items = [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]
    frame = pl.DataFrame({"user_id": range(12), "item_id": items, "title": [f"t{one}" for one in items]})
    assert len(list(leak_findings(load_dataset(reading(tmp_path, ["title"], frame), tmp_path)))) == 1
    frame = frame.with_columns(title=pl.when(pl.col("user_id") == 9).then(pl.lit("t0")).otherwise("title"))
    assert list(leak_findings(load_dataset(reading(tmp_path, ["title"], frame), tmp_path))) == []


def test_check_reports_leakage_once(tmp_path: Path) -> None:
    findings = check(reading(tmp_path, ["title", "hour"]), tmp_path)
    assert [finding.column for finding in findings if "follows from the item" in finding.message] == ["title"]


def test_the_same_column_as_an_item_field_is_not_leakage(tmp_path: Path) -> None:
    config = reading(tmp_path, [], None, title={"side": "item", "kind": "categorical"})
    data = config.data.model_copy(update={"item_columns": ("title",)})
    assert not [one for one in check(config.model_copy(update={"data": data}), tmp_path) if one.column == "title"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("unixReviewTime", ("unix", "review", "time")),
        ("InvoiceNo", ("invoice", "no")),
        ("price_paid", ("price", "paid")),
        ("event-type", ("event", "type")),
        ("HTTPStatus", ("http", "status")),
        ("rating2", ("rating2",)),
        ("", ()),
    ],
)
def test_a_column_name_is_split_into_words(name: str, parts: tuple[str, ...]) -> None:
    assert words(name) == parts


@pytest.mark.parametrize(
    "name",
    [
        *("rating", "stars", "review_score", "overall", "clicked", "is_click", "label", "purchased", "price_paid", "dwell"),
        *("dwell_time", "watchTime", "event_type", "Quantity", "qty", "playcount", "ms_played", "reviewText", "Rating"),
    ],
)
def test_names_of_outcomes_are_recognised(name: str) -> None:
    assert outcome_word(name)


@pytest.mark.parametrize(
    "name",
    [
        *("hour", "device", "weekday", "starship", "operating_system", "city", "last_rating", "avg_score", "previous_clicks"),
        *("country", "query", "price", "position", "score_before", "account", "discount", "interval", "country_code"),
    ],
)
def test_names_of_contexts_are_not_classified_as_outcomes(name: str) -> None:
    assert not outcome_word(name)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_column_filled_only_for_positives_is_found_under_any_name(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(3)
    taken = rng.random(800) < 0.4
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(0, 60, 800),
            "item_id": rng.integers(0, 40, 800),
            "y": taken.astype(int),
            "hour": rng.integers(0, 24, 800),
            "a": np.where(taken, rng.random(800) * 90, np.nan),  # present only for positives
            "b": np.where(taken, 5 + rng.random(800) * 90, rng.random(800) * 5),
            "c": np.where(taken, "out", "in"),
        }
    ).with_columns(pl.col("a").fill_nan(None))
    config = reading(tmp_path, ["hour", "a", "b", "c"], frame)
    frame.write_csv(tmp_path / "e.csv")
    data = config.data.model_copy(update={"label": "y", "interactions": f"e{suffix}"})
    found = list(leak_findings(load_dataset(config.model_copy(update={"data": data}), tmp_path), ["y"]))
    assert [finding.column for finding in found] == ["a", "b", "c"]
    assert all("nearly says whether the item was taken" in finding.message for finding in found)


@pytest.mark.parametrize("name", ["abc", "bewertung"])
def test_check_warns_about_outcomes_under_any_name_until_declared(tmp_path: Path, name: str) -> None:
    frame = log().with_columns(pl.Series(name, np.random.default_rng(1).integers(1, 6, 1_500)))
    (finding,) = [one for one in check(reading(tmp_path, [name, "hour", "position"], frame), tmp_path) if one.column == name]
    assert finding.level == "warning"
    assert "leave the field out" in finding.message
    declared = {"side": "user", "kind": "categorical", "source": "interactions"}
    config = reading(tmp_path, ["hour"], frame, **{name: declared})
    left = [one for one in check(config, tmp_path) if one.column == name]
    assert bool(left) == (name == "bewertung")  # the name alone is sufficient
