from pathlib import Path

import pytest

from recall.config import load_config
from recall.config.data import ColumnSplit, LastSplit, NoSplit, RandomSplit, Split, TimeSplit
from recall.training.tune.study import TuneResult, write_config

DRAFTED = """
[data]
items = "items.parquet"

[fields]
user_id = { side = "user", kind = "categorical" }
item_id = { side = "item", kind = "categorical" }
tags = { side = "item", kind = "bag" }
brand = { side = "item", kind = "categorical" }

[train]
objective = "auto"
"""


def test_fields_that_are_left_out_are_written(tmp_path: Path) -> None:
    source, out = tmp_path / "shop.toml", tmp_path / "tuned.toml"
    source.write_text(DRAFTED)
    values = {
        "model": {"kind": "fm", "k": 32},
        "train": {"objective": "square", "regularisation": 0.01234},
        "fields": {"tags": None, "brand": {"min_count": 2}},
        "data": {"attributes": ["tags"]},
    }
    found = TuneResult(values, 0.2, None, "ndcg@10", 3, 60.0, "0" * 64, 100, 80)
    write_config(source, found, out, 1.0)
    config = load_config(out)
    assert list(config.fields) == ["user_id", "item_id", "brand"]
    assert config.fields["brand"].min_count == 2
    assert config.data.attributes == ("tags",)
    assert (config.model.k, config.train.objective) == (32, "square")
    assert "0.2000 on 80 requests of 100 interactions" in out.read_text()


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ('split = { by = "column" }', ColumnSplit(by="column", train=("train", "valid"), valid=())),
        ('time = "day"\nsplit = { by = "last" }', LastSplit(by="last", valid=0)),
        ('time = "day"\nsplit = { by = "time", valid = 0.8 }', TimeSplit(by="time")),
        ('split = { by = "random", test = 0.2 }', RandomSplit(by="random", test=0.2, valid=0.0)),
        ('split = { by = "random", test = 0.2, valid = 0 }\ncarve = 0.1', RandomSplit(by="random", test=0.2, valid=0.0)),
        ('time = "day"\ncarve_last = 1', NoSplit()),
    ],
)
def test_the_validation_part_trains_with_the_settings_found(tmp_path: Path, split: str, expected: Split) -> None:
    source, out = tmp_path / "shop.toml", tmp_path / "tuned.toml"
    source.write_text(DRAFTED.replace("[data]", f"[data]  # as drafted\n{split}"))
    found = TuneResult({"train": {"objective": "square", "sweeps": 4}}, 0.2, None, "ndcg@10", 3, 60.0, "0" * 64, 100, 80)
    write_config(source, found, out, 1.0)
    data = load_config(out).data
    assert (data.split, data.carve, data.carve_last) == (expected, 0.0, 0)
    assert "data.split differs from shop.toml" in out.read_text()
    assert "# as drafted" in out.read_text()


def test_data_without_a_validation_part_stay_as_they_are(tmp_path: Path) -> None:
    source, out = tmp_path / "shop.toml", tmp_path / "tuned.toml"
    source.write_text(DRAFTED)
    write_config(source, TuneResult({}, 0.2, None, "ndcg@10", 3, 60.0, "0" * 64, 100, 80), out, 1.0)
    assert load_config(out).data == load_config(source).data
    assert "data.split" not in out.read_text()
