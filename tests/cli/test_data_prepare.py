"""Every command that reads tables reads prepared data as well."""

import re
import shutil
from pathlib import Path

import orjson
import pytest
import tomlkit

from recall.bundle.versions import resolve
from tests.conftest import TINY, write_tiny_tables

SMALL = ("--set", "model.k=4", "--set", "train.sweeps=2")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration and its tables."""
    folder = tmp_path_factory.mktemp("shop")
    write_tiny_tables(folder)
    (folder / "recall.toml").write_text(tomlkit.dumps(TINY))
    return folder


def digests(root: Path) -> dict[str, object]:
    """Return the digests of a live version's files, of its schema and of its data."""
    manifest = orjson.loads((resolve(root) / "manifest.json").read_bytes())
    return {name: manifest[name] for name in ("files", "schema_fingerprint", "data_hash", "sizes", "columns")}


def test_a_model_is_the_same_to_the_bit(run, shop: Path, tmp_path: Path) -> None:
    config, prepared = shop / "recall.toml", tmp_path / "prepared"
    made = run("data", "prepare", config, "--out", prepared, "--shards", 3, "--json")
    assert made.code == 0, made.err
    assert (made.json["interactions"], made.json["users"], made.json["items"], made.json["shards"]) == (160, 12, 15, 3)
    for data, root in ((shop, "one"), (prepared, "two")):
        ended = run("train", config, "--data", data, "--out", tmp_path / root, *SMALL)
        assert ended.code == 0, ended.err
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    reports = [run("evaluate", config, tmp_path / "one", "--data", data, "--json") for data in (shop, prepared)]
    assert [one.code for one in reports] == [0, 0], reports[1].err
    assert len({re.sub(r'("seconds"|"created"): \S+', "", one.out) for one in reports}) == 1
    many = run("data", "prepare", config, "--out", tmp_path / "many", "--shards", 100_000)
    assert many.code == 2
    assert "'--shards': Input should be less than or equal to 99999" in many.err
    again = run("data", "prepare", config, "--out", prepared)
    assert again.code == 65
    assert "the folder holds prepared data" in again.err
    grown = run("train", config, "--resume", tmp_path / "one", "--new", prepared, "--out", tmp_path / "one", *SMALL)
    assert grown.code == 65
    assert "this is prepared data" in grown.err


@pytest.mark.slow
def test_settings_are_searched_on_prepared_data(run, shop: Path, tmp_path: Path) -> None:
    config, prepared = tmp_path / "recall.toml", tmp_path / "prepared"
    shutil.copy(shop / "recall.toml", config)
    assert run("data", "prepare", config, "--data", shop, "--out", prepared).code == 0
    ended = run("tune", config, "--minutes", 0.05, "--data", prepared, "--out", tmp_path / "tuned.toml")
    assert ended.code == 0, ended.err
