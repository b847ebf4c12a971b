"""What is prepared is read as the source files are, to the bit."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data import prepare as module
from recall.data.dataset import Dataset, load_dataset, open_tables
from recall.data.prepare import prepare, require_rows
from recall.data.prepared import SHARDS, USER, read_manifest
from recall.errors import ConfigError, DataError

FIELDS: dict[str, Any] = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
    "history": {"kind": "history", "lags": [[1, 2]]},
    "device": {"side": "user", "kind": "categorical"},
    "hour": {"side": "user", "kind": "numeric"},
    "genres": {"side": "user", "kind": "bag", "separator": "|"},
}
CASES: dict[str, dict[str, Any]] = {
    "no time": {},
    "numbers": {"time": "time"},
    "fractions in one batch": {"time": "clock"},
    "dates": {"time": "date"},
    "weights": {"time": "time", "weight": "stars", "half_life": 2},
    "a label": {"time": "time", "label": "clicked"},
    "events": {"time": "date", "events": {"column": "event", "weights": {"buy": 3, "view": 1}, "not_taken": ["hide"]}},
    "events that are left out": {"events": {"column": "event", "weights": {"buy": 3}, "left_out": ["view", "hide"]}},
    "an outcome": {"time": "time", "outcome": {"column": "stars", "at_least": 3, "below": "not taken"}},
    "since": {"time": "time", "since": 20},
    "merged": {"time": "time", "repeats": "merge"},
    "merged weights": {"time": "time", "repeats": "merge", "weight": "stars", "label": "clicked"},
    "a core": {"time": "date", "min_user": 4, "min_item": 3},
    "a split by column": {"split": {"by": "column", "column": "part"}},
    "a random split": {"split": {"by": "random"}},
    "held-out users": {"time": "time", "split": {"by": "users", "test": 0.3}},
    "a time split, carved": {"time": "clock", "split": {"by": "time", "test": 0.8}, "carve": 0.2},
    "moved columns": {"time": "time", "user_columns": ["country"], "item_columns": ["title"], "attributes": ["title"]},
    "text": {"time": "time", "text": ["user_id", "device"]},
    "missing ids": {"time": "time", "missing_ids": "left out", "user_id": "maybe_user"},
}


def write(folder: Path, suffix: str = ".csv") -> None:
    """Write interactions whose rows are in no order, and tables with other users and items."""
    rng = np.random.default_rng(5)
    n = 400
    user, item = rng.integers(0, 30, n), rng.integers(0, 25, n)
    time = rng.integers(0, 60, n)
    frame = pl.DataFrame(
        {
            "user_id": [f"{one}.0" if one % 3 == 0 else f"{one}" for one in user.tolist()],
            "item_id": [f"i{one}" for one in item.tolist()],
            "maybe_user": [f"{one}" if one % 7 else None for one in user.tolist()],
            "time": time,
            "clock": [f"{one}.5" if place > n - 20 else f"{one}" for place, one in enumerate(time.tolist())],
            "date": [f"2024-01-{1 + one % 28:02}T0{one % 10}:00:00" for one in time.tolist()],
            "stars": rng.integers(1, 6, n),
            "clicked": rng.choice(["true", "False", "1"], n),
            "event": rng.choice(["buy", "view", "hide"], n),
            "part": rng.choice(["train", "train", "valid", "test"], n),
            "device": ["unknown" if one < 20 else f"{one % 4}.0" for one in time.tolist()],
            "hour": [f"{2**53 + one}" if one < 20 else f"{one}" for one in time.tolist()],
            "genres": rng.choice(["a| b", "b", "", "c|a"], n),
            "country": [f"c{one % 3}" for one in user.tolist()],
            "title": [f"title {one}" for one in item.tolist()],
        }
    )
    users = pl.DataFrame({"user_id": ["4", "99.0", "2"], "age": ["3", "", "4.50"]})
    items = pl.DataFrame({"item_id": ["i3", "i77"], "price": ["1.50", "2"], "since": ["3", "50"]})
    for name, table in (("interactions", frame), ("users", users), ("items", items)):
        (table.write_csv if suffix == ".csv" else table.write_parquet)(folder / f"{name}{suffix}")


def config_of(data: dict[str, Any], suffix: str = ".csv", tables: bool = False) -> RunConfig:
    """Return a configuration, with the tables of users and items or without."""
    named = ("interactions", "users", "items") if tables else ("interactions",)
    files = {name: f"{name}{suffix}" for name in named}
    user_id = data.get("user_id", "user_id")
    fields = {user_id if name == "user_id" else name: field for name, field in FIELDS.items()}
    if tables:
        fields |= {"age": {"side": "user", "kind": "numeric"}, "price": {"side": "item", "kind": "categorical"}}
    return parse_config({"name": "prepared", "data": {**files, **data}, "fields": fields})


def prepared(config: RunConfig, folder: Path, out: Path, shards: int | None = 3) -> Dataset:
    """Prepare the tables of a folder, and read them."""
    prepare(config, open_tables(config.data, folder), folder, out, shards)
    return load_dataset(config, out)


def assert_same(source: Dataset, read: Dataset) -> None:
    assert read.events.equals(source.events)
    assert read.events.schema == source.events.schema
    assert read.fingerprint() == source.fingerprint()
    assert read.types == source.types
    assert (read.left_out, read.observation, read.hold_out) == (source.left_out, source.observation, source.hold_out)
    assert (read.context_columns, read.ordered) == (source.context_columns, source.ordered)
    if source.weight_range is not None and read.weight_range is not None:
        assert read.weight_range.mean == pytest.approx(source.weight_range.mean)  # a sum in another order


@pytest.mark.parametrize("name", CASES)
def test_the_same_is_read_as_from_the_source_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 64)  # several batches
    write(tmp_path)
    config = config_of(CASES[name])
    assert_same(load_dataset(config, tmp_path), prepared(config, tmp_path, tmp_path / "prepared"))


@pytest.mark.parametrize(
    "data", [{"time": "date", "weight": "stars"}, {"time": "time", "available_from": "since", "min_user": 3}]
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_of_users_and_items_keep_their_rows(suffix: str, data: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, suffix)
    config = config_of(data, suffix, tables=True)
    source, read = load_dataset(config, tmp_path), prepared(config, tmp_path, tmp_path / "prepared")
    assert_same(source, read)
    assert read.users["user_id"].head(3).to_list() == ["4", "99", "2"]
    assert (read.available is None) == (source.available is None)


def test_settings_of_the_split_may_change_afterwards(tmp_path: Path) -> None:
    write(tmp_path)
    prepare(config := config_of({"time": "time"}), open_tables(config.data, tmp_path), tmp_path, tmp_path / "prepared")
    for data in ({"split": {"by": "last"}}, {"carve_last": 1}, {"split": {"by": "items"}}):
        changed = config_of({"time": "time", **data})
        assert_same(load_dataset(changed, tmp_path), load_dataset(changed, tmp_path / "prepared"))


def test_shards_are_of_whole_users_and_similar_size(tmp_path: Path) -> None:
    write(tmp_path)
    config = config_of({"time": "time"})
    for shards in (1, 4, 1000):
        out = tmp_path / f"prepared-{shards}"
        prepare(config, open_tables(config.data, tmp_path), tmp_path, out, shards)
        users = [pl.read_parquet(path)[USER] for path in sorted((out / SHARDS).iterdir())]
        assert len(users) == min(shards, 30)
        assert all(int(one.max()) < int(after.min()) for one, after in pairwise(users))
        if shards == 4:
            assert max(map(len, users)) < 2 * min(map(len, users))
    assert {path.name for path in out.iterdir()} == {SHARDS, "prepared.json", "user_ids.parquet", "item_ids.parquet"}


def test_the_manifest_says_what_it_was_made_from(tmp_path: Path) -> None:
    write(tmp_path)
    config = config_of({"time": "time"}, tables=True)
    manifest = prepare(config, open_tables(config.data, tmp_path), tmp_path, tmp_path / "prepared")
    assert manifest == read_manifest(tmp_path / "prepared")
    assert list(manifest.sources) == ["interactions.csv", "users.csv", "items.csv"]
    assert (manifest.interactions, manifest.users, manifest.items) == (400, 31, 26)
    assert manifest.settings["time"] == "time"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("user_id", "", "1 of 400 rows have no id, first in row 301"),
        ("time", "", "rows have no time, first in row 301"),
        ("time", "soon", "neither numbers nor ISO 8601 times: 'soon', first in row 301"),
        ("time", "2024-01-01", "first in row"),
        ("stars", "-1", "not positive: '-1', first in row 301"),
        ("clicked", "often", "1 value is not a number: 'often', first in row 301"),
    ],
)
def test_errors_name_the_row_of_the_source(
    column: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 64)
    write(tmp_path)
    frame = pl.read_csv(tmp_path / "interactions.csv", infer_schema=False)
    frame.with_columns(frame[column].scatter(300, value)).write_csv(tmp_path / "interactions.csv")
    config = config_of({"time": "time", "weight": "stars", "label": "clicked"})
    with pytest.raises(DataError, match=words):
        prepared(config, tmp_path, tmp_path / "prepared")


def test_an_interrupted_preparation_is_made_again(tmp_path: Path) -> None:
    write(tmp_path)
    config, out = config_of({"time": "time"}), tmp_path / "prepared"
    prepared(config, tmp_path, out)
    (out / "prepared.json").rename(out / "prepared.json.part")
    with pytest.raises(DataError, match="not prepared to the end"):
        load_dataset(config, out)
    assert_same(load_dataset(config, tmp_path), prepared(config, tmp_path, out))
    with pytest.raises(DataError, match="the folder holds prepared data"):
        prepared(config, tmp_path, out)
    with pytest.raises(DataError, match="the data is prepared already"):
        prepare(config, open_tables(config.data, out), out, tmp_path / "again")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="the folder holds other files"):
        prepared(config, tmp_path, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_names_of_the_format_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    frame = pl.read_csv(tmp_path / "interactions.csv", infer_schema=False).rename({"device": "recall_time"})
    frame.write_csv(tmp_path / "interactions.csv")
    values = config_of({"time": "time"}).model_dump(mode="json", exclude_unset=True, by_alias=True)
    values["fields"]["recall_time"] = values["fields"].pop("device")
    with pytest.raises(ConfigError, match="cannot be called 'recall_time'"):
        prepared(parse_config(values), tmp_path, tmp_path / "prepared")


def test_more_ids_than_32_bits_number_are_refused() -> None:
    require_rows(2**31 - 1, "users", "log, column 'user_id'")
    with pytest.raises(DataError, match="2,147,483,648 users are more"):
        require_rows(2**31, "users", "log, column 'user_id'")
