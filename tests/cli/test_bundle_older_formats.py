"""Bundles of every format in every command that opens or publishes one."""

import shutil
from pathlib import Path

import orjson
import pytest

from recall.bundle.manifest import FORMAT_VERSION, MANIFEST, Manifest
from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve
from recall.serving.recommender import Recommender, Request

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLES = sorted(one.name for one in GOLDEN.glob("bundle_v*") if one.is_dir())


@pytest.fixture(params=BUNDLES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = GOLDEN / request.param
    version = f"000001-{orjson.loads((folder / MANIFEST).read_bytes())['checksum'][:8]}"
    shutil.copytree(folder, tmp_path / "root" / "versions" / version)
    (tmp_path / "root" / "CURRENT").write_text(version + "\n")
    return tmp_path / "root"


def lists(root: Path) -> dict[str, list[str]]:
    recommender = Recommender.load(root)
    try:
        requests = [Request(user_id, n=8, exclude_seen=False) for user_id in ("ada", "bob", "eve")]
        return {str(one.user_id): [item.item_id for item in recommender.recommend(one, exact=True).items] for one in requests}
    finally:
        recommender.close()


def test_an_imported_bundle_can_be_shown_verified_and_exported(run, root: Path, tmp_path: Path) -> None:
    assert run("bundle", "show", root).code == 0
    assert run("bundle", "verify", root, "--json").json["sound"] is True
    written = run("bundle", "export", root, "--out", tmp_path / "out", "--format", "npy", "--users", "--json").json
    assert (written["items"], written["users"]) == (8, 3)


def test_an_imported_bundle_can_be_reindexed(run, root: Path) -> None:
    before = lists(root)
    for kind, engine, file in (
        ("cells", "cells", "cells.safetensors"),
        ("faiss", "faiss", "index.faiss"),
        ("ivf", "faiss", "index.faiss"),
        ("auto", "faiss", "index.faiss"),
    ):
        ended = run("tune-index", root, "--kind", kind, "--json")
        assert ended.code == 0, ended.err
        manifest = load_bundle(root).manifest
        assert (manifest.format_version, manifest.index.engine, manifest.index.file) == (FORMAT_VERSION, engine, file)
        assert lists(root) == before
        assert run("bundle", "verify", root).code == 0


def test_an_imported_bundle_can_be_rebuilt_compacted_and_rolled_back(run, root: Path, tmp_path: Path) -> None:
    before, old = lists(root), resolve(root)
    shutil.copy(old / "items.parquet", tmp_path)
    assert run("rebuild", root, tmp_path / "items.parquet").code == 0
    assert lists(root) == before
    assert run("items", "delete", root, "tea").code == 0
    assert run("compact", root).code == 0
    manifest = Manifest.read(resolve(root))
    assert (manifest.format_version, manifest.sequence, manifest.folded) == (FORMAT_VERSION, 3, 1)
    without = {user: [item for item in items if item != "tea"] for user, items in before.items()}
    assert lists(root) == without
    assert run("bundle", "verify", root).code == 0
    for _ in range(2):
        assert run("rollback", root).code == 0
    assert resolve(root) == old
    assert lists(root) == without  # the change is still in the log
