"""Bundles of every published format version are read, and give the recorded answers."""

import json
import shutil
from pathlib import Path

import pytest

from recall.bundle.manifest import FORMAT_VERSION, Manifest
from recall.bundle.reader import load_bundle
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender, Request

GOLDEN = Path(__file__).parent.parent / "golden"
BUNDLES = sorted(path for path in GOLDEN.iterdir() if path.name.startswith("bundle_v") and path.is_dir())


def test_golden_bundles_cover_every_format_and_kind() -> None:
    manifests = [Manifest.read(folder) for folder in BUNDLES]
    formats = {manifest.format_version for manifest in manifests}
    assert formats == set(range(1, max(formats) + 1))
    newest = [manifest for manifest in manifests if manifest.format_version == max(formats)]
    assert {manifest.model.kind for manifest in newest} == {"fm", "fwfm", "ffm"}
    assert {manifest.model.cosine for manifest in newest} == {False, True}
    assert {manifest.index.kind for manifest in newest} == {"cells", "exact", "ivf", "pq"}


def test_format_1_is_a_factorization_machine() -> None:
    model = Manifest.read(GOLDEN / "bundle_v1").model
    assert (model.kind, model.cosine, model.fold) == ("fm", False, None)


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.name)
def test_a_golden_bundle_gives_its_recorded_answers(folder: Path) -> None:
    recommender = Recommender.load(folder)
    for title, expected in json.loads(folder.with_suffix(".json").read_text(encoding="utf-8")).items():
        answer = recommender.recommend(Request(**expected["request"]))
        assert [item.item_id for item in answer.items] == [item_id for item_id, _ in expected["items"]], title
        assert [item.score for item in answer.items] == pytest.approx([score for _, score in expected["items"]], abs=1e-5)
        assert answer.user_offset == pytest.approx(expected["user_offset"], abs=1e-5)
        assert answer.user == expected["user"]
        assert list(answer.warnings) == expected["warnings"]
    recommender.close()


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.name)
def test_a_golden_bundle_is_rebuilt_in_the_newest_format(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "items.parquet", tmp_path)
    report = rebuild(folder, tmp_path / "items.parquet", tmp_path / "root")
    assert (report.added, report.removed, report.changed) == ((), (), ())
    assert load_bundle(tmp_path / "root").manifest.format_version == FORMAT_VERSION
