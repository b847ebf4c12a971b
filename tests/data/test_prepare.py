"""What is prepared is read as the source files are, to the bit."""

import fcntl
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall._file_system import descriptor
from recall.config import RunConfig, parse_config
from recall.data import prepare as module
from recall.data.dataset import Dataset, load_dataset, open_tables
from recall.data.prepare import prepare
from recall.data.prepared_manifest import SHARDS, USER, read_manifest
from recall.data.tables import UNFINISHED, read_tables
from recall.errors import ConfigError, DataError

FIELDS: dict[str, Any] = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
    "history": {"kind": "history", "lags": [[1, 2]]},
    "device": {"side": "user", "kind": "categorical"},
    "hour": {"side": "user", "kind": "numeric"},
    "genres": {"side": "user", "kind": "bag", "separator": "|"},
}
_SIDES = {"train": ["true"], "valid": ["False"], "test": ["1"]}
_TIMES = {"train": [*map(str, range(50))], "valid": [*map(str, range(50, 55))], "test": [*map(str, range(55, 60))]}
_USERS = {"train": [*map(str, range(25))], "valid": ["25", "26"], "test": ["27", "28", "29"]}
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
    "since zero": {"time": "shifted", "since": 0},
    "until zero": {"time": "shifted", "until": 0},
    "merged": {"time": "time", "repeats": "merge"},
    "merged weights": {"time": "time", "repeats": "merge", "weight": "stars", "label": "clicked"},
    "a core": {"time": "date", "min_user": 4, "min_item": 3},
    "a split by column": {"split": {"by": "column", "column": "part"}},
    "a split by the label": {"time": "time", "label": "clicked", "split": {"by": "column", "column": "clicked", **_SIDES}},
    "a split by the time": {"time": "time", "split": {"by": "column", "column": "time", **_TIMES}},
    "a split by the users": {"split": {"by": "column", "column": "user_id", **_USERS}},
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
            "shifted": time - 30,
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
    assert (source.weight_range is None) == (read.weight_range is None)
    if source.weight_range is not None and read.weight_range is not None:
        assert read.weight_range.mean == pytest.approx(source.weight_range.mean)  # a sum in another order


@pytest.mark.parametrize("name", CASES)
def test_the_same_is_read_as_from_the_source_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 64)  # several batches
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
        ("user_id", "", "2 of 400 rows have no id, rows 301, 391, first in row 301"),
        ("time", "", "rows have no time, first in row 301"),
        ("time", "soon", "neither numbers nor ISO 8601 times: 'soon', first in row 301"),
        ("time", "2024-01-01", "first in row"),
        ("stars", "-1", "not positive: '-1', first in row 301"),
        ("clicked", "often", "not a number.*: 'often', first in row 301"),
    ],
)
def test_errors_name_the_row_of_the_source(
    column: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 64)
    write(tmp_path)
    frame = pl.read_csv(tmp_path / "interactions.csv", infer_schema=False)
    frame.with_columns(frame[column].scatter([300, 390], value)).write_csv(tmp_path / "interactions.csv")
    config = config_of({"time": "time", "weight": "stars", "label": "clicked"})
    with pytest.raises(DataError, match=words) as source:
        load_dataset(config, tmp_path)
    with pytest.raises(DataError, match=words) as raised:
        prepared(config, tmp_path, tmp_path / "prepared")
    assert str(raised.value) == str(source.value)


def test_an_interrupted_preparation_is_made_again(tmp_path: Path) -> None:
    write(tmp_path)
    config, out = config_of({"time": "time"}), tmp_path / "prepared"
    prepared(config, tmp_path, out)
    (out / "prepared.json").rename(out / "prepared.json.part")
    with pytest.raises(DataError, match="not prepared to the end"):
        load_dataset(config, out)
    with pytest.raises(DataError, match="not prepared to the end"):
        read_tables(config.data, out)
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


def test_a_column_that_is_read_in_another_way_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    config = config_of({"time": "time", "since": 20})
    prepared(config, tmp_path, tmp_path / "prepared")
    values = config.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for name, field in (
        ("device", {"side": "user", "kind": "numeric"}),
        ("hour", {"side": "user", "kind": "categorical"}),
        ("genres", {"side": "user", "kind": "bag", "separator": "&"}),
    ):
        changed = parse_config({**values, "fields": {**values["fields"], name: field}})
        with pytest.raises(DataError, match=f"read the column '{name}' in another way"):
            load_dataset(changed, tmp_path / "prepared")


@pytest.mark.parametrize("left_out", ["0.5", str(2**64 - 1)])
def test_numbers_have_the_type_that_rows_left_out_decided(left_out: str, tmp_path: Path) -> None:
    write(tmp_path)
    frame = pl.read_csv(tmp_path / "interactions.csv", infer_schema=False)
    early = frame["time"].cast(pl.Int64) < 20
    hours = pl.when(pl.lit(early)).then(pl.lit(left_out)).otherwise(pl.lit(str(2**53 + 1)))
    frame.with_columns(hour=hours).write_csv(tmp_path / "interactions.csv")
    config = config_of({"time": "time", "since": 20})
    assert_same(load_dataset(config, tmp_path), prepared(config, tmp_path, tmp_path / "prepared"))


def test_another_split_column_needs_another_preparation(tmp_path: Path) -> None:
    write(tmp_path)
    config = config_of({"time": "time"})
    prepared(config, tmp_path, tmp_path / "prepared")
    with pytest.raises(DataError, match=r"there is no column 'part'.*Prepare the data again"):
        load_dataset(config_of({"time": "time", "split": {"by": "column", "column": "part"}}), tmp_path / "prepared")


@pytest.mark.parametrize("time", ["touched", "kept"])
def test_a_source_that_changes_meanwhile_is_refused(time: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    config, source = config_of({"time": "time"}), tmp_path / "interactions.csv"
    written = module._write_shards

    def changed_first(*args: Any) -> None:
        before = source.stat()
        source.write_text(source.read_text().replace(",i3,", ",i8888,") if time == "kept" else source.read_text())
        os.utime(source, ns=(0, before.st_mtime_ns if time == "kept" else before.st_mtime_ns + 1))
        written(*args)

    monkeypatch.setattr(module, "_write_shards", changed_first)
    with pytest.raises(DataError, match="the source changed while the data was prepared"):
        prepared(config, tmp_path, tmp_path / "prepared")
    assert not (tmp_path / "prepared" / "prepared.json").exists()


def test_a_folder_that_another_process_prepares_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    config, out = config_of({"time": "time"}), tmp_path / "prepared"
    out.mkdir()
    (out / UNFINISHED).write_text("4321")
    (out / "user_ids.parquet").touch()
    with descriptor(out) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another process prepares data here.*process 4321"):
            prepared(config, tmp_path, out)
        assert (out / "user_ids.parquet").exists()
    assert_same(load_dataset(config, tmp_path), prepared(config, tmp_path, out))


def test_fractional_ids_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ".parquet")
    path = tmp_path / "interactions.parquet"
    pl.read_parquet(path).with_columns(user_id=pl.col("time") / 2).write_parquet(path)
    with pytest.raises(DataError, match=r"interactions\.parquet, column 'user_id'.*ids are fractional numbers"):
        prepared(config_of({"time": "time"}, ".parquet"), tmp_path, tmp_path / "prepared")
