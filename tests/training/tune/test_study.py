from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
from optuna.trial import FrozenTrial, create_trial

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import VALID
from recall.errors import TrainingError
from recall.training.race.entrant import merged
from recall.training.race.recipes import SQUARES, Scale, softmaxes
from recall.training.tune.space import OBJECTIVES, Space
from recall.training.tune.study import tune
from recall.training.tune.trials import (
    CURVE,
    KIND,
    MARGIN,
    OBJECTIVE,
    SearchLimits,
    TrialRunner,
    best_trial,
    pruning_rule,
    rank_key,
)
from tests.conftest import TINY

LIMITS = SearchLimits(seconds=600.0, trial_seconds=60.0, most_k=8, objectives=OBJECTIVES)


class Enough:
    """Interrupt the search, like Ctrl-C, after a number of trials."""

    def __init__(self, trials: int) -> None:
        self.left = trials
        self.reports = []

    def __call__(self, report) -> None:
        self.reports.append(report)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def quick(**data):
    return parse_config({**TINY, "data": {**TINY["data"], **data}, "train": {"sweeps": 2}, "model": {"k": 4}})


def test_a_trial_is_judged_by_what_follows_its_opening(tiny_folder: Path) -> None:
    """Epochs that change nothing are as good as the opening, which has no further settings to write."""
    config = quick()
    runner = TrialRunner(config, load_dataset(config, tiny_folder), tiny_folder, LIMITS)
    train = {"objective": "softmax", "epochs": 2, "learning_rate": 1e-12, "drop": 0.0, "opening": {"sweeps": 2, "drop": 0.0}}
    outcome = runner.run({"model": {"k": 4, "cosine": True}, "train": train}, float("inf"), lambda *_: False)
    assert outcome.sweeps == 2
    assert len(outcome.curve) == 2


def test_the_best_trial_wins_and_the_configured_settings_run_first(tiny_folder: Path, tmp_path: Path) -> None:
    listener = Enough(6)
    found = tune(quick(), tiny_folder, tmp_path / "j.journal", LIMITS, listener)
    figures = [report.figure for report in listener.reports if report.figure is not None]
    assert len(figures) == 6
    assert found.trials == 6 - sum(report.pruned for report in listener.reports)
    assert found.requests == found.validation == 12
    rank_keys = [(False, -2.0) if report.pruned else rank_key(report.figure, report.margin) for report in listener.reports]
    assert found.figure == max(rank_keys)[1]
    assert found.configured == figures[0]
    assert listener.reports[0].values == {}
    assert all(report.values for report in listener.reports[1:])
    assert [report.recipe for report in listener.reports] == ["", *(recipe.name for recipe in SQUARES[:5])]
    assert [report.best for report in listener.reports] == [
        one > max(rank_keys[:place], default=(False, -1.0)) for place, one in enumerate(rank_keys)
    ]
    merged(quick(), found.values)  # the best settings form a valid configuration


def test_an_interrupted_search_resumes(tiny_folder: Path, tmp_path: Path) -> None:
    first, second = Enough(2), Enough(2)
    tune(quick(), tiny_folder, tmp_path / "j.journal", LIMITS, first)
    found = tune(quick(), tiny_folder, tmp_path / "j.journal", LIMITS, second)
    assert [report.number for report in (*first.reports, *second.reports)] == [0, 1, 2, 3]
    assert [report.recipe for report in (*first.reports, *second.reports)] == ["", *(recipe.name for recipe in SQUARES[:3])]
    assert found.trials == 4 - sum(report.pruned for report in (*first.reports, *second.reports))
    assert found.configured == first.reports[0].figure


def test_other_data_start_another_search(tiny_folder: Path, tmp_path: Path) -> None:
    tune(quick(), tiny_folder, tmp_path / "j.journal", LIMITS, Enough(2))
    table = pl.read_parquet(tiny_folder / "interactions.parquet")
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_folder.glob("*.parquet"):
        (other / file.name).write_bytes(file.read_bytes())
    table[:-1].write_parquet(other / "interactions.parquet")
    listener = Enough(1)
    assert tune(quick(), other, tmp_path / "j.journal", LIMITS, listener).trials == 1
    assert listener.reports[0].number == 0


def test_the_test_part_is_not_used(tiny_folder: Path, tmp_path: Path) -> None:
    """Changing the items of test rows changes no metric: the search does not use them."""
    whole = load_dataset(quick(), tiny_folder)
    table = pl.read_parquet(tiny_folder / "interactions.parquet").with_row_index("at")
    last = table.sort("user_id", "time", maintain_order=True).group_by("user_id", maintain_order=True).last()["at"]
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in tiny_folder.glob("*.parquet"):
        (changed / file.name).write_bytes(file.read_bytes())
    items = np.where(table["at"].is_in(last.implode()), table["item_id"].reverse(), table["item_id"])
    table.with_columns(pl.Series("item_id", items)).drop("at").write_parquet(changed / "interactions.parquet")
    assert whole.events["item"].to_list() != load_dataset(quick(), changed).events["item"].to_list()
    figures = [
        tune(quick(), folder, tmp_path / f"{folder.name}.journal", LIMITS, Enough(1)).figure
        for folder in (tiny_folder, changed)
    ]
    assert figures[0] == figures[1]


def test_without_a_validation_part_the_last_training_interactions_are_used(tiny_folder: Path, tmp_path: Path) -> None:
    config = quick(split={"by": "last", "test": 1, "valid": 0})
    found = tune(config, tiny_folder, tmp_path / "j.journal", LIMITS, Enough(1))
    assert len(load_dataset(config, tiny_folder).select(VALID)) == 0
    assert 0 < found.validation <= 12


def test_a_failed_trial_is_reported_and_the_search_continues(tiny_folder: Path, tmp_path: Path) -> None:
    listener = Enough(3)
    config = parse_config({**TINY, "train": {"objective": "bpr", "optimiser": "sgd", "learning_rate": 1e30, "epochs": 2}})
    limits = SearchLimits(600.0, 60.0, 8, ("square",))
    found = tune(config, tiny_folder, tmp_path / "j.journal", limits, listener)
    assert listener.reports[0].figure is None
    assert "not finite" in listener.reports[0].fault
    assert found.configured is None
    assert found.trials == 2


def test_a_search_without_results_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    config = parse_config({**TINY, "train": {"objective": "bpr", "optimiser": "sgd", "learning_rate": 1e30, "epochs": 2}})
    with pytest.raises(TrainingError, match="no trial was finished"):
        tune(config, tiny_folder, tmp_path / "j.journal", LIMITS, Enough(1))


@pytest.mark.parametrize(
    ("figure", "margin", "than", "other", "expected"),
    [
        (0.5, 0.0, 0.4, 0.0, True),
        (0.4, 0.0, 0.5, 0.1, False),
        (0.4, 0.0, 0.4, 0.1, False),
        (0.9, -0.001, 0.1, 0.0, False),  # regardless of the gain for known users
        (0.1, 0.0, 0.9, -0.001, True),
        (0.9, -0.2, 0.1, -0.1, True),
        (0.1, -0.1, 0.9, -0.2, False),
        (0.5, None, 0.4, None, True),
        (0.1, None, 0.9, -0.1, True),
    ],
)
def test_a_trial_worse_than_popularity_for_unknown_users_never_wins(figure, margin, than, other, expected):
    assert (rank_key(figure, margin) > rank_key(than, other)) is expected


def trial_of(number: int, figure: float, margin: float | None) -> FrozenTrial:
    trial = create_trial(value=figure, user_attrs={MARGIN: margin})
    trial.number = number
    return trial


def test_the_best_settings_do_not_win_at_the_cost_of_unknown_users():
    trials = [trial_of(0, 0.2, 0.01), trial_of(1, 0.9, -0.01), trial_of(2, 0.3, 0.0), trial_of(3, 0.3, 0.2)]
    assert best_trial(trials).number == 2
    assert best_trial([trials[1], trial_of(4, 0.8, -0.005)]).number == 1
    assert best_trial([trial_of(0, 0.2, None), trial_of(1, 0.9, -0.01)]).number == 0


def test_each_trial_reports_results_for_unknown_users(tiny_folder: Path, tmp_path: Path) -> None:
    listener = Enough(3)
    found = tune(quick(), tiny_folder, tmp_path / "j.journal", LIMITS, listener)
    best = [report for report in listener.reports if report.best][-1]
    assert (found.figure, found.unknown, found.margin) == (best.figure, best.unknown, best.margin)
    for report in listener.reports:
        assert 0 <= report.unknown <= 1
        assert report.margin is not None


def test_a_search_continues_with_other_k_and_objectives(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.journal"
    first = Enough(3)
    tune(quick(), tiny_folder, path, LIMITS, first)
    larger = quick().model_copy(update={"model": quick().model.model_copy(update={"k": 16})})
    limits = SearchLimits(seconds=600.0, trial_seconds=60.0, most_k=16, objectives=("bpr", "square"))
    second = Enough(3)
    found = tune(larger, tiny_folder, path, limits, second)
    assert [report.number for report in (*first.reports, *second.reports)] == list(range(6))
    assert second.reports[0].values == {}  # the given settings changed, so they are tried first
    assert found.configured == second.reports[0].figure
    assert all(report.values["train"]["objective"] in limits.objectives for report in second.reports[1:])
    merged(larger, found.values)


def test_trials_of_another_model_kind_are_ignored(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.journal"
    tune(quick(), tiny_folder, path, LIMITS, Enough(2))
    other = parse_config({**TINY, "train": {"sweeps": 2}, "model": {"k": 4, "kind": "fwfm"}})
    listener = Enough(2)
    found = tune(other, tiny_folder, path, LIMITS, listener)
    assert [report.recipe for report in listener.reports] == ["", SQUARES[0].name]
    assert found.trials == 2 - listener.reports[1].pruned
    assert merged(other, found.values).model.kind == "fwfm"


def test_only_trials_within_the_current_limits_are_used(tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.journal"
    tune(quick(), tiny_folder, path, LIMITS, Enough(3))
    limits = SearchLimits(seconds=600.0, trial_seconds=60.0, most_k=2, objectives=("logistic",))
    small = quick().model_copy(update={"model": quick().model.model_copy(update={"k": 2})})
    listener = Enough(2)
    found = tune(small, tiny_folder, path, limits, listener)
    assert found.trials == 2
    assert found.figure == max(listener.reports, key=lambda one: rank_key(one.figure, one.margin)).figure


def test_auto_has_no_settings_of_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    config = parse_config({**TINY, "train": {"objective": "auto"}, "model": {"k": 4}})
    listener = Enough(2)
    found = tune(config, tiny_folder, tmp_path / "j.journal", LIMITS, listener)
    assert found.configured is None
    assert all(report.values for report in listener.reports)
    assert merged(config, found.values).train.objective != "auto"


class Suggested:
    """A trial that suggests what was enqueued, and refuses anything else."""

    def __init__(self, values: dict) -> None:
        self.values = values
        self.asked: set[str] = set()

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.add(name)
        assert low <= self.values[name] <= high, name
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self.suggest_float(name, low, high, log=log))

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        self.asked.add(name)
        assert self.values[name] in choices, name
        return self.values[name]


LARGE = Scale(contexts=3_000_000, users=3_000_000, items=1_000_000, pairs=30_000_000)
RECIPES = [*SQUARES, *softmaxes(SQUARES[1].train, Scale(10, 10, 10, 20)), *softmaxes(SQUARES[1].train, LARGE)[:1]]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name}, k {recipe.k}")
def test_every_recipe_is_within_the_space_of_the_search(recipe, tiny_folder: Path) -> None:
    config = parse_config({**TINY, "train": {"objective": "auto"}})
    space = Space.of(config, load_dataset(config, tiny_folder), ("square", "softmax", "bpr"), 192)
    trial = Suggested(space.parameters(recipe, "without user_id"))
    values = space.settings(trial)
    assert set(trial.values) == trial.asked
    found = merged(config, values)
    assert "user_id" not in found.fields
    assert found.model.k == recipe.k
    assert found.model.cosine == recipe.cosine
    plain = found.train.model_dump(mode="json")
    for key, value in recipe.train.items():
        expected = plain[key] if not isinstance(value, dict) else {name: plain[key][name] for name in value}
        assert expected == value, key


def test_the_search_goes_from_recipes_to_proposals(tiny_folder: Path, tmp_path: Path) -> None:
    config = parse_config({**TINY, "train": {"objective": "auto"}, "model": {"k": 4}})
    listener = Enough(18)
    limits = SearchLimits(600.0, 60.0, 8, ("square", "softmax", "bpr"))
    found = tune(config, tiny_folder, tmp_path / "j.journal", limits, listener)
    recipes = [report.recipe for report in listener.reports]
    squares = len(SQUARES)
    assert recipes[:squares] == [recipe.name for recipe in SQUARES]
    assert sum(name.endswith(", without user_id") for name in recipes[squares : squares + 6]) == 1
    assert sum(name.endswith(", with a long history") for name in recipes[squares : squares + 6]) == 1
    assert sum(name.endswith(", with age, price in buckets") for name in recipes[squares : squares + 6]) == 1
    assert [name.partition(",")[0] for name in recipes[squares + 6 : squares + 10]] == ["softmax", "softmax", "softmax", "bpr"]
    assert set(recipes[squares + 10 :]) == {""}
    assert all(report.figure is not None for report in listener.reports)
    merged(config, found.values)


def test_a_trial_far_behind_is_pruned_and_does_not_win() -> None:
    study = optuna.create_study(direction="maximize")
    for objective, curve in (("square", [0.1, 0.2, 0.3]), ("square", [0.2, 0.3, 0.4]), ("softmax", [0.9, 0.9, 0.9])):
        attributes = {CURVE: curve, OBJECTIVE: objective, KIND: "fm"}
        study.add_trial(create_trial(value=max(curve), user_attrs=attributes))
    prune = pruning_rule(study, "fm")
    assert prune("square", [0.1, 0.2, 0.3])
    assert not prune("square", [0.1, 0.2, 0.33])
    assert not prune("square", [0.1, 0.1])  # too early
    assert prune("square", [0.1, 0.1, 0.1, 0.3])  # beyond the end of the best curve
    assert not prune("bpr", [0.0, 0.0, 0.0])  # nothing to compare with
