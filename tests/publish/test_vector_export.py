"""Exported vectors, read without this project, reproduce the served lists."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest

from recall.bundle import files
from recall.bundle.versions import resolve
from recall.errors import BundleError, ConfigError, PublishError
from recall.publish.vector_export import FORMATS, export_vectors
from recall.serving.recommender import Recommender, Request
from recall.store.users.profiles import User

GOLDEN = Path(__file__).parents[1] / "golden"
ALL = 1000


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture
def changed(root: Path) -> Iterator[Recommender]:
    """A root with a deleted, a replaced and an added item, and an added user."""
    recommender = Recommender.load(root)
    recommender.items.delete(["i1"])
    recommender.items.upsert({"i2": {"category": "c0", "price": 3.0}, "fresh": {"category": "c1", "price": 1.0}})
    recommender.users.put(User("late", {"gender": "f"}, ("i3", "i4")))
    yield recommender
    recommender.close()


def read_back(out: Path, format_: str, dim: int) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """Read item ids and vectors, user ids and vectors."""
    if format_ == "parquet":
        items, users = pl.read_parquet(out / "items.parquet"), pl.read_parquet(out / "users.parquet")
        assert items.columns == ["item_id", "vector"]
        assert users.columns == ["user_id", "vector"]
        vectors = [np.array(one["vector"].to_list(), dtype=np.float32).reshape(-1, dim) for one in (items, users)]
        return items["item_id"].to_list(), vectors[0], users["user_id"].to_list(), vectors[1]
    item_ids, user_ids = (json.loads((out / f"{one}_ids.json").read_text()) for one in ("item", "user"))
    users = np.load(out / "user_vectors.npy", allow_pickle=False)
    if format_ == "npy":
        return item_ids, np.load(out / "item_vectors.npy", allow_pickle=False), user_ids, users
    index = faiss.read_index(str(out / "items.faiss"))
    assert type(index) is faiss.IndexFlatIP
    return item_ids, index.reconstruct_n(0, index.ntotal).reshape(-1, index.d), user_ids, users


@pytest.mark.parametrize("format_", FORMATS)
def test_exported_vectors_reproduce_served_lists_with_live_changes(changed: Recommender, root: Path, format_: str) -> None:
    report = export_vectors(root, root.parent / "out", format_, users=True)
    dim = changed.bundle.manifest.sizes.dim
    item_ids, items, user_ids, users = read_back(report.folder, format_, dim)
    assert items.dtype == users.dtype == np.float32
    assert (items.shape, users.shape) == ((report.items, dim), (report.users, dim))
    assert set(item_ids) == {*changed.bundle.item_ids.values, "fresh"} - {"i1"}
    assert user_ids == changed.users.ids()
    assert "late" in user_ids
    for place, user_id in enumerate(user_ids):
        served = changed.recommend(Request(user_id, n=ALL, exclude_seen=False)).items
        scores = items @ users[place]
        assert [one.score for one in served] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-6)
        own = dict(zip(item_ids, scores.tolist(), strict=True))
        assert {one.item_id: one.score for one in served} == pytest.approx(own, abs=1e-6)
    about = json.loads((report.folder / "export.json").read_text())
    assert about == {
        "bundle": resolve(root).name,
        "sequence": 3,
        "model": "fm",
        "dim": dim,
        "items": len(item_ids),
        "users": len(user_ids),
        "format": format_,
        "files": sorted(set(report.files) - {"export.json"}),
    }
    assert sorted(one.name for one in report.folder.iterdir()) == sorted(report.files)


def test_a_single_version_is_exported_without_live_changes(changed: Recommender, root: Path, tmp_path: Path) -> None:
    report = export_vectors(resolve(root), tmp_path / "out", "parquet")
    assert pl.read_parquet(tmp_path / "out" / "items.parquet")["item_id"].to_list() == changed.bundle.item_ids.values.to_list()
    assert (report.users, report.sequence, report.files) == (None, 0, ("items.parquet", "export.json"))


@pytest.mark.parametrize("name", sorted(one.name for one in GOLDEN.glob("bundle_v*") if one.is_dir()))
def test_bundles_of_every_format_are_exported(name: str, tmp_path: Path) -> None:
    report = export_vectors(GOLDEN / name, tmp_path / "out", "faiss", users=True)
    index = faiss.read_index(str(report.folder / "items.faiss"))
    ids = json.loads((report.folder / "item_ids.json").read_text())
    users = np.load(report.folder / "user_vectors.npy")
    place = json.loads((report.folder / "user_ids.json").read_text()).index("ada")
    _, rows = index.search(users[[place]], len(ids))
    recommender = Recommender.load(GOLDEN / name)
    served = recommender.recommend(Request("ada", n=len(ids), exclude_seen=False), exact=True)
    recommender.close()
    assert [ids[row] for row in rows[0]] == [item.item_id for item in served.items]


def test_empty_items_and_users_give_empty_files(root: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(root)
    recommender.items.delete(recommender.bundle.item_ids.values.to_list())
    recommender.users.delete(recommender.users.ids())
    recommender.close()
    for format_ in FORMATS:
        report = export_vectors(root, tmp_path / format_, format_, users=True)
        item_ids, items, user_ids, users = read_back(report.folder, format_, report.dim)
        assert (item_ids, user_ids) == ([], [])
        assert items.shape == users.shape == (0, report.dim)


def test_an_id_column_named_vector_is_renamed(root: Path, tmp_path: Path) -> None:
    from recall.publish.vector_export import _Side, _write_side  # such a column needs a separate configuration

    side = _Side("item", "vector", ["a"], lambda: iter([np.ones((1, 2), dtype=np.float32)]))
    _write_side(tmp_path, "parquet", side, 2)
    assert pl.read_parquet(tmp_path / "items.parquet").to_dicts() == [{"item_id": "a", "vector": [1.0, 1.0]}]


def test_an_unknown_format_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be one of parquet, npy, faiss, got 'fais'.*'faiss'"):
        export_vectors(root, tmp_path / "out", "fais")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["folder", "file", "broken link"])
def test_existing_files_are_not_overwritten(root: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "folder":
        out.mkdir()
    elif what == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PublishError, match="exists already"):
        export_vectors(root, out, "npy")
    assert what != "file" or out.read_text() == "mine"


@pytest.mark.parametrize("where", [".", "versions", "own version"])
def test_a_bundle_folder_is_not_modified(root: Path, where: str) -> None:
    within = resolve(root) if where == "own version" else root / where
    if where == ".":
        export_vectors(root, within / "out", "npy")  # next to the versions it does no harm
    else:
        with pytest.raises(PublishError, match="within a bundle"):
            export_vectors(root, within / "out", "npy")
    Recommender.load(root).close()


def test_an_unreadable_bundle_leaves_no_files(root: Path, tmp_path: Path) -> None:
    with (resolve(root) / files.ITEM_VECTORS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(BundleError, match="changed after it was written"):
        export_vectors(root, tmp_path / "deep" / "out", "npy")
    with pytest.raises(BundleError, match="neither a bundle nor a folder of published versions"):
        export_vectors(tmp_path, tmp_path / "deep" / "out", "npy")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("format_", FORMATS)
def test_file_system_errors_are_reported_and_leave_no_files(root: Path, tmp_path: Path, format_: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="could not be written"):
        export_vectors(root, tmp_path / "file" / "out", format_)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "root"]
