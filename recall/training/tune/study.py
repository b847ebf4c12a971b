"""Hyperparameter search on a part of the training data, validated on the rest.

The test part is not used. Proposals come from optuna's tree-structured Parzen estimator (Akiba et al. 2019; Bergstra et al.
2011), which learns from the finished trials. Every finished trial is in a journal on disk, so that a search can be
interrupted, continued, and shared among processes. The best settings are written into a copy of the configuration file.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import optuna
import tomlkit
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from recall.config import AutoConfig, RunConfig, load_config, parse_config
from recall.config.run import apply_override
from recall.data.dataset import Dataset, load_dataset, open_tables
from recall.data.split import VALID
from recall.errors import ConfigError, DataError, RecallError, TrainingError
from recall.training.race.decide import on_everything
from recall.training.race.entrant import merged, override, with_validation
from recall.training.race.recipes import Values
from recall.training.tune.trials import (
    CURVE,
    KIND,
    MARGIN,
    OBJECTIVE,
    RECIPE,
    SearchLimits,
    TrialRunner,
    best_trial,
    next_recipe,
    pruning_rule,
    rank_key,
)
from recall.training.validation import validation_requests

_CONFIGURED = "given"
"""Attribute of the trial of the configured settings, which comes first: these settings."""


@dataclass(frozen=True, slots=True)
class TrialReport:
    """Result of one trial.

    Attributes:
        number: from 0; the first is of the settings as they were given.
        values: sections and keys that override those of the configuration.
        figure: on the validation part; None when the trial failed.
        fault: why it failed.
        seconds: it took.
        best: whether it beats all earlier trials, compared by `rank_key`.
        unknown: the same figure with every request as from an unknown user.
        margin: upper end of the 95 % interval of the difference between that and popularity.
        recipe: name of the known recipe that it is; empty for a proposal.
        pruned: whether it was stopped for being far behind the best trial at the same sweep; such a trial never wins.
    """

    number: int
    values: Values
    figure: float | None
    fault: str
    seconds: float
    best: bool
    unknown: float | None = None
    margin: float | None = None
    recipe: str = ""
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class TuneResult:
    """Result of a search.

    Attributes:
        values: of the best trial: sections and keys that override those of the configuration; the number of sweeps or
            epochs is that of the best model.
        figure: of the best trial, on the validation part.
        configured: of the settings as they were given; None when that trial failed.
        metric: of the figures, such as "ndcg@10".
        trials: that were finished, over all parts of a search that was continued.
        seconds: spent on them.
        data_hash: of the data, split as they were for the search.
        validation: number of validation interactions.
        requests: number of validation requests behind each figure.
        unknown: of the best trial, the same figure with every request as from an unknown user.
        margin: upper end of the 95 % interval of the difference between that and popularity. Below 0 only when every trial
            serves unknown users worse than popularity does.
    """

    values: Values
    figure: float
    configured: float | None
    metric: str
    trials: int
    seconds: float
    data_hash: str
    validation: int
    requests: int
    unknown: float | None = None
    margin: float | None = None


def tune(
    config: RunConfig, data: Path, journal: Path, limits: SearchLimits, report: Callable[[TrialReport], None]
) -> TuneResult:
    """Search until the time is over or the keyboard interrupts; return the best.

    Args:
        config: where the search starts. Without a validation part, the last training interaction of every user validates, or
            a tenth of them all when they have no order.
        data: folder of the tables.
        journal: file of finished trials, created if missing; trials of other data or settings in it are ignored.
        limits: of the search.
        report: called after every trial.

    Raises:
        ConfigError: There is nothing to validate on.
        DataError: The journal is damaged.
        TrainingError: All trials failed.
    """
    deadline = time.monotonic() + limits.seconds
    config, dataset = with_validation(config, load_dataset(config, data), open_tables(config.data, data))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))),
                study_name=_name(config, dataset),
                sampler=optuna.samplers.TPESampler(multivariate=True, group=True, n_startup_trials=8),
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:
            hint = "Remove it, or name another file by --out: its trials are made again"
            raise DataError("the journal of trials is damaged", where=str(journal), why=str(error), hint=hint) from None
    runner = TrialRunner(config, dataset, data, limits)
    try:
        while time.monotonic() < deadline:
            _run_trial(study, runner, deadline, report)
    except KeyboardInterrupt:
        pass  # return the result so far
    return _result(study, config, dataset, limits)


def _run_trial(study: optuna.Study, runner: TrialRunner, deadline: float, report: Callable[[TrialReport], None]) -> None:
    """Run one trial and record it."""
    before = [one for one in study.get_trials(deepcopy=False) if one.state == TrialState.COMPLETE]
    began = time.monotonic()
    given = _settings(runner.config)
    auto = isinstance(runner.config.train, AutoConfig)  # without its own settings
    first = not auto and all(one.user_attrs.get(_CONFIGURED) != given for one in study.get_trials(deepcopy=False))
    if not first and (recipe := next_recipe(study, runner)) is not None:
        study.enqueue_trial(recipe[1], user_attrs={RECIPE: recipe[0], KIND: runner.config.model.kind})
    trial = study.ask()
    if first:  # written before it is tried: one that fails is not tried again
        trial.set_user_attr(_CONFIGURED, given)
    values: Values = {} if first else runner.space.settings(trial)
    named = str(trial.user_attrs.get(RECIPE, ""))
    try:
        outcome = runner.run(
            values, min(deadline, began + runner.limits.trial_seconds), pruning_rule(study, runner.config.model.kind)
        )
    except RecallError as error:
        study.tell(trial, state=TrialState.FAIL)
        report(TrialReport(trial.number, values, None, str(error), time.monotonic() - began, best=False, recipe=named))
        return
    except KeyboardInterrupt:
        study.tell(trial, state=TrialState.FAIL)
        raise
    seconds = time.monotonic() - began
    objective = merged(runner.config, values).train.objective
    attributes = {"values": values, "sweeps": outcome.sweeps, "seconds": seconds, CURVE: outcome.curve, OBJECTIVE: objective}
    attributes[KIND] = runner.config.model.kind
    for name, value in (attributes | {"unknown": outcome.unknown, MARGIN: outcome.margin}).items():
        trial.set_user_attr(name, value)
    if outcome.margin is not None:
        trial.set_constraint(MARGIN, -outcome.margin)  # the sampler takes a trial for feasible where this is at most 0
    if outcome.pruned:
        for sweep, figure in enumerate(outcome.curve):
            trial.report(figure, sweep)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, outcome.figure)
    key = rank_key(outcome.figure, outcome.margin)
    best = not outcome.pruned and all(key > rank_key(one.value or 0.0, one.user_attrs.get(MARGIN)) for one in before)
    figures = outcome.figure, "", seconds, best, outcome.unknown, outcome.margin
    report(TrialReport(trial.number, values, *figures, named, outcome.pruned))


def _name(config: RunConfig, dataset: Dataset) -> str:
    """Return the name of a study: trials of equal data, split, fields and metric."""
    parts = config.model_dump(mode="json", include={"seed", "data", "fields", "evaluation"})
    stopping = config.train.stopping.model_dump(mode="json", include={"metric", "at", "requests"})
    text = json.dumps([parts, stopping], sort_keys=True) + dataset.fingerprint()
    return f"{config.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _settings(config: RunConfig) -> Values:
    """Return the sections that a search overrides, as they were given."""
    sections: Values = {name: getattr(config, name).model_dump(mode="json", exclude_unset=True) for name in ("model", "train")}
    return sections


def _within_limits(trial: FrozenTrial, config: RunConfig, limits: SearchLimits) -> bool:
    """Return whether a trial is of the given settings, or within the limits.

    An earlier part of the search may have had other limits.
    """
    values = cast(Values, trial.user_attrs["values"] or trial.user_attrs.get(_CONFIGURED, {}))
    if not values or trial.user_attrs.get(_CONFIGURED) == _settings(config):
        return bool(values)  # trials of older versions do not name the configured settings
    model, train = cast(Values, values["model"]), cast(Values, values["train"])
    fits = model.get("kind", "fm") == config.model.kind and cast(int, model.get("k", config.model.k or 1)) <= limits.most_k
    return fits and train.get("objective", "square") in limits.objectives


def _values(best: FrozenTrial) -> Values:
    """Return the settings of the best trial, with its number of sweeps."""
    values = cast(Values, best.user_attrs["values"] or best.user_attrs.get(_CONFIGURED, {}))
    return _with_sweeps(values, int(best.user_attrs["sweeps"]))


def _result(study: optuna.Study, config: RunConfig, dataset: Dataset, limits: SearchLimits) -> TuneResult:
    finished = [one for one in study.get_trials(deepcopy=False) if one.state == TrialState.COMPLETE]
    done = [one for one in finished if _within_limits(one, config, limits)]
    if not done:
        raise TrainingError(
            "no trial was finished", where="tune", hint="Give more --minutes, or look at the errors of the trials"
        )
    best = best_trial(done)
    configured = next((one.value for one in done if one.user_attrs.get(_CONFIGURED) == _settings(config)), None)
    stopping = config.train.stopping
    held = validation_requests(config, dataset)
    assert held is not None
    return TuneResult(
        _values(best),
        best.value or 0.0,
        configured,
        f"{stopping.metric}@{stopping.at}",
        len(done),
        sum(float(one.user_attrs["seconds"]) for one in done),
        dataset.fingerprint(),
        len(dataset.select(VALID)),
        len(held),
        best.user_attrs.get("unknown"),
        best.user_attrs.get(MARGIN),
    )


def _with_sweeps(values: Values, sweeps: int) -> Values:
    """Return the values with the number of sweeps of the best model."""
    if "train" not in values:
        return values
    train = dict(cast(Values, values["train"]))
    if train.get("objective", "square") == "square":
        train["sweeps"] = sweeps
    else:
        train["epochs"] = max(1, sweeps - ("opening" in train))  # journals of earlier versions evaluated openings, too
    if not (stopping := {key: value for key, value in cast(Values, train.pop("stopping", {})).items() if key != "every"}):
        return {**values, "train": train}
    return {**values, "train": {**train, "stopping": stopping}}


def write_config(source: Path, found: TuneResult, out: Path, minutes: float, overrides: Sequence[str] = ()) -> None:
    """Write the configuration in `source`, including comments, with the best settings.

    Args:
        source: the configuration that the search started from.
        found: its result.
        out: replaced when it exists.
        minutes: duration of the search.
        overrides: settings of the command line, as section.key=value.

    Raises:
        ConfigError: The file cannot be written.
    """
    document = tomlkit.parse(source.read_text(encoding="utf-8"))
    for setting in overrides:
        apply_override(document, setting)
    written = {section: {key: _toml(one) for key, one in cast(Values, keys).items()} for section, keys in found.values.items()}
    override(document, written)
    whole = _train_on_everything(document)
    staged = out.with_name(out.name + ".part")
    try:
        staged.write_text(_provenance(found, source, minutes, overrides, whole) + tomlkit.dumps(document), encoding="utf-8")
        load_config(staged)  # the written file must be readable
        os.replace(staged, out)
    except OSError as error:
        raise ConfigError("the configuration cannot be written", where=str(out), why=str(error)) from None


def _train_on_everything(document: tomlkit.TOMLDocument) -> bool:
    """Let the validation part train; return whether the document had one."""
    data = parse_config(document.unwrap()).data
    whole = on_everything(data)
    if whole == data:
        return False
    section: Any = document["data"]
    before, after = data.split.model_dump(mode="json"), whole.split.model_dump(mode="json")
    for key in (key for key, value in after.items() if value != before[key]):
        if after[key] is None:
            section["split"].pop(key)
        else:
            section["split"][key] = after[key]
    for key in ("carve", "carve_last"):
        section.pop(key, None)
    return True


def _toml(value: JsonValue) -> Any:
    """Round floats to four digits, and write tables inline.

    Further digits do not change any figure measurably.
    """
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update({key: _toml(one) for key, one in value.items() if one is not None})
        return table
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _provenance(found: TuneResult, source: Path, minutes: float, overrides: Sequence[str], whole: bool) -> str:
    lines = [
        f"Found by `recall tune` on {datetime.now(UTC).date()} from {source.name}, with fm-recall {version('fm-recall')}:",
        " ".join(f"--set {' '.join(one.split())}" for one in overrides),
        f"{found.trials} trials in {found.seconds / 60:.0f} minutes (--minutes {minutes:g}), the best with {found.metric}",
        f"{found.figure:.4f} on {found.requests:,} requests of {found.validation:,} interactions held out of training.",
        "" if found.configured is None else f"The settings of {source.name} reach {found.configured:.4f}.",
        "" if found.unknown is None else _unknown(found),
        f"To train on the validation part, too, data.split differs from {source.name}; there is no early stopping."
        if whole
        else "",
        f"The test part was not used. Data, SHA-256: {found.data_hash[:16]}.",
    ]
    return "".join(f"# {line}\n" for line in lines if line)


def _unknown(found: TuneResult) -> str:
    worse = found.margin is not None and found.margin < 0
    beside = "worse than popularity, as in every trial" if worse else "not below popularity"
    return f"For unknown users the same requests reach {found.unknown:.4f}, which is {beside}."
