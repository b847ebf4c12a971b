import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from recall.bundle import files
from recall.bundle.reader import load_bundle
from recall.bundle.versions import publish, resolve, staging, versions
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import BundleError, DataError, PublishError
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender, Request
from tests.conftest import random_model


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A writable copy of a root of published versions."""
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture
def items(published: Path) -> pl.DataFrame:
    return load_bundle(published).items()


def as_file(items: pl.DataFrame, folder: Path) -> Path:
    items.write_parquet(folder / "items.parquet")
    return folder / "items.parquet"


def test_equal_items_give_equal_vectors(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    before = load_bundle(root)
    report = rebuild(root, as_file(items, tmp_path), root)
    after = load_bundle(root)
    assert (report.added, report.removed, report.changed) == ((), (), ())
    assert report.kept == len(items)
    assert report.overlap == 1.0
    assert report.users == len(Recommender.load(root).users)
    assert after.manifest.sequence == 2
    assert after.manifest.parent == before.manifest.sequence == 1
    assert after.manifest.parity.reference == "tables"
    assert 0 < after.manifest.parity.largest_error < 1e-5
    for name in (files.ENCODER, files.VOCABULARIES, files.TABLES, files.ITEM_VECTORS, files.USERS):
        assert after.manifest.files[name] == before.manifest.files[name], name
    for name in ("name", "schema_", "data_hash", "seed", "config", "metrics"):
        assert getattr(after.manifest, name) == getattr(before.manifest, name), name


def test_users_are_shared_with_the_version_before(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    before = load_bundle(root)
    rebuild(root, as_file(items, tmp_path), root)
    after = load_bundle(root)
    assert after.users_file.samefile(before.users_file)
    shutil.rmtree(before.folder)
    assert Recommender.load(root).recommend(Request("u1", n=1)).items


def test_users_are_copied_where_there_are_no_hard_links(
    root: Path, items: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    before = load_bundle(root)
    rebuild(root, as_file(items, tmp_path), root)
    after = load_bundle(root)
    assert not after.users_file.samefile(before.users_file)
    assert after.manifest.files[files.USERS] == before.manifest.files[files.USERS]


def test_changes_are_reported(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    changed = items.with_columns(pl.when(pl.col("item_id") == "i2").then(99.0).otherwise("price").alias("price"))
    new = changed.filter(pl.col("item_id") != "i7").vstack(
        items[:1].with_columns(pl.lit("fresh").alias("item_id"), pl.lit("c1").alias("category"))
    )
    old = Recommender.load(root)
    report = rebuild(root, as_file(new[::-1], tmp_path), root)
    assert (report.added, report.removed, report.changed) == (("fresh",), ("i7",), ("i2",))
    assert report.kept == len(items) - 2
    assert 0 < report.overlap <= 1
    recommender = Recommender.load(root)
    assert recommender.bundle.item_ids.values.to_list() == new[::-1]["item_id"].to_list()
    everything = Request("u1", n=1000, exclude_seen=False)
    before = {item.item_id: item.score for item in old.recommend(everything).items}
    after = {item.item_id: item.score for item in recommender.recommend(everything).items}
    assert after.keys() - before.keys() == {"fresh"}
    assert before.keys() - after.keys() == {"i7"}
    assert {one for one in after if one != "fresh" and after[one] != before[one]} == {"i2"}
    counted, carried = old.bundle.counts(), recommender.bundle.counts()
    assert counted is not None
    assert carried is not None
    known = dict(zip(items["item_id"], counted.tolist(), strict=True))
    assert carried.tolist() == [known.get(one, 0) for one in new[::-1]["item_id"]]
    old.close()
    recommender.close()


def test_csv_and_parquet_tables_are_equivalent(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    texts = [pl.col(name).cast(pl.List(pl.String)).list.join("|").replace("", None) for name in ("tags", "tag_weights")]
    path = tmp_path / "items.csv"
    items.with_columns(texts).write_csv(path)
    report = rebuild(root, path, root)
    assert (report.added, report.removed) == ((), ())
    bare = {item for item, tags in items.select("item_id", "tags").iter_rows() if tags == []}
    assert set(report.changed) == bare  # written as null above


def test_existing_items_keep_their_row(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    shuffled = items.sample(fraction=1.0, shuffle=True, seed=1)
    old = Recommender.load(root)
    report = rebuild(root, as_file(shuffled, tmp_path), root)
    new = Recommender.load(root)
    assert report.overlap == 1.0
    for user in old.users.sample(100, 0):
        assert new.recommend(Request(user, n=50)).items == old.recommend(Request(user, n=50)).items
    old.close()
    new.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items.rename({"price": "prize"}), "no item field reads column 'prize'.*Did you mean 'price'"),
        (lambda items: items.drop("price"), "there is no column 'price'"),
        (lambda items: items.drop("item_id"), "there is no column 'item_id'"),
        (lambda items: items.vstack(items[:2]), "2 ids are in more than one row, such as 'i0', 'i1'"),
        (lambda items: items.with_columns(pl.lit(None, dtype=pl.String).alias("item_id")), "rows have no id"),
        (lambda items: items.with_columns(pl.lit("dear").alias("price")), "not a number.*'dear'"),
        (lambda items: items.with_columns(pl.lit(float("inf")).alias("price")), "infinite"),
        (lambda items: items[:0], "has no items"),
        (lambda items: items.with_columns(item_id="new-" + pl.col("item_id")), "none of the .* items of .* is in the table"),
        (lambda items: items.with_columns(a=1, b=2), "reads column 'a', nor 1 others"),
    ],
)
def test_a_refused_table_changes_nothing(root: Path, items: pl.DataFrame, tmp_path: Path, change: object, message: str) -> None:
    before = sorted(path for path in root.rglob("*"))
    with pytest.raises(DataError, match=message):
        rebuild(root, as_file(change(items), tmp_path), root)  # type: ignore[operator]
    assert sorted(path for path in root.rglob("*")) == before
    assert load_bundle(root).manifest.sequence == 1


def test_a_catalogue_of_only_new_items_is_published_on_request(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    others = as_file(items.with_columns(item_id="new-" + pl.col("item_id")), tmp_path)
    report = rebuild(root, others, root, other_data=True)
    assert (len(report.added), len(report.removed), report.kept) == (len(items), len(items), 0)
    done = run_script(root, as_file(items, tmp_path))
    assert (done.returncode, "add --other-data" in done.stderr) == (DataError.exit_code, True)
    assert run_script(root, as_file(items, tmp_path), "--other-data").returncode == 0


def test_columns_can_be_ignored_by_name(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    path = as_file(items.with_columns(title=pl.lit("A Title")), tmp_path)
    with pytest.raises(DataError, match=r"'title'.*--ignore title\."):
        rebuild(root, path, root)
    with pytest.raises(DataError, match=r"'titel' cannot be ignored.*Did you mean 'title'"):
        rebuild(root, path, root, ignore=["titel"])
    assert rebuild(root, path, root, ignore=["title"]).kept == len(items)


def test_a_missing_table_or_source_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        rebuild(root, tmp_path / "none.parquet", root)
    with pytest.raises(BundleError, match="neither"):
        rebuild(tmp_path / "nowhere", tmp_path / "none.parquet", root)


def test_numbers_beyond_float32_are_not_published(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    extreme = items.with_columns(pl.when(pl.col("item_id") == "i2").then(1e308).otherwise("price").alias("price"))
    report = rebuild(root, as_file(extreme, tmp_path), root)  # the field has a log scale
    assert report.changed == ("i2",)
    assert np.isfinite(load_bundle(root).item_vectors).all()


def test_a_version_published_in_between_is_not_replaced(
    root: Path, items: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(staged: Path, place: Path, expected: int | None, keep: int, activate: bool) -> Path:
        with staging(place) as other:
            shutil.copytree(resolve(place), other, dirs_exist_ok=True)
            publish(other, place)
        return publish(staged, place, expected, keep=keep, activate=activate)

    monkeypatch.setattr("recall.bundle.writer.publish", interrupted)
    with pytest.raises(PublishError, match="version 2 went live while a bundle was made from version 1"):
        rebuild(root, as_file(items, tmp_path), root)
    assert load_bundle(root).manifest.sequence == 2
    assert len(versions(root)) == 2


def test_a_bundle_can_be_rebuilt_into_another_root(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    report = rebuild(resolve(root), as_file(items, tmp_path), tmp_path / "elsewhere")
    assert report.manifest.sequence == 1
    assert resolve(tmp_path / "elsewhere") == report.folder
    assert load_bundle(root).manifest.sequence == 1


def run_script(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "scripts/rebuild_index.py", *map(str, arguments)]
    environment = {"PYTHONPATH": ".", "PATH": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_script_reports_changes(root: Path, items: pl.DataFrame, tmp_path: Path) -> None:
    done = run_script(root, as_file(items[2:], tmp_path), "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert "rebuilt from version 1" in done.stdout
    assert "removed          2  i0, i1" in done.stdout
    assert orjson.loads((tmp_path / "report.json").read_bytes())["removed"] == ["i0", "i1"]
    refused = run_script(root, as_file(items.drop("price"), tmp_path))
    assert refused.returncode == DataError.exit_code
    assert "there is no column 'price'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_new_catalogue_is_parsed_like_the_items_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,movieId\n" + "".join(f"u{n % 5},m{n % 7}\n" for n in range(40)))
    (tmp_path / "i.csv").write_text("id,kind\n" + "".join(f"m{n},{'NA' if n == 3 else f'k{n % 2}'}\n" for n in range(7)))
    config = parse_config(
        {
            "data": {"interactions": "e.csv", "items": "i.csv", "item_id": "movieId", "id_in_items": "id", "nulls": ["NA"]},
            "fields": {
                "user_id": {"side": "user", "kind": "categorical"},
                "movieId": {"side": "item", "kind": "categorical"},
                "kind": {"side": "item", "kind": "categorical"},
            },
        }
    )
    dataset = load_dataset(config, tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, tmp_path / "root")
    assert load_bundle(tmp_path / "root").items()["kind"].to_list() == ["k0", "k1", "k0", None, "k0", "k1", "k0"]
    (tmp_path / "new.csv").write_text("id,kind\nm0,k0\nm9,NA\n")
    report = rebuild(tmp_path / "root", tmp_path / "new.csv", tmp_path / "root")
    assert report.added == ("m9",)
    assert load_bundle(tmp_path / "root").items().rows() == [("m0", "k0"), ("m9", None)]
