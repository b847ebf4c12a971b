"""Training loop: sweep, check, validate, keep the best model, stop early."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from recall._progress import note
from recall.config import StoppingConfig
from recall.errors import TrainingError
from recall.evaluation.cold_start import fair_figure
from recall.features.csr import FeatureLayout
from recall.models.torch.base import Model, side_of
from recall.training.checkpoint import (
    CheckpointWriteError,
    Position,
    interrupted,
    load_checkpoint,
    position_of,
    refuse_overwriting,
    save_checkpoint,
)
from recall.training.ranks import ALONE, RankEndedError, RankLostError, Ranks


class Learner(Protocol):
    """Improves its model in place, sweep by sweep.

    Attributes:
        model: the model that is learned.
        note: description of the method, for the report.
    """

    model: Model
    note: str

    def sweep(self) -> float:
        """Train one epoch; return the loss for each unit of observed weight."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return all that the next sweep depends on besides the model."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        ...


Validate = Callable[[Model], Mapping[str, float]]


class NonFiniteError(TrainingError):
    """A parameter, the loss or a score is not finite."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Result of one sweep.

    Attributes:
        sweep: number of this sweep, from 1.
        sweeps: maximum number of sweeps.
        loss: for each unit of observed weight.
        metrics: on the validation part, empty when it was not evaluated.
        best: whether the model is the best so far by the chosen metric.
        seconds: since training began.
        remaining: estimate for the sweeps left, in seconds; early stopping may need fewer.
    """

    sweep: int
    sweeps: int
    loss: float
    metrics: Mapping[str, float]
    best: bool
    seconds: float
    remaining: float


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Checkpoint file of a run, and the use of an existing one.

    Attributes:
        path: the file.
        fingerprint: of the run.
        resume: continue from the checkpoint.
        restart: overwrite the checkpoint; it is refused when neither is set.
    """

    path: Path
    fingerprint: str
    resume: bool = False
    restart: bool = False


def run_sweeps(
    learner: Learner,
    sweeps: int,
    stopping: StoppingConfig,
    validate: Validate | None,
    report: Callable[[SweepReport], None],
    fields: Mapping[str, FeatureLayout],
    checkpointing: Checkpointing | None = None,
    beat: float | None = None,
    opened: int = 0,
    ranks: Ranks = ALONE,
) -> Position:
    """Train until done or until validation stops improving; keep the best model.

    Args:
        learner: with the model.
        sweeps: at most this many.
        stopping: when to evaluate and when to stop.
        validate: returns the metrics of a model on the validation part; None without such a part, which makes all sweeps.
            Models are compared by `fair_figure` of the stopping metric.
        report: called after every sweep.
        fields: for "user" and "item", the fields that feature rows belong to.
        checkpointing: where to save the run after each sweep.
        beat: validation figure of a warm start, which is kept unless a sweep improves on it.
        opened: number of warm-up sweeps. The model after them may be kept, but patience does not count from them: the sweeps
            that follow are often worse at first and better in the end.
        ranks: of distributed training. Only rank 0 evaluates, keeps the best model, and has a checkpoint.

    Raises:
        NonFiniteError: A number is not finite; names sweep and field.
        RankLostError: Another rank ended; names it, and the last whole sweep.
        CheckpointExistsError: A checkpoint would be overwritten.
        TrainingInterruptedError: The keyboard interrupted training; says how to continue.
    """
    model = learner.model
    position, best = _starting_position(learner, checkpointing, beat)
    if ranks.count > 1:
        position, beat = _broadcast_start(learner, position, beat, ranks)
    began = time.monotonic() - position.seconds
    metric = f"{stopping.metric}@{stopping.at}"
    try:
        for sweep in range(position.sweep + 1, sweeps + 1):
            if position.since >= stopping.patience:
                break
            swept = time.monotonic()
            loss = learner.sweep()
            _check_tables(model, loss, sweep, fields, ranks)
            metrics: Mapping[str, float] = {}
            better, figure = False, None
            if validate is not None and (sweep % stopping.every == 0 or sweep == sweeps):
                metrics = _evaluated(validate, model, sweep, fields)
                figure = fair_figure(metrics, metric)
            figure = json.loads(ranks.told(json.dumps(figure))) if ranks.count > 1 else figure
            if figure is not None:
                better = figure > position.best
                if better:
                    best = deepcopy(model.state_dict()) if ranks.rank == 0 else None
                    position = replace(position, best_sweep=sweep, best=figure)
                looks = [beat, *position.figures[opened:], *([figure] if sweep > opened else [])]
                position = replace(position, since=_since_best(looks))
            now = time.monotonic()
            position = replace(
                position,
                sweep=sweep,
                seconds=now - began,
                losses=(*position.losses, loss),
                figures=(*position.figures, figure),
            )
            if checkpointing is not None:
                _save(checkpointing.path, position, learner, best)
            ranks.told("")  # rank 0 has its checkpoint
            report(SweepReport(sweep, sweeps, loss, metrics, better, now - began, (now - swept) * (sweeps - sweep)))
    except KeyboardInterrupt:
        raise interrupted(None if checkpointing is None else checkpointing.path, position.fingerprint) from None
    except RankLostError as error:
        raise error.after(position.sweep) from None
    if best is not None:
        model.load_state_dict(best)
    return position


def _since_best(looks: Sequence[float | None]) -> int:
    """Return how many looks followed the best; sweeps without a look are None."""
    figures = [figure for figure in looks if figure is not None]
    return len(figures) - 1 - figures.index(max(figures)) if figures else 0


def _starting_position(
    learner: Learner, checkpointing: Checkpointing | None, beat: float | None
) -> tuple[Position, dict[str, Tensor] | None]:
    if checkpointing is None or not checkpointing.resume:
        fingerprint = "" if checkpointing is None else checkpointing.fingerprint
        if checkpointing is not None and not checkpointing.restart:
            refuse_overwriting(checkpointing.path, fingerprint)
        if beat is None:
            return Position(fingerprint), None
        return Position(fingerprint, best=beat), deepcopy(learner.model.state_dict())
    position, tensors = load_checkpoint(checkpointing.path, checkpointing.fingerprint)
    learner.model.load_state_dict(_part(tensors, "model."))
    learner.restore(_part(tensors, "learner."))
    return position, _part(tensors, "best.") or None


def _broadcast_start(learner: Learner, position: Position, beat: float | None, ranks: Ranks) -> tuple[Position, float | None]:
    """Copy position, figure to beat, tables and state of rank 0 to all ranks."""
    found, beat = json.loads(ranks.told(json.dumps([asdict(position), beat])))
    position = position_of(found)
    if position.sweep:
        learner.model.load_state_dict(ranks.of_first(learner.model.state_dict()))
        learner.restore(ranks.of_first(learner.state()))
    return position, beat


def _save(path: Path, position: Position, learner: Learner, best: Mapping[str, Tensor] | None) -> None:
    parts = {"model.": learner.model.state_dict(), "learner.": learner.state(), "best.": best or {}}
    tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
    try:
        save_checkpoint(path, position, tensors)
    except CheckpointWriteError as error:
        note(f"warning: {error}. Training continues; the previous checkpoint is kept")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_tables(model: Model, loss: float, sweep: int, fields: Mapping[str, FeatureLayout], ranks: Ranks) -> None:
    """Check that all numbers are finite, and equal on all ranks."""
    error = _non_finite(model, loss, sweep, fields)
    if ranks.count > 1:
        digest = 0
        for _, table in sorted(model.named_parameters(), key=lambda named: named[0]):
            digest = crc32(table.detach().contiguous().numpy().data, digest)
        found = ranks.gathered(error is not None, digest)
        if error is None and found[:, 0].any():
            raise RankEndedError("a number is not finite on another rank")
        others = [str(rank) for rank in range(ranks.count) if found[rank, 1] != found[0, 1]]
        if others and error is None:
            raise TrainingError(
                f"the tables of rank {', '.join(others)} differ from those of rank 0",
                where=f"sweep {sweep}",
                why="ranks compute alike only with the same versions, on the same kind of processor",
                hint="Use equal machines, and add --continue to continue from the sweep before",
            )
    if error is not None:
        raise error


def _non_finite(model: Model, loss: float, sweep: int, fields: Mapping[str, FeatureLayout]) -> NonFiniteError | None:
    """Return the error of a number that is not finite; None where all are."""
    for name, table in model.named_parameters():
        finite = torch.isfinite(table.detach())
        if bool(finite.all()):
            continue
        side = side_of(name)
        place = name if side is None else _field_of(int(torch.nonzero(~finite)[0, 0]), side, fields)
        return NonFiniteError(
            f"a number is not finite in {place}",
            where=f"sweep {sweep}",
            hint="Lower the learning rate, raise the regularisation, or look for extreme values with 'recall data check'",
        )
    if loss != loss or loss in (float("inf"), float("-inf")):
        return NonFiniteError(
            "the loss is not finite", where=f"sweep {sweep}", hint="Look for extreme values with 'recall data check'"
        )
    return None


def _evaluated(validate: Validate, model: Model, sweep: int, fields: Mapping[str, FeatureLayout]) -> Mapping[str, float]:
    """Return the metrics; an overflow names the field of the largest parameter."""
    try:
        return validate(model)
    except TrainingError as error:
        tables = {name: table.detach() for name, table in model.named_parameters() if side_of(name) and table.numel()}
        peaks = {name: table.reshape(len(table), -1).abs().amax(dim=1) for name, table in tables.items()}
        name = max(peaks, key=lambda name: float(peaks[name].max()))
        place = f"the largest are in {_field_of(int(peaks[name].argmax()), name.partition('_')[0], fields)}"
        raise NonFiniteError(error.what, where=f"sweep {sweep}", why=place, hint=error.hint) from None


def _field_of(row: int, side: str, fields: Mapping[str, FeatureLayout]) -> str:
    return f"field {fields[side].names[int(fields[side].of(np.array(row)))]!r} of the {side} side"
