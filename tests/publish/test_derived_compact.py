"""Compaction publishes the catalogue with its changes; no acknowledged change is lost or applied twice."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from recall._file_system import locked
from recall.bundle.reader import load_bundle, read_deletions
from recall.bundle.versions import CURRENT, publish, resolve, staging, versions
from recall.errors import ConfigError, JournalError, PublishBusyError, PublishError
from recall.publish import derived as compaction
from recall.publish.derived import compact, prune
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_position import Change
from tests.store.items.entries import last, since

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


def test_compaction_does_not_change_answers(root: Path, live: Recommender) -> None:
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
    assert len(after.items.current().segments) == 1
    answer = after.recommend(EVERYTHING)
    assert {item.item_id: item.score for item in answer.items} == {item.item_id: item.score for item in before.items}
    assert answer.sequence == before.sequence == 6
    after.items.delete(["i2"])
    live.items.upsert({"i3": {"price": 4.0}})  # processes with the old version continue
    ours, others = (one.items.refresh() and one.recommend(EVERYTHING) for one in (live, after))
    assert sorted(ours.items) == sorted(others.items)
    assert ours.sequence == others.sequence == 8
    assert compact(root) is not None
    assert compact(root) is None
    assert load_bundle(root).item_ids.values.to_list()[-2:] == ["fresh", "i3"]
    after.close()


def test_column_names_and_types_are_kept(root: Path, live: Recommender) -> None:
    before = load_bundle(root).items()
    change(live)
    compact(root)
    after = load_bundle(root).items()
    assert after.schema == before.schema
    kept = before.filter(~pl.col("item_id").is_in(["i2", "i3", "i5"]))
    assert after[: len(kept)].equals(kept)


def test_a_rollback_loses_no_change(root: Path, live: Recommender) -> None:
    change(live)
    expected = items_of(root)
    old = resolve(root).name
    compact(root)
    (root / CURRENT).write_text(old)
    assert items_of(root) == expected
    assert since(SqliteChangeLog(root / JOURNAL), 0)  # a version that needs them still exists


def test_the_log_keeps_compacted_changes(root: Path, live: Recommender) -> None:
    change(live)
    first = resolve(root)
    compact(root)
    shutil.rmtree(first)
    assert prune(root) == 0
    assert [entry.item_id for entry in since(SqliteChangeLog(root / JOURNAL), 0)] == ["fresh", "i2", "i3", "i5", "nowhere"]
    assert dict(read_deletions(load_bundle(root).folder).iter_rows()) == {"i3": 4, "i5": 5, "nowhere": 6}


def test_the_log_drops_changes_contained_in_the_tables_of_all_versions(root: Path, live: Recommender, tmp_path: Path) -> None:
    change(live)
    first, expected = resolve(root), items_of(root)
    compact(root)
    table = tmp_path / "items.parquet"
    load_bundle(root).items().write_parquet(table)
    rebuild(root, table, root, as_of=6)
    assert prune(root) == 0  # the tables of other versions do not contain them
    for version in versions(root)[:2]:
        shutil.rmtree(version)
    (root / "versions" / "000009-00000000").mkdir()  # an unreadable version may need any of them
    assert prune(root) == 0
    (root / "versions" / "000009-00000000").rmdir()
    assert prune(root) == 5
    assert since(SqliteChangeLog(root / JOURNAL), 6) == []
    assert last(SqliteChangeLog(root / JOURNAL)) == 6
    assert items_of(root) == expected
    assert not first.exists()
    with pytest.raises(JournalError, match="changes 1 to 6 are no longer in the journal"):
        since(SqliteChangeLog(root / JOURNAL), 0)


@pytest.mark.parametrize("compacted", [False, True])
def test_tables_and_changes_compare_equally_before_and_after_compaction(
    root: Path, live: Recommender, tmp_path: Path, compacted: bool
) -> None:
    table = tmp_path / "items.parquet"
    items = load_bundle(root).items().with_columns(price=pl.when(pl.col("item_id") == "i2").then(77.0).otherwise("price"))
    items.write_parquet(table)
    change(live)
    if compacted:
        compact(root)
    report = rebuild(root, table, root)
    log_overlap = report.log_overlap
    assert (log_overlap.hidden, log_overlap.added) == (("i2",), ("fresh",))
    assert log_overlap.withheld == ("i3", "i5")
    assert (log_overlap.returned, log_overlap.assumed, log_overlap.base.compacted_through) == ((), 0, 0)
    found = Recommender.load(root)
    ids = set(found.recommend(EVERYTHING).ids)
    assert {"fresh", "i2"} <= ids
    assert not {"i3", "i5"} & ids
    (price,) = found.items.current().table(found.items.current().rows(["i2"]))["price"]
    assert price is None  # as in the live change, which has no price
    found.close()
    again = rebuild(root, table, root, as_of=4)  # the tables contain the changes up to the deletion of i3
    assert (again.log_overlap.hidden, again.log_overlap.added) == ((), ())
    assert (again.log_overlap.withheld, again.log_overlap.returned) == (("i5",), ("i3",))
    found = Recommender.load(root)
    ids = set(found.recommend(EVERYTHING).ids)
    assert "i3" in ids
    assert not {"fresh", "i5"} & ids
    (price,) = found.items.current().table(found.items.current().rows(["i2"]))["price"]
    assert price == 77.0
    found.close()
    with pytest.raises(ConfigError, match="cannot contain live changes up to 7"):
        rebuild(root, table, root, as_of=7)


def test_changes_stay_on_top_of_foreign_versions_until_compacted(root: Path, live: Recommender, tmp_path: Path) -> None:
    change(live)
    compact(root)
    live.items.upsert({"later": {"price": 2.0}})
    table = tmp_path / "items.parquet"
    load_bundle(versions(root)[0]).items().write_parquet(table)  # a version with outdated items is published
    report = rebuild(root, table, root)
    assert report.manifest.folded == 0
    scores, sequence = items_of(root)
    assert sequence == 7
    assert {"later", "fresh"} <= set(scores)
    assert rebuild(resolve(root), table, tmp_path / "elsewhere").manifest.folded == 0


def test_a_new_log_does_not_reuse_sequences_of_versions(root: Path, live: Recommender) -> None:
    change(live)
    compact(root)
    live.close()
    (root / JOURNAL).unlink()
    again = Recommender.load(root)
    assert again.items.upsert({"other": {}}).sequence == 7
    assert "other" in items_of(root)[0]
    again.close()


def test_concurrent_compactions_are_refused(root: Path, live: Recommender) -> None:
    change(live)
    with locked(root / ".compacting", 0.0, "me"), pytest.raises(PublishBusyError, match="another process is compacting"):
        compact(root)
    assert len(versions(root)) == 1


def test_a_version_published_in_between_is_not_replaced(root: Path, live: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_failed_compaction_is_explained(root: Path, live: Recommender) -> None:
    SqliteChangeLog(root / JOURNAL).append([Change("i2", {"price": "dear"})])
    with pytest.raises(JournalError, match=r"the last change of item 'i2' does not fit.*Upsert the item again"):
        compact(root)
    live.items.delete(live.bundle.item_ids.values.to_list())
    with pytest.raises(PublishError, match="every item was deleted"):
        compact(root)


COMPACTING = "import sys; from pathlib import Path; from recall.publish.derived import compact; compact(Path(sys.argv[1]))"


@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.8, 1.1])
def test_compaction_can_be_killed_at_any_point(root: Path, live: Recommender, seconds: float) -> None:
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
