"""One recipe of a race: trained sweep by sweep, and evaluated after each."""

import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from recall.config import RunConfig, parse_config
from recall.config.training import GradientConfig
from recall.data.dataset import Dataset, dataset_of
from recall.data.split import GIVEN, VALID
from recall.data.tables import Tables
from recall.errors import ConfigError, RecallError
from recall.evaluation.bootstrap import PerRequestMetrics
from recall.evaluation.cold_start import upper_end
from recall.features.encoder import FeatureEncoder
from recall.training.loop import Learner
from recall.training.pairs import ObservedPairs
from recall.training.race.recipes import Values
from recall.training.train import begin, observed_pairs
from recall.training.validation import Validation


def with_validation(config: RunConfig, dataset: Dataset, tables: Tables) -> tuple[RunConfig, Dataset]:
    """Return the configuration and data with a validation part.

    Without one, the last training interaction of every user validates, or a tenth of them all when they have no order.

    Args:
        config: of the run.
        dataset: as configured.
        tables: of the run, as they were opened.

    Raises:
        ConfigError: There is nothing to validate on.
    """
    if len(dataset.select(VALID)):
        return config, dataset
    carve: dict[str, float] = {"carve_last": 1} if config.data.time is not None else {"carve": 0.1}
    carved = config.model_copy(update={"data": config.data.model_copy(update=carve)})
    dataset = dataset_of(carved, tables)
    if len(dataset.select(VALID)) == 0:
        raise ConfigError(
            "too few training interactions to hold some out for validation", where="data.split", hint="Give more data"
        )
    return carved, dataset


def merged(config: RunConfig, values: Values) -> RunConfig:
    """Return a configuration with overrides, as `override` applies them.

    Args:
        config: of the run.
        values: the overrides.
    """
    plain = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    override(plain, values)
    return parse_config(plain)


def override(plain: MutableMapping[str, Any], values: Mapping[str, Any]) -> None:
    """Replace the sections `model` and `train`; change `data` and `fields` by key.

    Args:
        plain: sections of a configuration, changed in place.
        values: overrides; a key that is None is left out.
    """
    for section, keys in values.items():
        target = plain.setdefault(section, {})
        if section in ("model", "train"):
            target.clear()
        for key, value in keys.items():
            if value is None:
                target.pop(key, None)
            elif isinstance(value, dict) and key in target:
                target[key].update(value)
            else:
                target[key] = value


def sampled(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Return the data with a share of the users.

    The others neither train nor validate.

    Args:
        dataset: the interactions.
        share: of the users.
        seed: of the draw.
    """
    if share >= 1:
        return dataset
    kept = np.random.default_rng(seed).random(len(dataset.users)) < share

    def among(rows: pl.DataFrame) -> pl.DataFrame:
        parts = np.where(kept[rows["user"].to_numpy()], rows["split"].to_numpy(), np.int8(GIVEN)).astype(np.int8)
        return rows.with_columns(pl.Series("split", parts))

    negatives = None if dataset.negatives is None else among(dataset.negatives)
    return replace(dataset, events=among(dataset.events), negatives=negatives)


@dataclass(frozen=True, slots=True)
class SharedData:
    """Data that all entrants of equal fields train and validate on.

    Attributes:
        encoder: of the fields.
        pairs: to train on.
        validation: requests to evaluate on.
    """

    encoder: FeatureEncoder
    pairs: ObservedPairs
    validation: Validation

    @staticmethod
    def of(config: RunConfig, dataset: Dataset) -> "SharedData":
        """Prepare a run whose fields are some of those that the data were loaded for.

        Args:
            config: of the run; its objective is not "auto".
            dataset: with a validation part.

        Raises:
            ConfigError: No interaction validates.
        """
        dataset = replace(dataset, schema=config.schema_)
        encoder = FeatureEncoder.fit(dataset)
        validation = Validation.of(config, dataset, encoder)
        if validation is None:
            raise ConfigError("the validation part is empty", where="data.split", hint="Give more data")
        return SharedData(encoder, observed_pairs(config, dataset, encoder), validation)


@dataclass(slots=True)
class Entrant:
    """One recipe under way.

    Attributes:
        name: for the report.
        values: overrides of the configuration.
        config: with these overrides.
        shared: data of its fields.
        figures: on the validation part after each sweep, or after the opening and each epoch.
        best: metrics of each request with the best model; that of an opening does not count.
        latest: metrics of each request with the latest model.
        seconds: spent on sweeps.
        validation_seconds: spent on evaluations.
        fault: why it failed; empty otherwise.
        learner: of the model; None before the first sweep, and after the last.
    """

    name: str
    values: Values
    config: RunConfig
    shared: SharedData
    figures: list[float] = field(default_factory=list)
    best: PerRequestMetrics | None = None
    latest: PerRequestMetrics | None = None
    seconds: float = 0.0
    validation_seconds: float = 0.0
    fault: str = ""
    learner: Learner | None = None

    @property
    def metric(self) -> str:
        """The metric that entrants are compared by, such as `ndcg@10`."""
        return f"{self.config.train.stopping.metric}@{self.config.train.stopping.at}"

    @property
    def figure(self) -> float:
        """Of the best sweep after an opening; -inf before the first evaluation."""
        return self.best_figure(len(self.figures))

    def best_figure(self, sweeps: int) -> float:
        """Return the best figure of the first sweeps; -inf before the first evaluation.

        Args:
            sweeps: number of them.
        """
        return max(self.figures[self.config.method.opened : sweeps], default=float("-inf"))

    @property
    def best_sweep(self) -> int:
        """Number of the best sweep, from 1.

        The sweep of an opening does not count: it has another objective, and the sweeps after it are often worse at first.
        """
        opened = self.config.method.opened
        after = self.figures[opened:]
        return opened + int(np.argmax(after)) + 1 if after else 0

    @property
    def finished(self) -> bool:
        """Whether it failed, made all of its sweeps, or stopped improving.

        While a learning rate decreases, figures vary by chance, and the last epochs often improve again.
        """
        method = self.config.method
        if self.fault or len(self.figures) >= method.sweeps:
            return True
        stopped = len(self.figures) - max(self.best_sweep, method.opened) >= _PATIENCE
        decreases = isinstance(method, GradientConfig) and method.schedule == "linear"
        return stopped and (self.declines or not decreases)

    @property
    def declines(self) -> bool:
        """Whether the latest model is worse than the best by more than a standard error."""
        return leads(self.best, self.latest, self.metric)

    def run(self, sweeps: int, over: Callable[[], bool]) -> None:
        """Train up to a number of sweeps in all, or until the time is over.

        Args:
            sweeps: in all.
            over: whether the time is over; asked after each sweep.
        """
        try:
            while len(self.figures) < sweeps and not self.finished:
                self._sweep()
                if over():
                    return
        except RecallError as error:
            self.fault = str(error)
            self.learner = None

    def _sweep(self) -> None:
        began = time.monotonic()
        if self.learner is None:
            self.learner = begin(self.config, self.shared.encoder, self.shared.pairs)
        self.learner.sweep()
        swept = time.monotonic()
        judged = self.shared.validation.judge(self.learner.model)
        figure = float(judged.values[self.metric].mean())
        if len(self.figures) >= self.config.method.opened and figure > self.figure:
            self.best = judged
        self.latest = judged
        self.figures.append(figure)
        self.seconds += swept - began
        self.validation_seconds += time.monotonic() - swept


def leads(one: PerRequestMetrics | None, other: PerRequestMetrics | None, metric: str) -> bool:
    """Return whether a mean is higher than another by more than a standard error.

    False if one of them is None, as before the first evaluation.

    Args:
        one: metrics of each request.
        other: of the same requests.
        metric: to compare, such as `ndcg@10`.
    """
    if one is None or other is None:
        return False
    difference = one.values[metric] - other.values[metric]
    mean = float(difference.mean())
    return mean > (upper_end(difference, one.user) - mean) / _STANDARD_ERRORS


_STANDARD_ERRORS = 1.96  # in half a 95 % interval
_PATIENCE = 2  # sweeps without a better figure. Chosen, not tuned.
