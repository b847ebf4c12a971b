"""`data.text`: values of these columns are kept as written, from any source."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import load_dataset
from recall.data.incremental import addition_tables
from recall.errors import ConfigError, DataError
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.conftest import random_model

CODES = ["1.0", "1.50", "2.5", "1", "True", "2024-01-01 00:00:00"]


def config(text: tuple[str, ...] = ("code", "parts", "asked"), **data: object) -> RunConfig:
    return parse_config(
        {
            "data": {"interactions": "e.csv", "items": "i.csv", "attributes": ["label"], "text": text, **data},
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "asked": {"side": "user", "kind": "categorical"},
                "item_id": {"side": "item", "kind": "categorical"},
                "code": {"side": "item", "kind": "categorical"},
                "parts": {"side": "item", "kind": "bag"},
            },
        }
    )


def write(folder: Path) -> None:
    rows = [f"{n % 3},{n % 4}.0,{'1.0' if n % 2 else '2.50'}" for n in range(24)]
    (folder / "e.csv").write_text("user_id,item_id,asked\n" + "\n".join(rows) + "\n")
    items = [f"{n},{code},{code} | 3.0,{code}" for n, code in enumerate(["1.0", "1.50", "2.5", "3.0"])]
    (folder / "i.csv").write_text("item_id,code,parts,label\n" + "\n".join(items) + "\n")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Recommender]:
    write(tmp_path)
    run = config(("code", "parts", "asked", "label"))
    dataset = load_dataset(run, tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, run, tmp_path / "root")
    loaded = Recommender.load(tmp_path / "root")
    yield loaded
    loaded.close()


def test_listed_columns_keep_their_text_and_others_are_converted(tmp_path: Path) -> None:
    write(tmp_path)
    plain, kept = load_dataset(config(()), tmp_path), load_dataset(config(), tmp_path)
    assert plain.items["code"].to_list() == ["1", "1.5", "2.5", "3"]
    assert kept.items["code"].to_list() == ["1.0", "1.50", "2.5", "3.0"]
    assert kept.items["parts"].to_list() == [
        "1.0|3.0",
        "1.50|3.0",
        "2.5|3.0",
        "3.0|3.0",
    ]  # surrounding whitespace is not part of a value
    assert kept.items["item_id"].to_list() == ["0", "1", "2", "3"]
    assert kept.types.items["code"] == "text"
    assert kept.types.items["parts"] == "list of text"
    assert kept.types.users["asked"] == "text"
    said = {assumption.column for assumption in kept.assumptions}
    assert said == {"item_id", "label", "parts"}


def test_requests_upserts_filters_and_rebuilds_keep_the_text(served: Recommender, tmp_path: Path) -> None:
    asked = [served.recommend(Request("1", context={"asked": value})) for value in ("1.0", "1", "2.50", "2.5")]
    assert [one.unknown for one in asked] == [(), ("asked",), (), ("asked",)]
    served.items.upsert({"a": {"code": "1.50"}, "b": {"code": "1.5"}, "c": {"code": "1.50", "label": "1.500"}})
    scores = [one.score for one in served.score(Request("1"), ["a", "b", "c"]).items]
    assert scores[0] == scores[2] != scores[1]
    for filter_, ids in (
        ({"code": "1.50"}, {"1", "a", "c"}),
        ({"code": "1.5"}, {"b"}),
        ({"parts": {"any": ["1.0"]}}, {"0"}),
        ({"parts": {"any": ["1"]}}, set()),
        ({"label": "1.500"}, {"c"}),
    ):
        found = served.recommend(Request("1", n=10, exclude_seen=False, filter=filter_))
        assert set(found.ids) == ids, filter_
    root = shutil.copytree(tmp_path / "root", tmp_path / "rebuilt")
    (tmp_path / "new.csv").write_text("item_id,code,parts,label\n7,1.50,1.0,x\n8,1.5,1,y\n")
    rebuild(root, tmp_path / "new.csv", root, other_data=True)
    after = Recommender.load(root)
    assert after.bundle.item_column("code").to_list() == ["1.50", "1.5"]
    after.close()


def test_id_texts_are_kept_when_tables_are_joined(tmp_path: Path) -> None:
    run = parse_config(
        {
            "data": {"interactions": "e.csv", "items": "i.csv", "text": ["item_id"]},
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "item_id": {"side": "item", "kind": "categorical"},
                "size": {"side": "item", "kind": "categorical"},
            },
        }
    )
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, rows, items in ((old, "a,1\nb,1.0\n", "1,s\n1.0,m\n"), (new, "a,1.0\nb,1.00\n", "1.00,l\n1.0,xl\n")):
        folder.mkdir()
        (folder / "e.csv").write_text("user_id,item_id\n" + rows)
        (folder / "i.csv").write_text("item_id,size\n" + items)
    dataset = load_dataset(run, old)
    assert dataset.items["item_id"].to_list() == ["1", "1.0"]
    joined = addition_tables(run.data, new, old).dataset(run, dataset.types)
    assert dict(joined.items.select("item_id", "size").iter_rows()) == {"1": "s", "1.00": "l", "1.0": "xl"}
    assert len(joined.events) == 4
    assert not [one for one in check(run, old) if one.level == "error"]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (("cod",), ConfigError, "names 'cod', which no field and no attribute reads.*Did you mean 'code'"),
        (("number",), ConfigError, "which a numeric field reads"),
        (("code",), DataError, "stores as Float64.*the original text of its values is lost"),
    ],
)
def test_columns_that_cannot_be_kept_as_text_are_named(
    tmp_path: Path, text: tuple[str, ...], error: type[Exception], said: str
) -> None:
    write(tmp_path)
    table = pl.read_csv(tmp_path / "i.csv").with_columns(number=pl.lit(1.0), code=pl.lit(1.5))
    table.write_parquet(tmp_path / "i.parquet")
    run = config(text, items="i.parquet")
    numeric = {"side": "item", "kind": "numeric"}
    run = parse_config({**run.model_dump(mode="json"), "fields": {**run.model_dump(mode="json")["fields"], "number": numeric}})
    with pytest.raises(error, match=f"(?s){said}"):
        load_dataset(run, tmp_path)
