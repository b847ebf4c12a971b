from pathlib import Path

from recall.config import load_config
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
