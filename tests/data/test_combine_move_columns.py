from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.combine import find_modes
from recall.data.dataset import dataset_of, load_dataset
from recall.data.incremental import addition_tables_alone, load_additions
from recall.data.tables import read_table
from recall.errors import ConfigError, DataError
from recall.features.values import Distinct

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "country": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
    "genre": {"side": "item", "kind": "categorical"},
    "price": {"side": "item", "kind": "numeric"},
}
LOG = "user_id,item_id,country,genre,price\na,x,FR,drama,1\nb,x,DE,drama,2\nc,x,,comedy,2\na,y,FR,,3\na,z,IT,crime,\n"


def config(**data: Any) -> RunConfig:
    usual = {"interactions": "e.csv", "user_columns": ["country"], "item_columns": ["genre", "price"]}
    return parse_config({"data": {**usual, **data}, "fields": FIELDS})


def test_a_denormalised_log_gives_users_and_items_tables(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(LOG)
    dataset = load_dataset(config(), tmp_path)
    assert dataset.users.rows() == [("a", "FR"), ("b", "DE"), ("c", None)]
    assert dataset.items.rows() == [("x", "drama", 2.0), ("y", None, 3.0), ("z", "crime", None)]
    assert (dataset.context_columns, dataset.user_columns, dataset.item_columns) == ((), ("country",), ("genre", "price"))


def test_columns_from_the_log_join_those_of_the_items_table(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(LOG)
    pl.DataFrame({"item_id": ["w", "x"], "price": [9, 8]}).write_parquet(tmp_path / "i.parquet")
    dataset = load_dataset(config(items="i.parquet", item_columns=["genre"]), tmp_path)
    assert dataset.items.rows() == [("w", None, 9.0), ("x", "drama", 8.0), ("y", None, None), ("z", "crime", None)]
    with pytest.raises(ConfigError, match="column 'price' is in the items table already"):
        load_dataset(config(items="i.parquet"), tmp_path)


def test_attributes_may_come_from_the_interactions(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(LOG.replace("country", "title"))
    fields = {name: field for name, field in FIELDS.items() if name != "country"}
    run = parse_config(
        {
            "data": {"interactions": "e.csv", "item_columns": ["title", "genre", "price"], "attributes": ["title"]},
            "fields": fields,
        }
    )
    assert load_dataset(run, tmp_path).items["title"].to_list() == ["DE", "FR", "IT"]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(LOG)
    with pytest.raises(DataError, match=r"no column 'county'.*Did you mean 'country'"):
        load_dataset(config(user_columns=["county"]), tmp_path)


def additions(folder: Path) -> tuple[Path, Path]:
    old, new = folder / "old", folder / "new"
    for path in (old, new):
        path.mkdir()
    (old / "e.csv").write_text(LOG)
    (new / "e.csv").write_text("user_id,item_id,country,genre,price\nd,y,ES,sport,4\nb,v,DE,,5\nd,x,ES,,\n")
    (old / "i.csv").write_text("item_id,year\nx,1990\ny,1991\n")
    return old, new


def test_old_and_new_interactions_describe_items_together(tmp_path: Path) -> None:
    old, new = additions(tmp_path)
    dataset = load_additions(config(items="i.csv"), new, old)
    items = {row[0]: row[1:] for row in dataset.items.select("item_id", "genre", "price").rows()}
    assert items == {"x": ("drama", 2.0), "y": ("sport", 4.0), "z": ("crime", None), "v": (None, 5.0)}
    assert dict(dataset.users.rows()) == {"a": "FR", "b": "DE", "c": None, "d": "ES"}


@pytest.mark.parametrize("changed", [False, True])
def test_without_the_old_interactions_their_descriptions_are_kept(tmp_path: Path, changed: bool) -> None:
    old, new = additions(tmp_path)
    if changed:
        (new / "i.csv").write_text("item_id,year\nz,2000\n")
    run = config(items="i.csv")
    before = load_dataset(run, old)
    before.items.write_parquet(tmp_path / "items.parquet")
    before.users.write_parquet(tmp_path / "users.parquet")
    users, items = (read_table(tmp_path / f"{name}.parquet") for name in ("users", "items"))
    dataset = dataset_of(run, addition_tables_alone(run.data, new, users, items))
    found = {row[0]: row[1:] for row in dataset.items.select("item_id", "genre", "price").rows()}
    assert found == {"x": ("drama", 2.0), "y": ("sport", 4.0), "z": ("crime", None), "v": (None, 5.0)}
    assert dict(dataset.users.rows()) == {"a": "FR", "b": "DE", "c": None, "d": "ES"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["u", "v", "w", None])), max_size=30))
def test_the_most_frequent_value_matches_a_manual_count(rows: list[tuple[str, str | None]]) -> None:
    group, value = pl.Series([row[0] for row in rows], dtype=pl.String), pl.Series([row[1] for row in rows], dtype=pl.String)
    groups = Distinct.of(group)
    mode_rows, disagreeing = find_modes(groups, value)
    other = 0
    for number, first in enumerate(groups.first):
        mine = [row[1] for row in rows if row[0] == rows[first][0] and row[1] is not None]
        if not mine:
            assert mode_rows[number] is None
            continue
        most = max(mine, key=lambda one: (mine.count(one), len(mine) - mine[::-1].index(one)))
        assert value[mode_rows[number]] == most
        other += len(mine) - mine.count(most)
    assert disagreeing == other


def test_inconsistent_rows_are_reported(tmp_path: Path) -> None:
    rows = "".join(f"u{n},x,FR,drama,{1 if n < 19 else 2}\nu{n},y,FR,{'a' if n % 2 else 'b'},3\n" for n in range(20))
    (tmp_path / "e.csv").write_text("user_id,item_id,country,genre,price\n" + rows)
    said = [one for one in check(config(), tmp_path) if "another value than the most frequent of their item" in one.message]
    assert [(one.level, one.table, one.column, one.count) for one in said] == [
        ("warning", "items", "genre", 10),
        ("note", "items", "price", 1),
    ]
