"""From a data set to a trained model."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from recall.config import RunConfig, SquareConfig
from recall.data.dataset import Dataset
from recall.features.blocks import Block
from recall.features.encoder import FeatureEncoder
from recall.features.sparse import SparseRows
from recall.models.contract import Model, Side, side_of
from recall.models.family import new_model
from recall.training.learning import new_learner
from recall.training.loop import Checkpointing, SweepReport, run_sweeps
from recall.training.pairs import ObservedPairs
from recall.training.validation import Validation


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training came to.

    Attributes:
        model: the best model by validation, or the last one when nothing was held out.
        sweeps: sweeps or epochs that were made.
        best_sweep: the one whose model was kept.
        metrics: of that model on the validation part; empty when nothing was held out.
        seconds: spent in training, over all parts of a run that was resumed.
    """

    model: Model
    sweeps: int
    best_sweep: int
    metrics: dict[str, float]
    seconds: float


def train(
    config: RunConfig,
    dataset: Dataset,
    encoder: FeatureEncoder,
    report: Callable[[SweepReport], None],
    checkpoint: Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Learn the model that the configuration describes from the training part of the data.

    The same configuration, data, machine and number of threads give the same bits.

    Args:
        config: the run.
        dataset: its data.
        encoder: fitted on the training part.
        report: told of every sweep.
        checkpoint: file that keeps the run after each sweep; nothing is kept when None.
        resume: go on from that file.

    Raises:
        TrainingError: a number is not finite, or the checkpoint does not fit.
        TrainingInterruptedError: the keyboard interrupted training.
    """
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    if isinstance(config.train, SquareConfig):  # each row is met once and as a whole; batches are thinned as they are drawn
        pairs = pairs.with_dropped_values(config.train.drop, encoder, np.random.default_rng(config.seed))
    model = new_model(config.model, encoder.user_fields, encoder.item_fields)
    model.initialise(config.train.scale, torch.Generator().manual_seed(config.seed))
    _clear(model, {"user": pairs.contexts, "item": pairs.items})
    learner = new_learner(config.train, model, pairs, config.seed)
    sweeps = config.train.sweeps if isinstance(config.train, SquareConfig) else config.train.epochs
    validation = Validation.of(config, dataset, encoder)
    position = run_sweeps(
        learner,
        sweeps,
        config.train.stopping,
        validation,
        report,
        {"user": _names(encoder.user_blocks), "item": _names(encoder.item_blocks)},
        None if checkpoint is None else Checkpointing(checkpoint, run_fingerprint(config, dataset), resume),
    )
    metrics = dict(validation(model)) if validation is not None else {}
    return TrainResult(model, position.sweep, position.best_sweep or position.sweep, metrics, position.seconds)


@torch.no_grad()
def _clear(model: Model, rows: Mapping[Side, SparseRows]) -> None:
    """Start features that no row has at zero: nothing would ever move them from where chance put them."""
    absent = {side: np.bincount(part.indices, minlength=part.n_features) == 0 for side, part in rows.items()}
    for name, table in model.named_parameters():
        side = side_of(name)
        if side is not None:
            table[torch.from_numpy(absent[side])] = 0.0


def run_fingerprint(config: RunConfig, dataset: Dataset) -> str:
    """SHA-256 over the data and all of the configuration that training depends on."""
    parts = config.model_dump(mode="json", include={"seed", "data", "fields", "model", "train"})
    return hashlib.sha256((json.dumps(parts, sort_keys=True) + dataset.fingerprint()).encode()).hexdigest()


def _names(blocks: tuple[Block, ...]) -> Callable[[int], str]:
    offsets = [block.offset for block in blocks]
    return lambda row: blocks[bisect_right(offsets, row) - 1].name
