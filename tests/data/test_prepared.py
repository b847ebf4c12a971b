"""Prepared data that is damaged, or does not fit, is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import load_dataset, open_tables
from recall.data.incremental import load_additions
from recall.data.prepare import prepare
from recall.data.prepared_manifest import SHARDS, write_manifest
from recall.data.profile import profile
from recall.errors import DataError


@pytest.fixture
def folder(tiny_folder: Path, tiny_config: RunConfig) -> Path:
    """The tiny data set, prepared in three shards."""
    prepare(tiny_config, open_tables(tiny_config.data, tiny_folder), tiny_folder, tiny_folder / "prepared", 3)
    return tiny_folder / "prepared"


def remove_a_shard(folder: Path) -> None:
    (folder / SHARDS / "part-00001.parquet").unlink()


def damage_a_shard(folder: Path) -> None:
    path = folder / SHARDS / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def remove_the_ids(folder: Path) -> None:
    (folder / "item_ids.parquet").unlink()


def damage_the_manifest(folder: Path) -> None:
    (folder / "prepared.json").write_text('{"format": 1}')


def cut_the_manifest(folder: Path) -> None:
    (folder / "prepared.json").write_bytes((folder / "prepared.json").read_bytes()[:50])


def make_it_newer(folder: Path) -> None:
    manifest = orjson.loads((folder / "prepared.json").read_bytes())
    (folder / "prepared.json").write_bytes(orjson.dumps({**manifest, "format": 2, "more": 1}))


def leave_it_unfinished(folder: Path) -> None:
    (folder / "prepared.json").rename(folder / "prepared.json.part")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove_a_shard, "part-00001.parquet: a file of the prepared data is missing"),
        (damage_a_shard, "part-00001.parquet: the file is damaged"),
        (remove_the_ids, "item_ids.parquet: a file of the prepared data is missing"),
        (damage_the_manifest, "the manifest is damaged"),
        (cut_the_manifest, "the manifest is damaged"),
        (make_it_newer, "prepared by a newer version"),
        (leave_it_unfinished, "not prepared to the end"),
    ],
)
def test_what_is_damaged_is_refused(folder: Path, tiny_config: RunConfig, change: Callable[[Path], None], words: str) -> None:
    change(folder)
    with pytest.raises(DataError, match=words):
        load_dataset(tiny_config, folder)


def rewritten(folder: Path, config: RunConfig, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change a file and write the manifest again, as another program would that makes a mistake."""
    change(pl.read_parquet(folder / name)).write_parquet(folder / name)
    write_manifest(config.data, folder, {})


FIRST = f"{SHARDS}/part-00000.parquet"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (FIRST, lambda frame: frame.reverse(), "not sorted by user and time, first in row"),
        (FIRST, lambda frame: frame.with_columns(recall_item=pl.lit(99, pl.Int32)), "item rows go from"),
        (FIRST, lambda frame: frame.with_columns(pl.col("recall_user").cast(pl.Int64)), "must be Int32 without missing values"),
        (FIRST, lambda frame: frame.with_columns(recall_time=pl.lit(None, pl.Int64)), "must be Int64 without missing values"),
        (FIRST, lambda frame: frame.drop("recall_weight"), "there is no column 'recall_weight'"),
        (FIRST, lambda frame: frame.drop("device"), "device"),
        (
            FIRST,
            lambda frame: frame.with_columns(recall_weight=pl.lit(0.0)),
            "part-00000.parquet.*and finite, got 0.0",
        ),
        (FIRST, lambda frame: frame.with_columns(recall_weight=pl.lit(float("nan"))), "positive and finite, got nan"),
        ("item_ids.parquet", lambda frame: pl.concat([frame, frame.head(1)]), "item_ids.parquet: ids are in more than one row"),
        ("item_ids.parquet", lambda frame: pl.concat([frame, pl.DataFrame({"id": [" "]})]), "item_ids.parquet.*have no id"),
        ("user_ids.parquet", lambda frame: frame.reverse(), "the first ids are not those of users.parquet"),
    ],
)
def test_what_another_program_wrote_wrongly_is_refused(
    folder: Path, tiny_config: RunConfig, name: str, change: Callable[[pl.DataFrame], pl.DataFrame], words: str
) -> None:
    rewritten(folder, tiny_config, name, change)
    with pytest.raises(DataError, match=words):
        load_dataset(tiny_config, folder)


def test_a_manifest_that_counts_other_rows_is_refused(folder: Path, tiny_config: RunConfig) -> None:
    manifest = orjson.loads((folder / "prepared.json").read_bytes())
    (folder / "prepared.json").write_bytes(orjson.dumps({**manifest, "interactions": manifest["interactions"] + 1}))
    with pytest.raises(DataError, match="the shards hold 160 rows, and the manifest says 161"):
        load_dataset(tiny_config, folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"min_user": 3}, "data.min_user was 1 and is 3"),
        ({"time": None, "split": {"by": "none"}}, 'data.time was "time" and is null'),
    ],
)
def test_changed_settings_are_named(folder: Path, tiny_config: RunConfig, data: dict[str, Any], words: str) -> None:
    changed = type(tiny_config.data).model_validate({**tiny_config.data.model_dump(), **data})
    with pytest.raises(DataError, match="has changed since the data was prepared") as raised:
        load_dataset(tiny_config.model_copy(update={"data": changed}), folder)
    assert words in str(raised.value)


def test_ids_in_another_form_than_a_bundle_has_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    frame = pl.read_parquet(tiny_folder / "interactions.parquet")
    numbered = pl.concat_str(pl.col("item_id").str.slice(1), pl.lit(".0"))
    frame.with_columns(numbered).write_parquet(tiny_folder / "interactions.parquet")
    fields = {name: {"side": name.partition("_")[0], "kind": "categorical"} for name in ("user_id", "item_id")}
    config = parse_config({"name": "ids", "fields": fields})
    types = load_dataset(config, tiny_folder).types
    kept = parse_config({"name": "ids", "data": {"text": ["item_id"]}, "fields": fields})
    prepare(kept, open_tables(kept.data, tiny_folder), tiny_folder, tmp_path / "prepared")
    assert types.items["item_id"] == "integer"
    with pytest.raises(DataError, match="another form than the model has"):
        load_dataset(kept, tmp_path / "prepared", types)


def test_what_needs_the_source_says_so(folder: Path, tiny_folder: Path, tiny_config: RunConfig) -> None:
    assert not [one for one in check(tiny_config, folder) if one.level == "error"]
    with pytest.raises(DataError, match="prepared data has no profile"):
        profile(tiny_config, open_tables(tiny_config.data, folder))
    with pytest.raises(DataError, match="this is prepared data"):
        load_additions(tiny_config, folder, tiny_folder)
