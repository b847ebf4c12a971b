"""Guarantees of all change logs, in a file or on a server."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from recall.errors import JournalError, RequestError
from recall.store.high_water_mark import Loss, MarkState
from recall.store.items.log_base import ItemBatch, LogTables
from recall.store.items.log_position import Base, Change
from tests.store.items.entries import Entry, last, since
from tests.store.items.logs import Storage


def changes(*ids: str) -> list[Change]:
    return [Change(one, {"name": one}) for one in ids]


def test_the_last_change_of_each_item_is_read_in_order(bare: Storage) -> None:
    written = bare.open()
    assert written.append([Change("a", {"price": 1.5, "tags": ["x"]}), Change("b", None)]) == 2
    assert written.append([Change("c", {}), Change("a", {}), Change("c", {"price": 2})]) == 5
    expected = [Entry(2, "b", None), Entry(4, "a", {}), Entry(5, "c", {"price": 2})]
    for opened in (written, bare.open()):
        assert since(opened, 0) == expected
        assert since(opened, 2) == expected[1:]
        assert since(opened, 5) == []
        assert last(opened) == 5
        state = opened.state()
        assert state is not None
        assert (state.last, state.number) == (5, 3)


def test_nothing_is_stored_before_the_first_change(bare: Storage) -> None:
    empty = bare.open()
    assert since(empty, 0) == []
    assert last(empty) == 0
    assert empty.prune(10) == 0
    assert empty.set_aside_damaged() is None
    assert not bare.exists()


@pytest.mark.parametrize("item_id", ["", "nul\0inside", "line\nbreak", "\ufeff", "é", "e\u0301", "' OR 1=1--", "🦊" * 500])
def test_ids_round_trip_exactly(bare: Storage, item_id: str) -> None:
    bare.open().append([Change(item_id, {item_id: item_id})])
    assert since(bare.open(), 0) == [Entry(1, item_id, {item_id: item_id})]


def test_a_retried_batch_is_written_once(bare: Storage) -> None:
    written = bare.open()
    assert written.append(changes("a", "b"), key="one") == 2
    assert written.append(changes("c"), key="two") == 3
    assert written.append(changes("a", "b"), key="one") == 2
    assert bare.open().append(changes("a", "b"), key="one") == 2
    assert last(written) == 3
    with pytest.raises(RequestError, match="belongs to other changes"):
        written.append(changes("a"), key="one")
    assert written.append(changes("a")) == written.append(changes("a")) - 1  # without keys, these are two batches


def test_keys_that_name_an_id_are_forgotten(bare: Storage) -> None:
    written = bare.open()
    for key in ("order of u1", "order of u10", "u1"):
        written.append(changes("a"), key=key)
    assert written.forget(["u1"]) == 2
    assert written.append(changes("a"), key="order of u10") == 2
    assert written.append(changes("a"), key="u1") == 4


def test_the_version_changes_with_every_batch_of_any_process(bare: Storage) -> None:
    reader = bare.open()
    seen = [reader.version()]
    for writer in (bare.open(), bare.open(), reader):
        assert reader.version() == seen[-1]
        writer.append(changes("a"))
        seen.append(reader.version())
    assert len(set(seen)) == 4


def test_concurrent_changes_share_commits(bare: Storage) -> None:
    written, other, start, commits = bare.open(), bare.open(), Barrier(8), list[float]()
    written.on_commit(commits.append)

    def write(thread: int) -> list[int]:
        start.wait()
        log = other if thread == 7 else written
        return [log.append(changes(f"{thread} {number}"), key=f"{thread} {number}") for number in range(25)]

    with ThreadPoolExecutor(8) as pool:
        acknowledged = list(pool.map(write, range(8)))
    assert 0 < len(commits) < 175
    assert sorted(one for thread in acknowledged for one in thread) == list(range(1, 201))
    held = {entry.item_id: entry.sequence for entry in since(written, 0)}
    for thread, sequences in enumerate(acknowledged):
        assert [held[f"{thread} {number}"] for number in range(25)] == sequences


def test_a_reader_that_needs_pruned_changes_gets_an_error(bare: Storage) -> None:
    written = bare.open()
    written.append(changes("a", "b", "c"))
    assert written.prune(2) == 2
    assert [entry.item_id for entry in since(written, 2)] == ["c"]
    with pytest.raises(JournalError, match="changes 2 to 2 are no longer in the journal"):
        since(written, 1)
    early = bare.open().read(None, Base(written.state().identity, 2)).state
    assert early is not None
    written.append(changes("late"))
    assert written.prune(100) == 2
    assert last(written) == 4
    with pytest.raises(JournalError, match="changes 3 to 4 are no longer in the journal"):
        written.read(early, Base(early.identity, 2))  # it has followed the log up to change 3
    assert written.read(early, Base(early.identity, 4)).rows == []  # of a version that contains what was dropped
    assert written.append(changes("d")) == 5


def test_a_removed_log_continues_after_the_sequence_of_the_versions(bare: Storage) -> None:
    written = bare.open()
    written.append(changes("a"))
    bare.remove()
    assert written.append(changes("b"), base=Base("earlier", 7)) == 8
    assert since(written, 7) == since(bare.open(), 7) == [Entry(8, "b", {"name": "b"})]
    with pytest.raises(JournalError, match="changes 1 to 7 are no longer"):
        since(written, 0)
    assert [row.item_id for row in written.read(None, Base("earlier", 7)).rows] == ["b"]
    older = written.read(None, Base("earlier", 6))  # the root must stay readable
    assert ([row.item_id for row in older.rows], older.missing_through) == (["b"], 7)
    assert older.state is not None
    assert (
        written.read(None, Base("earlier", 7)).missing_through
        == written.read(None, Base(older.state.identity, 8)).missing_through
        == 0
    )
    assert written.read(older.state, Base()).missing_through == 7


def test_a_loss_is_noted_however_many_batches_are_written_together(bare: Storage) -> None:
    written = bare.open()
    written.append(changes("a"))
    copied = bare.copy()
    written.append(changes("b"))
    written.close()
    bare.restore(copied)
    again = bare.open()
    together = [ItemBatch(rows=[(one, b"{}")], after=0, base=Base(), expected=None) for one in "cd"]
    again._write(together)
    assert [one.last for one in together] == [3, 4]
    state = again.state()
    assert state is not None
    assert again.mark.read() == MarkState(state.identity, 4, (Loss(state.identity, 2, overtaken=True),))


def test_a_transaction_that_failed_does_not_move_the_mark(bare: Storage) -> None:
    written = bare.open()
    assert written.append(changes("a")) == 1

    def fail(tables: LogTables) -> int:
        written._stage_mark(tables.state().identity, 99)
        raise JournalError("failed")

    with pytest.raises(JournalError, match="failed"):
        written._transact(fail)
    assert written.prune(0) == 0
    mark = written.mark.read()
    assert mark is not None
    assert mark.sequence == 1
