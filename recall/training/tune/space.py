"""What may be changed to suit the data, and within which bounds."""

from typing import Literal, Protocol, get_args

from pydantic import JsonValue

from recall.config import RunConfig
from recall.training.race.recipes import Values

Objective = Literal["square", "softmax", "bpr", "warp", "logistic"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

_LARGEST_SOFTMAX = 4_000_000_000  # (context, item) pairs of one pass; a larger catalogue is sampled
_LAGS: dict[str, list[JsonValue]] = {
    "1, 2-3, 4-10": [[1, 1], [2, 3], [4, 10]],
    "1, 2, 3, 4-6, 7-12": [[1, 1], [2, 2], [3, 3], [4, 6], [7, 12]],
    "1, 2-4, 5-15, 16-40": [[1, 1], [2, 4], [5, 15], [16, 40]],
    "1, 2, 3-5, 6-10, 11-20": [[1, 1], [2, 2], [3, 5], [6, 10], [11, 20]],
}


class Trial(Protocol):
    """What proposes values; optuna's trials are such."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggest a number.

        Args:
            name: of the setting.
            low: lower bound.
            high: upper bound.
            log: on a logarithmic scale.
        """
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggest an integer.

        Args:
            name: of the setting.
            low: lower bound, included.
            high: upper bound, included.
            log: on a logarithmic scale.
        """
        ...

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """Suggest one of some names.

        Args:
            name: of the setting.
            choices: the names.
        """
        ...


def settings(trial: Trial, config: RunConfig, objectives: list[Objective], most_k: int, pairs: int) -> Values:
    """Suggest sections and keys that override those of the configuration.

    Args:
        trial: suggests.
        config: what was configured; decides what can be changed.
        objectives: to choose among.
        most_k: the largest number of factors.
        pairs: contexts times items, which decides whether a softmax covers the whole catalogue.
    """
    objective = _one_of(trial, "objective", [*objectives])
    sizes = [str(k) for k in (8, 16, 32, 64, 128, 256, 512) if k < most_k and 4 * k >= most_k] + [str(most_k)]
    model: Values = {
        **config.model.model_dump(mode="json", exclude_unset=True),
        "k": int(_one_of(trial, "k", sizes)),
    }
    stopping = config.train.stopping.model_dump(mode="json", exclude_unset=True)
    if config.model.kind == "lr":
        del model["k"]
    train: Values = {"objective": objective, "stopping": {**stopping, "every": 1}}
    match objective:
        case "square":
            train |= {"sweeps": 20, **_square(trial, "square")}
        case "softmax":
            train |= _gradients(trial) | _softmax(trial, model, pairs)
            if config.model.kind != "lr" and trial.suggest_categorical("opening", ["yes", "no"]) == "yes":
                train["opening"] = {"sweeps": 5, **_square(trial, "opening")}
        case _:
            train |= _gradients(trial) | _pairwise(trial, objective)
    found: Values = {"model": model, "train": train}
    if config.data.time is not None:
        found["data"] = {"half_life": _half_life(trial)}
    history = next(iter(config.schema_.histories), None)
    if history is not None:
        lags = trial.suggest_categorical("lags", ["as configured", *_LAGS])
        if lags in _LAGS:
            found["fields"] = {history: {"lags": _LAGS[lags]}}
    return found


def _one_of(trial: Trial, name: str, choices: list[str]) -> str:
    """One of some names that depend on how the search was asked for.

    A search that goes on with other choices has a parameter of another name: optuna allows one set of choices for a name.
    """
    return trial.suggest_categorical(f"{name} of {', '.join(choices)}", choices)


def _square(trial: Trial, name: str) -> Values:
    return {
        "steps": trial.suggest_int(f"{name}.steps", 3, 8),
        "unobserved": trial.suggest_float(f"{name}.unobserved", 3.0, 200.0, log=True),
        "popularity": trial.suggest_float(f"{name}.popularity", 0.0, 1.0),
        "activity": trial.suggest_float(f"{name}.activity", 0.0, 1.0),
        "regularisation": trial.suggest_float(f"{name}.regularisation", 1e-4, 3e-2, log=True),
        "nu": trial.suggest_float(f"{name}.nu", 0.5, 1.0),
    }


def _gradients(trial: Trial) -> Values:
    return {
        "epochs": trial.suggest_int("epochs", 3, 30, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "regularisation": trial.suggest_float("regularisation", 1e-9, 1e-4, log=True),
    }


def _softmax(trial: Trial, model: Values, pairs: int) -> Values:
    if model["kind"] != "lr":
        model["cosine"] = trial.suggest_categorical("cosine", ["yes", "no"]) == "yes"
    chosen: Values = {
        "temperature": trial.suggest_float("temperature", 0.05, 0.3, log=True),
        "activity": trial.suggest_float("softmax.activity", 0.3, 1.0),
        "batch": int(trial.suggest_categorical("batch", ["128", "256", "512", "1024"])),
    }
    if pairs > _LARGEST_SOFTMAX:
        chosen |= {"candidates": "sampled", "samples": 4096}
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
