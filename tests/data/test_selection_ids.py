from pathlib import Path

import polars as pl
import pytest

from recall.config import DataConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import open_tables
from recall.errors import DataError


def written(folder: Path, interactions: str, items: str) -> Path:
    (folder / "log.csv").write_text("user_id,item_id\n" + interactions)
    (folder / "items.csv").write_text("item_id,name\n" + items)
    return folder


def config(**settings: object) -> DataConfig:
    return DataConfig.model_validate({"interactions": "log.csv", "items": "items.csv", **settings})


def test_rows_without_ids_and_earlier_rows_of_an_id_are_left_out_and_counted(tmp_path: Path) -> None:
    written(tmp_path, "a,1\n,2\nb,\n  ,3\nb,2\n", "1,old\n2,x\n,none\n1,new\n")
    tables = open_tables(config(missing_ids="left out", repeated_ids="last"), tmp_path)
    assert tables.interactions.frame.collect().rows() == [("a", "1"), ("b", "2")]
    assert tables.items is not None
    assert tables.items.frame.collect().rows() == [("2", "x"), ("1", "new")]
    again = "of 2 rows that share their item_id the last of each counts"
    assert [(one.level, one.table, one.message) for one in tables.findings] == [
        ("warning", "interactions", "3 of 5 rows have no user_id or no item_id and are left out"),
        ("note", "items", f"1 of 4 rows have no item_id and are left out; {again}"),
    ]
    assert "without those that data.missing_ids and" in tables.interactions.where("user_id")


def test_what_is_left_out_is_reported(tmp_path: Path) -> None:
    written(tmp_path, "a,1\n,2\nb,2\n", "1,x\n2,y\n")
    run = {"data": config(missing_ids="left out").model_dump(), "fields": {"user_id": {"side": "user", "kind": "categorical"}}}
    run["fields"] |= {"item_id": {"side": "item", "kind": "categorical"}}
    found = [(one.level, one.table, one.message) for one in check(parse_config(run), tmp_path)]
    assert ("note", "interactions", "1 of 3 rows have no user_id or no item_id and are left out") in found
    written(tmp_path, ",1\n,2\n,2\nb,2\n", "1,x\n2,y\n")
    found = [(one.level, one.table, one.message) for one in check(parse_config(run), tmp_path)]
    assert ("warning", "interactions", "3 of 4 rows have no user_id or no item_id and are left out") in found


def test_rows_without_a_time_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,when\na,1,5\na,2,\n,1,7\n")
    (tmp_path / "items.csv").write_text("item_id\n1\n")
    tables = open_tables(config(time="when", missing_ids="left out", missing_times="left out"), tmp_path)
    assert tables.interactions.collect(["item_id", "when"]).rows() == [("1", "5")]
    assert tables.findings[0].message == "2 of 3 rows have no user_id or no item_id or no when and are left out"
    only = open_tables(config(time="when", missing_times="left out"), tmp_path)
    assert only.interactions.collect(["item_id"])["item_id"].to_list() == ["1", "1"]


def test_nothing_changes_where_nothing_is_missing_or_asked(tmp_path: Path) -> None:
    written(tmp_path, "a,1\n", "1,x\n")
    assert open_tables(config(missing_ids="left out", repeated_ids="last"), tmp_path).findings == ()
    written(tmp_path, "a,1\n,2\n", "1,x\n1,y\n")
    tables = open_tables(config(), tmp_path)
    assert isinstance(tables.interactions.frame, pl.LazyFrame)
    assert (len(tables.interactions.collect(["user_id"])), tables.findings) == (2, ())


def test_a_table_without_any_id_is_an_error(tmp_path: Path) -> None:
    written(tmp_path, ",1\n,2\n", "1,x\n")
    with pytest.raises(DataError, match="no row has a value in user_id and item_id"):
        open_tables(config(missing_ids="left out"), tmp_path)


def test_ids_that_are_lists_are_an_error(tmp_path: Path) -> None:
    written(tmp_path, "a,1\n", "1,x\n")
    with pytest.raises(DataError, match=r"column 'item_id': ids are of type List\(String\)"):
        open_tables(config(formats={"items": {"lists": ["item_id"]}}), tmp_path)
