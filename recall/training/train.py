"""From a data set to a trained model."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from recall._heap import release_free_memory
from recall.config import Method, PairwiseConfig, RunConfig, SoftmaxConfig, SquareConfig
from recall.data.dataset import Dataset
from recall.errors import TrainingError
from recall.evaluation.cold_start import fair_figure
from recall.features.encoder import FeatureEncoder
from recall.models.serving.popularity import PopularityFactor
from recall.models.torch.base import Model, side_of
from recall.models.torch.registry import new_model
from recall.training.als.solver import ImplicitALS
from recall.training.distribute import give
from recall.training.loop import Checkpointing, Learner, NonFiniteError, SweepReport, run_sweeps
from recall.training.negatives import MinedNegatives, Negatives
from recall.training.new_items import level_new_items
from recall.training.objectives.base import Objective
from recall.training.objectives.pairwise import LabelledLogLoss, Pairwise, bpr, logistic, warp
from recall.training.objectives.softmax import FullSoftmax, InBatchSoftmax, SampledSoftmax, SoftmaxAtK
from recall.training.pairs import ObservedPairs
from recall.training.popularity import PopularityFit, without_factor
from recall.training.ranges import TiedRows
from recall.training.ranks import ALONE, Ranks
from recall.training.sgd import GradientLearner
from recall.training.start import ProximalLearner, WarmStart, of_ids, start_from_singular_vectors
from recall.training.validation import FieldWorth, Validation, affordable_requests, field_shares, field_worths


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Result of training.

    Attributes:
        model: the best model by validation, or the last one when nothing was held out.
        encoder: of the features, with the learned weights of ranges of lags.
        sweeps: number of sweeps or epochs.
        best_sweep: number of the sweep whose model was kept; 0 if none improved on a warm start.
        metrics: of that model on the validation part; empty when nothing was held out.
        start: metrics of the initial model of a warm start; otherwise empty.
        seconds: of training, summed over the parts of a resumed run.
        note: description of the method.
        new_items: description of how items without training interactions are scored.
        popularity: popularity factor for unknown users; None if no feature can hold one.
        unknown_users: description of the factor's weight, or the reason why it is missing.
        fields: worth of each field on the validation part; empty without such a part, or if not requested.
        losses: loss of each sweep, for each unit of observed weight.
        figures: stopping metric on the validation part after each sweep; None where it was not evaluated.
    """

    model: Model
    encoder: FeatureEncoder
    sweeps: int
    best_sweep: int
    metrics: dict[str, float]
    seconds: float
    start: dict[str, float] = field(default_factory=dict)
    note: str = ""
    new_items: str = ""
    popularity: PopularityFactor | None = None
    unknown_users: str = ""
    fields: tuple[FieldWorth, ...] = ()
    losses: tuple[float, ...] = ()
    figures: tuple[float | None, ...] = ()

    @property
    def curve(self) -> dict[str, JsonValue]:
        """The manifest's record of the losses and figures of all sweeps."""
        return {"losses": list(self.losses), "figures": list(self.figures), "best_sweep": self.best_sweep}

    @property
    def zeros(self) -> dict[str, float]:
        """For "user" and "item", the share of first-order weights that are zero."""
        weights = {"user": self.model.user_weights, "item": self.model.item_weights}
        return {side: float((table == 0).float().mean()) for side, table in weights.items()}


def train(
    config: RunConfig,
    dataset: Dataset,
    encoder: FeatureEncoder,
    report: Callable[[SweepReport], None],
    checkpoint: Path | None = None,
    resume: bool = False,
    start: WarmStart | None = None,
    restart: bool = False,
    worths: bool = False,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train the configured model on the training part of the data.

    The same configuration, data, machine and number of threads give the same bits.

    Args:
        config: the run.
        dataset: its data; on ranks other than 0 the part that `recall.training.distribute.receive` returns.
        encoder: fitted on the training part.
        report: called after every sweep.
        checkpoint: file that saves the run after each sweep; None saves nothing.
        resume: continue from that file.
        restart: overwrite that file, which is an error otherwise.
        worths: also measure the worth of each field, if there is a validation part.
        start: initial parameters; default random. Its model is kept when no sweep improves on it on the validation part.
        ranks: of distributed training. Ranks other than 0 return the model after the last sweep.

    Raises:
        RankLostError: Another rank ended.
        TrainingError: A number is not finite, or the checkpoint does not fit.
        CheckpointExistsError: There is a checkpoint, and neither `resume` nor `restart` is set.
        TrainingInterruptedError: The keyboard interrupted training.
    """
    fingerprint = "" if checkpoint is None else run_fingerprint(config, dataset, start)
    popularity = PopularityFit.of(dataset, encoder, config) if ranks.rank == 0 else None
    validation = Validation.of(config, dataset, encoder, popularity) if ranks.rank == 0 else None
    own = dataset if ranks.rank else give(config, dataset, encoder, ranks)
    pairs = observed_pairs(config, own, encoder, ranks)
    learner = begin(config, encoder, pairs, start)
    model, untrained, method = learner.model, pairs.untrained, learner.note
    requests, shares = affordable_requests(config.method, pairs, model.dim), field_shares(config.method, encoder, pairs)
    del pairs  # the learner may hold the contexts in a shorter form
    fields = {"user": encoder.user_fields, "item": encoder.item_fields}
    opened = config.method.opened if start is None else 0  # a trained model is not warmed up
    sweeps = config.method.sweeps - config.method.opened + opened
    if ranks.rank:
        position = run_sweeps(learner, sweeps, config.train.stopping, None, report, fields, ranks=ranks)
        return TrainResult(model, encoder, position.sweep, position.best_sweep, {}, position.seconds)
    began = dict(validation(model)) if validation is not None and start is not None else {}
    stopping, during = config.train.stopping, validation
    if validation is not None and "requests" not in stopping.model_fields_set:
        during = validation.sampled(requests, config.seed)
    beat = began if during is validation or during is None or not began else during(model)
    try:
        position = run_sweeps(
            learner,
            sweeps,
            stopping,
            during,
            report,
            fields,
            None if checkpoint is None else Checkpointing(checkpoint, fingerprint, resume, restart),
            fair_figure(beat, f"{stopping.metric}@{stopping.at}") if beat else None,
            opened,
            ranks,
        )
    except NonFiniteError as error:
        raise _with_likely_cause(error, dataset) from None
    del learner
    release_free_memory()  # the following steps need the memory of the contexts
    worth_of_fields: tuple[FieldWorth, ...] = ()
    if worths and validation is not None:  # before new items get their rows, in which item fields may take the share of ids
        seconds = {name: share * position.seconds for name, share in shares.items()}
        worth_of_fields = field_worths(model, validation, seconds, config.seed)
        release_free_memory()  # of their scores
    new_items, levels = level_new_items(model, dataset, encoder, config, popularity is not None)
    untrained.copy_twins(model)
    if popularity is not None:
        popularity = replace(popularity, levels=levels)
    if validation is not None:
        validation = replace(validation, popularity=popularity)
    metrics = dict(validation(model)) if validation is not None else {}
    kept = position.sweep if validation is None else position.best_sweep
    factor, unknown_users = popularity(model) if popularity is not None else (None, without_factor(encoder, config))
    result = TrainResult(
        model,
        encoder,
        position.sweep,
        kept,
        metrics,
        position.seconds,
        began,
        method,
        new_items,
        factor,
        unknown_users,
        worth_of_fields,
        position.losses,
        position.figures,
    )
    return result if untrained.ties is None else _with_learned_weights(result, untrained.ties)


def _with_learned_weights(result: TrainResult, ties: TiedRows) -> TrainResult:
    """Turn factors of ranges of lags into weights of the encoder, and list these."""
    model, encoder, kept = ties.folded(result.model, result.encoder)
    factor = result.popularity
    weights = {name: encoder.histories[name].field.weights for name in ties.fields}
    learned = "; ".join(f"ranges of {name} weigh {', '.join(f'{one:.3g}' for one in found)}" for name, found in weights.items())
    return replace(
        result,
        model=model,
        encoder=encoder,
        note=f"{result.note}; {learned}",
        popularity=factor if factor is None else replace(factor, users=factor.users[kept]),
    )


def observed_pairs(config: RunConfig, dataset: Dataset, encoder: FeatureEncoder, ranks: Ranks = ALONE) -> ObservedPairs:
    """Return the pairs of the training part that a run learns from.

    Args:
        config: of the run.
        dataset: its data, or the part of this rank.
        encoder: fitted on the training part.
        ranks: that have the other parts.
    """
    pairs = ObservedPairs.of(dataset, encoder, dataset.training, ranks)
    if config.train.objective == "logistic":  # the only objective that uses items that were shown and not taken
        return pairs.with_shown(dataset, encoder)
    return pairs


def begin(config: RunConfig, encoder: FeatureEncoder, pairs: ObservedPairs, start: WarmStart | None = None) -> Learner:
    """Return the learner of a run, before its first sweep.

    Args:
        config: of the run.
        encoder: of its fields.
        pairs: from `observed_pairs`.
        start: initial parameters; default random.

    Raises:
        TrainingError: The objective is impossible on these pairs.
    """
    model = new_model(config.model, encoder.user_fields, encoder.item_fields)
    if start is None:
        model.initialise(config.method.starting_scale, torch.Generator().manual_seed(config.seed))
        _zero_absent_features(model, pairs)
        square = config.method if isinstance(config.method, SquareConfig) else config.method.opening
        if square is not None and square.start == "singular":
            start_from_singular_vectors(model, of_ids(pairs, encoder), config.seed)
        if pairs.untrained.ties is not None:
            pairs.untrained.ties.begin(model)
    else:
        start.give(model)
    learner = new_learner(config.method, model, pairs, config.seed, warm=start is not None)
    if start is None:
        return learner
    return ProximalLearner(learner, start, pairs if isinstance(config.train, SquareConfig) else None, config.method.drop > 0)


def _with_likely_cause(error: NonFiniteError, dataset: Dataset) -> NonFiniteError:
    """Add extreme weights to the error, as the likeliest cause."""
    spread = dataset.weight_range
    if spread is None or not spread.extreme:
        return error
    hint = f"Correct or cap the weights in {spread.where}, or leave these rows out"
    return NonFiniteError(error.what, where=error.where, why=f"the {spread}", hint=hint)


@torch.no_grad()
def _zero_absent_features(model: Model, pairs: ObservedPairs) -> None:
    """Set features that no row has to zero, because training would never change them."""
    counts = {"user": pairs.contexts.counts(), "item": pairs.items.counts()}
    pairs.ranks.add_up(counts["user"])  # every rank has all items
    if pairs.untrained.ties is not None:
        counts["user"] = pairs.untrained.ties.summed(counts["user"])
    absent = {side: count == 0 for side, count in counts.items()}
    for name, table in model.named_parameters():
        side = side_of(name)
        if side is not None:
            table[torch.from_numpy(absent[side])] = 0.0


def run_fingerprint(config: RunConfig, dataset: Dataset, start: WarmStart | None = None) -> str:
    """Return the SHA-256 over data, relevant configuration, and initial parameters.

    Args:
        config: of the run.
        dataset: its data.
        start: initial parameters.
    """
    parts = config.model_dump(mode="json", include={"seed", "data", "fields", "model", "train"})
    began = "" if start is None else f"{start.source} {start.shares is None}"
    return hashlib.sha256((json.dumps(parts, sort_keys=True) + dataset.fingerprint() + began).encode()).hexdigest()


def new_learner(config: Method, model: Model, pairs: ObservedPairs, seed: int, warm: bool = False) -> Learner:
    """Return the learner of a model over observed pairs.

    Args:
        config: objective and method.
        model: initialised.
        pairs: of the training part, with their fields.
        seed: of every random choice.
        warm: the model was trained before, so that a warm-up would undo it.

    Raises:
        TrainingError: The objective is impossible on these pairs.
    """
    if isinstance(config, SquareConfig):
        return ImplicitALS(model, pairs, config, seed=seed)
    warmup = None if config.opening is None or warm else ImplicitALS(model, pairs, config.opening, seed=seed)
    return GradientLearner[Any](model, pairs, new_objective(config, model, pairs, seed), config, seed, warmup)


def new_objective(config: SoftmaxConfig | PairwiseConfig, model: Model, pairs: ObservedPairs, seed: int) -> Objective[Any]:
    """Return the objective of a configuration.

    Args:
        config: of the objective.
        model: used by hard negatives.
        pairs: of the training part.
        seed: of negatives.

    Raises:
        TrainingError: The objective is not available on several ranks.
    """
    if isinstance(config, SoftmaxConfig):
        match config.candidates:
            case "all":
                if config.top is not None:
                    return SoftmaxAtK(pairs, config.temperature, config.activity, config.top, config.top_temperature)
                return FullSoftmax(pairs, config.temperature, config.activity)
            case "sampled":
                return SampledSoftmax(pairs, config.temperature, config.activity, config.samples, config.popularity)
            case "in-batch":
                return InBatchSoftmax(pairs, config.temperature, config.correct)
    if pairs.shown is not None:
        return LabelledLogLoss(pairs, pairs.shown)
    if config.hard and pairs.ranks.count > 1:
        raise TrainingError(
            "hard negatives are mined by one process", where="train.hard", hint="Set train.hard = 0, or train without ranks"
        )
    drawn = Negatives(pairs, config.popularity)
    source = MinedNegatives(model, pairs, drawn, config.hard, config.pool, seed) if config.hard else drawn
    losses = {"bpr": bpr, "logistic": logistic, "warp": warp(config.margin)}
    return Pairwise(pairs, source, config.negatives, losses[config.objective], config.objective == "logistic")
