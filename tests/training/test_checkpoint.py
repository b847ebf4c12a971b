import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from recall._file_system import try_lock
from recall.errors import TrainingError
from recall.training import checkpoint
from recall.training.checkpoint import (
    CheckpointBusyError,
    CheckpointWriteError,
    Position,
    checkpoint_path,
    held,
    load_checkpoint,
    other_checkpoints,
    save_checkpoint,
)
from tests.straced import ROOT, needs_strace

TENSORS = {"model.x": torch.arange(3.0)}


def test_every_run_has_a_separate_checkpoint(tmp_path: Path) -> None:
    one, other = checkpoint_path(tmp_path, "a" * 64), checkpoint_path(tmp_path, "b" * 64)
    assert (one.name, other.name) == (f"checkpoint-{'a' * 16}.safetensors", f"checkpoint-{'b' * 16}.safetensors")
    for path in (one, other):
        save_checkpoint(path, Position(path.stem), TENSORS)
    assert other_checkpoints(one) == [other]
    assert load_checkpoint(one, one.stem)[0].fingerprint == one.stem
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name, other.name]


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    path, other = checkpoint_path(tmp_path / "out", "a" * 64), checkpoint_path(tmp_path / "out", "b" * 64)
    with held(path):
        with held(other):
            pass
        with pytest.raises(CheckpointBusyError, match="another process is training the same run"), held(path):
            pass
    with held(path):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_lock_that_was_removed_after_it_was_opened_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = checkpoint_path(tmp_path / "out", "a" * 64), list[Path]()

    def removed_by_its_last_holder(lock: Path) -> int | None:
        opened.append(lock)
        holder = try_lock(lock)
        if len(opened) == 1:
            lock.unlink()
        return holder

    monkeypatch.setattr(checkpoint, "try_lock", removed_by_its_last_holder)
    with held(path):
        assert len(opened) == 2
        with pytest.raises(CheckpointBusyError), held(path):
            pass
    assert list((tmp_path / "out").iterdir()) == []


@needs_strace
def test_the_file_is_fsynced_before_the_rename_and_the_folder_after(tmp_path: Path) -> None:
    program = (
        "import torch; from pathlib import Path; from recall.training.checkpoint import Position, save_checkpoint; "
        f"save_checkpoint(Path({str(tmp_path / 'c.safetensors')!r}), Position('a'), {{'x': torch.zeros(2)}})"
    )
    traced = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2"
    command = ["strace", "-f", "-y", "-qq", "-e", calls, "-o", str(traced), sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in traced.read_text().splitlines() if str(tmp_path) in line]
    lines = lines[-3:]  # safetensors first renames its own temporary file
    assert [line.split("(")[0].split()[-1].rstrip("at2") for line in lines] == ["fsync", "rename", "fsync"]
    assert "c.safetensors.part>" in lines[0]
    assert f"<{tmp_path}>" in lines[2]


def test_an_interrupted_save_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, Position("a", sweep=1), TENSORS)
    sync = os.fsync

    def stop(descriptor: int) -> None:
        sync(descriptor)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, Position("a", sweep=2), TENSORS)
    assert load_checkpoint(path, "a")[0].sweep == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_names_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for sweep in (1, 2, 3):
        save_checkpoint(path, Position("a", sweep=sweep), TENSORS)
    path.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="damaged") as refused:
        load_checkpoint(path, "a")
    previous = path.with_name("c.safetensors.previous")
    assert refused.value.hint.startswith("Rename c.safetensors.previous to c.safetensors to continue one sweep earlier")
    previous.rename(path)
    assert load_checkpoint(path, "a")[0].sweep == 2
    path.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="damaged") as refused:
        load_checkpoint(path, "a")
    assert refused.value.hint == "Train with --restart in place of --continue"


def test_a_refused_checkpoint_is_named_and_the_last_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, Position("a", sweep=1), TENSORS)

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointWriteError, match="No space left") as refused:
        save_checkpoint(path, Position("a", sweep=2), TENSORS)
    assert (refused.value.where, refused.value.exit_code) == (str(path), 73)
    assert load_checkpoint(path, "a")[0].sweep == 1
