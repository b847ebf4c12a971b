"""Changes of the catalogue from the command line."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from recall.bundle.reader import load_bundle
from recall.store.items.log import JOURNAL, SqliteChangeLog
from tests.store.items.entries import since


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


def test_items_are_upserted_deleted_and_compacted(run, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("item_id,category,tags,tag_weights,price\nfresh,c1,t1|t2,1|2,9.5\n007,,,,\ni2,c0,,,4\n")
    ended = run("items", "upsert", root, table, "--key", "one")
    assert ended.code == 0, ended.err
    assert ended.out.split() == ["added", "2", "replaced", "1", "sequence", "3"]
    assert "warning: 1 of 3 items: no field has a value" in ended.err
    assert run("items", "upsert", root, table, "--key", "one", "--json").json["sequence"] == 3
    ended = run("items", "delete", root, "i3", "nowhere", "--json")
    assert ended.json == {"sequence": 5, "deleted": 1, "not there": 1}
    first = since(SqliteChangeLog(root / JOURNAL), 0)[0]
    assert first.features == {"category": "c1", "tags": ["t1", "t2"], "tag_weights": [1.0, 2.0], "price": 9.5}
    ended = run("query", root, "-n", 100)
    assert "fresh" in ended.out
    assert "i3 " not in ended.out
    ended = run("compact", root, "--json")
    assert (ended.json["added"], ended.json["removed"], ended.json["changed"], ended.json["folded"]) == (2, 1, 1, 5)
    assert {"fresh", "007"} < set(load_bundle(root).item_ids.values)
    assert "nothing has changed" in run("compact", root).out
    assert run("compact", root, "--json").json == {"folder": None}
    assert run("items", "delete", root, "007").code == 0
    assert "0 added, 1 removed, 0 changed" in run("compact", root).out


def test_parquet_tables_may_contain_nan_and_missing_values(run, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.parquet"
    values = {"item_id": [1, 2], "price": [float("nan"), 2.0], "tags": [["t1"], None], "tag_weights": [[1.0], None]}
    pl.DataFrame(values).write_parquet(table)
    assert run("items", "upsert", root, table, "--json").json == {"sequence": 2, "added": 2, "replaced": 0}
    one, two = since(SqliteChangeLog(root / JOURNAL), 0)
    assert (one.item_id, one.features) == ("1", {"tags": ["t1"], "tag_weights": [1.0]})
    assert (two.item_id, two.features) == ("2", {"price": 2.0})


def test_invalid_input_is_reported(run, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("item_id,pryce\nfresh,9\n")
    ended = run("items", "upsert", root, table)
    assert ended.code == 65
    assert "Did you mean 'price'" in ended.err
    table.write_text("item_id,price\nfresh,dear\n")
    ended = run("items", "upsert", root, table)
    assert ended.code == 65
    assert "item 'fresh'" in ended.err
    assert not (root / JOURNAL).exists()
    ended = run("items", "delete", root / "versions" / load_bundle(root).folder.name, "i1")
    assert ended.code == 74
    assert "Load the root" in ended.err
    (root / JOURNAL).write_bytes(b"")
    ended = run("query", root)
    assert ended.code == 74
