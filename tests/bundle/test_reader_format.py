"""Additions of format 4: engines without a file, external users, identity of the change log, column types, deletions."""

import shutil
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from recall.bundle import files
from recall.bundle.manifest import MANIFEST, ColumnTypes, Manifest
from recall.bundle.reader import SCHEMA, load_bundle, no_deletions, read_deletions, write_deletions
from recall.bundle.versions import resolve
from recall.errors import BundleError, IndexFileError
from recall.publish.derived import reindex
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender

GOLDEN = Path(__file__).parent.parent / "golden"
OLD = sorted(one.name for one in GOLDEN.glob("bundle_v[123]*") if one.is_dir())
DELETED = pl.DataFrame({"item_id": ["gone", "tea"], "sequence": [7, 9]}, schema=SCHEMA)


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A writable copy of the published bundle."""
    return Path(shutil.copytree(resolve(published), tmp_path / "copy"))


def reseal(folder: Path, **changes: object) -> Manifest:
    manifest = Manifest.read(folder).model_copy(update={"files": files.describe(folder), **changes})
    manifest.write(folder)
    return manifest


def test_a_new_bundle_is_of_format_4_and_names_engine_and_file(published: Path) -> None:
    manifest = load_bundle(published).manifest
    assert manifest.format_version == 4
    assert (manifest.index.engine, manifest.index.kind, manifest.index.file) == ("faiss", "exact", "index.faiss")
    assert manifest.users_elsewhere is None


@pytest.mark.parametrize("name", OLD)
def test_engine_and_file_of_older_formats_have_defaults(name: str) -> None:
    manifest = Manifest.read(GOLDEN / name)
    assert manifest.index.file == "index.faiss"
    assert manifest.index.engine == ("cells" if manifest.index.kind == "cells" else "faiss")
    assert (manifest.log, manifest.columns, manifest.users_elsewhere) == (None, None, None)


@pytest.mark.parametrize("name", OLD)
def test_a_manifest_of_an_older_format_is_rewritten_unchanged(name: str, tmp_path: Path) -> None:
    Manifest.read(GOLDEN / name).write(tmp_path)
    assert orjson.loads((tmp_path / MANIFEST).read_bytes()) == orjson.loads((GOLDEN / name / MANIFEST).read_bytes())


def test_the_configuration_keeps_the_order_of_its_fields(folder: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(folder)
    fields = dict(sorted(dict(manifest.config["fields"]).items(), reverse=True))
    turned = reseal(folder, config={**manifest.config, "fields": fields})
    assert list(dict(load_bundle(folder).manifest.config["fields"])) == list(fields)
    as_before = orjson.dumps(orjson.loads((folder / MANIFEST).read_bytes()), option=orjson.OPT_SORT_KEYS)
    (folder / MANIFEST).write_bytes(as_before)  # as earlier versions wrote it
    assert load_bundle(folder).manifest.checksum == turned.checksum


@pytest.mark.parametrize("name", OLD)
def test_an_older_format_keeps_its_version_name(name: str, tmp_path: Path) -> None:
    claimed = orjson.loads((GOLDEN / name / MANIFEST).read_bytes())["checksum"]
    version = f"000001-{claimed[:8]}"
    shutil.copytree(GOLDEN / name, tmp_path / "versions" / version)
    (tmp_path / "CURRENT").write_text(version + "\n")
    assert load_bundle(tmp_path).manifest.version == version


def test_all_new_parts_round_trip(folder: Path) -> None:
    types = ColumnTypes(users={"age": "integer"}, contexts={"at": "time"}, items={"tags": "list of text"})
    reseal(folder, log="3f2a", folded=4, columns=types)
    manifest = load_bundle(folder).manifest
    assert (manifest.log, manifest.folded, manifest.columns) == ("3f2a", 4, types)


@pytest.mark.parametrize("type_", ["string", "list of", "list of list of text", ""])
def test_an_unknown_column_type_is_refused(type_: str) -> None:
    with pytest.raises(ValidationError):
        ColumnTypes(users={"age": type_})


def test_an_index_without_a_file_needs_a_known_engine(folder: Path) -> None:
    index = Manifest.read(folder).index.model_copy(update={"engine": "qdrant", "file": None})
    (folder / files.INDEX).unlink()
    reseal(folder, index=index)
    bundle = load_bundle(folder)
    assert bundle.index_file is None
    with pytest.raises(IndexFileError, match="the index engine 'qdrant' is not known"):
        Recommender.load(folder)


def test_an_index_file_may_have_another_name(folder: Path) -> None:
    (folder / files.INDEX).rename(folder / "index.other")
    index = Manifest.read(folder).index.model_copy(update={"file": "index.other"})
    reseal(folder, index=index)
    Recommender.load(folder).close()


@pytest.mark.parametrize("name", [files.TABLES, files.USERS, "missing"])
def test_an_index_file_name_of_another_file_is_refused(folder: Path, name: str) -> None:
    (folder / files.INDEX).unlink()
    reseal(folder, index=Manifest.read(folder).index.model_copy(update={"file": name}))
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_a_bundle_without_users_is_refused(folder: Path) -> None:
    (folder / files.USERS).unlink()
    reseal(folder)
    with pytest.raises(BundleError, match="does not list the files of its format"):
        load_bundle(folder)


def test_deletions_round_trip_and_no_file_means_none(folder: Path) -> None:
    assert_frame_equal(read_deletions(load_bundle(folder).folder), no_deletions())
    write_deletions(folder, no_deletions())
    assert not (folder / files.DELETIONS).exists()
    write_deletions(folder, DELETED)
    reseal(folder)
    assert_frame_equal(read_deletions(load_bundle(folder).folder), DELETED)
    assert Manifest.read(folder).files.keys() == files.NAMES | {files.DELETIONS}


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"item_id": ["a"]}),
        pl.DataFrame({"item_id": ["a"], "sequence": ["1"]}),
        pl.DataFrame({"item_id": ["a", None], "sequence": [1, 2]}),
        pl.DataFrame({"item_id": ["a", "a"], "sequence": [1, 2]}),
    ],
)
def test_deletions_of_another_layout_are_refused(tmp_path: Path, frame: pl.DataFrame) -> None:
    frame.write_parquet(tmp_path / files.DELETIONS)
    with pytest.raises(BundleError, match="not one of deletions"):
        read_deletions(tmp_path)


def test_deletions_are_not_part_of_older_formats(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bundle_v3_fm", tmp_path / "copy"))
    write_deletions(folder, DELETED)
    reseal(folder)
    with pytest.raises(BundleError, match="does not list the files of its format"):
        load_bundle(folder)


def test_rebuilds_and_reindexing_keep_the_deletions(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bundle_v3_fm", tmp_path / "copy"))
    shutil.copy(folder / files.ITEMS, tmp_path)
    types = ColumnTypes(items={"tags": "list of text"})
    before = Manifest.read(folder)
    changes: dict[str, Any] = {"log": "3f2a", "folded": 9, "columns": types}
    write_deletions(folder, DELETED)
    reseal(folder, format_version=4, **changes)
    rebuilt = load_bundle(rebuild(folder, tmp_path / files.ITEMS, tmp_path / "rebuilt").folder)
    assert read_deletions(rebuilt.folder)["item_id"].to_list() == ["gone"]  # the table contains tea again
    assert rebuilt.manifest.columns == types
    again = reindex(folder, tmp_path / "reindexed", {"kind": "exact"}).folder
    assert again is not None
    reindexed = load_bundle(again)
    assert_frame_equal(read_deletions(reindexed.folder), DELETED)
    assert (reindexed.manifest.log, reindexed.manifest.folded, reindexed.manifest.columns) == ("3f2a", 9, types)
    assert before.format_version == 3
