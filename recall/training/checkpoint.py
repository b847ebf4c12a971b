"""A run that was interrupted, kept so that it can go on as if it had not been."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recall.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands.

    Attributes:
        fingerprint: of configuration and data; a checkpoint of another run is refused.
        sweep: sweeps that were finished.
        best_sweep: the sweep that the best model was kept at, 0 when none was.
        best: the validation figure there, -inf when there was none.
        since: looks at validation since then.
        seconds: spent so far.
    """

    fingerprint: str
    sweep: int = 0
    best_sweep: int = 0
    best: float = float("-inf")
    since: int = 0
    seconds: float = 0.0


def save_checkpoint(path: Path, position: Position, tensors: Mapping[str, Tensor]) -> None:
    """Write beside the place, then rename: a checkpoint on disk is always whole. `path` ends in .safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".part")
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, staged, {"position": json.dumps(asdict(position))}
    )
    os.replace(staged, path)


def load_checkpoint(path: Path, fingerprint: str) -> tuple[Position, dict[str, Tensor]]:
    """Read a checkpoint of the run with this fingerprint.

    Raises:
        TrainingError: there is none, it is damaged, or it belongs to another configuration or other data.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = Position(**json.loads(file.metadata()["position"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise TrainingError("there is no checkpoint to go on from", where=str(path), mend="Train without --continue") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            "the checkpoint is damaged", where=str(path), why=str(error), mend="Train without --continue"
        ) from None
    if position.fingerprint != fingerprint:
        raise TrainingError(
            "the checkpoint belongs to another run",
            where=str(path),
            why="its configuration or its data differ from those given",
            mend="Give the configuration and data it was made with, or train without --continue",
        )
    return position, tensors
