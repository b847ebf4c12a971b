"""The commands recommended by the error repair a bundle with an unreadable index."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recall.bundle.files import ITEMS
from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve
from recall.errors import BundleError, IndexFileError
from recall.publish.derived import reindex
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Request

EVERYTHING = Request("u1", n=1000, exclude_seen=False)


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def flip(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(bytes(one ^ 255 for one in whole[:64]) + whole[64:])


def link(file: Path) -> None:
    file.unlink()
    os.symlink("/nowhere", file)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, link])
@pytest.mark.parametrize("command", ["tune-index", "rebuild"])
def test_an_unreadable_index_is_rebuilt(root: Path, damage: Callable[[Path], None], command: str) -> None:
    loaded = Recommender.load(root)
    expected = loaded.recommend(EVERYTHING)
    loaded.close()
    bundle = load_bundle(root)
    assert bundle.index_file is not None
    damage(bundle.index_file)
    with pytest.raises((BundleError, IndexFileError)) as raised:
        Recommender.load(root)
    before = resolve(root)
    if command == "tune-index":
        report = reindex(root, root, {})
        assert report.unopened == str(raised.value)
    else:
        table = root / "table.parquet"
        bundle.items().write_parquet(table)
        assert rebuild(root, table, root).unopened == str(raised.value)
    assert resolve(root) != before
    repaired = Recommender.load(root, verify=True)
    assert repaired.recommend(EVERYTHING).items == expected.items
    repaired.close()


@pytest.mark.parametrize("command", ["tune-index", "rebuild"])
def test_other_corruption_is_refused(root: Path, command: str) -> None:
    table = root / "table.parquet"
    load_bundle(root).items().write_parquet(table)
    before = resolve(root)
    cut(before / ITEMS)
    with pytest.raises(BundleError, match=r"items\.parquet"):
        reindex(root, root, {}) if command == "tune-index" else rebuild(root, table, root)
    assert resolve(root) == before
