import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.config import DataConfig
from recall.data.dataset import open_tables
from recall.data.tables import as_library, frame_of, library_of, series_of
from recall.errors import DataError


def test_columns_of_pandas_keep_values_and_gaps() -> None:
    import pandas

    day = datetime.datetime(2026, 1, 31, 12)
    frame = pandas.DataFrame(
        {
            "whole": [1, 2],
            "real": [0.5, None],
            "truth": [True, False],
            "word": ["a", None],
            "time": pandas.to_datetime([day, None]),
            "nullable": pandas.array([7, None], dtype="Int64"),
            "category": pandas.Categorical(["x", None]),
            "list": [["a", "b"], None],
        }
    )
    read = frame_of(frame, "users")
    assert read.fill_nan(None).rows() == [
        (1, 0.5, True, "a", day, 7, "x", ["a", "b"]),
        (2, None, False, None, None, None, None, None),
    ]
    assert [read[name].dtype for name in ("whole", "truth", "word", "nullable")] == [
        pl.Int64,
        pl.Boolean,
        pl.String,
        pl.Int64,
    ]
    indexed = frame_of(frame.set_index("word"), "users")
    assert indexed["word"].to_list() == ["a", None]
    twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(DataError, match="two columns have one name: 'a'"):
        frame_of(twice, "users")
    assert library_of(frame) == "pandas"
    assert series_of(pandas.Series(["a", None]), "ids").to_list() == ["a", None]


def test_frames_become_pandas_without_pyarrow() -> None:
    import pandas

    frame = pl.DataFrame({"id": [1, 2], "score": [0.5, 1.5], "title": ["a", None]})
    shown = as_library(frame, "pandas")
    assert isinstance(shown, pandas.DataFrame)
    assert (shown["id"].to_list(), shown["score"].to_list(), shown["title"][0]) == ([1, 2], [0.5, 1.5], "a")
    assert as_library(frame, "polars") is frame


@pytest.mark.parametrize("lazy", [False, True])
def test_polars_frames_are_taken_as_they_are(lazy: bool) -> None:
    frame = pl.DataFrame({"a": [1]})
    assert frame_of(frame.lazy() if lazy else frame, "items").equals(frame)


@pytest.mark.parametrize("source", [3, [1, 2], {"a": [1]}, object()])
def test_other_objects_are_refused(source: Any) -> None:
    with pytest.raises(DataError, match="a table is given as a") as caught:
        frame_of(source, "items")
    assert caught.value.where == "items"


def test_frames_and_files_are_opened_as_the_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("who,age\nu1,NA\n")
    sources = {
        "interactions": pl.DataFrame({"user_id": ["u1"], "item_id": ["i1"]}),
        "users": tmp_path / "users.csv",
        "items": pl.DataFrame({"code": ["i1"], "brand": ["NA"]}),
    }
    data = DataConfig(id_in_users="who", id_in_items="code", nulls=("NA",))
    tables = open_tables(data, sources)
    assert tables.users is not None
    assert tables.items is not None
    assert tables.users.collect(["user_id", "age"]).rows() == [("u1", None)]
    assert tables.items.collect(["item_id", "brand"]).rows() == [("i1", None)]
    assert tables.items.where("item_id") == "items, column 'code'"
    assert list(open_tables(data, {"interactions": sources["interactions"], "users": None}).named) == ["interactions"]
