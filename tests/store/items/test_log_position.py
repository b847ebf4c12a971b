"""A replaced, truncated, removed or partly copied log is detected, and no acknowledged change is lost."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from recall.bundle.versions import resolve
from recall.errors import JournalError, TokenError
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.log import JOURNAL, SqliteChangeLog, SqliteTables
from recall.store.items.log_base import ChangeLog
from recall.store.items.log_position import MARK, Change, LogRow
from tests.store.items.entries import since
from tests.store.items.logs import Storage

EVERYTHING = Request("u1", n=1000, exclude_seen=False)


def ids(recommender: Recommender) -> set[str]:
    return set(recommender.recommend(EVERYTHING).ids)


def fresh(root: Path) -> set[str]:
    """Return what a newly started process serves."""
    started = Recommender.load(root)
    try:
        assert not started.items.current().degraded
        return ids(started)
    finally:
        started.close()


def degradation(recommender: Recommender) -> str:
    recommender.items.refresh()
    (degraded,) = recommender.recommend(EVERYTHING).degraded
    assert degraded.part == "items"
    return degraded.reason


def other_process(root: Path, *changes: Change) -> int:
    """Make changes from a process that knows only the log file."""
    other = Recommender.load(root)
    try:
        deleted = other.items.delete([one.item_id for one in changes if one.features is None])
        given = {one.item_id: one.features for one in changes if one.features is not None}
        return max(deleted.sequence, other.items.upsert(given).sequence)
    finally:
        other.close()


def test_a_removed_log_is_detected_and_rewritten_with_the_next_change(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}, "b": {}})
    live.items.delete(["i1"])
    token = live.items.token(3)
    served = ids(live)
    storage.remove()
    assert degradation(live).startswith("the journal is gone: 3 acknowledged changes are served that it does not hold")
    assert live.items.unsaved == 3
    assert ids(live) == served
    receipt = live.items.upsert({"late": {}})
    assert receipt.sequence == 4
    assert live.items.unsaved == 0
    assert not live.recommend(EVERYTHING).degraded
    assert fresh(root) == ids(live) == served | {"late"}
    assert live.items.has_seen(token)
    assert live.items.has_seen(receipt.token)


def test_a_removed_log_is_written_back_on_request(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    served = ids(live)
    storage.remove()
    live.items.refresh()
    assert live.items.repair() == 1
    assert live.items.repair() == 0
    assert fresh(root) == served
    assert live.items.current().sequence == 1


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, None], ids=["emptied", "overwritten", "torn"])
def test_a_corrupt_log_is_set_aside_and_rewritten_from_memory(root: Path, live: Recommender, content: bytes | None) -> None:
    live.items.upsert({"a": {}, "b": {}})
    live.items.delete(["i1"])
    live.items.checkpoint()
    served, log = ids(live), root / JOURNAL
    damaged = log.read_bytes()[:5000] if content is None else content
    log.write_bytes(damaged)
    with pytest.raises(JournalError):
        live.items.refresh()
    assert live.recommend(EVERYTHING).degraded
    assert live.items.unsaved == 3
    assert ids(live) == served
    assert live.items.repair() == 3
    assert not live.recommend(EVERYTHING).degraded
    assert fresh(root) == ids(live) == served
    (kept,) = (one for one in root.glob(f"{JOURNAL}.damaged-*") if not one.name.endswith(("-wal", "-shm")))
    assert kept.read_bytes() == damaged
    assert live.items.upsert({"late": {}}).sequence == 4
    assert fresh(root) == served | {"late"}


def test_a_log_created_by_another_process_is_followed_and_kept(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}, "i2": {"price": 1.0}, "i3": {}})
    old = live.items.token(3)
    storage.remove()
    assert other_process(root, Change("i1", None), Change("i2", {"price": 2.0})) > 3  # numbers are not given twice
    assert degradation(live).startswith("the journal was replaced or cut short: 2 acknowledged changes")
    assert "i1" not in ids(live)
    live.items.upsert({"late": {}})
    expected = ids(live)
    assert {"a", "late"} <= expected
    assert fresh(root) == expected
    held = {entry.item_id: entry.features for entry in since(storage.open(), 0)}
    assert held == {"a": {}, "i1": None, "i2": {"price": 2.0}, "i3": {}, "late": {}}
    assert live.items.has_seen(old)


def test_a_restored_older_copy_gets_the_missing_changes(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}, "b": {"price": 1.0}})
    copied = storage.copy()
    live.items.upsert({"b": {"price": 2.0}, "c": {}})
    live.items.delete(["a"])
    served = ids(live)
    storage.restore(copied)
    assert "replaced or cut short: 3 acknowledged changes" in degradation(live)
    assert ids(live) == served
    assert live.items.delete(["i1"]).sequence > 5
    assert fresh(root) == ids(live) == served - {"i1"}
    held = {entry.item_id: entry.features for entry in since(storage.open(), 0)}
    assert held == {"a": None, "b": {"price": 2.0}, "c": {}, "i1": None}


def test_a_diverged_copy_of_equal_length_is_detected(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    copied = storage.copy()
    live.items.upsert({"b": {}, "c": {}})
    (root / MARK).unlink()
    storage.restore(copied)
    assert other_process(root, Change("c", None), Change("d", {}), Change("e", {})) == 4
    assert "replaced or cut short: 1 acknowledged" in degradation(live)  # the later change of c, a deletion, wins
    live.items.repair()
    expected = ids(live)
    assert {"a", "b", "d", "e"} <= expected
    assert "c" not in expected
    assert fresh(root) == expected


def test_two_processes_write_a_lost_log_back_once(storage: Storage, root: Path, live: Recommender) -> None:
    other = Recommender.load(root)
    live.items.upsert({"a": {}, "b": {}})
    other.items.refresh()
    served = ids(live)
    storage.remove()
    live.items.refresh()
    other.items.refresh()
    assert (live.items.repair(), other.items.repair()) == (2, 0)
    assert not other.recommend(EVERYTHING).degraded
    other.items.upsert({"c": {}})
    live.items.refresh()
    assert ids(live) == ids(other) == fresh(root) == served | {"c"}
    assert live.items.current().sequence == 3
    other.close()


def test_losing_the_log_after_compaction_loses_no_change(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    live.items.delete(["i1"])
    compact(root)
    after = Recommender.load(root)
    after.items.upsert({"b": {}})
    served = ids(after)
    storage.remove()
    after.items.refresh()
    after.items.repair()
    assert fresh(root) == served
    storage.remove()
    after.close()
    started = Recommender.load(root)  # no process knows b any more, but the mark does
    (degraded,) = started.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith(
        "the journal is gone, and acknowledged changes up to 3 with it. Put the whole journal back"
    )
    assert ids(started) == served - {"b"}
    assert started.items.upsert({"c": {}}).sequence == 4
    (degraded,) = started.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith("acknowledged changes up to 3 are missing from the journal")
    (root / MARK).unlink()  # the loss is accepted
    started.items.upsert({"d": {}})
    assert fresh(root) == ids(started) == served - {"b"} | {"c", "d"}
    started.close()


def test_a_copy_without_the_wal_file_is_detected(root: Path, live: Recommender, tmp_path: Path) -> None:
    live.items.upsert({"a": {}})
    live.items.delete(["i1"])
    to = tmp_path / "copied"
    shutil.copytree(root, to, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    started = Recommender.load(to)
    (degraded,) = started.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith("the journal ends at change 0, and 2 was acknowledged")
    started.close()
    live.items.checkpoint()
    whole = tmp_path / "whole"
    shutil.copytree(root, whole, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    assert fresh(whole) == ids(live)


def test_a_log_that_ends_before_the_version_is_detected(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    copied = storage.copy()
    live.items.upsert({"b": {}})
    compact(root)
    live.close()
    (root / MARK).unlink()
    storage.restore(copied)
    started = Recommender.load(root)
    (degraded,) = started.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith("the journal ends at change 1, and 2 was acknowledged")
    assert started.items.upsert({"c": {}}).sequence == 3
    assert {"a", "b", "c"} <= ids(started)
    older = Recommender.load(sorted(resolve(root).parent.iterdir())[0], root=root)  # an incomplete log is reported
    assert any("made without the changes up to 2" in one.reason for one in older.recommend(EVERYTHING).degraded)
    older.close()
    started.close()


def test_losing_the_log_between_write_and_read_loses_no_change(
    storage: Storage, root: Path, live: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.items.upsert({"a": {}})
    inner = ChangeLog.append

    def append(self: ChangeLog, *given: object, **named: object) -> int:
        sequence = inner(self, *given, **named)  # type: ignore[arg-type]
        monkeypatch.undo()
        storage.remove()
        return sequence

    monkeypatch.setattr(ChangeLog, "append", append)
    assert live.items.upsert({"b": {}}).sequence == 2
    assert {"a", "b"} <= ids(live)
    assert live.items.unsaved == 2
    live.items.repair()
    assert fresh(root) == ids(live)


def test_a_token_identifies_a_change_of_one_log(root: Path, live: Recommender, tmp_path: Path) -> None:
    token = live.items.upsert({"a": {}}).token
    assert live.items.has_seen(token)
    assert not live.items.has_seen(live.items.token(2))
    for wrong in ("", "x", f"{token}x", token.replace(".", ""), "é.1", f"{'a' * 200}.1"):
        with pytest.raises(TokenError, match="invalid token"):
            live.items.has_seen(wrong)
    with pytest.raises(TokenError, match="another log"):
        live.items.has_seen(f"{'0' * 32}.1")
    assert Recommender.load(resolve(root)).items.token(1) == ""


@pytest.mark.parametrize("storage", ["file"], indirect=True)
def test_moving_the_file_during_a_write_prevents_acknowledgement(
    storage: Storage, root: Path, live: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.items.upsert({"a": {}})
    assert live.items._journal is not None
    inner = type(live.items._journal)._insert

    def insert(self: SqliteChangeLog, connection: sqlite3.Connection, batch: object) -> None:
        inner(self, connection, batch)  # type: ignore[arg-type]
        monkeypatch.undo()
        storage.remove()

    monkeypatch.setattr(live.items._journal, "_insert", insert.__get__(live.items._journal))
    with pytest.raises(JournalError, match="was moved away while it was written"):
        live.items.upsert({"b": {}})
    live.items.upsert({"c": {}})
    assert fresh(root) == ids(live)
    assert {"a", "c"} <= ids(live)
    assert "b" not in ids(live)


def test_an_unreadable_mark_is_reported_until_removed(root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    (root / MARK).write_bytes(b"not a mark")
    live.items.refresh()  # nothing was written since then
    started = Recommender.load(root)
    for one in (live, started):
        (degraded,) = one.recommend(EVERYTHING).degraded
        assert degraded.part == "items"
        assert degraded.reason.startswith(f"{MARK} was damaged (its content is invalid)")
        assert f"then remove {MARK}" in degraded.reason
    started.items.upsert({"b": {}})
    live.items.refresh()
    assert live.items.has_changes()
    assert [len(one.recommend(EVERYTHING).degraded) for one in (live, started)] == [1, 1]
    assert {"a", "b"} <= ids(started) & ids(live)
    (root / MARK).unlink()
    for one in (live, started):
        one.items.refresh()
        assert not one.recommend(EVERYTHING).degraded
    assert {"a", "b"} <= fresh(root)
    started.close()


def test_a_lost_log_takes_precedence_over_a_corrupt_mark(storage: Storage, root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {}})
    (root / MARK).write_bytes(b"")
    storage.remove()
    live.items.refresh()
    (degraded,) = live.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith("the journal is gone: 1 acknowledged changes are served that it does not hold")
    assert live.items.repair() == 1
    (degraded,) = live.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith(f"{MARK} was damaged (it is empty)")
    (root / MARK).unlink()
    assert "a" in fresh(root)


def test_a_write_between_reading_mark_and_log_is_not_a_loss(
    root: Path, live: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.items.upsert({"a": {}})
    other = Recommender.load(root)
    read = SqliteTables.rows_after

    def rows(self: SqliteTables, sequence: int, *, whole: bool) -> list[LogRow]:
        monkeypatch.undo()
        found = read(self, sequence, whole=whole)
        other.items.upsert({"b": {}})  # after this reader's snapshot
        return found

    monkeypatch.setattr(SqliteTables, "rows_after", rows)
    live.items._version = (-1, -1)
    live.items.refresh()
    assert not live.recommend(EVERYTHING).degraded
    live.items.refresh()
    assert {"a", "b"} <= ids(live)
    other.close()


def test_an_older_copy_of_equal_size_over_the_open_file_is_reported(root: Path, live: Recommender) -> None:
    live.items.upsert({"a": {"price": 1.0}})
    live.items.checkpoint()
    before = (root / JOURNAL).read_bytes()
    live.items.upsert({"a": {"price": 2.0}, "b": {}})
    live.items.checkpoint()
    served = live.recommend(EVERYTHING)
    assert (root / JOURNAL).stat().st_size == len(before)
    with (root / JOURNAL).open("r+b") as file:  # the file keeps its identity
        file.write(before)
    assert live.items.has_changes()
    live.items.refresh()
    (degraded,) = live.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith("the journal was replaced or cut short: 2 acknowledged changes are served")
    assert live.recommend(EVERYTHING).ids == served.ids
    assert live.items.repair() == 2
    assert not live.recommend(EVERYTHING).degraded
    assert fresh(root) == set(served.ids)
