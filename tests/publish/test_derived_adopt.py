"""A version from another root is published with this root's live changes on top."""

import shutil
from pathlib import Path

import pytest

from recall.bundle.activation import activate
from recall.bundle.manifest import Manifest
from recall.bundle.versions import resolve, versions
from recall.errors import BundleError, ConfigError
from recall.publish.derived import adopt, compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.log import JOURNAL, SqliteChangeLog

EVERYTHING = Request("u1", n=1000, exclude_seen=False)


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture
def elsewhere(published: Path, tmp_path: Path) -> Path:
    """Another root, with its own compacted changes."""
    other = Path(shutil.copytree(published, tmp_path / "elsewhere"))
    live = Recommender.load(other)
    live.items.delete(["i4"])
    live.close()
    compact(other)
    return other


def change(root: Path) -> None:
    live = Recommender.load(root)
    live.items.delete(["i1"])
    live.items.upsert({"fresh": {"price": 2.0}})
    live.close()


def ids(root: Path) -> set[str]:
    loaded = Recommender.load(root)
    try:
        return set(loaded.recommend(EVERYTHING).ids)
    finally:
        loaded.close()


@pytest.mark.parametrize("compacted", [False, True])
def test_live_changes_of_the_root_are_applied_on_top(root: Path, elsewhere: Path, compacted: bool) -> None:
    change(root)
    if compacted:
        compact(root)
    expected = ids(root) - {"i4"}
    adopted = adopt(elsewhere, root)
    assert adopted.source == resolve(elsewhere).name
    assert resolve(root) == adopted.folder == versions(root)[-1]
    state = SqliteChangeLog(root / JOURNAL).state()
    assert state is not None
    assert (adopted.manifest.log, adopted.manifest.folded, adopted.manifest.parent) == (state.identity, 0, None)
    assert adopted.log_overlap.withheld == ("i1",)
    assert ids(root) == expected
    assert ids(elsewhere) == expected - {"fresh"} | {"i1"}  # unchanged


def test_tables_may_already_contain_changes(root: Path, elsewhere: Path) -> None:
    change(root)
    adopted = adopt(elsewhere, root, as_of=1)
    assert adopted.log_overlap.returned == ("i1",)
    assert {"i1", "fresh"} <= ids(root)
    assert "i4" not in ids(root)
    with pytest.raises(ConfigError, match="cannot contain live changes up to 3"):
        adopt(elsewhere, root, as_of=3)


def test_a_version_copied_by_hand_can_be_activated(root: Path, elsewhere: Path) -> None:
    change(root)
    compact(root)
    expected = ids(root) - {"i4"}
    name = resolve(elsewhere).name
    shutil.copytree(resolve(elsewhere), root / "versions" / name)
    activate(root, name)
    assert ids(root) == expected  # it was compacted from another log, so all changes of this log apply


def test_a_corrupt_version_is_refused_and_changes_nothing(root: Path, elsewhere: Path) -> None:
    folder, before = resolve(elsewhere), resolve(root)
    items = folder / "items.parquet"
    items.write_bytes(items.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="changed after it was written"):
        adopt(folder, root)
    assert resolve(root) == before
    assert list((root / "staging").iterdir()) == []
    assert Manifest.read(before).folded == 0
