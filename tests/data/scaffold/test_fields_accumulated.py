"""Columns that are aggregates of the interactions, and others whose values a test or a request would not know."""

import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.data.scaffold.draft import draft_tables
from recall.data.scaffold.survey import survey

USERS, ITEMS = 40, 60


def log(**columns: list[Any]) -> pl.DataFrame:
    """300 interactions; item n occurs more often than item n + 1."""
    items = [item for item in range(ITEMS) for _ in range(max(1, 24 - 2 * item))][:300]
    users = [f"u{(7 * row) % USERS}" for row in range(len(items))]
    return pl.DataFrame({"user": users, "item": [f"i{item}" for item in items], **columns})


def drafted(**tables: pl.DataFrame) -> tuple[str, dict[str, Any]]:
    text = draft_tables(survey(tables), "shop", {name: f"{name}.csv" for name in tables})
    return text, tomllib.loads(text)


def test_columns_that_grow_with_the_interactions_are_no_fields() -> None:
    counts = dict(log()["item"].value_counts().rows())
    items = pl.DataFrame(
        {
            "item": [f"i{item}" for item in range(ITEMS)],
            "Inscritos": [3 * counts.get(f"i{item}", 0) for item in range(ITEMS)],
            "price": [(37 * item) % 51 + 0.5 for item in range(ITEMS)],
            "year": [2020 - item // 2 for item in range(ITEMS)],  # new ones are taken more
        }
    )
    text, config = drafted(interactions=log(), items=items)
    assert set(config["fields"]) == {"user", "item", "price", "year"}
    assert "# Inscritos: it grows with the interactions of the item (rank correlation 1.00)" in text
    assert "\n# Inscritos = { side = " in text


@pytest.mark.parametrize(
    ("side", "name", "kept"),
    [
        ("user", "lifetime_value", False),
        ("user", "orders_count", False),
        ("user", "income", True),
        ("user", "Umsatz Vorjahr", False),
        ("item", "sales_price", True),
        ("item", "avg_rating", False),
        ("item", "review_count", False),
        ("item", "stats.subscribers", False),
        ("item", "stock level", False),
        ("item", "stock price", True),
        ("item", "total_pages", True),
        ("item", "weight", True),
    ],
)
def test_names_of_sums_and_means_are_no_fields(side: str, name: str, kept: bool) -> None:
    rows = USERS if side == "user" else ITEMS
    table = pl.DataFrame(
        {side: [f"{side[0]}{row}" for row in range(rows)], name: [(17 * row) % 37 + 0.25 for row in range(rows)]}
    )
    _, config = drafted(**{"interactions": log(), f"{side}s": table})
    assert (name in config["fields"]) == kept


def test_lists_of_the_same_table_and_sums_of_a_result_are_no_fields() -> None:
    ids = [f"u{user}" for user in range(USERS)]
    users = pl.DataFrame(
        {
            "user": ids,
            "friends": [f"u{(7 * n) % USERS}, u{(3 * n) % USERS}" for n in range(USERS)],
            "hobbies": [("chess, golf", "golf, tennis", "chess")[n % 3] for n in range(USERS)],
            "useful": [(37 * n) % 51 for n in range(USERS)],
        }
    )
    text, config = drafted(interactions=log().with_columns((pl.int_range(pl.len()) // 7).mod(4).alias("useful")), users=users)
    assert set(config["fields"]) == {"user", "item", "hobbies"}
    assert "# friends: lists of ids of the same table, which may follow from the interactions" in text
    assert "# useful: the interactions also have useful, which it may add up" in text


def test_names_of_people_and_long_numbers_that_identify_are_no_fields() -> None:
    users = pl.DataFrame(
        {
            "user": [f"u{row}" for row in range(USERS)],
            "Prénom": [f"Name {row % 9}" for row in range(USERS)],
            "Name1": [f"Name {row % 9}" for row in range(USERS)],
            "NIF": [200_000_000 + 7_919 * row for row in range(USERS)],
            "city": [f"City {row % 4}" for row in range(USERS)],
        }
    )
    assert set(drafted(interactions=log(), users=users)[1]["fields"]) == {"user", "item", "city"}


def test_numbers_that_no_name_explains_are_assumed_to_be_known_afterwards() -> None:
    rows = len(log())
    text, config = drafted(
        interactions=log(
            segundos=[(53 * row) % 97 for row in range(rows)], temperature=[(59 * row) % 89 for row in range(rows)]
        )
    )
    assert "segundos" not in config["fields"]
    assert '# segundos = { side = "user", kind = "numeric", source = "interactions" }' in text
    assert config["fields"]["temperature"]["kind"] == "numeric"


@pytest.mark.parametrize("name", ["city", "home_country", "Ville", "postcode"])
def test_codes_of_places_are_known_by_a_request(name: str) -> None:
    rows = len(log())
    _, config = drafted(interactions=log(**{name: [100 + (53 * row) % 97 for row in range(rows)]}))
    assert name in config["fields"]
    assert "outcome" not in config["data"]


def test_a_cancelled_state_is_left_out_and_its_number_is_no_context() -> None:
    rows = len(log())
    states = [("Annulé", 6), ("Soldé", 2), ("Confirmé", 1)]
    found = [states[(row * row) % 7 % 3] for row in range(rows)]
    _, config = drafted(interactions=log(Statut=[name for name, _ in found], no_etat=[number for _, number in found]))
    assert config["data"]["events"] == {
        "column": "Statut",
        "weights": {"Confirmé": 1, "Soldé": 1},
        "left_out": ["Annulé"],
    }
    assert set(config["fields"]) == {"user", "item"}


def test_the_earliest_of_several_times_is_the_time() -> None:
    rows = len(log())
    hours = pl.Series([datetime(2024, 1, 1) + timedelta(hours=row) for row in range(rows)])
    days = pl.Series([(31 * row) % 60 + 2 for row in range(rows)])
    frame = log().with_columns(
        (hours + pl.Series([timedelta(1)] * rows) * days).dt.date().alias("journey date"),
        hours.dt.date().alias("booking date"),
    )
    assert drafted(interactions=frame)[1]["data"]["time"] == "booking date"
    with_clock = frame.with_columns(
        (pl.col("journey date").cast(pl.Datetime) + pl.duration(minutes=days)).alias("journey date")
    )
    assert drafted(interactions=with_clock)[1]["data"]["time"] == "journey date"  # it also has the time of day


def test_ids_are_preferred_to_names_and_kinds_are_no_ids() -> None:
    number = [int(item[1:]) for item in log()["item"]]
    rows = log(
        venue=[f"Place {chr(97 + item % 26) * (1 + item // 26)}" for item in number], cod=[f"R{item}" for item in number]
    )
    items = pl.DataFrame(
        {
            "venue": [f"Place {chr(97 + item % 26) * (1 + item // 26)}" for item in range(ITEMS)],
            "cod": [f"R{item}" for item in range(ITEMS)],
        }
    )
    assert survey({"interactions": rows.drop("item"), "items": items}).item_id == "cod"
    kinds = rows.select(
        "item",
        client=pl.Series(["web", "ios", "app"] * 100)[: len(rows)],
        steamid=pl.Series([7 * row % 120 for row in range(len(rows))]),
    )
    assert (
        survey({"interactions": kinds, "items": pl.DataFrame({"item": [f"i{one}" for one in range(ITEMS)]})}).user_id
        == "steamid"
    )


def test_headers_with_types_lose_them(tmp_path: Path) -> None:
    lines = ["user_id:token\titem_id:token\tcontext:token_seq\ttimestamp:float"]
    lines += [f"{row % 9}\t{row % 7}\t{'car home' if row % 2 else 'home gym'}\t{1_700_000_000 + row}.0" for row in range(60)]
    (tmp_path / "radio.inter").write_text("\n".join(lines))
    found = survey({"interactions": tmp_path / "radio.inter"})
    assert found.tables["interactions"].columns == ["user_id", "item_id", "context:token_seq", "timestamp"]
    text = draft_tables(found, "radio", {"interactions": "radio.inter"})
    assert tomllib.loads(text)["fields"]["context:token_seq"] == {"side": "user", "kind": "bag", "separator": " "}


def test_the_mean_rating_of_items_is_left_out_even_if_it_has_few_values() -> None:
    items = pl.DataFrame(
        {"item": [f"i{item}" for item in range(ITEMS)], "AggregatedRating": [3.0 + item % 3 for item in range(ITEMS)]}
    )
    assert set(drafted(interactions=log(), items=items)[1]["fields"]) == {"user", "item"}


def test_an_id_beside_the_one_that_is_joined_does_not_disturb() -> None:
    items = pl.DataFrame({"item": [f"i{item}" for item in range(ITEMS)], "id": [f"{item:x}" for item in range(ITEMS)]})
    table = log()
    interactions = table.with_columns(genre=table["item"].str.replace("i", "g"))
    config = drafted(interactions=interactions, items=items)[1]
    assert config["data"]["item_columns"] == ["genre"]
