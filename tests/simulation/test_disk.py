"""The model of a disk: what can be lost and what cannot."""

import random
from itertools import product

import pytest

from tests.simulation.disk import LOSSES, NOTHING, Inode, Loss, Named, Sized, Step, Synced, Written, after_crash

NONE = Loss(0.0, 0.0, 0.0)


def made(root: Inode, name: str, number: int = 1, folder: bool = False) -> tuple[Inode, Named]:
    inode = Inode(number, folder)
    return inode, Named((), ((root, name, inode),))


def left(root: Inode, steps: list[Step], loss: Loss = NONE, seed: int = 0) -> dict[str, bytes | None]:
    return after_crash(root, steps, loss, random.Random(seed))


def test_a_process_crash_loses_nothing() -> None:
    root = Inode(0, True)
    file, name = made(root, "a")
    assert left(root, [name, Written(file, 0, b"abc"), Written(file, 1, b"x")], NOTHING) == {"a": b"axc"}


def test_file_data_and_directory_entries_are_durable_separately() -> None:
    root = Inode(0, True)
    file, name = made(root, "a")
    written = Written(file, 0, b"abc")
    assert left(root, [name, written, Synced(file)]) == {}
    assert left(root, [name, written, Synced(root)]) == {"a": b""}
    assert left(root, [name, written, Synced(root)], Loss(0, 0, 1)) == {"a": bytes(3)}
    assert left(root, [name, written, Synced(file), Synced(root)]) == {"a": b"abc"}
    assert left(root, [name, Synced(root), Synced(file), written]) == {"a": b""}


def test_a_rename_before_fsync_can_leave_an_empty_file() -> None:
    old = Inode(1, False, b"old")
    root = Inode(0, True, names={"CURRENT": old})
    file, name = made(root, "new", 2)
    renamed = Named(((root, "new"),), ((root, "CURRENT", file),))
    steps: list[Step] = [name, Written(file, 0, b"next"), renamed]
    assert left(root, steps) == {"CURRENT": b"old"}
    assert left(root, steps, Loss(1, 0, 0)) == {"CURRENT": b""}
    assert left(root, [*steps[:2], Synced(file), renamed], Loss(1, 0, 0)) == {"CURRENT": b"next"}


def test_directory_entries_survive_in_order() -> None:
    root = Inode(0, True)
    steps: list[Step] = [made(root, name, number)[1] for number, name in enumerate("abcdef", 1)]
    found = {"".join(left(root, steps, Loss(0.7, 1, 1), seed)) for seed in range(100)}
    assert found == {"abcdef"[:end] for end in range(7)}


def test_a_rename_between_folders_is_atomic() -> None:
    root, ours, theirs = Inode(0, True), Inode(1, True), Inode(2, True)
    root.names.update({"ours": ours, "theirs": theirs})
    ours.names["x"] = Inode(3, False, b"x")
    moved = Named(((ours, "x"),), ((theirs, "y", ours.names["x"]),))
    before: dict[str, bytes | None] = {"ours": None, "ours/x": b"x", "theirs": None}
    after: dict[str, bytes | None] = {"ours": None, "theirs": None, "theirs/y": b"x"}
    assert left(root, [moved]) == before
    for folder in (ours, theirs):
        assert left(root, [moved, Synced(folder)]) == after


@pytest.mark.parametrize("loss", LOSSES)
def test_fsynced_data_survive_every_loss(loss: Loss) -> None:
    root = Inode(0, True)
    file, name = made(root, "a")
    steps: list[Step] = [name, Written(file, 0, b"x" * 2000), Sized(file, 1500), Synced(file), Synced(root)]
    later: list[Step] = [Written(file, 0, b"y" * 600), made(root, "b", 2)[1], Named(((root, "b"),), ())]
    for seed, count in product(range(10), range(4)):
        found = left(root, steps + later[:count], loss, seed)["a"]
        assert found is not None
        assert len(found) == 1500
        assert found[600:] == b"x" * 900
        assert found[:512] in {b"x" * 512, b"y" * 512}  # a sector is written atomically


def test_sectors_of_a_write_survive_independently() -> None:
    root = Inode(0, True)
    file, name = made(root, "a")
    steps: list[Step] = [name, Synced(root), Written(file, 100, b"x" * 1436)]
    found = {left(root, steps, Loss(1, 0.5, 0), seed)["a"] for seed in range(60)}
    sectors = [bytes(100) + b"x" * 412, b"x" * 512, b"x" * 512]
    expected = set()
    for kept in product([False, True], repeat=3):
        data = b"".join(sector if one else bytes(512) for sector, one in zip(sectors, kept, strict=True))
        expected.add(data[: 512 * max((at + 1 for at, one in enumerate(kept) if one), default=0)])
    assert found == expected
