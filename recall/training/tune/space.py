"""Search space of settings, and its bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from optuna import Trial
from pydantic import JsonValue

from recall.config import RunConfig
from recall.config.schema import BagField, CategoricalField
from recall.data.dataset import Dataset
from recall.features.encoder import FeatureEncoder
from recall.training.race.recipes import Recipe, Values, field_choices

OBJECTIVES = ("square", "softmax", "bpr", "warp", "logistic")

_LARGEST_SOFTMAX = 4_000_000_000  # (context, item) pairs of one pass; a larger catalogue is sampled
_MANY = 500  # values from which rare ones may share a row. Chosen, not tuned.
_NOTHING = "all"
_LAGS: dict[str, list[JsonValue]] = {
    "1, 2-3, 4-10": [[1, 1], [2, 3], [4, 10]],
    "1, 2, 3, 4-6, 7-12": [[1, 1], [2, 2], [3, 3], [4, 6], [7, 12]],
    "1, 2-4, 5-15, 16-40": [[1, 1], [2, 4], [5, 15], [16, 40]],
    "1, 2, 3-5, 6-10, 11-20": [[1, 1], [2, 2], [3, 5], [6, 10], [11, 20]],
}
_NORMS = ("mean", "sqrt")  # of a history


_Numbers = dict[str, tuple[float, float, float, bool]]
"""By name of a numeric setting, its bounds, its value where a recipe does not name it, and whether its logarithm is searched.

Integer bounds make it an integer."""

_SQUARE: _Numbers = {
    "steps": (3, 8, 5, False),
    "unobserved": (3.0, 200.0, 20.0, True),
    "popularity": (0.0, 1.0, 0.25, False),
    "activity": (0.0, 1.0, 0.5, False),
    "regularisation": (1e-4, 1e-1, 0.001, True),
    "nu": (0.5, 1.0, 1.0, False),
    "drop": (0.0, 0.3, 0.05, False),
}
_GRADIENTS: _Numbers = {
    "epochs": (3, 30, 6, True),
    "learning_rate": (3e-4, 3e-2, 0.005, True),
    "dropout": (0.0, 0.5, 0.1, False),
    "regularisation": (1e-9, 1e-4, 1e-9, True),
    "drop": (0.0, 0.3, 0.05, False),
}


@dataclass(frozen=True, slots=True)
class Space:
    """Search space of one configuration.

    Attributes:
        config: what was configured; decides what can be changed.
        objectives: to choose among.
        most_k: the largest number of factors.
        pairs: contexts times items, which decides whether a softmax covers the whole catalogue.
        leave_out: overrides that leave fields out, by name.
        rare: fields of many values, whose rare values may share a row.
    """

    config: RunConfig
    objectives: tuple[str, ...]
    most_k: int
    pairs: int
    leave_out: Mapping[str, Values]
    rare: tuple[str, ...]

    @staticmethod
    def of(config: RunConfig, dataset: Dataset, objectives: tuple[str, ...], most_k: int) -> "Space":
        """Return the space of a search on some data.

        Args:
            config: what was configured.
            dataset: of the search.
            objectives: to choose among.
            most_k: the largest number of factors.
        """
        encoder = FeatureEncoder.fit(dataset)
        pairs = len(dataset.training if dataset.schema.history is not None else dataset.users) * len(dataset.items)
        choices = dict(field_choices(config, dataset, encoder))
        sizes = [(block.field, block.size) for block in (*encoder.user_blocks, *encoder.item_blocks)]
        counted = {name for name, field in config.fields.items() if isinstance(field, BagField | CategoricalField)}
        rare = dict.fromkeys(name for name, size in sizes if name in counted and size >= _MANY)
        return Space(config, objectives, most_k, pairs, choices, tuple(rare))

    def settings(self, trial: Trial) -> Values:
        """Suggest sections and keys that override those of the configuration.

        Args:
            trial: suggests.
        """
        config = self.config
        objective = _one_of(trial, "objective", [*self.objectives])
        model: Values = {
            "kind": config.model.kind,
            **config.model.model_dump(mode="json", exclude_unset=True),
            "k": int(_one_of(trial, "k", self._sizes)),
        }
        stopping = config.train.stopping.model_dump(mode="json", exclude_unset=True)
        if config.model.kind == "lr":
            del model["k"]
        train: Values = {"objective": objective, "stopping": {**stopping, "every": 1}}
        if objective == "square":
            train |= {"sweeps": 20, **_square(trial, "square")}
        else:
            train |= _suggested(trial, _GRADIENTS)
            train |= _softmax(trial, model, self.pairs) if objective == "softmax" else _pairwise(trial, objective)
            if objective in ("softmax", "bpr"):
                train |= _opening(trial, config)
        found: Values = {"model": model, "train": train}
        if config.data.time is not None:
            found["data"] = {"half_life": _half_life(trial)}
        return self._with_fields(trial, found)

    def _with_fields(self, trial: Trial, found: Values) -> Values:
        """Suggest fields to leave out, lags, and counts below which values are rare."""
        fields: Values = {}
        less = _NOTHING
        if self.leave_out:
            less = _one_of(trial, "fields", [_NOTHING, *self.leave_out])
        history = next(iter(self.config.schema_.histories), None)
        if history is not None:
            lags = trial.suggest_categorical("lags", ["as configured", *_LAGS]) if self._lags_vary else ""
            norm = trial.suggest_categorical("norm", ["as configured", *_NORMS])
            if lags in _LAGS:
                fields[history] = {"lags": _LAGS[lags]}
        for name in self.rare:
            least = trial.suggest_categorical(f"min_count of {name}", ["as configured", "1", "2", "5"])
            if least != "as configured":
                fields[name] = {"min_count": int(least)}
        if less != _NOTHING:
            for section, values in self.leave_out[less].items():
                if section == "fields":
                    fields |= cast(Values, values)
                else:
                    found[section] = {**cast(Values, found.get(section, {})), **cast(Values, values)}
        if history is not None and norm in _NORMS and fields.get(history, {}) is not None:
            fields[history] = {**cast(Values, fields.get(history, {})), "norm": norm}
        return {**found, "fields": fields} if fields else found

    @property
    def _lags_vary(self) -> bool:
        """Whether other lags are tried than those configured."""
        # without times a history is one bag, and the weights are those of the ranges
        history = next(iter(self.config.schema_.histories.values()))
        return self.config.data.time is not None and not history.weighted

    @property
    def _sizes(self) -> list[str]:
        smaller = (k for k in (8, 16, 32, 64, 128, 256, 512) if k < self.most_k and 6 * k >= self.most_k)
        return [str(k) for k in (*smaller, self.most_k)]

    def parameters(self, recipe: Recipe, less: str = "") -> dict[str, float | int | str] | None:
        """Return the suggestions that lead to a known recipe.

        None where the search may not choose its objective.

        Args:
            recipe: recipe to try.
            less: name of the choice of fields to leave out; empty for none.
        """
        train = dict(recipe.train)
        objective = str(train["objective"])
        if objective not in self.objectives:
            return None
        sizes = [int(k) for k in self._sizes]
        chosen: dict[str, float | int | str] = {
            _named("objective", [*self.objectives]): objective,
            _named("k", self._sizes): str(max((k for k in sizes if k <= recipe.k), default=sizes[0])),
        }
        if self.leave_out:
            chosen[_named("fields", [_NOTHING, *self.leave_out])] = less or _NOTHING
        if self.config.data.time is not None:
            chosen["recency"] = "no"
        if self.config.schema_.histories:
            chosen |= {"norm": "as configured"} | ({"lags": "as configured"} if self._lags_vary else {})
        chosen |= {f"min_count of {name}": "as configured" for name in self.rare}
        if objective == "square":
            return chosen | _square_parameters(train, "square")
        chosen |= _of_recipe(train, _GRADIENTS)
        opening = train.get("opening")
        chosen["opening"] = "yes" if isinstance(opening, dict) else "no"
        if isinstance(opening, dict):
            chosen |= _square_parameters(opening, "opening")
        if objective == "softmax":
            chosen |= {"cosine": "yes" if recipe.cosine else "no", "softmax.activity": 1.0}
            chosen |= {"temperature": float(cast(float, train["temperature"])), "batch": str(train["batch"])}
            chosen["candidates"] = str(train.get("candidates", "all"))
            if "samples" in train:
                chosen["samples"] = str(train["samples"])
        else:
            chosen |= {"negatives": 4, "negatives.popularity": 0.5, "pairs": "4096"}
        return chosen


def _one_of(trial: Trial, name: str, choices: list[str]) -> str:
    """Return one of several names that depend on the options of the search.

    A search that continues with other choices has a parameter of another name: optuna allows one set of choices for a name.
    """
    return trial.suggest_categorical(_named(name, choices), choices)


def _named(name: str, choices: Sequence[str]) -> str:
    return f"{name} of {', '.join(choices)}"


def _suggested(trial: Trial, numbers: _Numbers, prefix: str = "") -> dict[str, float]:
    return {
        key: trial.suggest_int(f"{prefix}{key}", low, int(high), log=log)
        if isinstance(low, int)
        else trial.suggest_float(f"{prefix}{key}", low, high, log=log)
        for key, (low, high, _, log) in numbers.items()
    }


def _of_recipe(train: Mapping[str, JsonValue], numbers: _Numbers, prefix: str = "") -> dict[str, float]:
    return {f"{prefix}{key}": cast(float, train.get(key, usual)) for key, (_, _, usual, _) in numbers.items()}


def _square(trial: Trial, name: str) -> Values:
    start = trial.suggest_categorical(f"{name}.start", ["random", "singular"])
    return {**_suggested(trial, _SQUARE, f"{name}."), "start": start}


def _square_parameters(train: Mapping[str, JsonValue], name: str) -> dict[str, float | int | str]:
    return {f"{name}.start": str(train.get("start", "random")), **_of_recipe(train, _SQUARE, f"{name}.")}


def _opening(trial: Trial, config: RunConfig) -> Values:
    if config.model.kind == "lr" or trial.suggest_categorical("opening", ["yes", "no"]) == "no":
        return {}
    return {"opening": {"sweeps": 5, **_square(trial, "opening")}}


def _softmax(trial: Trial, model: Values, pairs: int) -> Values:
    if model["kind"] != "lr":
        model["cosine"] = trial.suggest_categorical("cosine", ["yes", "no"]) == "yes"
    chosen: Values = {
        "temperature": trial.suggest_float("temperature", 0.05, 0.3, log=True),
        "activity": trial.suggest_float("softmax.activity", 0.3, 1.0),
        "batch": int(trial.suggest_categorical("batch", ["128", "256", "512", "1024"])),
    }
    candidates = trial.suggest_categorical("candidates", ["all", "sampled"])
    if candidates == "sampled" or pairs > _LARGEST_SOFTMAX:
        chosen |= {"candidates": "sampled", "samples": int(trial.suggest_categorical("samples", ["2048", "8192"]))}
    return chosen


def _pairwise(trial: Trial, objective: str) -> Values:
    chosen: Values = {
        "negatives": trial.suggest_int("negatives", 1, 32, log=True),
        "popularity": trial.suggest_float("negatives.popularity", 0.0, 1.0),
        "batch": int(trial.suggest_categorical("pairs", ["1024", "4096", "16384"])),
    }
    return chosen | ({"margin": trial.suggest_float("margin", 0.1, 3.0, log=True)} if objective == "warp" else {})


def _half_life(trial: Trial) -> float | None:
    if trial.suggest_categorical("recency", ["yes", "no"]) == "no":
        return None
    return trial.suggest_float("half_life", 2.0, 500.0, log=True)
