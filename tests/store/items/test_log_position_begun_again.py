"""A log created again after a loss: missing changes are reported, and every version can be opened."""

import shutil
from pathlib import Path

import pytest

from recall.bundle.activation import activate
from recall.bundle.versions import resolve
from recall.errors import JournalError
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_position import MARK, Base, Change
from tests.store.items.entries import since
from tests.store.items.logs import Storage
from tests.store.items.test_log_position import degradation, fresh, ids


def followed(root: Path) -> Recommender:
    """A process that reads the log only on request or when it writes."""
    return Recommender.load(root, pause=None)


def test_writes_to_an_older_copy_by_a_stale_process_keep_the_report(storage: Storage, root: Path) -> None:
    first, second = followed(root), followed(root)
    first.items.upsert({"a": {}})
    copied = storage.copy()
    second.items.upsert({"b": {}})
    first.items.upsert({"c": {}, "d": {}})  # which the second never reads
    storage.restore(copied)
    assert second.items.upsert({"e": {}, "f": {}, "g": {}}).sequence > 4  # sequences are not reused
    started = followed(root)
    assert {"a", "b", "e"} <= ids(started)
    assert not {"c", "d"} & ids(started)
    assert degradation(started).startswith("acknowledged changes up to 4 are missing")
    second.items.delete(["i2"])
    assert degradation(second).startswith("acknowledged changes up to 4 are missing")
    first.items.delete(["i1"])  # it has read all changes, and writes them back
    assert {"a", "b", "c", "d", "e", "f", "g"} <= fresh(root)
    for one in (first, second, started):
        one.close()


@pytest.mark.parametrize("storage", ["file"], indirect=True)
def test_a_process_that_saw_the_loss_is_behind_after_the_next_change(storage: Storage, root: Path, tmp_path: Path) -> None:
    first, second = followed(root), followed(root)
    first.items.upsert({"a": {}})
    copied = storage.copy()
    first.items.upsert({"b": {}})
    second.items.refresh()
    storage.remove()
    (root / JOURNAL).write_bytes(copied.read_bytes()[:5000])  # while it is copied
    with pytest.raises(JournalError):
        second.items.refresh()
    assert "damaged" in second.items.current().degraded[0].reason
    assert not second.items.behind()  # waiting would not help
    storage.restore(copied)
    first.items.upsert({"c": {}})
    assert second.items.behind()
    second.items.refresh()
    assert ids(second) >= {"a", "b", "c"}
    assert not second.items.behind()
    for one in (first, second):
        one.close()


def test_writing_back_changes_read_after_a_loss_does_not_clear_it(storage: Storage, root: Path) -> None:
    first, second = followed(root), followed(root)
    first.items.upsert({"a": {}})
    copied = storage.copy()
    second.items.refresh()
    first.items.upsert({"b": {}, "c": {}})
    first.close()
    storage.restore(copied)
    second.items.upsert({"d": {}})
    storage.remove()
    second.items.refresh()
    assert second.items.repair() == 2
    assert degradation(second).startswith("acknowledged changes up to 3 are missing")
    second.close()


def test_a_repaired_loss_does_not_hide_another(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    compact(root)
    live.close()
    storage.replace()
    started = followed(root)
    started.items.upsert({"b": {}})
    started.close()
    storage.remove()
    last = followed(root)  # the version contains the first loss but not the second
    last.items.upsert({"c": {}})
    assert "b" not in ids(last)
    assert "are missing from the journal" in degradation(last)
    last.close()


def test_a_version_older_than_a_lost_log_is_opened_and_reported(storage: Storage, root: Path, live: Recommender) -> None:
    older = resolve(root)
    live.items.upsert({"a": {}})
    compact(root)
    live.close()
    newer = resolve(root)
    running = followed(root)
    storage.remove()
    activate(root, older.name)  # the log is missing, and nothing records its length
    running.items.upsert({"b": {}})  # the process that serves the newer version creates a log on top of it
    assert not running.items.current().degraded
    started = followed(root)
    assert {"a", "b"} & ids(started) == {"b"}
    assert "made without the changes up to 1 of an earlier journal" in degradation(started)
    with pytest.raises(JournalError, match="lacks changes up to 1 of an earlier journal"):
        compact(root)  # a version built from it would look complete
    activate(root, newer.name)
    assert {"a", "b"} <= fresh(root)
    compact(root)
    assert {"a", "b"} <= fresh(root)
    for one in (running, started):
        one.close()


def test_a_process_completes_a_new_log_with_changes_of_the_lost_one(storage: Storage, root: Path) -> None:
    older, first = resolve(root), followed(root)
    first.items.upsert({"a": {}})
    compact(root)
    second = followed(root)
    storage.remove()
    second.items.upsert({"b": {}})
    assert "acknowledged changes are served" in degradation(first)
    first.items.upsert({"c": {}})
    activate(root, older.name)
    assert {"a", "b", "c"} <= fresh(root)
    for one in (first, second):
        one.close()


def test_changes_of_two_lost_logs_with_the_same_numbers_are_written_back(storage: Storage, root: Path) -> None:
    served = followed(root)
    served.items.upsert({"a": {}})
    storage.replace()
    served.items.refresh()
    storage.remove()
    served.items.refresh()
    assert served.items.repair() == 2
    assert {entry.item_id for entry in since(storage.open(), 0)} == {"a", "strange"}
    started = followed(root)
    assert {"a", "strange"} <= ids(started)
    for one in (served, started):
        one.close()


def test_a_log_restored_in_two_parts_is_complete_only_without_a_gap(tmp_path: Path) -> None:
    def missing_through(*parts: tuple[int, int]) -> tuple[int, int]:
        path = tmp_path / f"{parts}" / JOURNAL
        path.parent.mkdir()
        earlier, journal = SqliteChangeLog(path.with_name("earlier")), SqliteChangeLog(path)
        earlier.append([Change(f"{number}", {}) for number in range(20)])
        journal.append([Change("x", {})])
        known, rows = earlier.state(), earlier.read(None, Base()).rows
        assert known is not None
        for held, through in parts:
            journal.write_back(rows[held:through], known._replace(last=through), held)
        found = (
            journal.read(None, Base()).missing_through,
            journal.read(None, Base(known.identity, parts[0][0])).missing_through,
        )
        earlier.close()
        journal.close()
        return found

    assert missing_through((0, 20)) == (0, 0)
    assert missing_through((8, 20)) == (8, 0)
    assert missing_through((8, 20), (3, 12)) == (3, 0)
    assert missing_through((3, 8), (12, 20)) == (12, 12)


def test_an_older_copy_is_complete_only_for_a_version_that_covers_it(storage: Storage, root: Path) -> None:
    older, served = resolve(root), followed(root)
    served.items.upsert({"a": {}})
    copied = storage.copy()
    served.items.upsert({"b": {}})
    compact(root)
    served.close()
    served = followed(root)  # the version with both
    served.items.upsert({"c": {}})
    storage.restore(copied)
    served.items.upsert({"d": {}})
    served.close()
    assert {"a", "b", "c", "d"} <= fresh(root)
    activate(root, older.name)
    started = followed(root)
    assert "b" not in ids(started)
    assert "made without the changes up to 2 of an earlier journal" in degradation(started)
    started.close()


@pytest.mark.parametrize("storage", ["file"], indirect=True)
def test_a_change_without_a_mark_counts_once_it_is_read(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    before = (root / MARK).read_bytes()
    live.items.upsert({"b": {}}, key="k")
    (root / MARK).write_bytes(before)  # as if the process had crashed right after the commit
    started = followed(root)
    started.close()
    mark = storage.open().mark.read()
    assert mark is not None
    assert mark.sequence == 2
    copied = shutil.copytree(root, root.parent / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    late = followed(Path(copied))
    assert "b" not in ids(late)
    assert "2" in degradation(late)
    late.close()
