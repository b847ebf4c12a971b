"""The checkpoint of a training run as the commands use it. Imports torch."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recall.cli import output
from recall.cli.stopping import terminable
from recall.training.checkpoint import checkpoint_path, held, other_checkpoints, refuse_overwriting
from recall.training.loop import TrainingInterruptedError


@dataclass(slots=True)
class Kept:
    """The checkpoint of one run.

    Attributes:
        path: its file; None before the run is known.
    """

    path: Path | None = None
    _locks: ExitStack = field(default_factory=ExitStack)

    def claim(self, root: Path, fingerprint: str, resume: bool, restart: bool) -> Path:
        """Take the checkpoint of the run with this fingerprint, whose file is returned.

        Raises:
            CheckpointBusyError: Another process trains the same run.
            CheckpointExistsError: It would be overwritten, and neither `resume` nor `restart` is set.
        """
        path = checkpoint_path(root, fingerprint)
        self._locks.enter_context(held(path))
        if not (resume or restart):
            refuse_overwriting(path, fingerprint)
        if others := other_checkpoints(path):
            names = ", ".join(other.name for other in others)
            output.note(f"note: checkpoints of other runs are left alone in {root}: {names}")
        self.path = path
        return path


@contextmanager
def keeping() -> Iterator[Kept]:
    """Run a block that trains; its checkpoint is removed when the block ends well, and named when a signal stops it.

    Raises:
        TrainingInterruptedError: SIGINT or SIGTERM stopped the block; its exit code says which.
    """
    kept = Kept()
    with kept._locks, terminable() as stop:
        try:
            yield kept
        except TrainingInterruptedError as error:
            raise stop.coded(error) from None
        except KeyboardInterrupt:
            raise stop.coded(_interrupted(kept.path)) from None
        if kept.path is not None:
            kept.path.unlink(missing_ok=True)


def _interrupted(checkpoint: Path | None) -> TrainingInterruptedError:
    if checkpoint is not None and checkpoint.exists():
        return TrainingInterruptedError(
            "interrupted; nothing was published, and what was learned is kept",
            where=str(checkpoint),
            mend="Add --continue to the same command to go on from there",
        )
    return TrainingInterruptedError("interrupted before anything was learned", mend="Start it again")
