"""Checkpoints, from which an interrupted run continues with the same result.

Each run has one file, named after its fingerprint, and holds a lock on it while it trains.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recall._file_system import fsync, try_lock
from recall._progress import note, terminable
from recall.bundle.files import link_or_copy
from recall.errors import RecallError, TrainingError, TrainingInterruptedError

_PREFIX = "checkpoint-"
_SUFFIX = ".safetensors"
_DIGITS = 16  # of the fingerprint in a name


class CheckpointExistsError(TrainingError):
    """A checkpoint is there already, and is not overwritten."""

    exit_code = 73


class CheckpointWriteError(TrainingError):
    """A checkpoint could not be written."""

    exit_code = 73


class CheckpointBusyError(RecallError):
    """Another process is training the same run."""

    exit_code = 75


@dataclass(frozen=True, slots=True)
class Position:
    """Progress of a run.

    Attributes:
        fingerprint: of configuration and data; a checkpoint of another run is refused.
        sweep: sweeps that were finished.
        best_sweep: the sweep that the best model was kept at, 0 when none was.
        best: the validation figure there; -inf without validation.
        since: evaluations since the best one, not counting an opening; patience is compared with it.
        seconds: spent so far.
        losses: of each sweep.
        figures: on the validation part after each sweep, None where it was not evaluated.
    """

    fingerprint: str
    sweep: int = 0
    best_sweep: int = 0
    best: float = float("-inf")
    since: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    figures: tuple[float | None, ...] = ()


def checkpoint_path(root: Path, fingerprint: str) -> Path:
    """Return the file of a run.

    Args:
        root: folder of checkpoints.
        fingerprint: of the run.
    """
    return root / f"{_PREFIX}{fingerprint[:_DIGITS]}{_SUFFIX}"


def other_checkpoints(path: Path) -> list[Path]:
    """Checkpoints of other runs beside a run's own, sorted by name."""
    return sorted(other for other in path.parent.glob(f"{_PREFIX}*{_SUFFIX}") if other != path)


def previous_checkpoint(path: Path) -> Path:
    """Return the file of the checkpoint before the last one."""
    return path.with_name(f"{path.name}.previous")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint; the kernel frees it when the process dies.

    Raises:
        CheckpointBusyError: Another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        holder = try_lock(lock)
        if holder is None:
            raise CheckpointBusyError(
                "another process is training the same run", where=str(path), hint="Wait for it, or give another --out"
            )
        try:
            if not _is_there(holder, lock):  # it was opened before its last holder removed it
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
        finally:
            os.close(holder)


def _is_there(holder: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(holder), path.stat())
    except FileNotFoundError:
        return False


def refuse_overwriting(path: Path, fingerprint: str) -> None:
    """Check that a new run would not overwrite a checkpoint.

    Args:
        path: of the checkpoint.
        fingerprint: of the run.

    Raises:
        CheckpointExistsError: It would.
    """
    if not path.exists():
        return
    try:
        position, _ = load_checkpoint(path, fingerprint)
        what = f"a checkpoint of the same run after sweep {position.sweep} is there"
        hint = "Add --continue to continue from it, or --restart to overwrite it and train from the beginning"
    except TrainingError as error:
        what, hint = f"{error.what}, and would be overwritten", "Move it away, or add --restart to overwrite it"
    raise CheckpointExistsError(what, where=str(path), hint=hint)


def save_checkpoint(path: Path, position: Position, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint atomically: write aside, fsync, rename.

    The checkpoint that it replaces is kept beside it, see `previous_checkpoint`.

    Args:
        path: ends in .safetensors; its folder is created if missing.
        position: progress of the run.
        tensors: all that the next sweep depends on.

    Raises:
        CheckpointWriteError: The file system refused; an earlier checkpoint is unchanged.
    """
    staged = path.with_name(path.name + ".part")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(contiguous, staged, {"position": json.dumps(asdict(position))})
        fsync(staged)
        if path.exists():
            previous = previous_checkpoint(path)
            previous.unlink(missing_ok=True)
            link_or_copy(path, previous)
        os.replace(staged, path)
        fsync(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointWriteError(
            "the checkpoint could not be written", where=str(path), why=str(error), hint="Free some space, and run it again"
        ) from None
    finally:
        staged.unlink(missing_ok=True)


def kept_sweep(path: Path, fingerprint: str | None = None) -> int:
    """Return the last sweep that the checkpoint of a run contains, 0 without one.

    The file itself is read, since a signal may arrive after its rename and before `save_checkpoint` returns.

    Args:
        path: of the checkpoint.
        fingerprint: of the run; None for any.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = _position(file.metadata())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0
    return position.sweep if fingerprint in (None, position.fingerprint) else 0


def _position(metadata: Mapping[str, str]) -> Position:
    return position_of(json.loads(metadata["position"]))


def position_of(record: Mapping[str, Any]) -> Position:
    """Return a position from its attributes as JSON gives them."""
    position = Position(**record)
    return replace(position, losses=tuple(position.losses), figures=tuple(position.figures))


def load_checkpoint(path: Path, fingerprint: str) -> tuple[Position, dict[str, Tensor]]:
    """Read a checkpoint of a run.

    Args:
        path: of the checkpoint.
        fingerprint: of the run.

    Raises:
        TrainingError: It is missing or damaged, or belongs to another configuration or other data.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = _position(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        others = [other.name for other in other_checkpoints(path)]
        raise TrainingError(
            "there is no checkpoint of this run to continue from",
            where=str(path),
            why=f"{', '.join(others)} belong to other configurations or data" if others else "",
            hint="Give the configuration and data that it was made with, or train without --continue",
        ) from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        previous = previous_checkpoint(path)
        hint = "Train with --restart in place of --continue"
        if previous.exists():
            hint = f"Rename {previous.name} to {path.name} to continue one sweep earlier. Or t{hint[1:]}"
        raise TrainingError("the checkpoint is damaged", where=str(path), why=str(error), hint=hint) from None
    if position.fingerprint != fingerprint:
        raise TrainingError(
            "the checkpoint belongs to another run",
            where=str(path),
            why="its configuration or its data differ from those given",
            hint="Give the configuration and data it was made with, or train without --continue",
        )
    return position, tensors


@dataclass(slots=True)
class RunFiles:
    """Files of one run that are kept until it has ended.

    Attributes:
        path: file of the checkpoint; None before the run is known.
        race: file of the race that chose the run's objective; None without one.
        locks: of the run, until it has ended.
    """

    path: Path | None = None
    race: Path | None = None
    locks: ExitStack = field(default_factory=ExitStack)

    def claim(self, root: Path, fingerprint: str, resume: bool | None, restart: bool) -> tuple[Path, bool]:
        """Lock the checkpoint of a run; return its path, and whether to continue from it.

        Args:
            root: folder to publish to, where checkpoints are.
            fingerprint: identifies the run.
            resume: continue from the checkpoint; None does so where there is one.
            restart: overwrite the checkpoint.

        Raises:
            CheckpointBusyError: Another process trains the same run.
            CheckpointExistsError: It would be overwritten, and neither `resume` nor `restart` is set.
        """
        path = checkpoint_path(root, fingerprint)
        self.locks.enter_context(held(path))
        if resume is None:
            resume = path.exists() and not restart
        elif not (resume or restart):
            refuse_overwriting(path, fingerprint)
        if others := other_checkpoints(path):
            names = ", ".join(other.name for other in others)
            note(f"note: checkpoints of other runs are left alone in {root}: {names}")
        self.path = path
        return path, resume


@contextmanager
def checkpointed() -> Iterator[RunFiles]:
    """Run a block that trains, with a checkpoint.

    The checkpoint is removed when the block succeeds, and named in the error when a signal stops it.

    Raises:
        TrainingInterruptedError: SIGINT or SIGTERM stopped the block; its exit code identifies the signal.
    """
    kept = RunFiles()
    with kept.locks, terminable() as stop:
        try:
            yield kept
        except TrainingInterruptedError as error:
            raise stop.coded(error) from None
        except KeyboardInterrupt:
            raise stop.coded(interrupted(kept.path)) from None
        previous = None if kept.path is None else previous_checkpoint(kept.path)
        for file in filter(None, (kept.path, previous, kept.race)):
            file.unlink(missing_ok=True)


def interrupted(path: Path | None, fingerprint: str | None = None) -> TrainingInterruptedError:
    """Return the error of a run that a signal stopped, with its saved progress.

    Args:
        path: of the checkpoint; None for a run without one.
        fingerprint: of the run; None for any.
    """
    kept = 0 if path is None else kept_sweep(path, fingerprint)
    if kept == 0:
        return TrainingInterruptedError("training was interrupted; nothing was kept", hint="Start it again")
    return TrainingInterruptedError(
        f"training was interrupted after sweep {kept}, which is kept",
        where=str(path),
        hint="Add --continue to the same command to continue from there",
    )
