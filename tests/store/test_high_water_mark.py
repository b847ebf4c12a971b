"""The mark records the last write of a file, and which of its writes are known to be lost."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recall.store.high_water_mark import HighWaterMark, Loss, MarkState, damage_warning


@pytest.fixture
def mark(tmp_path: Path) -> HighWaterMark:
    return HighWaterMark(tmp_path / "mark")


def test_the_mark_never_decreases(mark: HighWaterMark) -> None:
    assert mark.read() is None
    mark.advance("a", 5)
    mark.advance("a", 3)
    assert mark.read() == MarkState("a", 5)
    assert HighWaterMark(mark.path).read() == MarkState("a", 5)


def test_concurrent_writers_keep_the_highest_mark(mark: HighWaterMark) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: mark.advance("a", number), [number * 7 % 101 for number in range(101)]))
    assert mark.read() == MarkState("a", 100)


def test_a_file_without_earlier_writes_is_reported_until_restored(mark: HighWaterMark) -> None:
    mark.advance("a", 5)
    mark.advance("b", 1)
    assert mark.read() == MarkState("b", 1, (Loss("a", 5),))
    mark.advance("b", 2, recovered=[Loss("a", 4)])
    assert mark.read() == MarkState("b", 2, (Loss("a", 5),))
    mark.advance("b", 3, recovered=[Loss("c", 9), Loss("a", 5)])
    assert mark.read() == MarkState("b", 3)
    mark.advance("c", 1, recovered=[Loss("b", 3)])
    assert mark.read() == MarkState("c", 1)


def test_a_reported_loss_stays_until_accepted(mark: HighWaterMark) -> None:
    mark.advance("a", 9, lost=Loss("a", 7))
    mark.advance("a", 10)
    assert mark.read() == MarkState("a", 10, (Loss("a", 7, overtaken=True),))
    mark.path.unlink(missing_ok=True)
    mark.path.unlink(missing_ok=True)
    mark.advance("a", 11)
    assert mark.read() == MarkState("a", 11)


def test_two_losses_are_recorded_and_repaired_separately(mark: HighWaterMark) -> None:
    mark.advance("a", 3)
    mark.advance("b", 22)
    mark.advance("c", 26, recovered=[Loss("a", 3)])
    assert mark.read() == MarkState("c", 26, (Loss("b", 22),))
    mark.advance("d", 27)
    found = mark.read()
    assert found == MarkState("d", 27, (Loss("b", 22), Loss("c", 26)))
    assert found.first_loss == Loss("b", 22)
    for number in range(20):
        mark.advance(f"{number:032}", 10**15)
    found = mark.read()
    assert found is not None
    assert found.losses[:2] == (Loss("b", 22), Loss("c", 26))
    assert mark.path.stat().st_size == 512


def test_later_writes_do_not_clear_a_lost_file(mark: HighWaterMark) -> None:
    mark.advance("a", 15)
    mark.advance("a", 19, lost=Loss("a", 15))
    mark.advance("a", 20, recovered=[Loss("a", 19)])
    assert mark.read() == MarkState("a", 20, (Loss("a", 15, overtaken=True),))
    mark.advance("a", 21, recovered=[Loss("a", 15)])
    assert mark.read() == MarkState("a", 21)


def test_a_found_write_raises_only_the_mark_of_its_file(mark: HighWaterMark) -> None:
    assert mark.raise_to(mark.read(), "a", 3) is None
    assert not mark.path.exists()
    mark.advance("b", 2)
    mark.advance("a", 3)
    found = MarkState("a", 5, (Loss("b", 2),))
    assert mark.raise_to(mark.read(), "a", 5) == mark.read() == found
    assert mark.raise_to(mark.read(), "a", 4) == mark.raise_to(mark.read(), "c", 9) == mark.read() == found


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"log": "a"}', b'{"log": "a", "sequence": "x", "lost": []}', b"\0" * 512, b"\xff" * 512],
)
def test_an_unparsable_mark_is_reported_until_removed(mark: HighWaterMark, content: bytes) -> None:
    mark.path.write_bytes(content)
    found = mark.read()
    assert found is not None
    assert (found.identity, found.sequence, found.losses) == ("", 0, ())
    reason = found.damaged
    assert reason in ("it is empty", "its content is invalid")
    assert mark.raise_to(mark.read(), "a", 1) == found
    mark.advance("a", 1)
    mark.advance("b", 2)
    assert mark.raise_to(mark.read(), "b", 3) == mark.read() == MarkState("b", 3, (Loss("a", 1),), reason)
    assert damage_warning(mark.read(), "x.mark", "the file").startswith(f"x.mark was damaged ({reason})")
    mark.path.unlink(missing_ok=True)
    assert damage_warning(mark.read(), "x.mark", "the file") == ""
    mark.advance("b", 4)
    assert mark.read() == MarkState("b", 4)


def test_an_unreadable_mark_file_is_reported(mark: HighWaterMark) -> None:
    mark.path.mkdir()
    mark.advance("a", 1)
    found = mark.read()
    assert found is not None
    assert found.damaged == "Is a directory"


def test_the_first_mark_is_written_atomically(mark: HighWaterMark, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    link = os.link
    monkeypatch.setattr(os, "link", lambda made, path: (seen.append(HighWaterMark(made).read()), link(made, path)))
    mark.advance("a", 1)
    assert seen == [MarkState("a", 1)]
    assert [one.name for one in mark.path.parent.iterdir()] == ["mark"]


def test_the_stamp_detects_removal_and_replacement_but_not_updates(mark: HighWaterMark) -> None:
    assert mark.stamp() is None
    mark.advance("a", 1)
    stamp = mark.stamp()
    assert stamp is not None
    mark.advance("a", 2)
    assert mark.stamp() == stamp
    mark.path.write_bytes(b"{")
    assert mark.stamp() != stamp


def test_a_read_only_folder_gives_no_report(tmp_path: Path) -> None:
    HighWaterMark(tmp_path / "nowhere" / "mark").advance("a", 1)
    assert list(tmp_path.iterdir()) == []
