import numpy as np
import polars as pl
import pytest

from recall.data.entities import Offer, available, require_numbered
from recall.data.tables import read_table
from recall.data.times import Times
from recall.errors import DataError


def table(tmp_path, since):
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": [str(row) for row in range(len(since))], "since": since}).write_parquet(path)
    return read_table(path)


def test_items_are_classified_by_their_training_data():
    offer = Offer.of(np.array([0, 2, 2]), np.array([2, 3]), np.array([True, False, False, False, True, False]), 6)
    assert offer.interacted.tolist() == [True, False, True, False, False, False]
    assert offer.shown.tolist() == [False, False, False, True, True, False]
    assert offer.candidates.tolist() == [True, False, True, True, True, False]
    assert offer.counts() == {"trained on": 2, "on offer but never taken": 2, "without interactions": 2}


def test_an_item_is_available_from_its_date(tmp_path):
    times = Times.of(pl.Series(["2024-01-01", "2024-03-01"]), "here")
    since = ["2024-02-01", "2024-03-01", "2024-03-02", None]
    found = available(table(tmp_path, since), "since", 5, times)
    assert found.tolist() == [True, True, False, False, False]


def test_dates_are_not_compared_with_numbers(tmp_path):
    times = Times.of(pl.Series([1, 2]), "here")
    with pytest.raises(DataError, match=r"the column holds dates, and data\.time holds numbers"):
        available(table(tmp_path, ["2024-02-01"]), "since", 1, times)


def test_dates_need_times_to_compare_with(tmp_path):
    with pytest.raises(DataError, match="times of the interactions"):
        available(table(tmp_path, [1]), "since", 1, None)


def test_more_ids_than_32_bits_number_are_refused() -> None:
    require_numbered(2**31 - 1, "log, column 'user_id'")
    with pytest.raises(DataError, match="2,147,483,648 ids are more"):
        require_numbered(2**31, "log, column 'user_id'")
