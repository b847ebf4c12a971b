from pathlib import Path

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.additions import load_additions
from recall.data.dataset import load_dataset
from recall.data.split import VALID
from recall.errors import DataError
from tests.conftest import EVENTS, TINY


def test_old_and_new_are_one_data_set(tiny_folder: Path, tiny_additions: Path, tiny_config: RunConfig) -> None:
    dataset = load_additions(tiny_config, tiny_additions, tiny_folder)
    assert len(dataset.events) == EVENTS + 40
    users = {user.pop("user_id"): user for user in dataset.users.iter_rows(named=True)}
    assert users["u1"]["gender"] == "f"
    assert users["u0"]["gender"] == "f"
    assert users["new"]["zip"] == "77777"
    assert {"fresh", "fresher", "never"} <= set(dataset.items["item_id"])
    assert dict(dataset.items.select("item_id", "category").iter_rows())["i2"] == "c0"


def test_new_interactions_come_after_the_old_ones_of_their_user(
    tiny_folder: Path, tiny_additions: Path, tiny_config: RunConfig
) -> None:
    old = load_dataset(tiny_config, tiny_folder)
    both = load_additions(tiny_config, tiny_additions, tiny_folder)

    def devices(dataset, user):
        row = dataset.users["user_id"].to_list().index(user)
        return dataset.events.filter(pl.col("user") == row)["device"].to_list()

    before, after = devices(old, "u2"), devices(both, "u2")
    assert after[: len(before)] == before
    assert set(after[len(before) :]) <= {"phone", "watch"}


@pytest.mark.parametrize("name", ["users", "items"])
def test_a_table_without_changes_may_be_left_out(
    name: str, tiny_folder: Path, tiny_additions: Path, tiny_config: RunConfig
) -> None:
    (tiny_additions / f"{name}.parquet").unlink()
    dataset = load_additions(tiny_config, tiny_additions, tiny_folder)
    assert len(dataset.events) == EVENTS + 40
    assert {"new"} <= set(dataset.users["user_id"])


def test_validation_is_carved_from_the_new_interactions(tiny_folder: Path, tiny_additions: Path) -> None:
    data = {**TINY["data"], "split": {"by": "none"}, "carve": 0.5}
    dataset = load_additions(parse_config({**TINY, "data": data}), tiny_additions, tiny_folder)
    valid = dataset.events.filter(pl.col("split") == VALID)
    assert len(valid) == 20
    assert set(dataset.users["user_id"].gather(valid["user"])) <= {"new", "u0", "u1", "u2", "u3"}


def test_the_old_tables_are_not_new(tiny_folder: Path, tiny_config: RunConfig) -> None:
    with pytest.raises(DataError, match="the new tables are the old ones"):
        load_additions(tiny_config, tiny_folder, tiny_folder)
