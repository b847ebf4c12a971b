import tomllib
from pathlib import Path

from recall.config import load_config

SHOP = """# a comment of the user's own
name = "shop"

[data]
time = "time"  # seconds
users = "users.parquet"
items = "items.parquet"
split = { by = "last", test = 1, valid = 1 }

[fields]
user_id = { side = "user", kind = "categorical" }
item_id = { side = "item", kind = "categorical" }
tags = { side = "item", kind = "bag" }

[model]
k = 4

[train]
sweeps = 2
"""


def test_the_best_settings_are_written_with_where_they_come_from(run, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP)
    ended = run("tune", file, "--minutes", 0.05, "--data", tiny_folder, "--objective", "square", "--json")
    assert ended.code == 0, ended.err
    assert "trial   0" in ended.err
    written = tmp_path / "shop.tuned.toml"
    text = written.read_text()
    assert text.startswith("# Found by `recall tune` on 20")
    assert "The test part was not looked at." in text
    assert "# a comment of the user's own" in text
    config = load_config(written)
    assert config.train.objective == "square"
    assert ended.json["file"] == str(written)
    assert ended.json["trials"] >= 1
    assert tomllib.loads(text)["fields"] == tomllib.loads(SHOP)["fields"]


def test_an_objective_that_is_none_is_named(run, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP)
    ended = run("tune", file, "--minutes", 1, "--objective", "sqare")
    assert ended.code != 0
    assert "unknown objective 'sqare'" in ended.err
    assert "square" in ended.err
