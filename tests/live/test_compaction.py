"""A catalogue with its changes becomes a version; nothing that was acknowledged is lost on the way, and none is taken twice."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from recall.bundle.bundle import load_bundle
from recall.bundle.publish import CURRENT, locked, publish, resolve, staging, versions
from recall.errors import JournalError, PublishBusyError, PublishError
from recall.live import compaction
from recall.live.compaction import compact, prune
from recall.live.journal import JOURNAL, Change, Journal
from recall.rebuild import rebuild
from recall.recommender import Recommender
from recall.request import Request

ROOT = Path(__file__).parents[2]
EVERYTHING = Request("u1", n=1000, exclude_seen=False)


def items_of(root: Path) -> tuple[dict[str, float], int]:
    recommender = Recommender.load(root)
    answer = recommender.recommend(EVERYTHING)
    recommender.close()
    return {item.item_id: item.score for item in answer.items}, answer.sequence


def change(live: Recommender) -> None:
    live.items.upsert({"fresh": {"category": "c1", "price": 9.0}, "i2": {"category": "c2"}, "i5": {}})
    live.items.delete(["i3", "i5", "nowhere"])


def test_the_new_version_gives_the_answers_of_the_old_one_with_its_changes(root: Path, live: Recommender) -> None:
    assert compact(root) is None
    change(live)
    before = live.recommend(EVERYTHING)
    report = compact(root)
    assert report is not None
    assert (report.added, report.removed, report.changed) == (("fresh",), ("i3", "i5"), ("i2",))
    assert report.overlap == 1.0
    after = Recommender.load(root)
    assert after.bundle.manifest.folded == 6
    assert after.bundle.manifest.sequence == 2
    assert after.items.current().overlay.ids == ()
    answer = after.recommend(EVERYTHING)
    assert {item.item_id: item.score for item in answer.items} == {item.item_id: item.score for item in before.items}
    assert answer.sequence == before.sequence == 6
    after.items.delete(["i2"])
    live.items.upsert({"i3": {"price": 4.0}})  # whoever still serves the old version goes on
    ours, others = (one.items.refresh() and one.recommend(EVERYTHING) for one in (live, after))
    assert sorted(ours.items) == sorted(others.items)
    assert ours.sequence == others.sequence == 8
    assert compact(root) is not None
    assert compact(root) is None
    assert load_bundle(root).item_ids.values.to_list()[-2:] == ["fresh", "i3"]
    after.close()


def test_columns_and_types_of_the_catalogue_stay(root: Path, live: Recommender) -> None:
    before = load_bundle(root).items()
    change(live)
    compact(root)
    after = load_bundle(root).items()
    assert after.schema == before.schema
    kept = before.filter(~pl.col("item_id").is_in(["i2", "i3", "i5"]))
    assert after[: len(kept)].equals(kept)


def test_going_back_to_an_older_version_loses_no_change(root: Path, live: Recommender) -> None:
    change(live)
    expected = items_of(root)
    old = resolve(root).name
    compact(root)
    (root / CURRENT).write_text(old)
    assert items_of(root) == expected
    assert Journal(root / JOURNAL).since(0)  # a version that needs them is there still


def test_the_journal_forgets_what_every_version_holds(root: Path, live: Recommender) -> None:
    change(live)
    first = resolve(root)
    compact(root)
    live.items.delete(["i7"])
    expected = items_of(root)
    shutil.rmtree(first)
    assert prune(root) == 6
    assert [entry.sequence for entry in Journal(root / JOURNAL).since(6)] == [7]
    assert prune(root) == 0
    assert items_of(root) == expected
    live.items.delete(["i8"])
    (root / "versions" / "000009-00000000").mkdir()  # a version that cannot be read may need anything
    assert prune(root) == 0


def test_changes_stay_on_top_of_versions_from_elsewhere_until_they_are_folded(
    root: Path, live: Recommender, tmp_path: Path
) -> None:
    change(live)
    compact(root)
    live.items.upsert({"later": {"price": 2.0}})
    table = tmp_path / "items.parquet"
    load_bundle(versions(root)[0]).items().write_parquet(table)  # somebody publishes the items that he knows
    report = rebuild(root, table, root)
    assert report.manifest.folded == 6
    scores, sequence = items_of(root)
    assert sequence == 7
    assert "later" in scores
    assert "fresh" not in scores  # it was part of the version that the table has taken the place of
    assert rebuild(resolve(root), table, tmp_path / "elsewhere").manifest.folded == 0


def test_a_journal_that_was_lost_does_not_number_anew_what_versions_hold(root: Path, live: Recommender) -> None:
    change(live)
    compact(root)
    live.close()
    (root / JOURNAL).unlink()
    again = Recommender.load(root)
    assert again.items.upsert({"other": {}}).sequence == 7
    assert "other" in items_of(root)[0]
    again.close()


def test_two_do_not_compact_at_once(root: Path, live: Recommender) -> None:
    change(live)
    with locked(root / ".compacting", 0.0, "me"), pytest.raises(PublishBusyError, match="another process is compacting"):
        compact(root)
    assert len(versions(root)) == 1


def test_a_version_that_goes_live_meanwhile_is_not_undone(
    root: Path, live: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(live)
    inner = compaction.publish_items

    def slow(*given: object) -> object:
        with staging(root) as folder:
            shutil.copytree(resolve(root), folder, dirs_exist_ok=True)
            publish(folder, root)
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "publish_items", slow)
    with pytest.raises(PublishError, match="went live while"):
        compact(root)
    assert load_bundle(root).manifest.folded == 0
    assert items_of(root)[1] == 6


def test_what_cannot_be_folded_is_said(root: Path, live: Recommender) -> None:
    Journal(root / JOURNAL).append([Change("i2", {"price": "dear"})])
    with pytest.raises(JournalError, match=r"the last change of item 'i2' does not fit.*Give the item anew"):
        compact(root)
    live.items.delete(live.bundle.item_ids.values.to_list())
    with pytest.raises(PublishError, match="every item was deleted"):
        compact(root)


COMPACTING = "import sys; from pathlib import Path; from recall.live.compaction import compact; compact(Path(sys.argv[1]))"


@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.8, 1.1])
def test_it_may_be_killed_at_any_point(root: Path, live: Recommender, seconds: float) -> None:
    change(live)
    expected, _ = items_of(root)
    process = subprocess.Popen([sys.executable, "-c", COMPACTING, str(root)], cwd=ROOT)
    time.sleep(seconds)
    live.items.upsert({"meanwhile": {"price": 1.0}})
    process.send_signal(signal.SIGKILL)
    process.wait()
    scores, sequence = items_of(root)
    assert sequence == 7
    assert {one: score for one, score in scores.items() if one != "meanwhile"} == expected
    compact(root)
    assert items_of(root) == (scores, 7)
    assert len(load_bundle(root).item_ids) == len(scores)
