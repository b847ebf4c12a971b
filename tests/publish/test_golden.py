"""A loaded bundle must give the answers recorded at publication."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recall.bundle.manifest import Manifest
from recall.bundle.versions import resolve
from recall.errors import BundleError
from recall.publish import golden
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Recommendations, Request


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    shutil.copytree(published, root)
    return root


def test_golden_requests_cover_users_anonymous_requests_and_histories(published: Path) -> None:
    manifest = Manifest.read(resolve(published))
    assert manifest.golden is not None
    assert 10 <= len(manifest.golden) <= 50
    assert [one.user_id for one in manifest.golden].count(None) == 9
    assert sum(one.history is not None for one in manifest.golden) == 8
    assert len({one.items for one in manifest.golden}) > 10


def test_a_good_bundle_passes_with_any_live_changes(copy: Path) -> None:
    recommender = Recommender.load(copy)
    assert recommender.bundle.manifest.golden is not None
    recommender.items.delete([recommender.recommend(Request(n=1)).items[0].item_id])
    assert golden.check(recommender) == len(recommender.bundle.manifest.golden)
    recommender.close()


def swapped(one: object) -> dict[str, object]:
    items = list(one.items)  # type: ignore[attr-defined]
    items[0], items[-1] = "other", items[0]
    return {"items": tuple(items)}


def test_a_different_list_or_score_is_refused(published: Path) -> None:
    recommender = Recommender.load(published)
    records = recommender.bundle.manifest.golden
    assert records is not None
    first, *others = records
    for change in (
        swapped(first),
        {"scores": (first.scores[0] + 0.01, *first.scores[1:])},
        {"items": first.items[:-1], "scores": first.scores[:-1]},
    ):
        changed = (first.model_copy(update=change), *others)
        with pytest.raises(BundleError, match=f"1 of {len(records)} golden requests"):
            golden.check(_with(recommender, changed))
    golden.check(_with(recommender, (first.model_copy(update={"scores": tuple(one + 1e-6 for one in first.scores)}), *others)))
    recommender.close()


def test_a_wrong_number_of_users_is_refused(published: Path) -> None:
    recommender = Recommender.load(published)
    manifest = recommender.bundle.manifest
    restated = manifest.model_copy(update={"sizes": manifest.sizes.model_copy(update={"users": 5})})
    changed = Recommender(replace(recommender.bundle, manifest=restated), recommender.index, recommender.users)
    with pytest.raises(BundleError, match="there are 12 users, the manifest says 5"):
        golden.check(changed)
    recommender.close()


def test_tied_items_may_replace_the_last_one(published: Path) -> None:
    recommender = Recommender.load(published)
    records = recommender.bundle.manifest.golden
    assert records is not None
    first, *others = records
    tied = first.model_copy(update={"items": (*first.items[:-1], "tied"), "scores": first.scores})
    golden.check(_with(recommender, (tied, *others)))
    recommender.close()


def test_a_bundle_without_golden_requests_is_accepted(copy: Path) -> None:
    folder = resolve(copy)
    manifest = Manifest.read(folder).model_copy(update={"golden": None})
    manifest.write(folder)
    renamed = folder.rename(folder.with_name(manifest.version))
    assert b"golden" not in (renamed / "manifest.json").read_bytes()
    recommender = Recommender.load(renamed)
    assert recommender.bundle.manifest.golden is None
    assert golden.check(recommender) == 0
    recommender.close()


def test_a_rebuild_writes_new_golden_requests(copy: Path) -> None:
    items = copy.parent / "items.parquet"
    recommender = Recommender.load(copy)
    recommender.bundle.items().head(8).write_parquet(items)
    before = recommender.bundle.manifest.golden
    recommender.close()
    report = rebuild(copy, items, copy)
    assert report.manifest.golden not in (None, before)
    rebuilt = Recommender.load(copy)
    assert golden.check(rebuilt) > 10
    rebuilt.close()


def test_scores_that_are_not_finite_are_not_published(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Recommender.recommend_batch

    def overflowing(self: Recommender, requests: Sequence[Request]) -> list[Recommendations]:
        first, *others = answered(self, requests)
        return [replace(first, scores=(float("inf"), *first.scores[1:])), *others]

    monkeypatch.setattr(Recommender, "recommend_batch", overflowing)
    before = resolve(copy)
    with pytest.raises(BundleError, match="a score is not finite"):
        golden.record(before)
    assert Manifest.read(before).version == before.name


def _with(recommender: Recommender, records: tuple[object, ...]) -> Recommender:
    bundle = recommender.bundle
    manifest = bundle.manifest.model_copy(update={"golden": records})
    return Recommender(replace(bundle, manifest=manifest), recommender.index, recommender.users)
