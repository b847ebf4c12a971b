"""Whitespace around bag values is removed, from any source."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import load_dataset
from recall.features.canonical import BLANKS, canonical_column, strip_values, type_of
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.rules import Quota
from tests.conftest import random_model

TAGS = ["red, blue", "red ,green", " blue", "green,red", "blue,\u3000red", "green , "]
BARE = [["red", "blue"], ["red", "green"], ["blue"], ["green", "red"], ["blue", "red"], ["green"]]


def config() -> RunConfig:
    fields = {
        "user_id": {"side": "user", "kind": "categorical"},
        "asked": {"side": "user", "kind": "bag", "separator": ","},
        "item_id": {"side": "item", "kind": "categorical"},
        "tags": {"side": "item", "kind": "bag", "separator": ","},
    }
    return parse_config(
        {
            "data": {"interactions": "e.csv", "items": "i.csv", "split": {"by": "none"}},
            "index": {"boosts": ["tags= red"]},
            "fields": fields,
        }
    )


def write(folder: Path, tags: list[str]) -> None:
    rows = [f'u{n % 3},i{n % 6},"{" x, y" if n % 2 else "y"}"' for n in range(24)]
    (folder / "e.csv").write_text("user_id,item_id,asked\n" + "\n".join(rows) + "\n")
    (folder / "i.csv").write_text("item_id,tags\n" + "".join(f'i{n},"{one}"\n' for n, one in enumerate(tags)))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags")
    write(folder, TAGS)
    dataset = load_dataset(config(), folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config(), folder / "root")
    return folder / "root"


@pytest.fixture
def served(published: Path, tmp_path: Path) -> Iterator[Recommender]:
    loaded = Recommender.load(shutil.copytree(published, tmp_path / "root"))
    yield loaded
    loaded.close()


def test_whitespace_in_tables_is_removed(published: Path, served: Recommender) -> None:
    (tags,) = [block for block in served.bundle.encoder.item_blocks if block.field == "tags"]
    assert tags.size == 2 + len({"red", "blue", "green"})
    stored = served.bundle.item_column("tags").str.split(",").list.eval(pl.element().filter(pl.element() != ""))
    assert stored.to_list() == BARE
    (note,) = [one for one in check(config(), published.parent) if one.column == "tags" and "blanks" in one.message]
    assert (note.level, note.message) == ("note", "blanks around the values of a list are left out: 'red, blue' is 'red,blue'")


def test_whitespace_in_requests_is_removed(served: Recommender) -> None:
    answers = [
        served.recommend(Request("u1", n=6, context={"asked": asked}))
        for asked in (["x", "y"], [" x", "y "], "x,y", " x , y ", ["x", "", " ", "y"])
    ]
    assert len({tuple(zip(one.ids, one.scores, strict=True)) for one in answers}) == 1
    assert not any(one.warnings for one in answers)
    missing = [served.recommend(Request("u1", n=6, context=context)) for context in ({}, {"asked": "  "})]
    assert missing[0].scores == missing[1].scores


def test_upserts_filters_boosts_and_quotas_ignore_whitespace(served: Recommender) -> None:
    served.items.upsert({"a": {"tags": " red ,\tgreen"}, "b": {"tags": ["red ", " green"]}, "c": {"tags": "red,green"}})
    scores = served.score(Request("u1"), ["a", "b", "c"]).items
    assert scores[0].score == scores[1].score == scores[2].score
    red = {f"i{n}" for n, tags in enumerate(BARE) if "red" in tags} | {"a", "b", "c"}
    for value in ("red", " red "):
        found = served.recommend(Request("u1", n=100, exclude_seen=False, filter={"tags": {"any": [value]}}))
        assert set(found.ids) == red
    boosted = served.recommend(Request("u1", n=len(red), exclude_seen=False, boosts={"tags= red": 1e3}))
    assert set(boosted.ids) == red
    one_each = served.recommend(Request("u1", n=100, exclude_seen=False, rules=[Quota("tags", most=1)]))
    assert len(one_each.ids) <= 3


def test_a_rebuild_removes_whitespace_in_lists(served: Recommender, published: Path, tmp_path: Path) -> None:
    lists = pl.DataFrame({"item_id": [f"i{n}" for n in range(6)], "tags": TAGS})
    lists.with_columns(pl.col("tags").str.split(",")).write_parquet(tmp_path / "i.parquet")
    root = shutil.copytree(published, tmp_path / "rebuilt")
    before = served.recommend(Request("u1", n=6))
    rebuild(root, tmp_path / "i.parquet", root)
    after = Recommender.load(root)
    assert after.recommend(Request("u1", n=6)).ids == before.ids
    after.close()


def test_exactly_unicode_whitespace_is_removed() -> None:
    assert {chr(number) for number in range(0x110000) if chr(number).isspace()} - set(BLANKS) == set("\x1c\x1d\x1e\x1f")
    lists = pl.Series("tags", [[f"{blank}a{blank}"] for blank in BLANKS] + [["\u200ba"], None, [None]])  # type: ignore[list-item]
    assert strip_values(lists).to_list() == [["a"]] * len(BLANKS) + [["\u200ba"], None, [None]]
    assert type_of(pl.Series([" 1, 2.0"]), ",") == "list of integer"
    assert canonical_column(pl.Series([" 1, 2.0"]), "list of integer", separator=",").to_list() == ["1,2"]
    assert canonical_column(pl.Series([" a b "]), "text").to_list() == [" a b "]  # a single value keeps them
