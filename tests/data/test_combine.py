import datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.data.combine import append_rows, upsert_rows
from recall.data.tables import Table
from recall.errors import DataError

IDS = st.lists(st.integers(0, 9), max_size=6, unique=True)


def table(name: str, **columns: object) -> Table:
    frame = pl.DataFrame(columns)
    return Table(Path(name), frame.lazy(), frame.schema)


def test_tables_are_concatenated_over_common_columns() -> None:
    joined = append_rows(table("old", id=["a"], n=[1], only=[1]), table("new", n=[2.5], id=["b"]))
    assert joined.path == Path("new")
    assert joined.collect(["id", "n"]).to_dict(as_series=False) == {"id": ["a", "b"], "n": [1.0, 2.5]}
    assert "only" not in joined.columns


def test_a_number_and_its_text_are_the_same_value() -> None:
    joined = append_rows(table("old", id=[7, 8]), table("new", id=["007", "9"]))
    assert joined.collect(["id"])["id"].to_list() == ["7", "8", "007", "9"]


@pytest.mark.parametrize(
    ("before", "after", "both"),
    [
        ([None], [["a"]], [None, ["a"]]),
        ([["a"]], [None], [["a"], None]),
        ([[]], [["a"]], [[], ["a"]]),
        ([None], [1.5], [None, 1.5]),
        ([datetime.date(2025, 1, 2)], ["2025-01-03"], ["2025-01-02", "2025-01-03"]),
        ([True], [False], [True, False]),
        ([1], [2.5], [1.0, 2.5]),
    ],
)
def test_columns_of_different_types_are_concatenated(before: list[object], after: list[object], both: list[object]) -> None:
    joined = append_rows(table("old", x=before), table("new", x=after))
    assert joined.collect(["x"])["x"].to_list() == both


@given(IDS, IDS)
def test_a_newer_row_replaces_an_older_one(before: list[int], after: list[int]) -> None:
    older = table("old", id=pl.Series(before, dtype=pl.Int64), x=["old"] * len(before))
    newer = table("new", id=pl.Series(map(str, after), dtype=pl.String), x=["new"] * len(after))
    rows = dict(upsert_rows(older, newer, "id").collect(["id", "x"]).iter_rows())
    assert rows == {str(number): "old" for number in before} | {str(number): "new" for number in after}


def test_bags_and_single_values_cannot_be_mixed() -> None:
    with pytest.raises(DataError, match=r"old: column 'tags' is of type List\(String\) here and String in new"):
        append_rows(table("old", tags=[["a"]]), table("new", tags=["a|b"]))


def test_a_table_without_ids_is_refused() -> None:
    with pytest.raises(DataError, match="new: there is no column 'id'"):
        upsert_rows(table("old", id=["a"]), table("new", x=["a"]), "id")
