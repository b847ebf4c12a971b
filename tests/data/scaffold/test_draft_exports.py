"""Habits of exports that a draft must not misread: each in a table of a few rows."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.data.scaffold.draft import draft
from recall.data.scaffold.text_values import find_null_spellings, time_pattern
from recall.errors import DataError

ROWS = 240
USERS = [f"u{row * 7 % 31:03d}" for row in range(ROWS)]
ITEMS = [f"i{row * 11 % 23:03d}" for row in range(ROWS)]


def drafted(folder: Path, columns: dict[str, list[Any]], **tables: pl.DataFrame) -> tuple[dict[str, Any], str]:
    """Draft a configuration for interactions and further tables; parsed, and as text."""
    for name, frame in {"interactions": pl.DataFrame(columns), **tables}.items():
        frame.write_csv(folder / f"{name}.csv")
    text = draft(folder)
    return tomllib.loads(text), text


@pytest.mark.parametrize(
    ("texts", "pattern"),
    [
        (["03/09/2021 14h05", "28/10/2021 09h18"], "%d/%m/%Y %Hh%M"),
        (["5.1.2", "5.2.0"], ""),  # versions
        (["05.01.21", "28.02.21"], "%d.%m.%y"),
    ],
)
def test_times_and_versions(texts: list[str], pattern: str) -> None:
    assert time_pattern(pl.Series(texts)) == pattern


def test_a_word_among_prices_is_missing() -> None:
    prices = pl.Series("price", ["$9.99", "$19.99", "$1,059.99", "Free to Play"])
    assert [spelling for spelling, _ in find_null_spellings(prices)] == ["Free to Play"]
    assert not list(find_null_spellings(pl.Series("size", ["1", "2", "3", "one"])))  # plain numbers may be names


def test_returns_are_left_out_and_what_tells_of_them_is_no_context(tmp_path: Path) -> None:
    quantities = ["1.200,000-" if row % 9 == 4 else f"{row % 4 + 1},000" for row in range(ROWS)]
    kinds = ["REN" if text.endswith("-") else "TAN" for text in quantities]
    config, text = drafted(tmp_path, {"user_id": USERS, "item_id": ITEMS, "menge": quantities, "PTyp": kinds})
    assert config["data"]["outcome"] == {"column": "menge", "at_least": 1}
    assert config["data"]["formats"]["interactions"]["numbers"] == {"menge": ","}
    assert "PTyp" not in config["fields"], text


def test_states_notes_and_ratings_in_words_are_no_context(tmp_path: Path) -> None:
    columns = {
        "user_id": USERS,
        "item_id": ITEMS,
        "estado": [("sin empezar", "en curso", "finalizado")[row % 3] for row in range(ROWS)],
        "order_status": [("waiting", "half", "early")[row % 3] for row in range(ROWS)],
        "completed": [("t", "f", "f")[row // 3 % 3] for row in range(ROWS)],
        "notes": [("ring twice", "leave it", "")[row // 5 % 3] for row in range(ROWS)],
        "stars": [f"{row % 5 + 1} of 5 *{'*' * (row % 5)}" for row in range(ROWS)],
    }
    config, _ = drafted(tmp_path, columns)
    assert not {"estado", "order_status", "completed", "notes", "stars"} & set(config["fields"])
    assert not {"events", "label", "outcome"} & set(config["data"])  # every row counts


def test_a_refund_of_a_part_and_a_later_rejection_count(tmp_path: Path) -> None:
    columns = {"user_id": USERS, "item_id": ITEMS}
    states = ["paid", "partially_refunded", "refunded", "declined"]
    config, _ = drafted(tmp_path, {**columns, "order_status": [states[row // 2 % 4] for row in range(ROWS)]})
    events = config["data"]["events"]
    assert events["weights"] == {"declined": 1, "paid": 5, "partially_refunded": 5}
    assert events["left_out"] == ["refunded"]


def test_parts_of_a_date_are_joined_beside_a_date_with_zeros(tmp_path: Path) -> None:
    columns = {
        "user_id": USERS,
        "item_id": ITEMS,
        "anio": [2023] * ROWS,
        "mes": [row // 28 + 1 for row in range(ROWS)],
        "dia": [row % 28 + 1 for row in range(ROWS)],
        "ultimo_acceso": ["0000-00-00" if row % 3 else f"2024-01-{row % 28 + 1:02d}" for row in range(ROWS)],
    }
    config, _ = drafted(tmp_path, columns)
    assert config["data"]["time"] == "date"
    assert config["data"]["formats"]["interactions"]["dates"] == {"date": ["anio", "mes", "dia"]}


def test_without_names_a_till_is_no_user_and_no_context(tmp_path: Path) -> None:
    rows = [f"202311{row % 28 + 1:02d}\t{row % 4:02d}\t{USERS[row]}\t{ITEMS[row]}\t{row % 9}" for row in range(ROWS)]
    (tmp_path / "interactions.tsv").write_text("\n".join(rows))
    with pytest.raises(DataError, match="there is no column 'user_id'"):
        draft(tmp_path)
    config = tomllib.loads(draft(tmp_path, "column_3", "column_4"))
    assert config["data"]["time"] == "column_1"
    assert set(config["fields"]) == {"column_3", "column_4", "previous"}


def test_the_unique_column_of_the_users_is_their_id(tmp_path: Path) -> None:
    ids = sorted(set(USERS))
    accounts = {user: f"a{max(place, 1):03d}" for place, user in enumerate(ids)}  # the first two share one
    users = pl.DataFrame({"id": ids, "account_id": [accounts[user] for user in ids]})
    columns = {"account_id": [accounts[user] for user in USERS], "profile_id": USERS, "item_id": ITEMS}
    config, _ = drafted(tmp_path, columns, users=users)
    assert (config["data"]["user_id"], config["data"]["id_in_users"]) == ("profile_id", "id")


def test_the_current_of_several_rows_of_an_item_counts(tmp_path: Path) -> None:
    ids = sorted(set(ITEMS))
    repeated = [one for place, name in enumerate(ids) for one in [name] * (1 + (place % 2 == 0))]
    current = [place == 0 or repeated[place - 1] != one for place, one in enumerate(repeated)]
    items = pl.DataFrame({"item_id": repeated, "title": [f"T{now}" for now in current], "is_current": current})
    for order, kept in ((items, "first"), (items.reverse(), "last")):
        order.write_parquet(tmp_path / "items.parquet")
        config, _ = drafted(tmp_path, {"user_id": USERS, "item_id": ITEMS})
        assert config["data"]["repeated_ids"] == kept


@pytest.mark.parametrize("name", ["Restituito", "gift_message", "delay", "nota_credito", "first_message", "delivery_fee"])
def test_yes_and_no_of_any_language_may_answer_any_question(name: str, tmp_path: Path) -> None:
    columns = {"user_id": USERS, "item_id": ITEMS, name: [("sì", "no")[row // 2 % 2] for row in range(ROWS)]}
    assert "events" not in drafted(tmp_path, columns)[0]["data"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ship_state", ["CA", "NY", "TX", "WA", "FL"]),
        ("marital_status", ["single", "married", "widowed"]),
        ("message_type", ["push", "email", "sms"]),
        ("summary_device", ["web", "app", "tv"]),
        ("size", ["1,5", "2,5", "3,0", "10,5", "S", "XL"]),
        ("nota", ["regalo", "casa", "ufficio"]),
    ],
)
def test_words_of_outcomes_beside_others_leave_a_context(name: str, values: list[str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    columns = {"user_id": USERS, "item_id": ITEMS, name: random.choice(values, ROWS).tolist()}
    config, _ = drafted(tmp_path, columns)
    assert config["fields"][name]["kind"] == "categorical"
    assert "nulls" not in config["data"].get("formats", {}).get("interactions", {})


@pytest.mark.parametrize(("name", "values"), [("delay", [-5, -1, 0, 3, 10]), ("fees", [-2.5, 0, 2.5, 4.9])])
def test_what_followed_leaves_no_rows_out(name: str, values: list[float], tmp_path: Path) -> None:
    columns = {"user_id": USERS, "item_id": ITEMS, name: np.random.default_rng(0).choice(values, ROWS).tolist()}
    config, text = drafted(tmp_path, columns)
    assert "outcome" not in config["data"]
    assert name not in config["fields"]
    assert f"{name}: {min(values):g} to {max(values):g}: what followed" in text


def test_numbers_of_invoices_are_no_ratings(tmp_path: Path) -> None:
    for name, values in (("nota_fiscal", range(100_000, 100_000 + ROWS)), ("nota", [row % 21 / 2 for row in range(ROWS)])):
        text = drafted(tmp_path, {"user_id": USERS, "item_id": ITEMS, name: list(values)})[1]
        assert ("how much the user liked the item" in text) == (name == "nota")


def test_codes_of_items_are_not_missing(tmp_path: Path) -> None:
    codes = [*(f"{one}.{two}00" for one in range(1, 7) for two in range(1, 9)), "POST", "GIFT"]
    columns = {"user_id": USERS, "item_id": [codes[row * 7 % len(codes)] for row in range(ROWS)]}
    config, text = drafted(tmp_path, columns)
    assert "nulls" not in config["data"].get("formats", {}).get("interactions", {})
    assert "not read" not in text


def test_a_search_is_known_before_its_item(tmp_path: Path) -> None:
    columns = {"user_id": USERS, "item_id": ITEMS, "search_query": [f"find {item}" for item in ITEMS]}
    text = drafted(tmp_path, columns)[1]
    assert "nearly determine the item" not in text
