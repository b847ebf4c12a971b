from pathlib import Path

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.data.incremental import addition_tables, load_additions
from recall.data.split import TEST, VALID
from recall.errors import DataError
from tests.conftest import EVENTS, TINY


def test_old_and_new_data_form_one_data_set(tiny_folder: Path, tiny_additions: Path, tiny_config: RunConfig) -> None:
    dataset = load_additions(tiny_config, tiny_additions, tiny_folder)
    assert len(dataset.events) == EVENTS + 40
    users = {user.pop("user_id"): user for user in dataset.users.iter_rows(named=True)}
    assert users["u1"]["gender"] == "f"
    assert users["u0"]["gender"] == "f"
    assert users["new"]["zip"] == "77777"
    assert {"fresh", "fresher", "never"} <= set(dataset.items["item_id"])
    assert dict(dataset.items.select("item_id", "category").iter_rows())["i2"] == "c0"


def test_new_interactions_follow_the_users_old_ones(tiny_folder: Path, tiny_additions: Path, tiny_config: RunConfig) -> None:
    old = load_dataset(tiny_config, tiny_folder)
    both = load_additions(tiny_config, tiny_additions, tiny_folder)

    def devices(dataset, user):
        row = dataset.users["user_id"].to_list().index(user)
        return dataset.events.filter(pl.col("user") == row)["device"].to_list()

    before, after = devices(old, "u2"), devices(both, "u2")
    assert after[: len(before)] == before
    assert set(after[len(before) :]) <= {"phone", "watch"}


@pytest.mark.parametrize("name", ["users", "items"])
def test_an_unchanged_table_is_optional(name: str, tiny_folder: Path, tiny_additions: Path, tiny_config: RunConfig) -> None:
    (tiny_additions / f"{name}.parquet").unlink()
    dataset = load_additions(tiny_config, tiny_additions, tiny_folder)
    assert len(dataset.events) == EVENTS + 40
    assert {"new"} <= set(dataset.users["user_id"])


def test_validation_rows_come_from_the_new_interactions(tiny_folder: Path, tiny_additions: Path) -> None:
    data = {**TINY["data"], "split": {"by": "none"}, "carve": 0.5}
    dataset = load_additions(parse_config({**TINY, "data": data}), tiny_additions, tiny_folder)
    valid = dataset.events.filter(pl.col("split") == VALID)
    assert len(valid) == 20
    assert set(dataset.users["user_id"].gather(valid["user"])) <= {"new", "u0", "u1", "u2", "u3"}


def test_the_old_tables_are_refused_as_new_data(tiny_folder: Path, tiny_config: RunConfig) -> None:
    with pytest.raises(DataError, match="the new tables are the old ones"):
        load_additions(tiny_config, tiny_folder, tiny_folder)


FIELDS = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
OLD = "user_id,item_id,t\na,x,1\na,y,2\nb,x,1\nb,y,2\nb,y,2\n"


def folders(tmp_path: Path, old: str, new: str, **others: str) -> tuple[Path, Path]:
    for name, text in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "e.csv").write_text(text)
    for name, text in others.items():
        (tmp_path / name.split("_")[0] / f"{name.split('_')[1]}.csv").write_text(text)
    return tmp_path / "new", tmp_path / "old"


def plain(**data: object) -> RunConfig:
    return parse_config({"data": {"interactions": "e.csv", **data}, "fields": FIELDS})


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    users = dataset.users["user_id"].gather(dataset.events["user"])
    return list(zip(users, dataset.items["item_id"].gather(dataset.events["item"]), strict=True))


def test_a_full_export_as_new_data_is_not_counted_twice(tmp_path: Path) -> None:
    config = plain(time="t", split={"by": "last"})
    new, old = folders(tmp_path, OLD, OLD + "a,z,9\n")
    additions = addition_tables(config.data, new, old)
    assert additions.known == 5
    assert additions.note.startswith("5 of 6 new interactions equal old ones in user, item and time: they are left out")
    dataset = additions.dataset(config)
    assert pairs(dataset) == [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "y"), ("b", "y")]
    tested = dataset.events.filter(dataset.events["split"] == TEST)
    assert dataset.items["item_id"].gather(tested["item"]).to_list() == ["z", "y"]


def test_duplicates_compare_times_and_ids_by_value(tmp_path: Path) -> None:
    new, old = folders(
        tmp_path,
        "user_id,item_id,t\na,x,2024-01-01T10:00\n",
        "item_id,user_id,t\nx,a,2024-01-01 10:00:00Z\nx,a,2024-01-01T12:00+03:00\n",
    )
    additions = addition_tables(plain(time="t").data, new, old)
    assert additions.note.startswith("1 of 2 new")
    (tmp_path / "numbers").mkdir()
    new, old = folders(tmp_path / "numbers", "user_id,item_id,t\n1,7,5\n2,8,6\n", "user_id,item_id,t\n1.0,7.0,5\n1.0,8.0,5.0\n")
    assert addition_tables(plain(time="t").data, new, old).note.startswith("1 of 2 new")


def test_each_old_row_removes_one_duplicate(tmp_path: Path) -> None:
    new, old = folders(tmp_path, OLD, "user_id,item_id,t\nb,y,2\nb,y,2\nb,y,2\na,x,7\n")
    additions = addition_tables(plain(time="t").data, new, old)
    assert additions.note.startswith("2 of 4 new")
    assert pairs(additions.dataset(plain(time="t"))).count(("b", "y")) == 3


def test_a_different_event_at_the_same_time_is_not_a_duplicate(tmp_path: Path) -> None:
    events = {"column": "event", "weights": {"view": 1, "buy": 2}}
    new, old = folders(tmp_path, "user_id,item_id,t,event\na,x,1,view\n", "user_id,item_id,t,event\na,x,1,buy\na,x,1,view\n")
    assert addition_tables(plain(time="t", events=events).data, new, old).note.startswith("1 of 2 new")


def test_new_interactions_of_other_items_are_asked_about(tmp_path: Path) -> None:
    old = "user_id,item_id,t\n" + "".join(f"a,{item},{item}\n" for item in range(30))
    for name, first, asked in (("other", 100, True), ("later", 20, False)):
        (tmp_path / name).mkdir()
        new, before = folders(tmp_path / name, old, "user_id,item_id,t\n" + "".join(f"b,{first + n},9\n" for n in range(20)))
        note = addition_tables(plain(time="t").data, new, before).note
        assert note.startswith("0 of the 20 items of the new interactions are in the old interactions: ") is asked
        assert bool(note) is asked


def test_without_a_time_every_column_is_compared(tmp_path: Path) -> None:
    new, old = folders(tmp_path, "user_id,item_id,place\na,x,home\n", "user_id,item_id,place\na,x,work\na,x,home\n")
    additions = addition_tables(plain().data, new, old)
    assert additions.note.startswith("1 of 2 new interactions equal old ones in every column")


def test_no_duplicates_give_no_message(tmp_path: Path) -> None:
    new, old = folders(tmp_path, OLD, "user_id,item_id,t\na,z,9\n")
    assert addition_tables(plain(time="t").data, new, old).note == ""


@pytest.mark.parametrize(
    ("new_row", "old_row", "place"),
    [
        ("a,z,9,-1", "b,z,3,1", r"new/e\.csv, column 'w': 1 value is not positive: '-1', first in row 2"),
        ("a,z,9,1", "b,z,3,-1", r"old/e\.csv, column 'w': 1 value is not positive: '-1', first in row 3"),
        ("a,z,soon,1", "b,z,3,1", r"new/e\.csv, column 't': .* 'soon', first in row 2"),
        ("a,z,9,1", "b,z,,1", r"old/e\.csv, column 't': 1 of .* rows have no time, first in row 3"),
        ("a,,9,1", "b,z,3,1", r"new/e\.csv, column 'item_id': .* no id, first in row 2"),
    ],
)
def test_an_error_names_the_file_and_the_row(tmp_path: Path, new_row: str, old_row: str, place: str) -> None:
    head = "user_id,item_id,t,w\n"
    new, old = folders(tmp_path, f"{head}a,x,1,1\na,y,2,1\n{old_row}\n", f"{head}a,q,8,1\n{new_row}\n")
    with pytest.raises(DataError, match=place):
        load_additions(plain(time="t", weight="w"), new, old)


@pytest.mark.parametrize(
    ("new_users", "old_users", "place"),
    [
        ("b,x", "a,1\nb,2\nc,3", r"new/users\.csv, column 'age': 1 value is not a number: 'x', first in row 1"),
        ("a,1", "a,1\nb,2\nc,x", r"old/users\.csv, column 'age': 1 value is not a number: 'x', first in row 3"),
    ],
)
def test_an_error_in_the_users_names_the_row_of_their_file(tmp_path: Path, new_users: str, old_users: str, place: str) -> None:
    new, old = folders(
        tmp_path,
        OLD,
        "user_id,item_id,t\na,z,9\n",
        new_users=f"user_id,age\n{new_users}\n",
        old_users=f"user_id,age\n{old_users}\n",
    )
    fields = {**FIELDS, "age": {"side": "user", "kind": "numeric"}}
    config = parse_config({"data": {"interactions": "e.csv", "users": "users.csv", "time": "t"}, "fields": fields})
    with pytest.raises(DataError, match=place):
        load_additions(config, new, old)
