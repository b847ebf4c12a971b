"""Trials of a search: known recipes first, then proposals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from recall.config import RunConfig
from recall.data.dataset import Dataset, load_dataset
from recall.errors import TrainingError
from recall.evaluation.cold_start import fair_figure
from recall.features.encoder import FeatureEncoder
from recall.training.loop import SweepReport
from recall.training.race.entrant import merged
from recall.training.race.recipes import SQUARES, Recipe, Scale, Values, has_item_ids_only, softmaxes
from recall.training.train import train
from recall.training.tune.space import Space

RECIPE, KIND, CURVE, OBJECTIVE = "recipe", "kind", "curve", "objective"
"""Attributes of a trial: known recipe, kind of model, figure after each sweep, objective."""
MARGIN = "margin"
"""Attribute of a trial: upper end of the interval of the difference between unknown users and popularity."""
# A trial is pruned after this number of evaluations, below this share of the best trial's figure. Chosen, not tuned.
_FEWEST_FIGURES, _PRUNE_BELOW = 3, 0.8


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Limits of a search.

    Attributes:
        seconds: for the whole search; the trial that is under way then is cut short.
        trial_seconds: for one trial; its result until then counts.
        most_k: largest number of factors.
        objectives: to choose among.
    """

    seconds: float
    trial_seconds: float
    most_k: int
    objectives: tuple[str, ...]


class _StoppedError(Exception):
    """Ends a trial early: it was pruned, or its time was over."""


class TrialOutcome(NamedTuple):
    """Validation result of the best sweep of a trial.

    Attributes:
        figure: of the metric that the search is for.
        sweeps: number of sweeps of the best model.
        unknown: as in `TrialReport`.
        margin: as in `TrialReport`.
        curve: the figure after each sweep.
        pruned: whether it was stopped for being far behind.
    """

    figure: float
    sweeps: int
    unknown: float | None
    margin: float | None
    curve: list[float]
    pruned: bool


def rank_key(figure: float, margin: float | None) -> tuple[bool, float]:
    """Return the key by which trials are ranked, best last.

    A trial with `margin` below 0 is significantly worse than popularity for unknown users. It is ranked below all trials that
    are not, regardless of known users. Otherwise the figure decides.

    Args:
        figure: of the trial.
        margin: of the trial.
    """
    return margin is None or margin >= 0, figure


def best_trial(done: Sequence[FrozenTrial]) -> FrozenTrial:
    """Return the finished trial that no other beats, the earliest of equals."""
    return max(done, key=lambda one: (*rank_key(one.value or 0.0, one.user_attrs.get(MARGIN)), -one.number))


class TrialRunner:
    """Trains proposals on one data set, reloaded only for settings that require it."""

    def __init__(self, config: RunConfig, dataset: Dataset, data: Path, limits: SearchLimits) -> None:
        self.config = config
        self.limits = limits
        self._dataset = dataset
        self._data = data
        self.space = Space.of(config, dataset, limits.objectives, limits.most_k)
        rows = dataset.events.select("user", *dataset.context_columns)[dataset.training]
        contexts = len(rows) if dataset.schema.history is not None else rows.n_unique()
        self.scale = Scale(
            contexts,
            rows["user"].n_unique(),
            len(dataset.items),
            len(rows),
            item_ids_only=has_item_ids_only(dataset.schema),
        )

    def run(self, values: Values, deadline: float, prune: Callable[[str, list[float]], bool]) -> TrialOutcome:
        """Train a proposal and evaluate the model of its best sweep.

        Args:
            values: overrides of the configuration.
            deadline: of `time.monotonic`; the best sweep before it counts.
            prune: returns whether to prune, from the objective and the figures so far.

        Raises:
            TrainingError: The time was over before the first validation.
        """
        config = merged(self.config, values)
        dataset = self._dataset if config.data == self.config.data else load_dataset(config, self._data)
        dataset = replace(dataset, schema=config.schema_)
        encoder = FeatureEncoder.fit(dataset)
        stopping = config.train.stopping
        # set explicitly, so that no trial is validated by fewer requests than another
        stopping = stopping.model_copy(update={"requests": stopping.requests})
        config = config.model_copy(update={"train": config.train.model_copy(update={"stopping": stopping})})
        metric = f"{stopping.metric}@{stopping.at}"
        best = TrialOutcome(float("-inf"), 0, None, None, [], pruned=False)
        figures: list[float] = []
        fairest = float("-inf")

        def look(report: SweepReport) -> None:
            nonlocal best, fairest
            if report.metrics and report.sweep > config.method.opened:  # an opening is a trial of another objective
                found = report.metrics
                figures.append(found[metric])
                if (fair := fair_figure(found, metric)) > fairest:
                    fairest = fair
                    unknown = found.get(f"unknown_{metric}"), found.get(f"unknown_margin_{metric}")
                    best = TrialOutcome(found[metric], report.sweep, *unknown, figures, pruned=False)
                if report.sweep < report.sweeps and prune(config.train.objective, figures):
                    best = best._replace(pruned=True)
                    raise _StoppedError
            if time.monotonic() > deadline:
                raise _StoppedError

        try:
            train(config, dataset, encoder, look)
        except _StoppedError:
            if best.sweeps == 0:
                raise TrainingError("the time was over before the first validation") from None
        return best


def next_recipe(study: optuna.Study, runner: TrialRunner) -> tuple[str, dict[str, float | int | str]] | None:
    """Return the next known recipe that was not tried, by name, and its suggestions.

    Square losses come first, then the best of them without some fields, then what continues from the best.

    Args:
        study: with the trials until now.
        runner: of the search.
    """
    kind = runner.config.model.kind
    trials = [one for one in study.get_trials(deepcopy=False) if RECIPE in one.user_attrs and one.user_attrs[KIND] == kind]
    tried = {one.user_attrs[RECIPE] for one in trials}
    done = [one for one in trials if one.state == TrialState.COMPLETE and one.user_attrs[RECIPE].startswith("square")]

    def found(recipes: Sequence[Recipe], less: str = "") -> tuple[str, dict[str, float | int | str]] | None:
        for recipe in recipes:
            name = ", ".join(filter(None, (recipe.name, less)))
            if name not in tried and (suggested := runner.space.parameters(recipe, less)) is not None:
                return name, suggested
        return None

    if (square := found(SQUARES)) is not None:
        return square
    leader = best_trial(done).user_attrs[RECIPE] if done else SQUARES[0].name
    recipe = next(one for one in sorted(SQUARES, key=lambda one: -len(one.name)) if leader.startswith(one.name))
    for less in runner.space.leave_out:
        if not any(name.endswith(f", {less}") for name in tried) and (fewer := found([recipe], less)) is not None:
            return fewer
    less = next((one for one in runner.space.leave_out if leader.endswith(f", {one}")), "")
    others = [one for one in softmaxes(recipe.train, runner.scale) if not one.cosine or runner.config.model.k]
    return found(others, less)


def pruning_rule(study: optuna.Study, kind: str) -> Callable[[str, list[float]], bool]:
    """Return a rule that prunes a trial which is far behind.

    It compares with the best trial of the same objective at the same sweep.

    Args:
        study: with the trials until now.
        kind: of model.
    """
    best: dict[str, list[float]] = {}
    for one in sorted(study.get_trials(deepcopy=False), key=lambda one: one.value or 0.0):
        curve = one.user_attrs.get(CURVE)
        if one.state == TrialState.COMPLETE and curve and one.user_attrs[KIND] == kind:
            best[one.user_attrs[OBJECTIVE]] = curve

    def prune(objective: str, figures: list[float]) -> bool:
        curve = best.get(objective, [])
        sweep = min(len(figures), len(curve))
        return len(figures) >= _FEWEST_FIGURES and sweep > 0 and max(figures) < _PRUNE_BELOW * max(curve[:sweep])

    return prune
