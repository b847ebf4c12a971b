"""The learner that a configuration asks for."""

from typing import Any

from recall.config import PairwiseConfig, SoftmaxConfig, SquareConfig, Train
from recall.models.torch.base import Model
from recall.training.als.solver import ImplicitALS
from recall.training.loop import Learner, WarmupThen
from recall.training.negatives import MinedNegatives, Negatives
from recall.training.objectives.pairwise import LabelledLogLoss, Pairwise, bpr, logistic, warp
from recall.training.objectives.softmax import FullSoftmax, InBatchSoftmax, SampledSoftmax
from recall.training.pairs import ObservedPairs
from recall.training.roles import Roles
from recall.training.sgd import Dropping, GradientLearner, StepRule

AnyObjective = FullSoftmax | SampledSoftmax | InBatchSoftmax | Pairwise | LabelledLogLoss


def new_learner(config: Train, model: Model, pairs: ObservedPairs, seed: int, warm: bool = False) -> Learner:
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
        return ImplicitALS(model, pairs, config, seed=seed, warm=warm)
    assert pairs.user_fields is not None
    assert pairs.item_fields is not None
    dropping = (
        Dropping.of(pairs.user_roles or Roles.of(pairs.user_fields, pairs.contexts), "user", config.dropout, config.drop),
        Dropping.of(pairs.item_roles or Roles.of(pairs.item_fields, pairs.items), "item", 0.0, config.drop),
    )
    learner = GradientLearner[Any](model, pairs, new_objective(config, model, pairs, seed), StepRule(config), dropping, seed)
    if config.opening is None or warm:
        return learner
    return WarmupThen(ImplicitALS(model, pairs, config.opening, seed=seed), config.opening.sweeps, learner)


def new_objective(config: SoftmaxConfig | PairwiseConfig, model: Model, pairs: ObservedPairs, seed: int) -> AnyObjective:
    """Return the objective of a configuration.

    Args:
        config: of the objective.
        model: used by hard negatives.
        pairs: of the training part.
        seed: of negatives.
    """
    if isinstance(config, SoftmaxConfig):
        match config.candidates:
            case "all":
                return FullSoftmax(pairs, config.temperature, config.activity)
            case "sampled":
                return SampledSoftmax(pairs, config.temperature, config.activity, config.samples, config.popularity)
            case "in-batch":
                return InBatchSoftmax(pairs, config.temperature, config.correct)
    if pairs.shown is not None:
        return LabelledLogLoss(pairs, pairs.shown)
    drawn = Negatives(pairs, config.popularity)
    source = MinedNegatives(model, pairs, drawn, config.hard, config.pool, seed) if config.hard else drawn
    losses = {"bpr": bpr, "logistic": logistic, "warp": warp(config.margin)}
    return Pairwise(pairs, source, config.negatives, losses[config.objective], config.objective == "logistic")
