"""Rows of the items table, cached in memory or read from the file."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recall.bundle import reader
from recall.bundle.reader import ItemTable
from recall.errors import BundleError

ASKED = ([3], [999, 0, 999, 5], [], list(range(1000)), list(range(999, -1, -7)))


@pytest.fixture
def items() -> pl.DataFrame:
    rows = range(1000)
    return pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in rows],
            "tags": [[f"t{row % 7}"] * (row % 3) for row in rows],
            "price": [None if row % 5 == 0 else row / 3 for row in rows],
        }
    )


@pytest.fixture
def path(items: pl.DataFrame, tmp_path: Path) -> Path:
    items.write_parquet(tmp_path / "items.parquet", row_group_size=100)
    return tmp_path / "items.parquet"


@pytest.mark.parametrize("far", [1, 2, 50, 1 << 16])
@pytest.mark.parametrize("held", [True, False])
def test_rows_are_returned_in_table_order(
    items: pl.DataFrame, path: Path, held: bool, far: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MAX_GAP", far)
    table = ItemTable(path, 1 << 30 if held else 0)
    for asked in ASKED:
        rows = np.array(asked, dtype=np.int64)
        assert_frame_equal(table.rows(rows), items[rows])
    assert (table._cached is not None) == held


def test_a_table_above_the_memory_limit_is_not_cached(items: pl.DataFrame, path: Path) -> None:
    most = path.stat().st_size + 1
    assert most < items.estimated_size()
    table = ItemTable(path, most)
    assert_frame_equal(table.rows(np.array([7])), items[[7]])
    assert table._cached is None


def test_a_cached_table_survives_deletion_of_its_file(items: pl.DataFrame, path: Path) -> None:
    table = ItemTable(path)
    table.rows(np.array([1]))
    path.unlink()
    assert_frame_equal(table.rows(np.array([7])), items[[7]])


@pytest.mark.parametrize("most", [0, 1 << 30])
def test_a_read_error_is_reported_and_retried(items: pl.DataFrame, path: Path, most: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(b"nonsense")
    table = ItemTable(path, most)
    with pytest.raises(BundleError, match="cannot be read"):
        table.rows(np.array([7]))
    path.write_bytes(whole)
    assert_frame_equal(table.rows(np.array([7])), items[[7]])


def test_threads_share_the_table(items: pl.DataFrame, path: Path) -> None:
    table = ItemTable(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: table.rows(np.array([row]))["item_id"].item(), range(200)))
    assert found == items["item_id"][:200].to_list()
